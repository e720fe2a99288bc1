"""Tables larger than memory: Parquet files that are read in chunks, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.download import DataError
from pyrovae.data.parquet_files import GroupReader, ParquetTable
from pyrovae.data.row_numbers import hidden_entries, within
from pyrovae.data.rows import Rows
from pyrovae.data.table_frames import without_words

if TYPE_CHECKING:
    from pyrovae.data.tables import TableCodec

# Modules that import pandas are imported in the functions: importing pyrovae.data must not import pandas.

EPOCH_ROWS = 250_000
"""Rows of an epoch of a training. A longer table takes several epochs to be gone through once."""
_ENTRIES = 4_000_000  # entries of a chunk
_ROWS = 65_536  # rows of a chunk
_OPEN_BYTES = 1 << 27  # of the row groups that rows are drawn from at the same time
_PAGE = 1 << 20  # usual bytes of a page of a column


@dataclass(frozen=True, eq=False)
class TableStream:
    """The training rows of a Parquet file, scaled, in batches. Only some of the file is in memory at a time.

    Parameters
    ----------
    table : ParquetTable
        The file.
    codec : TableCodec
        From its rows to numbers.
    held : ndarray of int64
        Numbers of its rows that are not for training, increasing.
    missing_words : sequence of str, default ()
        Words that stand for a missing entry.
    hidden : tuple of float and int, optional
        Which entries are not for training: their share, and the seed that draws them. None hides none.

    Notes
    -----
    Row groups of the file are taken in a random order. Up to eight are read at the same time, in turns, and their rows
    are shuffled within blocks of up to 65 536 rows. Seed, number of the pass and number of the batch tell which rows
    come, so a training can be resumed within an epoch. Row groups of some 10 000 to 100 000 rows suit this best: rows
    of one large group that is sorted come in nearly the order of the file.
    """

    table: ParquetTable
    codec: TableCodec
    held: NDArray[np.int64]
    missing_words: Sequence[str] = ()
    hidden: tuple[float, int] | None = None

    @property
    def num_rows(self) -> int:
        """Number of the training rows."""
        return self.table.num_rows - len(self.held)

    @property
    def epoch_rows(self) -> int:
        """About how many of them an epoch takes."""
        return min(self.num_rows, EPOCH_ROWS)

    def hiding(self, share: float, seed: int) -> TableStream:
        """The same rows with entries hidden, those of `hidden_entries` of the numbers of their rows in the file."""
        return replace(self, hidden=(share, seed))

    def batches(
        self, seed: int, number: int, batch_size: int, start: int = 0, *, share: tuple[int, int] | None = None
    ) -> Iterator[Rows]:
        """The batches of a pass over all rows, or the share of a process in each of them, see `RowStream`."""
        cut = _Cut(self.num_rows, batch_size, *(share or (0, 1)))
        batch, rest = start, None
        for rows in self._blocks(seed, number, start * batch_size, cut):
            rows = rows if rest is None else _joined(rest, rows)
            done = 0
            while batch < cut.num_batches and done + cut.rows_of(batch) <= len(rows):
                yield rows.take(slice(done, done + cut.rows_of(batch)))
                done, batch = done + cut.rows_of(batch), batch + 1
            rest = rows.take(slice(done, None))

    def _blocks(self, seed: int, number: int, skip: int, cut: _Cut) -> Iterator[Rows]:
        """Shuffled blocks of rows, those of one process, without the first ones of the pass."""
        readers: dict[int, GroupReader] = {}
        starts, before = np.cumsum([0, *self.table.group_rows]), 0
        for place, parts in enumerate(self._plan(seed, number)):
            held = [within(self.held, starts[group] + a, starts[group] + b) for group, a, b in parts]
            count = sum(b - a - len(out) for (_, a, b), out in zip(parts, held, strict=True))
            first, before = before, before + count
            if skip >= before:
                continue
            tables, numbers = [], []
            for (group, a, b), out in zip(parts, held, strict=True):
                reader = readers.pop(group, None) or self.table.reader(group, a)
                tables.append(without_rows(reader.read(b - a), out))
                numbers.append(np.delete(np.arange(starts[group] + a, starts[group] + b), out))
                if b < self.table.group_rows[group]:
                    readers[group] = reader
            table, names = self.table.arrow.concat_tables(tables), np.concatenate(numbers)
            order = np.random.default_rng((seed, number, place)).permutation(count)[max(0, skip - first) :]
            if cut.size == 1:
                yield self._encoded(table, names).take(torch.from_numpy(order))
                continue
            own = order[cut.is_own(np.arange(before - len(order), before))]
            some = own if len(own) else order[:1]  # of no rows, the types of an encoding are not known
            yield self._encoded(table.take(some), names[some]).take(slice(0, len(own)))

    def _plan(self, seed: int, number: int) -> Iterator[list[tuple[int, int, int]]]:
        """The parts of each block: a row group, and from which to which of its rows."""
        sizes, block = self.table.group_rows, rows_at_once(len(self.table.names))
        waiting = np.random.default_rng((seed, number)).permutation(len(sizes)).tolist()
        at_once = min(max(self.table.group_bytes, 1), _PAGE * len(self.table.names))
        at_once = int(np.clip(_OPEN_BYTES // at_once, 1, 8))
        under_way: dict[int, int] = {}
        while waiting or under_way:
            parts: list[tuple[int, int, int]] = []
            left = block
            while left and (waiting or under_way):
                while waiting and len(under_way) < at_once:
                    under_way[waiting.pop(0)] = 0
                share = max(1, left // len(under_way))
                for group, done in list(under_way.items()):
                    taken = min(share, sizes[group] - done, left)
                    if taken:
                        parts.append((group, done, done + taken))
                        left -= taken
                    under_way[group] += taken
                    if under_way[group] == sizes[group]:
                        del under_way[group]
            yield _merged(parts)

    def _encoded(self, table: Any, numbers: NDArray[np.int64]) -> Rows:
        frame = without_words(self.table.frame(table).set_axis(numbers, axis=0), self.missing_words)
        try:
            rows = self.codec.rows(frame, unseen="missing")
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.table.path} holds other values than it did: {error}") from None
        if self.hidden is None or rows.mask is None:
            return rows
        out = torch.from_numpy(hidden_entries(numbers, rows.x.shape[1], *self.hidden))
        return rows.replace(mask=rows.mask & ~out, more={**rows.more, "recorded": rows.mask})


@dataclass(frozen=True)
class _Cut:
    """How the rows of a pass are cut into batches, and these into parts of processes, as `Processes.share` does."""

    total: int
    batch_size: int
    rank: int
    size: int

    @property
    def num_batches(self) -> int:
        """Batches of a pass."""
        return -(-self.total // self.batch_size)

    def rows_of(self, batch: int) -> int:
        """Rows of a batch that are those of this process."""
        rows = min(self.batch_size, self.total - batch * self.batch_size)
        return (self.rank + 1) * rows // self.size - self.rank * rows // self.size

    def is_own(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether rows are those of this process, by their places in the pass."""
        batch, place = np.divmod(places, self.batch_size)
        rows = np.minimum(self.batch_size, self.total - batch * self.batch_size)
        return (self.rank * rows // self.size <= place) & (place < (self.rank + 1) * rows // self.size)


def rows_at_once(columns: int) -> int:
    """Rows of a chunk."""
    return int(np.clip(_ENTRIES // max(columns, 1), 256, _ROWS))


def without_rows(table: Any, out: NDArray[np.int64]) -> Any:
    """A pyarrow Table without some of its rows."""
    return table.take(np.delete(np.arange(len(table)), out)) if len(out) else table


def _joined(first: Rows, second: Rows) -> Rows:
    if not len(first):
        return second
    if first.mask is None or second.mask is None:
        return Rows(torch.cat((first.x, second.x)))
    more = {name: torch.cat((value, second.more[name])) for name, value in first.more.items()}
    return Rows(torch.cat((first.x, second.x)), mask=torch.cat((first.mask, second.mask)), more=more)


def _merged(parts: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """One part for each row group of a block, from parts that follow each other."""
    found: dict[int, tuple[int, int]] = {}
    for group, a, b in parts:
        found[group] = (found[group][0] if group in found else a, b)
    return [(group, a, b) for group, (a, b) in found.items()]
