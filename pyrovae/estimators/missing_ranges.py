"""Ranges of columns whose values are missing because of themselves: what is missing may lie beyond what is observed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from pyrovae.data.columns import NUMBERS, Column
from pyrovae.data.schema import Schema
from pyrovae.likelihoods.missingness import mechanisms_by_name


def without_observed_ranges(
    schema: Schema, missingness: str | Mapping[str, str], declared: Collection[str] = ()
) -> Schema:
    """A schema whose self-masking columns of numbers have no range, so that completed values are not cut off at it.

    Parameters
    ----------
    schema : Schema
        The columns, with the ranges that were observed.
    missingness : str or mapping of str to str
        What missing entries depend on, see `resolve_mechanisms`.
    declared : collection of str, default ()
        Columns whose range was declared. They keep it.

    Returns
    -------
    Schema
        The columns. Positive ones and counts still start at 0.

    Examples
    --------
    >>> column = Column("income", "positive", "float64", low=10.0, high=90.0)
    >>> found = without_observed_ranges(Schema((column,)), {"income": "self-masking-high"}).columns[0]
    >>> found.low, found.high
    (0.0, None)
    """
    by_name = mechanisms_by_name(missingness, schema.names)

    def widened(column: Column) -> Column:
        if column.kind not in NUMBERS or column.name in declared or by_name[column.name] == "ignorable":
            return column
        return replace(column, low=None if column.kind == "real" else 0.0, high=None)

    return Schema(tuple(widened(column) for column in schema.columns))
