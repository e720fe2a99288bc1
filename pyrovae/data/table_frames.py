"""What is done to the frame of a table before it is rows of numbers, and how it becomes them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyrovae.data.dataset import Rows
from pyrovae.data.download import DataError

if TYPE_CHECKING:
    import pandas as pd

    from pyrovae.data.tables import TableCodec

# pandas is imported in the functions: importing pyrovae.data must not import it.

logger = logging.getLogger(__name__)


def without_words(frame: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """The table with some words, where they stand in columns of text, as missing entries."""
    import pandas as pd

    if not words:
        return frame
    changed = frame.copy()
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            changed[name] = column.cat.remove_categories([word for word in words if word in column.cat.categories])
        elif not (pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype)):
            changed[name] = column.mask(column.isin(list(words)))
    return changed


def columns_of(frame: pd.DataFrame, columns: Sequence[str] | None, source: str) -> pd.DataFrame:
    """Some columns of a table, or all of them.

    Raises
    ------
    DataError
        If it lacks one.
    """
    if columns is None:
        return frame
    for name in columns:
        if name not in frame:
            raise DataError(f"{source} has no column {name!r}; it has {', '.join(map(str, frame.columns))}")
    return frame[list(columns)]


def encoded_rows(codec: TableCodec, frame: pd.DataFrame, source: str, split: str) -> Rows:
    """Rows of a split. Values that no training row has are missing, which the log tells.

    Raises
    ------
    ValueError
        If the codec does not suit the table. The message begins with the source.
    """
    try:
        rows = codec.rows(frame, unseen="missing")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from None
    names = [codec.schema.names[i] for i in codec.modelled]
    if rows.mask is None:
        return rows
    unseen = frame[names].notna().to_numpy().sum(0) - rows.mask.sum(0).numpy()
    if unseen.any():
        told = ", ".join(f"{count} of {name!r}" for name, count in zip(names, unseen, strict=True) if count)
        text = "%s: %d values of the %s rows stand in no training row; taken as missing (%s)"
        logger.info(text, source, unseen.sum(), split, told)
    return rows
