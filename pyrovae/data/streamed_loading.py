"""Loading Parquet files whose training rows come in chunks: schema, scaling, held-out rows and a sample."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.download import DataError
from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.own import SHARE, count_rows
from pyrovae.data.parquet_files import ParquetTable
from pyrovae.data.registry import Splits
from pyrovae.data.row_numbers import draw_rows, within
from pyrovae.data.rows import Rows
from pyrovae.data.table_files import read_table
from pyrovae.data.table_frames import columns_of, encoded_rows, without_words
from pyrovae.data.table_streams import TableStream, rows_at_once, without_rows

if TYPE_CHECKING:
    import pandas as pd

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
_SAMPLED_ENTRIES = 4_000_000


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
    sampled = min(MOST_SAMPLED, max(1, _SAMPLED_ENTRIES // len(table.names)))
    *drawn, sample = draw_rows(table.num_rows, (*counts.values(), sampled), seed)
    held = np.sort(np.concatenate([np.empty(0, np.int64), *drawn]))
    try:
        schema = summarized(table, held, column_kinds, words).without_unobserved()
        families_of(schema, likelihoods)  # refused before the file is read again
        numbers = {**dict(zip(counts, drawn, strict=True)), "train": sample}
        kept: dict[str, list[Any]] = {split: [] for split in numbers}
        chunks = _encoded_chunks(table, schema, held, words, numbers, kept)
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


def some_rows(path: str | Path, most: int, seed: int = 0) -> pd.DataFrame:
    """Rows of a Parquet file drawn by a hash of their number and the seed, in the order of the file.

    Parameters
    ----------
    path : str or Path
        The file.
    most : int
        How many, at most.
    seed : int, default 0
        Seed of the draw.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    table = ParquetTable(path)
    (drawn,) = draw_rows(table.num_rows, (most,), seed)
    frames = [
        table.frame(chunk, start).iloc[within(drawn, start, start + len(chunk))]
        for start, chunk in table.chunks(rows_at_once(len(table.names)))
    ]
    return _stacked(frames, table)


def summarized(
    table: ParquetTable,
    held: NDArray[np.int64] | None = None,
    kinds: Mapping[str, str] | None = None,
    missing_words: Sequence[str] = (),
) -> Schema:
    """The schema of the rows of a Parquet file, but for those that are held out, see `TableSummary`.

    Raises
    ------
    DataError
        If the file cannot be read.
    TypeError, ValueError
        As `Schema.infer` does.
    """
    from pyrovae.data.table_summaries import TableSummary

    held = np.empty(0, np.int64) if held is None else held
    summary = TableSummary(table.schema, table.names, kinds, missing_words=missing_words)
    for start, chunk in table.chunks(rows_at_once(len(table.names))):
        out = within(held, start, start + len(chunk))
        rows = without_rows(chunk, out)
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


def _tell(source: str, codec: TableCodec, stream: TableStream, rows: Mapping[str, Rows]) -> None:
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(codec.schema.kinds.values()).most_common())
    sizes = ", ".join(f"{len(rows[split])} for {split}" for split in ("validation", "test"))
    logger.info(
        "%s: a table of %d columns (%s); rows: %d for training, read in chunks, %s",
        *(source, len(codec.schema), kinds, stream.num_rows, sizes),
    )
