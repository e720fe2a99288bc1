"""Scaling the numbers of a table, so that every column counts alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from pyrovae.data.moments import Moments
from pyrovae.likelihoods.tables import COUNTS, OF_LEVELS, POSITIVE

Values = NDArray[np.float64]
METHODS = ("standardize", "normalize", "none")
_SHIFTED = ("normal", "student-t", "quantile")


@dataclass(frozen=True)
class TableScaler:
    """A shift and a factor for each column: `(value - loc) / scale`. Levels and counts keep their values.

    Positive columns are divided alone, so that they stay positive.

    Parameters
    ----------
    loc : sequence of float
        Shift of each column, in its unit.
    scale : sequence of float
        Factor of each column, positive, in its unit.

    Examples
    --------
    >>> scaler = TableScaler.fit(np.array([[1.0, 0.0], [3.0, 1.0]]), ("normal", "bernoulli"))
    >>> scaler.transform(np.array([[2.0, 1.0]]))
    array([[0., 1.]])
    """

    loc: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, values: Values, families: Sequence[str], method: str = "standardize") -> TableScaler:
        """Find the scaling of a table from its observed values.

        Parameters
        ----------
        values : ndarray of float, shape ``[N, D]``
            Values, NaN where they are missing.
        families : sequence of str
            The family of each column, see `likelihoods.ColumnFamilies`.
        method : {"standardize", "normalize", "none"}, default "standardize"
            To mean 0 and standard deviation 1; to the range from 0 to 1; or not at all.

        Raises
        ------
        ValueError
            For another method.
        """
        if method not in METHODS:
            raise ValueError(f"scaling must be one of {', '.join(METHODS)}, got {method!r}")
        loc, scale = np.zeros(len(families)), np.ones(len(families))
        shifted = [i for i, family in enumerate(families) if family in _SHIFTED]
        if method != "none" and shifted:
            with np.errstate(over="ignore", invalid="ignore"):  # such a column is not scaled
                if method == "standardize":
                    near, around = _around_zero(values[:, shifted])
                    mean: Any = StandardScaler().fit(around)
                    loc[shifted], scale[shifted] = near + mean.mean_, mean.scale_
                else:
                    ends: Any = MinMaxScaler().fit(values[:, shifted])
                    loc[shifted], scale[shifted] = ends.data_min_, ends.data_range_
        for i, family in enumerate(families):
            if method != "none" and family in POSITIVE:
                scale[i] = np.exp(np.log(values[:, i][values[:, i] > 0]).mean())
        usable = np.isfinite(scale) & (scale > 0) & np.isfinite(loc)
        return cls(
            tuple(np.where(usable, loc, 0.0).tolist()),
            tuple(np.where(usable, scale, 1.0).tolist()),
        )

    def transform(self, values: Values) -> Values:
        """Scaled values ``[N, D]``."""
        return (values - np.array(self.loc)) / np.array(self.scale)

    def inverse_transform(self, values: Values) -> Values:
        """Values ``[..., D]`` in the units of the table."""
        return values * np.array(self.scale) + np.array(self.loc)

    def exactly(self, scaled: float, column: int) -> float:
        """The value of a column that has been scaled to this one, without what rounding adds to it.

        It is the one with the fewest decimals that is scaled to the same number.
        """
        loc, scale = self.loc[column], self.scale[column]
        value = scaled * scale + loc
        near = (round(value, decimals) for decimals in range(-20, 21))
        return next((one for one in near if (one - loc) / scale == scaled), value)

    @property
    def log_scale(self) -> Values:
        """What a log-density of each scaled column is larger by than that of the column in its own unit, in nats."""
        return np.log(np.array(self.scale))

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {"loc": list(self.loc), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableScaler:
        """What `to_dict` wrote."""
        return cls(tuple(values["loc"]), tuple(values["scale"]))


def _around_zero(values: Values) -> tuple[Values, Values]:
    """A value of each column, and how far the others are from it.

    Sums of large numbers that vary little, such as times in seconds, would lose what they vary by.
    """
    observed = ~np.isnan(values)
    first = np.where(observed.any(0), values[observed.argmax(0), np.arange(values.shape[1])], 0.0)
    around = values - first
    fits = ~np.isinf(around).any(0)
    return np.where(fits, first, 0.0), np.where(fits, around, values)


class ScalingMoments:
    """What the scaling of a table needs to know of its values, taken in chunk by chunk.

    Parameters
    ----------
    families : sequence of str
        The family of each column.

    Examples
    --------
    >>> moments = ScalingMoments(("normal", "gamma"))
    >>> moments.add(np.array([[1.0, 1.0], [np.nan, 1.0]])), moments.add(np.array([[3.0, np.nan]]))
    (None, None)
    >>> moments.scaler("standardize")
    TableScaler(loc=(2.0, 0.0), scale=(1.0, 1.0))
    """

    def __init__(self, families: Sequence[str]) -> None:
        self.families = tuple(families)
        self.moments = {i: Moments() for i, family in enumerate(families) if family not in OF_LEVELS}
        """Of numbers as an encoder sees them, but for the scaling: of logs where these are taken."""
        self.low = np.full(len(families), np.inf)
        self.high = -self.low

    def add(self, values: Values) -> None:
        """Take some rows in.

        Parameters
        ----------
        values : ndarray of float, shape ``[N, D]``
            Values as for `TableScaler.fit`.
        """
        self.low = np.fmin(self.low, np.fmin.reduce(values, axis=0, initial=np.inf))
        self.high = np.fmax(self.high, np.fmax.reduce(values, axis=0, initial=-np.inf))
        for i, moments in self.moments.items():
            column = values[:, i]
            column = column[~np.isnan(column)]
            if self.families[i] in POSITIVE:
                column = np.log(column)
            elif self.families[i] in COUNTS:
                column = np.log1p(column)
            moments.add(column)

    def scaler(self, method: str = "standardize") -> TableScaler:
        """The scaling, as `TableScaler.fit` finds it, up to rounding."""
        if method not in METHODS:
            raise ValueError(f"scaling must be one of {', '.join(METHODS)}, got {method!r}")
        loc, scale = np.zeros(len(self.families)), np.ones(len(self.families))
        for i, family in enumerate(self.families if method != "none" else ()):
            if family in POSITIVE:
                scale[i] = np.exp(self.moments[i].mean)
            elif family in _SHIFTED and method == "standardize":
                if self.low[i] == self.high[i]:  # whose mean may be rounded
                    loc[i] = self.low[i]
                else:
                    loc[i], scale[i] = self.moments[i].mean, self.moments[i].deviation
            elif family in _SHIFTED:
                loc[i], scale[i] = self.low[i], self.high[i] - self.low[i]
        usable = np.isfinite(scale) & (scale > 0) & np.isfinite(loc)
        return TableScaler(tuple(np.where(usable, loc, 0.0).tolist()), tuple(np.where(usable, scale, 1.0).tolist()))

    def features(self, scaler: TableScaler) -> tuple[Values, Values]:
        """Mean and standard deviation of what an encoder sees of each scaled column, ``[D]``."""
        loc, scale = np.zeros(len(self.families)), np.ones(len(self.families))
        for i, moments in self.moments.items():
            shift, factor = scaler.loc[i], scaler.scale[i]
            if self.families[i] in POSITIVE:
                loc[i], scale[i] = moments.mean - np.log(factor), moments.deviation
            elif self.families[i] in COUNTS:
                loc[i], scale[i] = moments.mean, moments.deviation
            else:
                loc[i], scale[i] = (moments.mean - shift) / factor, moments.deviation / factor
        return loc, np.maximum(scale, 1e-6)
