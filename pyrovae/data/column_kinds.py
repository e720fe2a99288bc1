"""Which kind a column of a table is, found from its values or asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pyrovae.data.column_codes import check_support
from pyrovae.data.columns import LEVELS, NUMBERS, Column, check_levels, listed
from pyrovae.data.frames import DAY, days_between, dtype_name, held_by, numbers_of, row_of, times_of, values_of

MOST_LEVELS = 20
"""The most whole numbers without a gap that are an ordinal column."""
LARGEST_COUNT = 10_000
"""The largest whole number of a count column. Larger ones are as good as continuous."""
ASKED = "This kind was asked for."
_WITH_COMMA = re.compile(r"\s*[+-]?(\d*,\d+|\d{1,3}(,\d{3})+(\.\d*)?)(e[+-]?\d+)?\s*", re.IGNORECASE)
_PLAIN = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE)


def infer_column(
    series: pd.Series,
    kind: str | None = None,
    levels: Sequence[Any] | None = None,
    limits: tuple[Any, Any] | None = None,
    *,
    skewness: tuple[float, float] | None = None,
) -> Column:
    """Describe a column, by the rules that `pyrovae.data.Schema.infer` lists.

    Parameters
    ----------
    series : Series
        Its values.
    kind : str, optional
        The kind that it shall have.
    levels : sequence, optional
        Its levels in their order.
    limits : tuple of two, optional
        Its declared range; an end that is None is the observed one.
    skewness : tuple of two floats, optional
        The skewness of its numbers and of their logarithms, if `series` does not hold all of them.

    Raises
    ------
    TypeError
        If it holds what no table can.
    ValueError
        If what is asked for does not fit its values.
    """
    name, held = str(series.name), held_by(series)
    if kind is not None and kind not in (*NUMBERS, *LEVELS):
        raise ValueError(f"kinds[{name!r}] must be one of {', '.join((*NUMBERS, *LEVELS))}, not {kind!r}")
    by_levels = levels is not None or held in ("text", "category", "bool", "empty") or kind in LEVELS
    if levels is None and held in ("bool", "empty") and kind in NUMBERS:
        by_levels = False
    if by_levels and kind in NUMBERS:
        what = "has levels" if levels is not None else f"holds values of the dtype {series.dtype}"
        raise ValueError(f"column {name!r} {what}, so it cannot be {kind}; it can be {', '.join(LEVELS)}")
    if held == "date" and (by_levels or kind == "count"):
        raise ValueError(f"column {name!r} holds dates, so it can only be positive or real")
    if limits is not None and (by_levels or held == "bool"):
        raise ValueError(f"column {name!r} has levels, so it has no range; leave it out of ranges")
    if limits is not None and (isinstance(limits, str) or len(limits) != 2):
        raise ValueError(f"ranges[{name!r}] must be (low, high), not {limits!r}")
    missing = float(series.isna().mean())
    fixed: dict[str, Any] = {"name": name, "dtype": dtype_name(series.dtype), "missing": missing}
    if by_levels:
        return _with_levels(series, held, kind, levels, fixed)
    if held == "date":
        return _dates(series, kind, limits, fixed)
    return _numbers(series, kind, limits, fixed, skewness)


def _with_levels(
    series: pd.Series, held: str, kind: str | None, asked: Sequence[Any] | None, fixed: dict[str, Any]
) -> Column:
    positions, values = values_of(series)
    found = [values[position] for position in np.unique(positions[positions >= 0])]
    if held == "number":
        numbers_of(series)  # refuses infinite ones
    try:
        if asked is not None:
            levels = _asked_levels(series, held, asked, values, found)
        else:
            own = values if held == "category" else [False, True] if held == "bool" else sorted(found)
            check_levels(own)
            levels = tuple(own)
    except (TypeError, ValueError) as error:
        raise type(error)(f"column {series.name!r}: {error}") from None
    ordered = held == "category" and bool(series.cat.ordered)
    fixed |= {"levels": levels, "ordered": ordered}
    if kind is not None:
        return Column(**fixed, kind=_checked(kind, levels, asked, fixed), why=ASKED)
    if asked is None and not found:
        fixed["levels"] = levels if held in ("category", "bool") else None
        return Column(**fixed, kind="missing", why="No value is observed.")
    if asked is None and len(found) == 1:
        code = float(levels.index(found[0]))
        return Column(**fixed, kind="constant", low=code, high=code, why="Only one value is observed.")
    if len(levels) == 2:
        return Column(**fixed, kind="binary", why="It has two values.")
    if asked is not None:
        return Column(**fixed, kind="ordinal", why="The order of its levels was given.")
    if ordered:
        return Column(**fixed, kind="ordinal", why="It is an ordered category.")
    if held == "text" and len(found) > MOST_LEVELS:
        _refuse_commas(str(series.name), found)
    return Column(**fixed, kind="categorical", why=_why_categorical(held, found))


def _refuse_commas(name: str, levels: Sequence[str]) -> None:
    """Refuse texts that are all numbers, some of them with a comma."""
    with_comma = [level for level in levels if _WITH_COMMA.fullmatch(level)]
    if with_comma and len(with_comma) + sum(map(bool, map(_PLAIN.fullmatch, levels))) == len(levels):
        raise ValueError(
            f"column {name!r} holds texts such as {with_comma[0]!r}, perhaps numbers with a comma; write them with a "
            f"point, or say that they are levels, kinds={{{name!r}: 'categorical'}} or --column-kind {name}=categorical"
        )


def _asked_levels(
    series: pd.Series, held: str, asked: Sequence[Any], values: list[Any], found: list[Any]
) -> tuple[Any, ...]:
    if isinstance(asked, str):
        raise TypeError(f"levels must be a sequence, not the text {asked!r}")
    levels = [level.item() if isinstance(level, np.generic) else level for level in asked]
    check_levels(levels)
    if len(levels) < 2:
        raise ValueError(f"levels must be two or more, not {levels!r}")
    if held == "category":
        same = levels == values if series.cat.ordered else set(levels) == set(values)
        if not same:
            order = " in their order" if series.cat.ordered else ""
            raise ValueError(f"levels must be its categories {listed(map(repr, values))}{order}")
        known = dict(zip(values, values, strict=True))
        return tuple(known[level] for level in levels)
    types: Any = {"text": str, "bool": bool, "number": int | float}.get(held, object)
    if not isinstance(levels[0], types) or (held == "number" and isinstance(levels[0], bool)):
        raise TypeError(f"levels must be {held}s as its values are, not {levels[0]!r}")
    unknown = sorted(set(found).difference(levels))
    if unknown:
        raise ValueError(f"it has the value {unknown[0]!r}, which is none of the levels {listed(map(repr, levels))}")
    if held == "number" and series.dtype.kind == "f":
        return tuple(map(float, levels))
    if held == "number" and series.dtype.kind in "iu":
        parts = [level for level in levels if level != int(level)]
        if parts:
            raise ValueError(f"levels must be whole numbers as its values are, not {parts[0]!r}")
        return tuple(map(int, levels))
    return tuple(levels)


def _checked(kind: str, levels: tuple[Any, ...], asked: Sequence[Any] | None, fixed: dict[str, Any]) -> str:
    name = fixed["name"]
    if kind == "binary" and len(levels) != 2:
        raise ValueError(f"column {name!r} cannot be binary: its levels are {listed(map(repr, levels)) or 'not known'}")
    if len(levels) < 2:
        raise ValueError(f"column {name!r} has no two values to be {kind}; give levels={{{name!r}: [...]}}")
    if kind == "ordinal" and asked is None and isinstance(levels[0], str) and not fixed["dtype"].startswith("category"):
        raise ValueError(f"column {name!r} holds texts, so their order is not known; give levels={{{name!r}: [...]}}")
    return kind


def _why_categorical(held: str, found: list[Any]) -> str:
    if held == "text" and len(found) > MOST_LEVELS:
        numbers = pd.to_numeric(pd.Series(found, dtype=object), errors="coerce")
        share = float(numbers.notna().mean())
        if share > 0.5:
            other = found[int(np.argmax(numbers.isna()))]
            other = f", but {other!r} is none" if share < 1 else ""
            return f"It holds texts. {share:.0%} of the different ones are numbers{other}."
    what = "It is a category" if held == "category" else "It holds texts"
    return f"{what} with {len(found)} different values."


def _numbers(
    series: pd.Series,
    kind: str | None,
    limits: tuple[Any, Any] | None,
    fixed: dict[str, Any],
    skewness: tuple[float, float] | None,
) -> Column:
    numbers = numbers_of(series)
    observed = numbers[~np.isnan(numbers)]
    distinct = np.unique(observed)
    whole = bool(np.all(distinct == np.rint(distinct)))
    if kind is None:
        kind, why = _kind_of_numbers(observed, distinct, whole, limits is not None, skewness)
        if kind in LEVELS:
            return Column(**fixed, kind=kind, levels=tuple(sorted(values_of(series)[1])), why=why)
    else:
        why = ASKED
        check_support(kind, series, numbers)
    low, high = range_of(series, numbers, limits)
    return Column(**fixed, kind=kind, low=low, high=high, integer=whole and len(distinct) > 0, why=why)


def _kind_of_numbers(
    observed: np.ndarray, distinct: np.ndarray, whole: bool, declared: bool, known: tuple[float, float] | None
) -> tuple[str, str]:
    if not len(distinct):
        return "missing", "No value is observed."
    low, high = distinct[0], distinct[-1]
    if max(-low, high) > 2**53:  # floats do not tell such whole numbers apart
        return "real", "It holds numbers above 2 to the power of 53."
    if len(distinct) == 1 and not declared:
        return "constant", "Only one value is observed."
    if len(distinct) == 2 and not declared:
        return "binary", "It has two values."
    if whole and not declared and len(distinct) <= MOST_LEVELS and high - low == len(distinct) - 1:
        return "ordinal", f"It holds the whole numbers from {low:.0f} to {high:.0f} without a gap."
    if whole and low >= 0 and high <= LARGEST_COUNT:
        return "count", f"It holds {len(distinct)} different whole numbers, none below 0 or above {LARGEST_COUNT}."
    if low > 0:
        skewness, skewness_of_logs = known or (_skewness(observed), _skewness(np.log(observed)))
        if skewness > 1 and abs(skewness_of_logs) < skewness:
            return "positive", f"All values are above 0, with a long tail (skewness {skewness:.2f})."
    what = "whole numbers" if whole else "numbers with fractions"
    return "real", f"It holds {what}, {'some not above 0' if low <= 0 else 'without a long tail'}."


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    scale = np.abs(centred).max()
    if not scale > 0:
        return 0.0
    centred = centred / scale  # no overflow of powers
    return float(np.mean(centred**3) / np.mean(centred**2) ** 1.5)


def _dates(series: pd.Series, kind: str | None, limits: tuple[Any, Any] | None, fixed: dict[str, Any]) -> Column:
    times = times_of(series)
    observed = times[~np.isnat(times)]
    try:
        ends = None if limits is None else times_of(pd.Series([pd.Timestamp(end) for end in limits]))
    except (TypeError, ValueError):
        raise ValueError(f"ranges[{series.name!r}] must hold two dates or None, not {limits!r}") from None
    starts = observed if ends is None else np.concatenate((observed, ends))
    first = starts[~np.isnat(starts)].min(initial=np.datetime64("9999-12-31", "us"))
    origin = first - np.timedelta64(DAY, "us")  # so that the earliest date is day 1, which is positive
    days = days_between(times, origin)
    distinct = np.unique(days[~np.isnan(days)])
    if kind is None and not len(distinct):
        return Column(**fixed, kind="missing", origin=str(origin), why="No value is observed.")
    if ends is not None:
        low, high = (None if np.isnan(day) else float(day) for day in days_between(ends, origin))
        limits = (low, high)
    fixed |= {"origin": str(origin), "integer": bool(len(distinct) and np.all(distinct == np.rint(distinct)))}
    low, high = range_of(series, days, limits)
    if kind is not None:
        return Column(**fixed, kind=kind, low=low, high=high, why=ASKED)
    if len(distinct) == 1 and limits is None:
        return Column(**fixed, kind="constant", low=low, high=high, why="Only one value is observed.")
    return Column(**fixed, kind="positive", low=low, high=high, why="It holds dates, counted in days.")


def range_of(
    series: pd.Series, numbers: np.ndarray, limits: tuple[Any, Any] | None
) -> tuple[float | None, float | None]:
    """The declared ends of the range, and the observed ones where none is declared.

    Raises
    ------
    TypeError, ValueError
        If they are no numbers, are in the wrong order, or a value is outside.
    """
    low, high = limits or (None, None)
    for end in (low, high):
        if end is not None and (isinstance(end, bool) or not isinstance(end, int | float | np.number)):
            raise TypeError(f"ranges[{series.name!r}] must hold numbers or None, not {end!r}")
    if low is not None and high is not None and not low <= high:
        raise ValueError(f"ranges[{series.name!r}] must be (low, high), not {limits!r}")
    outside = np.zeros(len(numbers), bool)
    outside |= numbers < (-np.inf if low is None else low)
    outside |= numbers > (np.inf if high is None else high)
    if outside.any():
        row = row_of(series, outside)
        value = series.iloc[int(np.argmax(outside))]
        raise ValueError(f"column {series.name!r} has {value} in row {row!r}, outside of its declared range")
    observed = numbers[~np.isnan(numbers)]
    if len(observed):
        low, high = observed.min() if low is None else low, observed.max() if high is None else high
    return None if low is None else float(low), None if high is None else float(high)
