"""Given values of columns, checked before rows are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pyrovae.data.columns import Column, check_known
from pyrovae.data.schema import Schema


def check_given(schema: Schema, given: Mapping[str, Any] | None) -> None:
    """Refuse given values that are of no column, missing, or none that their column can have.

    Parameters
    ----------
    schema : Schema
        The columns.
    given : mapping of str to object or None
        Values of columns by name.

    Raises
    ------
    ValueError, TypeError
        The message names the column and the value.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"given must be a dictionary by the name of columns, got {given!r}")
    check_known(given, schema.names, "given")
    for name, value in given.items():
        if not pd.api.types.is_scalar(value):
            raise TypeError(f"given[{name!r}] must be one value, got {value!r}")
        if pd.isna(value):
            raise ValueError(f"given[{name!r}] is missing; leave the column out, and it is drawn")
        _check_value(schema[name], value)


def _check_value(column: Column, value: Any) -> None:
    """Refuse what decoding would change: a value outside of the range, and a fraction where numbers are whole."""
    what = f"given[{column.name!r}]"
    if column.kind == "missing":
        raise ValueError(f"{what} cannot be given: the column had no value in training")
    row = pd.DataFrame({column.name: [value]})
    number = float(Schema((column,)).encode(row, unseen="missing")[0].item())
    if math.isnan(number):
        raise ValueError(f"{what} is {value}, which the column cannot have; it holds {column.values()}")
    low = number if column.low is None else column.low
    high = number if column.high is None else column.high
    if not low <= number <= high:
        raise ValueError(
            f"{what} is {value}, out of the range {column.values()}; VAEImputer(ranges=...) makes it wider"
        )
    if column.integer and number != round(number):
        raise ValueError(f"{what} is {value}, but the column holds whole {'days' if column.origin else 'numbers'}")
