"""What a column of a table holds: its kind, its levels or its range, and its dtype, as JSON too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

NUMBERS = ("real", "positive", "count")
"""Kinds whose values are numbers."""
LEVELS = ("binary", "categorical", "ordinal")
"""Kinds whose values are codes of levels."""
KINDS = (*NUMBERS, *LEVELS, "constant", "missing")
"""All kinds of columns."""
SHOWN = 8  # names or levels in a message


@dataclass(frozen=True)
class Column:
    """A column of a table, as `pyrovae.data.Schema` describes it.

    Parameters
    ----------
    name : str
        Its name.
    kind : {"real", "positive", "count", "binary", "categorical", "ordinal", "constant", "missing"}
        What a model takes its values for. A constant column has one value, a missing one has none.
    dtype : str
        The name of its dtype: `"uint8"`, `"Int64"`, `"category"`, `"double[pyarrow]"`, ... A category whose categories
        are of a dtype that their values do not tell is `"category[int8]"`.
    levels : tuple of bool, int, float or str, optional
        The values in the order of their codes 0, 1, ...; all bools, all numbers or all texts. None for numbers and
        dates. For a category they are its categories, also those that do not occur.
    ordered : bool, default False
        Whether the dtype is an ordered category.
    low, high : float, optional
        The range of numbers, observed or declared, in days for dates. For a constant column with levels, both are the
        code of its value.
    integer : bool, default False
        Whether all observed numbers are whole; for dates, all of the same time of day. Always False for levels.
    origin : str, optional
        For dates: the time in UTC from which days are counted, one day before the earliest date.
    missing : float, optional
        The share of missing values, in [0, 1]. None if it is not known.
    why : str, default ""
        One sentence on why this kind was chosen.

    Raises
    ------
    TypeError
        For a field of another type.
    ValueError
        For a value that a field cannot have.
    """

    name: str
    kind: str
    dtype: str
    levels: tuple[Any, ...] | None = None
    ordered: bool = False
    low: float | None = None
    high: float | None = None
    integer: bool = False
    origin: str | None = None
    missing: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        for field, types in _TYPES.items():
            value = getattr(self, field)
            if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
                words = " or ".join(_WORDS[kind] for kind in (types if isinstance(types, tuple) else (types,)))
                raise TypeError(f"{field} must be {words}, not {value!r}")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        for field in ("low", "high", "missing"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{field} must be finite, not {value!r}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must be at most high, not {self.low!r} with high {self.high!r}")
        if self.origin is not None:
            try:
                np.datetime64(self.origin, "us")
            except ValueError:
                raise ValueError(f"origin must be a time such as '2020-01-31T00:00:00', not {self.origin!r}") from None
        if self.levels is not None:
            check_levels(self.levels)
        if self.kind in LEVELS and (self.levels is None or len(self.levels) < 2):
            raise ValueError(f"levels must be two or more for the kind {self.kind!r}, not {self.levels!r}")
        if self.kind in NUMBERS and self.levels is not None:
            raise ValueError(f"levels must be None for the kind {self.kind!r}")
        if self.kind == "binary" and self.levels is not None and len(self.levels) != 2:
            raise ValueError(f"levels must be two for the kind 'binary', not {len(self.levels)}")

    def values(self) -> str:
        """The range or the levels as text."""
        if self.levels is not None and self.kind == "constant" and self.low is not None:
            return str(self.levels[int(self.low)])
        if self.levels is not None:
            return listed([f"{level:g}" if isinstance(level, float) else str(level) for level in self.levels], "levels")
        if self.low is None or self.high is None:
            return ""
        low, high = (self._as_text(value) for value in (self.low, self.high))
        return low if low == high else f"{low} to {high}"

    def to_dict(self) -> dict[str, Any]:
        """The fields, of JSON values."""
        return {**asdict(self), "levels": None if self.levels is None else list(self.levels)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Column:
        """The column of these fields.

        Raises
        ------
        TypeError, ValueError
            For fields that are none, are missing, or hold what they cannot. The message names the field.
        """
        if not isinstance(stored, Mapping):
            raise TypeError(f"it must be a dictionary, not {stored!r}")
        known = {field.name for field in fields(cls)}
        for field in stored:
            if field not in known:
                raise ValueError(f"{field!r} is no field; fields are {', '.join(sorted(known))}")
        for field in ("name", "kind", "dtype"):
            if field not in stored:
                raise ValueError(f"{field} is missing")
        levels = stored.get("levels")
        if levels is not None and not isinstance(levels, list | tuple):
            raise TypeError(f"levels must be a list or null, not {levels!r}")
        return cls(**{**stored, "levels": None if levels is None else tuple(levels)})

    def _as_text(self, value: float) -> str:
        if self.origin is None:
            return f"{value:.12g}" if self.integer else f"{value:.6g}"
        time = np.datetime64(self.origin, "us") + np.timedelta64(round(value * 86_400_000_000), "us")
        return str(np.datetime_as_string(time, unit="D" if time == time.astype("datetime64[D]") else "s"))


_TYPES: dict[str, Any] = {
    "name": str,
    "kind": str,
    "dtype": str,
    "ordered": bool,
    "integer": bool,
    "why": str,
    **dict.fromkeys(("low", "high", "missing"), (float, int, type(None))),
    "origin": (str, type(None)),
    "levels": (tuple, type(None)),
}
_WORDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    tuple: "a tuple",
    type(None): "None",
}


def check_levels(levels: Iterable[Any]) -> None:
    """Refuse levels that are not all bools, all finite numbers or all texts, or of which one stands twice.

    Raises
    ------
    TypeError
        For another type, or types that are mixed.
    ValueError
        For a level that stands twice, or is not finite.
    """
    seen: set[Any] = set()
    groups: dict[str, Any] = {}
    for level in levels:
        if isinstance(level, bool):
            groups.setdefault("bools", level)
        elif isinstance(level, int | float):
            groups.setdefault("numbers", level)
            if not math.isfinite(level):
                raise ValueError(f"levels must be finite, not {level!r}")
        elif isinstance(level, str):
            groups.setdefault("texts", level)
        else:
            raise TypeError(f"levels must be bools, numbers or texts, not {level!r}")
        if level in seen:
            raise ValueError(f"levels must differ, but {level!r} stands twice")
        seen.add(level)
    if len(groups) > 1:
        first, second = list(groups.values())[:2]
        raise TypeError(f"levels must be all of one type, but they hold {first!r} and {second!r}")


def listed(names: Iterable[Any], what: str = "in all") -> str:
    """The first of some names, and how many there are if that is not all of them.

    Examples
    --------
    >>> listed("abc"), listed(range(20))
    ('a, b, c', '0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all)')
    """
    words = [str(name) for name in names]
    more = f", ... ({len(words)} {what})" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def check_known(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse names that are not among the known ones.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    """
    everything = set(known)
    for name in names:
        if name not in everything:
            raise ValueError(f"{what} has {name!r}, which is no column; columns are {listed(known)}")
