"""Ranges of columns whose values are missing because of themselves: what is missing may lie beyond what is observed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pyrovae.data.columns import NUMBERS, Column
from pyrovae.data.schema import Schema
from pyrovae.likelihoods.missingness import mechanisms_by_name


def check_missingness(options: Mapping[str, Any]) -> None:
    """Refuse options of an imputer that do not go with its model of what is missing, or with its objective.

    Parameters
    ----------
    options : mapping of str to Any
        The arguments of its constructor.

    Raises
    ------
    TypeError, ValueError
        The message names the option.
    """
    missingness = options["missingness"]
    if not isinstance(missingness, str | Mapping):
        raise TypeError(f"missingness must be a text, or a dictionary by the name of columns, got {missingness!r}")
    if options["objective"] == "mean-field" and options["num_particles"] > 1:
        raise ValueError("objective 'mean-field' is for num_particles=1; take 'iwae-dreg', or None")
    if missingness == "ignorable":
        return
    if options["trees"]:
        raise ValueError("boosted trees take values as missing at random; give trees=False beside missingness")
    if (options["num_nets"] or 1) > 1:
        raise ValueError("each net would have another model of what is missing; give num_nets=1 beside missingness")
    if options.get("balance", "none") != "none":
        raise ValueError("weights of columns would not apply to their masks; give balance='none' beside missingness")
    if options["patience"] is not None:
        raise ValueError("nothing is held out to watch beside a model of what is missing; give patience=None")


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
        The columns. Positive ones and counts still start at 0, but dates anywhere.

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
        starts_at_0 = column.kind != "real" and column.origin is None
        return replace(column, low=0.0 if starts_at_0 else None, high=None)

    return Schema(tuple(widened(column) for column in schema.columns))
