"""Moments of numbers that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Moments:
    """Mean and central moments of numbers that come in parts.

    Notes
    -----
    Sums of powers of the deviations from the mean are merged, which is stable where sums of powers of the numbers
    cancel.

    References
    ----------
    P. Pebay (2008), "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
    moments", equations 2.1 and 2.5.

    Examples
    --------
    >>> moments = Moments()
    >>> moments.add(np.array([1.0, 2.0])), moments.add(np.array([6.0]))
    (None, None)
    >>> moments.mean, round(moments.skewness, 4)
    (3.0, 0.5952)
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    cubes: float = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take some more numbers in, none of them NaN."""
        if not len(values):
            return
        with np.errstate(all="ignore"):  # numbers of 1e200 have no third power
            mean = float(values.mean())
            centred = values - mean
            squares, cubes = float(np.sum(centred**2)), float(np.sum(centred**3))
            n, m = self.count, len(values)
            total, delta = n + m, mean - self.mean
            self.cubes += cubes + delta**3 * n * m * (n - m) / total**2
            self.cubes += 3 * delta * (n * squares - m * self.squares) / total
            self.squares += squares + delta**2 * n * m / total
            self.mean += delta * m / total
            self.count = total

    @property
    def skewness(self) -> float:
        """The third central moment by the power 3/2 of the second one; 0 if all numbers are the same."""
        if not self.squares > 0:
            return 0.0
        return self.cubes / self.count / (self.squares / self.count) ** 1.5

    @property
    def deviation(self) -> float:
        """The standard deviation, with the number of numbers below; 0 if there are none."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0
