"""Tables as data sets: from a frame to splits of scaled rows, with a schema that the training rows say."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyrovae.data.dataset import TABLE, Dataset, Rows
from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.own import SHARE, count_rows, draw_splits
from pyrovae.data.registry import Splits
from pyrovae.data.streamed_loading import MOST_HELD, is_streamed, some_rows, streamed_splits
from pyrovae.data.table_files import TABLE_FORMATS, read_table
from pyrovae.data.table_frames import columns_of, encoded_rows, without_words

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.data.tables import TableCodec

# Modules that import pandas are imported in the functions: importing pyrovae.data must not import pandas.

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawTable:
    """A table as it was read, with what its source says of its columns.

    Parameters
    ----------
    frame : DataFrame
        The table.
    kinds : mapping of str to str, default {}
        Kinds of columns by name, where they are not to be inferred.
    missing_words : tuple of str, default ()
        Words that stand for a missing entry, where nothing else is asked for.
    """

    frame: pd.DataFrame
    kinds: Mapping[str, str] = field(default_factory=dict)
    missing_words: tuple[str, ...] = ()


def is_table_file(name: str | Path) -> bool:
    """Whether a file ends as those of tables do."""
    return os.fspath(name).lower().endswith(TABLE_FORMATS)


def load_own_table(
    name: str | Path,
    *,
    validation: float | str | Path | None = None,
    test: float | str | Path | None = None,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    missing_words: Sequence[str] | None = None,
    stream: bool = False,
    **typing: Any,
) -> Dataset:
    """Load the table of a file, and divide its rows.

    Parameters
    ----------
    name : str or Path
        The file.
    validation, test, seed, columns, missing_words
        See `pyrovae.data.load`.
    stream : bool, default False
        Whether to read a Parquet file in chunks, see `pyrovae.data.streamed_loading`.
    **typing
        `column_kinds`, `likelihoods` and `scaling` of `pyrovae.data.load`.

    Returns
    -------
    Dataset
        Of the kind "table".

    Raises
    ------
    DataError
        If the file cannot be read, or is no table of rows to learn from.
    ValueError
        For options that do not suit the table.
    """
    source = os.fspath(name)
    options: dict[str, Any] = {"validation": validation, "test": test, "seed": seed, "missing_words": missing_words}
    if stream:
        splits = streamed_splits(source, columns=columns, **options, **typing)
    else:
        raw = RawTable(columns_of(read_table(source), columns, source))
        splits = table_splits(raw, source, **options, **typing)
    return _dataset(Path(source).resolve().name.split(".")[0], splits)


def load_whole_table(name: str | Path, codec: TableCodec, *, missing_words: Sequence[str] | None = None) -> Dataset:
    """Load the table of a file to evaluate on: all its rows are test rows, scaled as the codec says.

    Of a Parquet file that is too large to be held, 20 000 rows are, which the log tells.

    Raises
    ------
    DataError
        If the file cannot be read.
    ValueError
        If it has other columns.
    """
    source = os.fspath(name)
    if is_streamed(source, None, None):
        frame = some_rows(source, MOST_HELD)
        logger.info("%s: %d rows, drawn at random, are the test rows", source, len(frame))
    else:
        frame = read_table(source)
    test = encoded_rows(codec, without_words(frame, missing_words or ()), source, "test")
    none = test.take(slice(0, 0))
    return _dataset(Path(source).resolve().name.split(".")[0], Splits(none, none, test, schema=codec.to_dict()))


def idle_likelihoods(likelihoods: Mapping[str, str] | None, stored: Mapping[str, Any] | None) -> list[str]:
    """Names of likelihoods that are neither a column nor the kind of one.

    Parameters
    ----------
    likelihoods : mapping of str to str, optional
        Likelihoods by the name or the kind of columns.
    stored : mapping, optional
        `Dataset.schema` of the table. None where it is not known, and nothing can be told.

    Raises
    ------
    TypeError, ValueError
        The stored schema is damaged.
    """
    from pyrovae.data.schema import Schema

    if not likelihoods or stored is None:
        return []
    columns = Schema.from_dict(stored.get("schema") or {}).columns
    present = {value for column in columns for value in (column.name, column.kind)}
    return [name for name in likelihoods if name not in present]


def table_splits(
    raw: RawTable,
    source: str,
    *,
    validation: float | str | Path | None = None,
    test: float | str | Path | None = None,
    seed: int = 0,
    missing_words: Sequence[str] | None = None,
    column_kinds: Mapping[str, str] | None = None,
    likelihoods: Mapping[str, str] | None = None,
    scaling: str | None = None,
    codec: TableCodec | None = None,
) -> Splits:
    """Divide a table, find its schema and its scaling on the training rows, and encode all rows.

    Parameters
    ----------
    raw : RawTable
        The table.
    source : str
        What messages call it.
    validation, test, seed, missing_words, column_kinds, likelihoods, scaling
        See `pyrovae.data.load`.
    codec : TableCodec, optional
        A codec that is fitted already. None fits it on the training rows.

    Returns
    -------
    Splits
        The rows. Entries of validation and test rows whose level no training row has are missing.

    Raises
    ------
    DataError
        If a file cannot be read, or no training row is left.
    ValueError
        For options that do not suit the table. The message begins with the source.
    """
    words = raw.missing_words if missing_words is None else missing_words
    frame, counts, others = without_words(raw.frame, words), {}, {}
    for split, wanted, share in (("test", test, SHARE), ("validation", validation, 0.0)):
        if isinstance(wanted, str | Path):
            others[split] = without_words(read_table(wanted), words)
        else:
            counts[split] = count_rows(split, share if wanted is None else wanted, len(frame))
    drawn = draw_splits(Rows(torch.arange(len(frame))), counts, seed, source)
    frames = {split: frame.iloc[rows.x.numpy()] for split, rows in drawn.items()} | others
    if codec is None:
        kinds = {**raw.kinds, **(column_kinds or {})}
        codec = _fitted(frames["train"], source, kinds, likelihoods, scaling or "standardize")
    rows = {split: encoded_rows(codec, part, source, split) for split, part in frames.items()}
    _tell(source, codec, rows)
    return Splits(
        rows["train"], rows["validation"], rows["test"], transform=HideLikeOtherRows(), schema=codec.to_dict()
    )


def _dataset(name: str, splits: Splits) -> Dataset:
    return Dataset(
        name,
        splits.train,
        splits.validation,
        splits.test,
        TABLE,
        transform=splits.transform,
        schema=splits.schema,
        stream=splits.stream,
    )


def _fitted(
    frame: pd.DataFrame, source: str, kinds: Mapping[str, str], likelihoods: Mapping[str, str] | None, scaling: str
) -> TableCodec:
    from pyrovae.data.schema import Schema
    from pyrovae.data.tables import TableCodec

    try:
        schema = Schema.infer(frame, kinds=kinds).without_unobserved()
        return TableCodec.fit(schema, frame, likelihoods=likelihoods, scaling=scaling)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None


def _tell(source: str, codec: TableCodec, rows: Mapping[str, Rows]) -> None:
    kinds = ", ".join(f"{number} {kind}" for kind, number in Counter(codec.schema.kinds.values()).most_common())
    sizes = ", ".join(f"{len(rows[split])} for {split}" for split in ("train", "validation", "test"))
    masks = [part.mask for part in rows.values() if part.mask is not None and part.mask.numel()]
    missing = 1 - sum(int(mask.sum()) for mask in masks) / max(1, sum(mask.numel() for mask in masks))
    text = f"{source}: a table of {len(codec.schema)} columns ({kinds}); rows: {sizes}"
    logger.info("%s", text + (f"; {missing:.1%} of the entries are missing" if missing > 0 else ""))
