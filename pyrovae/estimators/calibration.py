"""Spreads of imputed numbers, calibrated on entries that the training did not see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.9
"""The coverage at which spreads are calibrated."""
FEW = 40
"""Columns with fewer held-out entries share one factor."""
LIMITS = (0.2, 5.0)


def spread_factors(
    truth: NDArray[np.float64], mean: NDArray[np.float64], draws: NDArray[np.float64], held: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Factors by which draws are to be moved from their mean so that intervals of held-out entries cover as they say.

    Parameters
    ----------
    truth : ndarray, shape ``[N, D]``
        The true values of numbers.
    mean : ndarray, shape ``[N, D]``
        Means of what the model says.
    draws : ndarray, shape ``[M, N, D]``
        Draws of what the model says.
    held : ndarray of bool, shape ``[N, D]``
        True for the held-out entries of numbers.

    Returns
    -------
    ndarray, shape ``[D]``
        The factors, 1 where nothing is known. Columns with few held-out entries share that of all columns, which is no
        less than 1 if these are few too.

    Notes
    -----
    An entry is covered at the factor s if it lies between mean + s (low - mean) and mean + s (high - mean), where low
    and high are the 5 % and 95 % quantiles of its draws. The factor is the 90 % quantile of the smallest s that covers
    each entry, with the correction of split conformal prediction, (n + 1) / n.

    References
    ----------
    Y. Romano, E. Patterson and E. Candes (2019), "Conformalized quantile regression", whose score is scaled here.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> truth, draws = 2 * generator.normal(size=(500, 1)), generator.normal(size=(400, 500, 1))
    >>> factor = spread_factors(truth, np.zeros((500, 1)), draws, np.ones((500, 1), bool))
    >>> bool(1.7 < factor[0] < 2.3)
    True
    """
    levels = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    by_column = [np.quantile(draws[:, :, column], levels, axis=0) for column in range(truth.shape[1])]  # saves memory
    low, high = np.stack(by_column, -1)
    distance = truth - mean
    reach = np.where(distance < 0, low - mean, high - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(distance == 0, 0.0, distance / reach)
    needed = np.where(np.isfinite(needed) & (needed >= 0), needed, LIMITS[1])
    everything = _quantile(needed[held])
    if held.sum() < FEW:
        everything = max(everything, 1.0)  # by chance, few entries are all near their means
    factors = np.ones(truth.shape[1])
    for column in range(truth.shape[1]):
        some = needed[held[:, column], column]
        if len(some):
            factors[column] = _quantile(some) if len(some) >= FEW else everything
    return factors


def _quantile(needed: NDArray[np.float64]) -> float:
    if not len(needed):
        return 1.0
    level = min(1.0, COVERAGE * (len(needed) + 1) / len(needed))
    return float(np.clip(np.quantile(needed, level), *LIMITS))
