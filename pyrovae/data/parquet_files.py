"""Parquet files that are read in chunks, so that they may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.data.download import DataError
from pyrovae.data.stored import first_line

if TYPE_CHECKING:
    import pandas as pd

# pandas and pyarrow are imported in the methods: importing pyrovae.data must not import them.

_PAGES = 1 << 16  # bytes of a page that are read at once
_READ = 8192  # rows that are decoded at once


class ParquetTable:
    """The table of a Parquet file, of which only some rows are in memory at a time.

    Parameters
    ----------
    path : str or Path
        The file.
    columns : sequence of str, optional
        The columns to read, in this order. None reads all of them.

    Raises
    ------
    DataError
        If the file is no Parquet file, has no rows, lacks a column, or has a column of lists or structs.
    ImportError
        Without pyarrow.
    """

    def __init__(self, path: str | Path, columns: Sequence[str] | None = None) -> None:
        from pyrovae.data.frames import as_frame, from_arrow, import_pyarrow

        self.path, self.file = str(path), Path(path).expanduser()
        if not self.file.is_file():
            raise DataError(f"there is no file {path}")
        self.arrow = import_pyarrow(f"reading {path}")
        self.parquet = import_pyarrow(f"reading {path}", "pyarrow.parquet")
        with self._reading():
            opened = self.parquet.ParquetFile(self.file)
        self.metadata, schema = opened.metadata, opened.schema_arrow
        opened.close()
        self.num_rows: int = self.metadata.num_rows
        if not self.num_rows:
            raise DataError(f"{path} has no rows")
        groups = range(self.metadata.num_row_groups)
        self.group_rows: list[int] = [self.metadata.row_group(group).num_rows for group in groups]
        for name in columns or ():
            if name not in schema.names:
                raise DataError(f"{path} has no column {name!r}; it has {', '.join(schema.names)}")
        wanted = list(schema.names if columns is None else columns)
        if twice := [name for position, name in enumerate(wanted) if name in wanted[:position]]:
            raise DataError(f"{path}: the table has two columns {twice[0]!r}; give every column a name of its own")
        for name in wanted:
            kind = schema.field(name).type
            if self.arrow.types.is_nested(kind):
                raise DataError(
                    f"{path}: column {name!r} holds {kind} values, which a table cannot have; make columns of numbers, "
                    "bools, texts, categories or datetimes of it"
                )
        self.schema = self.arrow.schema([schema.field(name) for name in wanted], schema.metadata)
        with self._reading():
            try:
                found = as_frame(from_arrow(self.schema.empty_table()))
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}: {error}") from None
        self.names: list[str] = list(found.columns)
        """Names of the columns, without those of an index that pandas has written."""

    @property
    def group_bytes(self) -> int:
        """Bytes of the largest row group, uncompressed."""
        groups = range(self.metadata.num_row_groups)
        return max(self.metadata.row_group(group).total_byte_size for group in groups)

    def frame(self, table: Any, start: int | None = None) -> pd.DataFrame:
        """A part of the table as a DataFrame, as `read_table` gives it, with numbers of the rows as index."""
        import pandas as pd

        from pyrovae.data.frames import as_frame, from_arrow

        with self._reading():
            frame = as_frame(from_arrow(table))
        return frame.set_axis(pd.RangeIndex(start or 0, (start or 0) + len(frame)), axis=0)

    def chunks(self, rows: int) -> Iterator[tuple[int, Any]]:
        """The rows in their order: for each chunk the number of its first row, and a pyarrow Table."""
        start = 0
        for group, count in enumerate(self.group_rows):
            reader, left = self.reader(group), count
            while left:
                table = reader.read(min(rows, left))
                yield start, table
                start, left = start + len(table), left - len(table)

    def reader(self, group: int, skip: int = 0) -> GroupReader:
        """A reader of a row group that begins behind some rows."""
        return GroupReader(self, group, skip)

    def _batches(self, group: int) -> Iterator[Any]:
        """Record batches of a row group. Pages are decoded one by one, so that a large group needs little memory."""
        with self._reading():
            # A file of its own, which holds the place in the row group. The whole group is not read ahead.
            opened = self.parquet.ParquetFile(self.file, metadata=self.metadata, buffer_size=_PAGES, pre_buffer=False)
            try:
                yield from opened.iter_batches(_READ, [group], columns=self.schema.names, use_threads=False)
            finally:
                opened.close()

    def _reading(self) -> AbstractContextManager[None]:
        return _one_line(self.path)


class GroupReader:
    """Reads a row group from its first row to its last one. Made by `ParquetTable.reader`."""

    def __init__(self, table: ParquetTable, group: int, skip: int) -> None:
        self.table, self.batches = table, table._batches(group)
        self.kept: list[Any] = []
        if skip:
            self.read(skip)

    def read(self, rows: int) -> Any:
        """The next rows, as a pyarrow Table.

        Raises
        ------
        DataError
            If the row group has fewer, or cannot be read.
        """
        held = sum(map(len, self.kept))
        while held < rows:
            batch = next(self.batches, None)
            if batch is None:
                raise DataError(f"{self.table.path} has fewer rows than it says; was it changed?")
            self.kept.append(batch)
            held += len(batch)
        taken, found = 0, []
        while taken < rows:
            batch = self.kept.pop(0)
            part = batch.slice(0, rows - taken)
            found.append(part)
            taken += len(part)
            if len(part) < len(batch):
                self.kept.insert(0, batch.slice(len(part)))
        names = self.table.schema.names
        parts = [self.table.arrow.Table.from_batches([part]).select(names) for part in found]
        return self.table.arrow.concat_tables(parts).replace_schema_metadata(self.table.schema.metadata)


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """A context that says in one line what is wrong with a file."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except Exception as error:  # a damaged file raises whatever its parser trips over
        raise DataError(f"{path} cannot be read as a Parquet file ({first_line(error)})") from None
