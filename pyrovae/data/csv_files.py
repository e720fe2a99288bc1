"""Reading CSV files of numbers, with a first line of names or without."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from pyrovae.data.download import DataError
from pyrovae.data.rounding import in_double
from pyrovae.data.stored import Stored, first_line, labels_of, stored

_FEW = 3
"""So many numbers may lie at equal steps by chance."""


_WHOLE = re.compile(r"[+-]?\d+")


def read_csv(
    path: Path, label_column: str | None = None, columns: Sequence[str] | None = None, need_labels: bool = True
) -> Stored:
    """Read a CSV file of numbers. Empty cells are missing entries.

    Parameters
    ----------
    path : Path
        The file: UTF-8 text, cells separated by commas, as many in every line.
    label_column : str, optional
        The column that holds the labels, whole numbers or words. None takes all columns as data.
    columns : sequence of str, optional
        The columns to take as data, in this order. None takes all but that of the labels.
    need_labels : bool, default True
        Whether a file without the column of the labels is refused. Otherwise its rows have no labels.

    Returns
    -------
    Stored
        Its rows.

    Raises
    ------
    DataError
        If the file cannot be read, or does not hold what it should.
    """
    import pandas as pd  # not above: importing pyrovae.data must not import pandas

    header, lines = _layout(path, label_column)
    try:
        frame = pd.read_csv(
            path,
            header=0 if header else None,
            names=header,
            index_col=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
            low_memory=False,
        )
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as comma-separated numbers ({first_line(error)})") from None
    if len(frame) != len(lines):
        raise DataError(f"{path} cannot be read as comma-separated numbers: {len(frame)} rows in {len(lines)} lines")
    labelled = label_column is not None and (need_labels or label_column in frame.columns)
    for name in [*([label_column] if labelled else []), *(columns or [])]:
        if name not in frame.columns:
            known = ", ".join(map(str, header)) if header else "none, since there is no line of names"
            raise DataError(f"{path} has no column {name!r}; its columns are {known}")
    if columns is not None and (twice := [name for name in columns if list(columns).count(name) > 1]):
        raise DataError(f"columns names {twice[0]!r} twice; name each column once")
    if columns is not None and labelled and label_column in columns:
        raise DataError(f"the column {label_column!r} is that of the labels, so it is none of the data; leave it out")
    y = classes = None
    if labelled:
        values = frame.pop(label_column)
        texts = values.dtype.kind not in "biuf"
        y, classes = labels_of(
            str(path), (values.fillna("").astype(str) if texts else values).to_numpy(str if texts else None), len(frame)
        )
    if columns is not None:
        frame = frame[list(columns)].copy()
    columns = tuple(map(str, frame.columns)) if header else None
    for position, name in enumerate(frame.columns):
        column = frame[name]
        numbers = pd.to_numeric(column, errors="coerce")
        wrong = np.flatnonzero(numbers.isna() & column.notna())
        if len(wrong):
            where = Stored(str(path), np.zeros(0), columns=columns, lines=lines).place((wrong[0], position))
            words = column.nunique()
            hint = f" (for labels: --label-column {name})" if label_column is None and header and words < 100 else ""
            raise DataError(
                f"{where} is {column.iloc[wrong[0]]!r}, expected a number, or nothing if it is missing{hint}"
            )
        whole = numbers.to_numpy()
        if whole.dtype.kind == "f" and np.isnan(whole).any() and (np.abs(whole[~np.isnan(whole)]) >= 2.0**53).any():
            whole = _whole_cells(path, header.index(name) if header else int(name))  # which pandas made floats of
        try:
            in_double(whole, str(path), first=position)
        except ValueError as error:
            raise DataError(str(error)) from None
        frame[name] = numbers
    if not len(frame.columns):
        raise DataError(f"{path} has no column besides the labels")
    rows = stored(str(path), frame.to_numpy(np.float64), columns=columns, lines=lines)
    return replace(rows, y=y, classes=classes)


def _whole_cells(path: Path, place: int) -> np.ndarray:
    """The whole numbers of a column, if there is nothing else in its cells, and nothing otherwise."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [line[place].strip() for line in csv.reader(file, skipinitialspace=True) if len(line) > place]
    known = [int(cell) for cell in cells[1:] if _WHOLE.fullmatch(cell)]  # the first one may be a name
    others = sum(1 for cell in cells[1:] if cell and not _WHOLE.fullmatch(cell))
    fits = known and min(known) >= -(2**63) and max(known) < 2**63
    return np.array(known if fits and not others else [], dtype=np.int64)


class Lines:
    """The lines of a file, of which the last one is kept as it is written."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.last = file, ""

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.last = line
            yield line


def is_empty(cells: Sequence[str], written: str, columns: int) -> bool:
    """Whether a line is none of the table: it is blank, or one blank cell, but for quotes in a table of one column.

    `columns` is 0 as long as they are not known.
    """
    return not cells or (len(cells) == 1 and not cells[0].strip() and (columns != 1 or not written.strip()))


def hole(path: Path, line: int) -> str:
    """What is said of an empty line among the rows of a file of one column."""
    return (
        f"{path}, line {line} is empty, which may be a missing value or nothing, since there is one column; write "
        'NA or "" for a missing value, or take the line out'
    )


def _layout(path: Path, label_column: str | None) -> tuple[list[str] | None, list[int]]:
    """The names in the first line, if it has any, and the line of each row.

    Raises
    ------
    DataError
        If the file is no text of lines with equally many cells, or has no rows.
    """
    first: list[str] = []
    last = ""
    lines: list[int] = []
    header, empty = False, 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            written = Lines(file)
            reader = csv.reader(written, skipinitialspace=True)
            for cells in reader:
                if is_empty(cells, written.last, len(first)):
                    empty = reader.line_num if len(first) == 1 else 0
                    continue
                if empty:
                    raise DataError(hole(path, empty))
                if len(cells) != len(first or cells):
                    number = len(first)
                    raise DataError(
                        f"{path}, line {reader.line_num} has {len(cells)} cells, the first line has {number}"
                    )
                last = cells[0]
                if not first:
                    first = cells
                elif not lines:
                    header = _is_header(first, cells, label_column)
                    if not header and _may_be_names(first, cells):
                        shown = ", ".join(first[:2]) + (", ..." if len(first) > 2 else "")
                        raise DataError(
                            f"{path}: its first line, {shown}, has equal steps or counts columns, so it may hold names "
                            "or a row; write names that are words, or put a line of them above"
                        )
                    lines = [reader.line_num] if header else [1, reader.line_num]
                else:
                    lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text (byte {error.start}); save it with the encoding UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no text of comma-separated numbers ({error})") from None
    if not first:
        raise DataError(f"{path} is empty")
    others = [sign for sign in (";", "\t", "|") if sign in first[0] and sign in last]
    if len(first) == 1 and others:
        raise DataError(f"{path} separates its cells by {others[0]!r}; separate them by commas (pandas: to_csv)")
    if not lines:
        if _is_header(first, first, label_column):
            raise DataError(f"{path} has no rows, only a line of names")
        lines = [1]
    if not header:
        return None, lines
    names = [name.strip() for name in first]
    if len(set(names)) < len(names) or "" in names:
        twice = next((name for name in names if name and names.count(name) > 1), None)
        fault = f"has two columns {twice!r}" if twice else "has a column without a name, perhaps row numbers"
        raise DataError(f"{path} {fault}; give every column a name of its own (pandas: to_csv(..., index=False))")
    return names, lines


def _is_header(first: Sequence[str], second: Sequence[str], label_column: str | None) -> bool:
    """Whether the first line holds names.

    They are words where the second line has numbers, or words throughout; or the numbers 0, 1, 2, ... that pandas
    writes for want of names. Of one or two columns these may be a row, see `_may_be_names`.
    """
    if label_column in first or (len(first) > 2 and list(first) == [str(i) for i in range(len(first))]):
        return True
    words = [not _is_number(cell) for cell in first]
    return all(words) or any(word and _is_number(cell) for word, cell in zip(words, second, strict=True))


def _may_be_names(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the first line has numbers at equal steps, as names of a series are, beyond all those of the second.

    Or it is 0, or 0 and 1.
    """
    if list(first) in (["0"], ["0", "1"]):
        return True
    numbers, others = _finite(first), _finite(second)
    if len(first) <= _FEW or len(numbers) < len(first) or not others:
        return False
    steps = np.diff(numbers)
    is_even = steps[0] != 0 and np.allclose(steps, steps[0], rtol=1e-6, atol=0)
    return bool(is_even) and (max(others) < min(numbers) or max(numbers) < min(others))


def _finite(cells: Sequence[str]) -> list[float]:
    """The numbers of those cells that end in a digit, so that NaN and its like are left out."""
    return [float(cell) for cell in cells if cell.strip()[-1:].isdigit() and _is_number(cell)]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("", "na", "n/a", "null", "none", "<na>", "#n/a")
    return True
