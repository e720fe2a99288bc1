"""Tables larger than memory: Parquet files that are read in chunks, in an order that a seed decides."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.download import DataError
from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.own import SHARE, count_rows
from pyrovae.data.parquet_files import GroupReader, ParquetTable
from pyrovae.data.registry import Splits
from pyrovae.data.row_numbers import draw_rows, hidden_entries, within
from pyrovae.data.rows import Rows, slices
from pyrovae.data.table_files import read_table

if TYPE_CHECKING:
    from pyrovae.data.schema import Schema
    from pyrovae.data.tables import TableCodec

# Modules that import pandas are imported in the functions: importing pyrovae.data must not import pandas.

logger = logging.getLogger(__name__)
STREAMED_FROM = 10_000_000
"""Entries from which on a Parquet file is read in chunks, where nobody says whether to."""
MOST_HELD = 20_000
"""The most validation rows, and test rows, where a share of the rows is asked for."""
MOST_SAMPLED = 50_000
"""The most training rows that are held as a sample."""
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

    def batches(self, seed: int, number: int, batch_size: int, start: int = 0) -> Iterator[Rows]:
        """The batches of a pass over all rows, see `RowStream`."""
        left, rest = start * batch_size, None
        for rows in self._blocks(seed, number, left):
            if isinstance(rows, int):
                left -= rows
                continue
            rows, left = rows.take(slice(left, None)), 0
            rows = rows if rest is None else _joined(rest, rows)
            whole = len(rows) // batch_size * batch_size
            for part in slices(whole, batch_size):
                yield rows.take(part)
            rest = rows.take(slice(whole, None))
        if rest is not None and len(rest):
            yield rest

    def _blocks(self, seed: int, number: int, skip: int) -> Iterator[Rows | int]:
        """Shuffled blocks of rows; their number of rows instead, as long as all of these are to be left out."""
        readers: dict[int, GroupReader] = {}
        starts = np.cumsum([0, *self.table.group_rows])
        for place, parts in enumerate(self._plan(seed, number)):
            held = [within(self.held, starts[group] + a, starts[group] + b) for group, a, b in parts]
            count = sum(b - a - len(out) for (_, a, b), out in zip(parts, held, strict=True))
            if skip >= count:
                skip -= count
                yield count
                continue
            skip, tables, numbers = 0, [], []
            for (group, a, b), out in zip(parts, held, strict=True):
                reader = readers.pop(group, None) or self.table.reader(group, a)
                tables.append(_without(reader.read(b - a), out))
                numbers.append(np.delete(np.arange(starts[group] + a, starts[group] + b), out))
                if b < self.table.group_rows[group]:
                    readers[group] = reader
            rows = self._encoded(self.table.arrow.concat_tables(tables), np.concatenate(numbers))
            yield rows.take(torch.from_numpy(np.random.default_rng((seed, number, place)).permutation(count)))

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
        from pyrovae.data.table_loading import without_words

        frame = without_words(self.table.frame(table).set_axis(numbers, axis=0), self.missing_words)
        try:
            rows = self.codec.rows(frame, unseen="missing")
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.table.path} holds other values than it did: {error}") from None
        if self.hidden is None or rows.mask is None:
            return rows
        out = torch.from_numpy(hidden_entries(numbers, rows.x.shape[1], *self.hidden))
        return rows.replace(mask=rows.mask & ~out, more={**rows.more, "recorded": rows.mask})


def is_streamed(path: str | Path, columns: Sequence[str] | None, stream: bool | None) -> bool:
    """Whether the table of a file is read in chunks, as asked for or by its size, which the log tells.

    Raises
    ------
    DataError
        If it is a Parquet file that cannot be read.
    ValueError
        If it is asked for, and the file is no Parquet file.
    """
    if not str(path).lower().endswith(".parquet"):
        if stream:
            raise ValueError(f"stream is for .parquet files, and {path} is none")
        return False
    if stream is not None:
        return stream
    table = ParquetTable(path, columns)
    if table.num_rows * len(table.names) <= STREAMED_FROM:
        return False
    logger.info(
        "%s: %d rows of %d columns are read in chunks, as they are more than %d entries (stream=False reads all of it)",
        *(path, table.num_rows, len(table.names), STREAMED_FROM),
    )
    return True


def rows_at_once(columns: int) -> int:
    """Rows of a chunk."""
    return int(np.clip(_ENTRIES // max(columns, 1), 256, _ROWS))


def streamed_splits(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    validation: float | str | Path | None = None,
    test: float | str | Path | None = None,
    seed: int = 0,
    missing_words: Sequence[str] | None = None,
    column_kinds: Mapping[str, str] | None = None,
    likelihoods: Mapping[str, str] | None = None,
    scaling: str | None = None,
) -> Splits:
    """Divide the table of a Parquet file whose training rows come in chunks.

    The file is read twice: once to find the schema of the training rows, once to find their scaling.

    Parameters
    ----------
    path : str or Path
        The file.
    columns, validation, test, seed, missing_words, column_kinds, likelihoods, scaling
        See `pyrovae.data.load`. Of a share, at most 20 000 rows are held out. Rows are drawn by a hash of their number
        and the seed, so they are others than those of the same file in memory.

    Returns
    -------
    Splits
        The training rows as a stream and a sample of at most 50 000 of them, whose index are the numbers of their rows
        in the file; and the held-out rows.

    Raises
    ------
    DataError
        If a file cannot be read, or no training row is left.
    ValueError
        For options that do not suit the table. The message begins with the path.
    """
    from pyrovae.data.table_loading import columns_of, encoded_rows, without_words
    from pyrovae.data.tables import TableCodec, families_of

    table, words = ParquetTable(path, columns), tuple(missing_words or ())
    counts, others = {}, {}
    for split, wanted, share in (("test", test, SHARE), ("validation", validation, 0.0)):
        if isinstance(wanted, str | Path):
            others[split] = without_words(columns_of(read_table(wanted), columns, str(wanted)), words)
        else:
            counts[split] = _held_rows(table, split, share if wanted is None else wanted)
    if sum(counts.values()) >= table.num_rows:
        parts = " and ".join(f"{count} for {split}" for split, count in counts.items())
        raise DataError(f"{path} has {table.num_rows} rows, and {parts} leave none for training; take fewer")
    sampled = min(MOST_SAMPLED, max(1, _ENTRIES // len(table.names)))
    *drawn, sample = draw_rows(table.num_rows, (*counts.values(), sampled), seed)
    held = np.sort(np.concatenate([np.empty(0, np.int64), *drawn]))
    try:
        schema = summarized(table, held, column_kinds, words)
        families_of(schema, likelihoods)  # refused before the file is read again
        wanted = {**dict(zip(counts, drawn, strict=True)), "train": sample}
        kept: dict[str, list[Any]] = {split: [] for split in wanted}
        chunks = _encoded_chunks(table, schema, held, words, wanted, kept)
        codec = TableCodec.fit_chunks(schema, chunks, likelihoods=likelihoods, scaling=scaling or "standardize")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    rows = {split: encoded_rows(codec, frame, str(path), split) for split, frame in others.items()}
    for split, frames in kept.items():
        rows[split] = encoded_rows(codec, _stacked(frames, table), str(path), split)
    rows["train"] = rows["train"].replace(index=torch.from_numpy(sample))
    stream = TableStream(table, codec, held, words)
    _tell(str(path), codec, stream, rows)
    return Splits(
        rows["train"],
        rows["validation"],
        rows["test"],
        transform=HideLikeOtherRows(),
        schema=codec.to_dict(),
        stream=stream,
    )


def summarized(
    table: ParquetTable,
    held: NDArray[np.int64],
    kinds: Mapping[str, str] | None = None,
    missing_words: Sequence[str] = (),
) -> Schema:
    """The schema of the rows of a Parquet file but for some, see `TableSummary`.

    Raises
    ------
    DataError
        If the file cannot be read.
    TypeError, ValueError
        As `Schema.infer` does.
    """
    from pyrovae.data.table_loading import without_words
    from pyrovae.data.table_summaries import TableSummary

    summary = TableSummary(table.schema, table.names, kinds, missing_words=missing_words)
    for start, chunk in table.chunks(rows_at_once(len(table.names))):
        out = within(held, start, start + len(chunk))
        rows = _without(chunk, out)
        numbers = np.delete(np.arange(start, start + len(chunk)), out)
        frame = table.frame(rows).set_axis(numbers, axis=0)
        summary.add(chunk, rows, without_words(frame, missing_words))
    return summary.schema()


def _encoded_chunks(
    table: ParquetTable,
    schema: Schema,
    held: NDArray[np.int64],
    words: Sequence[str],
    wanted: Mapping[str, NDArray[np.int64]],
    kept: dict[str, list[Any]],
) -> Iterator[NDArray[np.float64]]:
    """Values of the training rows by chunks; the wanted rows are put into `kept` on the way."""
    from pyrovae.data.table_loading import without_words

    for start, chunk in table.chunks(rows_at_once(len(table.names))):
        frame = without_words(table.frame(chunk, start), words)
        for split, numbers in wanted.items():
            kept[split].append(frame.iloc[within(numbers, start, start + len(chunk))])
        train = np.delete(np.arange(len(chunk)), within(held, start, start + len(chunk)))
        yield schema.encode(frame.iloc[train])[0]


def _stacked(frames: list[Any], table: ParquetTable) -> Any:
    import pandas as pd

    some = [frame for frame in frames if len(frame)]
    if not some:
        return table.frame(table.schema.empty_table())
    return pd.concat(some) if len(some) > 1 else some[0]


def _held_rows(table: ParquetTable, split: str, wanted: float) -> int:
    count = count_rows(split, wanted, table.num_rows)
    if 0 < wanted < 1 and count > MOST_HELD:
        logger.info("%s: %d rows for %s, as more need not be held", table.path, MOST_HELD, split)
        return MOST_HELD
    return count


def _without(table: Any, out: NDArray[np.int64]) -> Any:
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


def _tell(source: str, codec: TableCodec, stream: TableStream, rows: Mapping[str, Rows]) -> None:
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(codec.schema.kinds.values()).most_common())
    sizes = ", ".join(f"{len(rows[split])} for {split}" for split in ("validation", "test"))
    logger.info(
        "%s: a table of %d columns (%s); rows: %d for training, read in chunks, %s",
        *(source, len(codec.schema), kinds, stream.num_rows, sizes),
    )
