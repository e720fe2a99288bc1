"""The schema of a table that is read in chunks: what is kept of each column, in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pyrovae.data.column_codes import check_support
from pyrovae.data.column_kinds import LARGEST_COUNT, infer_column, range_of
from pyrovae.data.columns import LEVELS, check_known
from pyrovae.data.frames import DAY, from_arrow, held_by, numbers_of, times_of
from pyrovae.data.moments import Moments
from pyrovae.data.schema import Schema
from pyrovae.data.table_frames import without_words

MOST_LEVELS = 100_000
"""The most different texts or categories of a column that is read in chunks."""
_MOST_NUMBERS = LARGEST_COUNT + 2
"""So many different numbers are kept, so that a count column is told as it is in memory."""


class TableSummary:
    """What `Schema.infer` needs to know of a table, taken in chunk by chunk.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns of the table.
    names : sequence of str
        The names of those that are wanted.
    kinds, levels, ranges
        Wishes, as for `Schema.infer`.
    missing_words : sequence of str, default ()
        Words that stand for a missing entry.

    Notes
    -----
    Kept are the different values of each column, the smallest and the largest one, and the moments that tell the
    skewness. The schema is that of `Schema.infer` on the whole table. It may differ where the skewness of a column is
    within rounding of a limit, and in `Column.why`, which counts 10 002 different numbers at most. A column of more
    than 100 000 different texts or categories is refused.
    """

    def __init__(
        self,
        schema: Any,
        names: Sequence[str],
        kinds: Mapping[str, str] | None = None,
        levels: Mapping[str, Sequence[Any]] | None = None,
        ranges: Mapping[str, tuple[Any, Any]] | None = None,
        missing_words: Sequence[str] = (),
    ) -> None:
        wishes: dict[str, Mapping[str, Any]] = {"kinds": kinds or {}, "levels": levels or {}, "ranges": ranges or {}}
        for wish, named in wishes.items():
            check_known(named, names, wish)
        self.rows, self.words = 0, tuple(missing_words)
        self.columns = [
            _ColumnSummary(schema.field(name), schema, *(named.get(name) for named in wishes.values()))
            for name in names
        ]

    def add(self, table: Any, rows: Any, frame: pd.DataFrame) -> None:
        """Take a chunk in.

        Parameters
        ----------
        table : pyarrow.Table
            The chunk, with rows that do not count.
        rows : pyarrow.Table
            Those rows that count.
        frame : DataFrame
            The same rows, with missing words as missing.

        Raises
        ------
        TypeError, ValueError
            As `Schema.infer` does.
        """
        self.rows += len(frame)
        for column in self.columns:
            column.add(table.column(column.name), rows.column(column.name), frame[column.name])

    def schema(self) -> Schema:
        """The schema.

        Raises
        ------
        TypeError, ValueError
            As `Schema.infer` does.
        """
        if not self.rows:
            raise ValueError("the table has no rows")
        return Schema(tuple(column.described(self.rows, self.words) for column in self.columns))


class _ColumnSummary:
    """What is kept of a column."""

    def __init__(self, field: Any, schema: Any, kind: str | None, levels: Any, limits: Any) -> None:
        import pyarrow

        self.arrow, self.field, self.metadata, self.name = pyarrow, field, schema.metadata, field.name
        self.kind, self.levels, self.limits = kind, levels, limits
        self.by_levels = kind in LEVELS or levels is not None
        self.dictionary = pyarrow.types.is_dictionary(field.type)
        self.different: Any = pyarrow.array([], field.type.value_type if self.dictionary else field.type)
        self.categories: dict[Any, None] = {}
        self.extremes: Any = None
        self.has_null, self.missing = False, 0
        self.moments, self.of_logs = Moments(), Moments()

    def add(self, everything: Any, rows: Any, series: pd.Series) -> None:
        held = held_by(series)
        self.has_null |= everything.null_count > 0
        self.missing += int(series.isna().sum())
        if self.dictionary:
            for chunk in everything.chunks:
                self.categories.update(dict.fromkeys(chunk.dictionary.to_pylist()))
            self._check_number(len(self.categories))
            rows = self.arrow.chunked_array([chunk.dictionary_decode() for chunk in rows.chunks], self.different.type)
        if self.extremes is None:
            found = self.arrow.chunked_array([self.different, *rows.chunks], self.different.type)
            self.different = found.unique().drop_null()
        if held in ("number", "date"):
            self._add_numbers(held, rows, series)
        elif held != "empty":
            self._check_number(len(self.different))

    def _add_numbers(self, held: str, rows: Any, series: pd.Series) -> None:
        numbers = numbers_of(series) if held == "number" else _microseconds(times_of(series))
        if held == "date" and self.limits is not None:
            self._check_dates(series, numbers)
        if held == "number" and not self.by_levels:
            if self.kind is not None:
                check_support(self.kind, series, numbers)
            if self.limits is not None:
                range_of(series, numbers, self.limits)
            known = numbers[~np.isnan(numbers)]
            self.moments.add(known)
            if self.of_logs.count == self.moments.count - len(known) and (known > 0).all():
                self.of_logs.add(np.log(known))
        if self.by_levels:
            self._check_number(len(self.different))
        elif self.extremes is not None or len(self.different) > _MOST_NUMBERS:
            self._keep_extremes(held, rows, numbers)

    def _check_dates(self, series: pd.Series, numbers: np.ndarray) -> None:
        """Refuse dates outside of their declared range here, where the number of their row is known."""
        try:
            low, high = (None if end is None else pd.Timestamp(end) for end in self.limits)
        except (TypeError, ValueError):
            return  # which is refused with the schema
        ends = _microseconds(times_of(pd.Series([low, high], dtype=object)))
        first, last = (None if np.isnan(end) else float(end) for end in ends)
        range_of(series, numbers, (first, last))

    def _keep_extremes(self, held: str, rows: Any, numbers: np.ndarray) -> None:
        """Keep the smallest and the largest value, and one that tells that not all are whole."""
        if self.extremes is None:
            kept, self.different = self.different, self.different.slice(0, _MOST_NUMBERS)
        else:
            kept = self.extremes
        values = self.arrow.chunked_array([kept, *rows.chunks], rows.type)
        before = self._series(kept)
        known = numbers_of(before) if held == "number" else _microseconds(times_of(before))
        numbers = np.concatenate((known, numbers))
        if np.isnan(numbers).all():
            return
        low, high = int(np.nanargmin(numbers)), int(np.nanargmax(numbers))
        # Dates are whole if they are all of the time of day of the earliest one.
        rest = (numbers - numbers[low]) % DAY if held == "date" else numbers - np.rint(numbers)
        parted = np.flatnonzero((rest != 0) & ~np.isnan(rest))
        self.extremes = values.take([low, high, *parted[:1].tolist()]).combine_chunks()

    def described(self, rows: int, words: tuple[str, ...]) -> Any:
        values = self.different
        if self.extremes is not None:
            values = self.arrow.chunked_array([self.extremes, values]).unique()
        if self.dictionary:
            places = {value: place for place, value in enumerate(self.categories)}
            codes = self.arrow.array([places[value] for value in values.to_pylist()], self.arrow.int32())
            names = self.arrow.array(list(self.categories), self.different.type)
            values = self.arrow.DictionaryArray.from_arrays(codes, names, ordered=self.field.type.ordered)
        series = self._series(values, with_null=self.has_null)
        series = without_words(series.to_frame(), words)[self.name]
        skewness = (self.moments.skewness, self.of_logs.skewness)
        column = infer_column(series, self.kind, self.levels, self.limits, skewness=skewness)
        return replace(column, missing=self.missing / rows)

    def _series(self, values: Any, *, with_null: bool = False) -> pd.Series:
        """Values as the column that they would be in memory: a whole column has its dtype by its holes."""
        chunks = list(values.chunks) if isinstance(values, self.arrow.ChunkedArray) else [values]
        if with_null:
            chunks.append(self.arrow.nulls(1, values.type))
        schema = self.arrow.schema([self.field.with_type(values.type)], self.metadata)
        table = self.arrow.table([self.arrow.chunked_array(chunks, values.type)], schema=schema)
        return from_arrow(table)[self.name].reset_index(drop=True)

    def _check_number(self, number: int) -> None:
        if number > MOST_LEVELS:
            raise ValueError(
                f"column {self.name!r} has more than {MOST_LEVELS} different values, too many for levels; leave it out"
            )


def _microseconds(times: np.ndarray) -> np.ndarray:
    return np.where(np.isnat(times), np.nan, times.astype(np.int64))
