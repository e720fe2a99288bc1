"""Reading tables with columns of any type from CSV and Parquet files."""

from __future__ import annotations

import csv
import gzip
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pyrovae.data.csv_files import Lines, hole, is_empty
from pyrovae.data.download import DataError
from pyrovae.data.stored import damaged_in_one_line, first_line

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# pandas is imported in the functions: importing pyrovae.data must not import pandas.

TABLE_FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Endings of files of tables that can be read."""
_SEPARATORS = (",", ";", "\t")
_FEW = 3  # numbers that rise by chance
_PROBED = 50  # lines that are read to find the separator
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DATE = r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?"


def read_table(path: str | Path, separator: str | None = None) -> pd.DataFrame:
    """Read a table from a CSV or Parquet file.

    Parameters
    ----------
    path : str or Path
        A `.csv` or `.tsv` file, also with `.gz` behind it, of UTF-8 text whose first line names the columns; or a
        `.parquet` file, which needs pyarrow.
    separator : str, optional
        What stands between the cells of a CSV file. None finds it among the comma, the semicolon and the tab.

    Returns
    -------
    DataFrame
        The table. In a CSV file, empty cells, `?` and the words that pandas knows, such as `NA`, are missing; columns
        of dates as in `2020-01-31` or `2020-01-31 12:30:00` become datetimes; and a first column without a name, in
        which pandas writes the index, becomes the index.

    Raises
    ------
    DataError
        If the file cannot be read, or is no table with rows and differently named columns.
    ImportError
        For a Parquet file without pyarrow.
    ValueError
        For a separator that is not one character.
    """
    if separator is not None and len(separator) != 1:
        raise ValueError(f"separator must be one character, not {separator!r}")
    source = Path(path).expanduser()
    if not source.is_file():
        raise DataError(f"there is no file {path}")
    name = source.name.lower()
    if not name.endswith(TABLE_FORMATS):
        raise DataError(f"{path} cannot be read as a table: tables are in {', '.join(TABLE_FORMATS)} files")
    if separator is not None and name.endswith(".parquet"):
        raise ValueError(f"separator is for .csv files, and {path} is none")
    with damaged_in_one_line(path):
        return _read_parquet(source) if name.endswith(".parquet") else _read_text(source, separator)


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyrovae.data.frames import as_frame, from_arrow, import_pyarrow

    pyarrow, parquet = (import_pyarrow(f"reading {path}", name) for name in ("pyarrow", "pyarrow.parquet"))
    try:
        frame = as_frame(from_arrow(parquet.ParquetFile(path).read()))
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file ({first_line(error)})") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    if not len(frame):
        raise DataError(f"{path} has no rows")
    return frame


def is_text(path: str | Path) -> bool:
    """Whether a file is one of text by its name."""
    return not str(path).lower().endswith(".parquet")


def read_cells(path: str | Path, separator: str | None = None) -> pd.DataFrame:
    """The cells of a text file as they are written, in the rows and columns of `read_table`.

    Parameters
    ----------
    path, separator
        As for `read_table`.

    Returns
    -------
    DataFrame
        Texts; an empty one where nothing is written.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    return _read_frame(Path(path), separator, dtype=str, keep_default_na=False)


def _read_frame(path: Path, separator: str | None, **options: Any) -> pd.DataFrame:
    import pandas as pd

    with _text_of(path) as file:
        separator = separator or _find_separator(list(islice(file, _PROBED)))
    with _text_of(path) as file:
        names, rows = _checked_lines(path, file, separator)
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            names=names,
            header=0,
            index_col=False if names[0] else 0,
            encoding="utf-8-sig",
            skipinitialspace=True,
            low_memory=False,
            **options,
        )
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table ({first_line(error)})") from None
    if len(frame) != rows:
        raise DataError(f"{path} cannot be read as a table: {len(frame)} rows in {rows} lines")
    frame.index.name = None
    return frame


def _read_text(path: Path, separator: str | None) -> pd.DataFrame:
    frame = _read_frame(path, separator, na_values=["?"])
    for name in frame.columns:
        if frame[name].dtype.kind == "O":
            frame[name] = _as_dates(frame[name])
    return frame


@contextmanager
def _text_of(path: Path) -> Iterator[TextIO]:
    """The text of a file, with one line for what is wrong with it."""
    try:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text (byte {error.start}); save it with the encoding UTF-8") from None
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)})") from None


def _find_separator(lines: list[str]) -> str:
    """The separator that cuts most lines into as many cells as the first, and it into most cells."""
    found, best = ",", (0, 1)
    for separator in _SEPARATORS:
        try:
            numbers = [len(cells) for cells in csv.reader(lines, delimiter=separator, skipinitialspace=True) if cells]
        except csv.Error:
            continue
        if numbers and numbers[0] > 1 and (numbers.count(numbers[0]), numbers[0]) > best:
            found, best = separator, (numbers.count(numbers[0]), numbers[0])
    return found


def _checked_lines(path: Path, file: TextIO, separator: str) -> tuple[list[str], int]:
    """The names of the columns, and the number of rows.

    Raises
    ------
    DataError
        If lines differ in their number of cells, there is no row, or names are missing or stand twice.
    """
    names: list[str] = []
    words: list[int] = []
    seen_again, rows, empty = False, 0, 0
    written = Lines(file)
    reader = csv.reader(written, delimiter=separator, skipinitialspace=True)
    try:
        for cells in reader:
            if is_empty(cells, written.last, len(names)):
                empty = reader.line_num if len(names) == 1 else 0  # pandas leaves it out, too
                continue
            if empty:
                raise DataError(hole(path, empty))
            if not names:
                names = [cell.strip() for cell in cells]
                if any(map(_NUMBER.fullmatch, names)):
                    words = [place for place, name in enumerate(names) if name and not _NUMBER.fullmatch(name)]
            elif len(cells) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num} has {len(cells)} cells, the first line has {len(names)}"
                )
            else:
                seen_again = seen_again or any(cells[place].strip() == names[place] for place in words)
                rows += 1
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num} is no line of a CSV file ({error})") from None
    if not names:
        raise DataError(f"{path} is empty")
    if not rows:
        raise DataError(f"{path} has no rows, only a line of names")
    if "" in names[1:] or names == [""]:
        place = len(names) - names[::-1].index("")
        raise DataError(f"{path} has a column without a name, column {place}; give every column a name of its own")
    if (value := _value_in(names, seen_again)) is not None:
        raise DataError(
            f"{path} has no names of columns: its first line holds {value!r}; write a line of names above it"
        )
    if all(map(_NUMBER.fullmatch, names)):
        logger.info("%s: the first line, %s, is taken as the names of the columns", path, separator.join(names[:5]))
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"{path} has two columns {twice!r}; give every column a name of its own")
    return names, rows


def _value_in(names: list[str], seen_again: bool) -> str | None:
    """A fraction or negative number among names, if they are the values of a row.

    Numbers alone are values unless they rise, or many of them fall one by one, as names of a series do. Numbers among
    words are values where a word is also a value of its column.
    """
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    fraction = next((number for number in numbers if not number.isdigit()), None)
    if len(numbers) < len(names):
        return fraction if seen_again else None
    steps = [float(after) - float(before) for before, after in pairwise(numbers)]
    rises, falls = all(step > 0 for step in steps), len(names) > _FEW and all(step < 0 for step in steps)
    return None if steps and (rises or falls) else fraction


def _as_dates(series: pd.Series) -> pd.Series:
    """The column as datetimes, if all its values are dates as ISO 8601 writes them."""
    import pandas as pd

    observed = series.dropna()
    if observed.empty or not all(isinstance(value, str) for value in observed.iloc[:1]):
        return series
    if not pd.Series(observed.unique()).astype(str).str.fullmatch(_DATE).all():
        return series
    try:
        return pd.to_datetime(series, format="ISO8601")
    except ValueError:  # such as 2020-02-31
        return series
