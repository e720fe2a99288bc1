"""Masks of missing entries for experiments: at random, given other columns, by the value itself, in groups.

A mask is True where an entry is observed, as everywhere in the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtri
from scipy.stats import rankdata

Mask = NDArray[np.bool_]
RandomState = int | np.random.Generator | None
_REACH = 40.0  # the logistic function is 0 or 1 in double precision beyond it


def mcar(shape: tuple[int, ...], rate: float, random_state: RandomState = None) -> Mask:
    """Hide entries completely at random: each one on its own, with one probability.

    Parameters
    ----------
    shape : tuple of int
        Shape of the data.
    rate : float
        Probability that an entry is hidden.
    random_state : int, numpy.random.Generator or None, default None
        Seed or generator. None gives another mask each time.

    Returns
    -------
    ndarray of bool, shape `shape`
        True where an entry is observed.

    Examples
    --------
    >>> float(mcar((1000, 10), 0.3, random_state=0).mean().round(2))
    0.7
    """
    return np.random.default_rng(random_state).random(shape) >= _checked_rate(rate)


def mar(x: ArrayLike, rate: float, random_state: RandomState = None, *, share_observed: float = 0.3) -> Mask:
    """Hide entries at random given columns that stay: the chance is a logistic function of these columns.

    Parameters
    ----------
    x : array, shape ``[N, D]``
        The data, two columns or more. NaN entries are missing already and stay so.
    rate : float
        Share of entries to hide in the columns that can lose some.
    random_state : int, numpy.random.Generator or None, default None
        Seed or generator. None gives another mask each time.
    share_observed : float, default 0.3
        Share of columns, drawn at random, that lose nothing and decide about the others. At least one column is of each
        sort.

    Returns
    -------
    ndarray of bool, shape ``[N, D]``
        True where an entry is observed.

    Notes
    -----
    Column j of row n is hidden with probability ``sigmoid(w_j . s_n + b_j)``. Here s are the deciding columns, w are
    normal draws scaled such that ``w . s`` has unit variance, and b makes the mean probability `rate`. Unlike in the
    paper, the ranks of each deciding column are first mapped to normal quantiles. Otherwise the mask of skewed columns
    would hardly depend on them.

    References
    ----------
    B. Muzellec, J. Josse, C. Boyer and M. Cuturi (2020), "Missing data imputation using optimal transport", section 4.
    """
    values = _table(x)
    if values.shape[1] < 2:
        raise ValueError(f"x has {values.shape[1]} column; the mask of one column needs another one that stays")
    if not 0 < share_observed < 1:
        raise ValueError(f"share_observed must be between 0 and 1, got {share_observed}")
    rng = np.random.default_rng(random_state)
    columns = values.shape[1]
    count = min(max(1, round(share_observed * columns)), columns - 1)
    order = rng.permutation(columns)
    deciding, losing = order[:count], order[count:]
    observed = ~np.isnan(values)
    observed[:, losing] &= _logistic(values[:, deciding], observed[:, losing], rate, rng)
    return observed


def mnar_logistic(x: ArrayLike, rate: float, random_state: RandomState = None) -> Mask:
    """Hide entries not at random: the chance is a logistic function of all columns, and each of these loses entries.

    Parameters
    ----------
    x : array, shape ``[N, D]``
        The data. NaN entries are missing already and stay so.
    rate : float
        Share of entries to hide.
    random_state : int, numpy.random.Generator or None, default None
        Seed or generator. None gives another mask each time.

    Returns
    -------
    ndarray of bool, shape ``[N, D]``
        True where an entry is observed.

    Notes
    -----
    As `mar`, but the values that decide are hidden too, that of the entry itself among them.
    """
    values = _table(x)
    there = ~np.isnan(values)
    return there & _logistic(values, there, rate, np.random.default_rng(random_state))


def mnar_self_masking(x: ArrayLike, columns: Sequence[int], above: float | str = "mean") -> Mask:
    """Hide the large values of some columns: an entry is missing because of its own value.

    Parameters
    ----------
    x : array, shape ``[N, D]``
        The data. NaN entries are missing already and stay so.
    columns : sequence of int
        Columns that lose their large values.
    above : float or "mean", default "mean"
        Values above this quantile of the column, or above its mean, are hidden.

    Returns
    -------
    ndarray of bool, shape ``[N, D]``
        True where an entry is observed. Nothing here is random.

    References
    ----------
    N. B. Ipsen, P.-A. Mattei and J. Frellsen (2021), "not-MIWAE: deep generative modelling with missing not at random
    data", section 4: the mean, and the first half of the columns.

    Examples
    --------
    >>> mnar_self_masking([[0.0, 1.0], [1.0, 5.0], [5.0, 9.0]], columns=[1])
    array([[ True,  True],
           [ True,  True],
           [ True, False]])
    """
    values = _table(x)
    chosen = list(columns)
    if above == "mean":
        threshold = np.nanmean(values[:, chosen], axis=0)
    elif isinstance(above, str):
        raise ValueError(f"above must be 'mean' or a quantile from 0 to 1, got {above!r}")
    else:
        threshold = np.nanquantile(values[:, chosen], above, axis=0)
    observed = ~np.isnan(values)
    observed[:, chosen] &= values[:, chosen] <= threshold
    return observed


def grouped(groups: Sequence[Any], num_rows: int, rate: float, random_state: RandomState = None) -> Mask:
    """Hide whole groups of columns: the columns of a group are there together or vanish together, row by row.

    Use it for answers to one page of a form, or for the readings of one device.

    Parameters
    ----------
    groups : sequence, length D
        The name or number of each column's group. Columns whose group is None are always observed.
    num_rows : int
        Number of rows N.
    rate : float
        Probability that a group is hidden in a row.
    random_state : int, numpy.random.Generator or None, default None
        Seed or generator. None gives another mask each time.

    Returns
    -------
    ndarray of bool, shape ``[N, D]``
        True where an entry is observed.

    Examples
    --------
    >>> grouped([None, "blood", "blood", "scan"], 2, 0.5, random_state=1)
    array([[ True,  True,  True,  True],
           [ True, False, False,  True]])
    """
    names = list(dict.fromkeys(group for group in groups if group is not None))
    there = mcar((num_rows, len(names)), rate, random_state)
    observed = np.ones((num_rows, len(groups)), dtype=bool)
    for position, name in enumerate(names):
        observed[:, [group == name for group in groups]] = there[:, [position]]
    return observed


def _logistic(deciding: np.ndarray, there: Mask, rate: float, rng: np.random.Generator) -> Mask:
    """True for entries that stay: each column of `there` has a logistic model on the columns of `deciding`."""
    rate = _checked_rate(rate)
    scores = np.stack([_normal_scores(column) for column in deciding.T], axis=1)
    logits = scores @ rng.standard_normal((scores.shape[1], there.shape[1]))
    spread = logits.std(axis=0)
    logits /= np.where(spread > 0, spread, 1.0)
    return rng.random(there.shape) >= np.stack(
        [expit(column + _intercept(column[present], rate)) for column, present in zip(logits.T, there.T, strict=True)],
        axis=1,
    )


def _normal_scores(column: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks, 0 where the value is missing: a few large values do not decide alone."""
    known = ~np.isnan(column)
    scores = np.zeros(len(column))
    scores[known] = ndtri(rankdata(column[known]) / (known.sum() + 1))
    return scores


def _intercept(logits: np.ndarray, rate: float) -> float:
    """What to add to the logits so that their mean probability is `rate`."""
    if not len(logits) or rate in (0.0, 1.0):
        return np.inf if rate == 1.0 else -np.inf
    reach = np.abs(logits).max() + _REACH
    return float(brentq(lambda shift: expit(logits + shift).mean() - rate, -reach, reach))


def _table(x: ArrayLike) -> np.ndarray:
    values = np.asarray(x, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"x must have rows and columns, got the shape {values.shape}")
    return values


def _checked_rate(rate: float) -> float:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    return float(rate)
