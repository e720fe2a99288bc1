"""Errors of imputed tables: plain functions of arrays, on the entries whose truth is known and was hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrovae.data.columns import LEVELS, NUMBERS

NOMINAL = tuple(kind for kind in LEVELS if kind != "ordinal")
"""Kinds of columns whose levels have no order."""
IMPUTED = (*NUMBERS, *LEVELS)
"""Kinds of columns that can be imputed wrongly."""


class ColumnError(NamedTuple):
    """The error of one column and what it is measured in."""

    value: float
    """The error. NaN if no entry of the column was asked for."""
    unit: str
    """What the error is, in words."""


class HIVAEError(NamedTuple):
    """The average error of HI-VAE, and its parts. A part without columns is NaN."""

    average: float
    """Over all columns."""
    numeric: float
    """Over columns of numbers: root mean squared error over the range."""
    levels: float
    """Over columns of levels: error rate, or mean difference of ordinal levels over their number."""


class VAEMError(NamedTuple):
    """The root mean squared error of VAEM, and its parts. A part without columns is NaN."""

    rmse: float
    """Root of the summed column errors, over the number of columns."""
    numeric: float
    """Mean over columns of numbers of the root mean squared error, over the range."""
    categorical: float
    """Mean over columns of levels of the error rate."""


def column_errors(
    truth: ArrayLike,
    filled: ArrayLike,
    hidden: ArrayLike,
    kinds: Sequence[str],
    num_levels: ArrayLike,
    ranges: ArrayLike | None = None,
) -> list[ColumnError]:
    """Compute the error of each column in the unit that suits its kind.

    Use it to see which columns an imputer gets wrong. Errors of all kinds lie between 0 and about 1.

    Parameters
    ----------
    truth : array, shape ``[N, D]``
        Raw numbers, and levels as codes. NaN where the truth is not known; these entries are not asked for.
    filled : array, shape ``[N, D]``
        The imputed table.
    hidden : array of bool, shape ``[N, D]``
        True where the truth is asked for.
    kinds : sequence of str, length D
        The kind of each column: "real", "positive", "count", "binary", "categorical" or "ordinal".
    num_levels : array of int, shape ``[D]``
        The number of levels of each column. Only that of ordinal columns is used.
    ranges : array, shape ``[D]``, optional
        What errors of numbers are divided by: the range of the whole table, training rows included. The default is the
        range of the known values in `truth`, largest minus smallest. The entries of columns of levels are not used.

    Returns
    -------
    list of ColumnError, length D
        For numbers the root mean squared error over the range. For nominal columns
        the share of wrong levels. For ordinal columns the mean absolute difference of the codes over the number of
        levels.

    Raises
    ------
    ValueError
        Shapes do not fit, a kind is unknown, nothing is asked for, or an entry that is asked for was not filled.

    Examples
    --------
    >>> truth = [[0.0, 1.0], [10.0, 2.0]]
    >>> filled = [[1.0, 1.0], [10.0, 1.0]]
    >>> column_errors(truth, filled, [[True, True], [False, True]], ["real", "categorical"], [1, 2])
    [ColumnError(value=0.1, unit='RMSE / range'), ColumnError(value=0.5, unit='error rate')]
    """
    values, guesses, asked = _checked(truth, filled, hidden)
    levels = np.asarray(num_levels)
    _check_kinds(kinds, values.shape[1])
    if levels.shape != (values.shape[1],):
        raise ValueError(f"num_levels has shape {levels.shape}, and there are {values.shape[1]} columns")
    scale = _scale(values, ranges)
    found = []
    for column, kind in enumerate(kinds):
        rows = asked[:, column]
        difference = values[rows, column] - guesses[rows, column]
        if kind in NUMBERS:
            error, unit = np.sqrt(_mean(difference**2)) / scale[column], "RMSE / range"
        elif kind == "ordinal":
            error, unit = _mean(np.abs(difference)) / levels[column], "mean level difference / levels"
        else:
            error, unit = _mean(difference != 0), "error rate"
        found.append(ColumnError(float(error), unit))
    return found


def hivae_error(
    truth: ArrayLike, filled: ArrayLike, hidden: ArrayLike, kinds: Sequence[str], num_levels: ArrayLike
) -> HIVAEError:
    """Compute the error that HI-VAE was published with: the mean of `column_errors`.

    Columns in which nothing is asked for are left out.

    Parameters
    ----------
    truth, filled, hidden, kinds, num_levels
        See `column_errors`.

    Returns
    -------
    HIVAEError
        The average over columns, and those over columns of numbers and of levels.

    Notes
    -----
    With R the range of a column of numbers and L the number of levels, a column has the error ::

        sqrt(mean (x - y)^2) / R        numbers
        mean [x != y]                   nominal
        mean |x - y| / L                ordinal

    References
    ----------
    A. Nazabal, P. M. Olmos, Z. Ghahramani and I. Valera (2020), "Handling incomplete heterogeneous data using VAEs",
    section 5; ``error_computation`` in the code of the authors.

    Examples
    --------
    >>> truth = [[0.0, 1.0], [10.0, 2.0]]
    >>> filled = [[1.0, 1.0], [10.0, 1.0]]
    >>> hivae_error(truth, filled, [[True, True], [False, True]], ["real", "categorical"], [1, 2])
    HIVAEError(average=0.3, numeric=0.1, levels=0.5)
    """
    errors = np.array([error.value for error in column_errors(truth, filled, hidden, kinds, num_levels)])
    numeric = np.isin(kinds, NUMBERS)
    return HIVAEError(_known_mean(errors), _known_mean(errors[numeric]), _known_mean(errors[~numeric]))


def vaem_rmse(
    truth: ArrayLike, filled: ArrayLike, hidden: ArrayLike, kinds: Sequence[str], ranges: ArrayLike | None = None
) -> VAEMError:
    """Compute the error that VAEM was published with, on columns scaled to [0, 1].

    The error rates of columns of levels are large beside squared errors of scaled numbers, and rule the first figure.
    So look at its parts too.

    Parameters
    ----------
    truth, filled, hidden, kinds
        See `column_errors`.
    ranges : array, shape ``[D]``, optional
        See `column_errors`.

    Returns
    -------
    VAEMError
        The figure of the paper, and its parts.

    Notes
    -----
    ``(1/D) sqrt(sum_d MSE_d)``. The factor 1/D stands outside of the root, as the authors write it. MSE_d is the mean
    squared error of a scaled column over the entries asked for. In columns of levels it is the error rate, as if levels
    were one-hot and the squared error were halved. Columns in which nothing is asked for do not count.

    References
    ----------
    C. Ma, S. Tschiatschek, R. Turner, J. M. Hernandez-Lobato and C. Zhang (2020), "VAEM: a deep generative model for
    heterogeneous mixed type data", section 5.

    Examples
    --------
    >>> truth = [[0.0, 1.0], [10.0, 2.0]]
    >>> filled = [[3.0, 1.0], [10.0, 1.0]]
    >>> error = vaem_rmse(truth, filled, [[True, True], [False, True]], ["real", "categorical"])
    >>> error.numeric, error.categorical
    (0.3, 0.5)
    """
    values, guesses, asked = _checked(truth, filled, hidden)
    _check_kinds(kinds, values.shape[1])
    numeric = np.isin(kinds, NUMBERS)
    scale = _scale(values, ranges)
    squared = np.where(numeric, ((values - guesses) / np.where(numeric, scale, 1.0)) ** 2, values != guesses)
    errors = np.array([_mean(squared[rows, column]) for column, rows in enumerate(asked.T)])
    rmse = np.sqrt(np.nansum(errors)) / (~np.isnan(errors)).sum()
    return VAEMError(float(rmse), _known_mean(np.sqrt(errors[numeric])), _known_mean(errors[~numeric]))


def mse(truth: ArrayLike, filled: ArrayLike, hidden: ArrayLike) -> float:
    """Compute the mean squared error over all entries asked for, whatever their columns.

    Standardise the table first, so that columns count alike.

    Parameters
    ----------
    truth, filled, hidden
        See `column_errors`.

    Returns
    -------
    float
        In squared units of the table: squared standard deviations if it is standardised.

    Examples
    --------
    >>> mse([[1.0, 2.0]], [[1.0, 4.0]], [[True, True]])
    2.0
    """
    values, guesses, asked = _checked(truth, filled, hidden)
    return float(((values - guesses)[asked] ** 2).mean())


def interval_coverage(low: ArrayLike, high: ArrayLike, truth: ArrayLike, hidden: ArrayLike) -> float:
    """Compute the share of the entries asked for that lie within their intervals, ends included.

    Parameters
    ----------
    low, high : array, shape ``[N, D]``
        Ends of the intervals.
    truth, hidden
        See `column_errors`.

    Returns
    -------
    float
        To be compared with the level that the intervals claim.

    Examples
    --------
    >>> interval_coverage([[0.0, 0.0]], [[1.0, 1.0]], [[0.5, 2.0]], [[True, True]])
    0.5
    """
    values, lower, asked = _checked(truth, low, hidden)
    _, upper, _ = _checked(truth, high, hidden)
    return float(((lower <= values) & (values <= upper))[asked].mean())


def _checked(
    truth: ArrayLike, filled: ArrayLike, hidden: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Truth, guesses, and where they are compared."""
    values, guesses, asked = np.asarray(truth, dtype=float), np.asarray(filled, dtype=float), np.asarray(hidden)
    if values.ndim != 2 or guesses.shape != values.shape or asked.shape != values.shape:
        shapes = f"{values.shape}, {guesses.shape} and {asked.shape}"
        raise ValueError(f"the truth, what was filled in and `hidden` must be one shape [N, D], got {shapes}")
    if asked.dtype != bool:
        raise ValueError(f"hidden must hold bools, True where the truth is asked for, got {asked.dtype}")
    asked = asked & ~np.isnan(values)
    if not asked.any():
        raise ValueError("no entry is asked for: `hidden` is True nowhere that the truth is known")
    empty = (asked & np.isnan(guesses)).sum(axis=0)
    if empty.any():
        column = int(empty.argmax())
        raise ValueError(f"column {column} was not filled: {empty[column]} of the entries asked for are NaN")
    return values, guesses, asked


def _check_kinds(kinds: Sequence[str], columns: int) -> None:
    if len(kinds) != columns:
        raise ValueError(f"there are {len(kinds)} kinds for {columns} columns")
    if unknown := sorted(set(kinds) - set(IMPUTED)):
        raise ValueError(f"unknown kind {unknown[0]!r}; known are {', '.join(IMPUTED)}")


def _scale(values: np.ndarray, ranges: ArrayLike | None) -> np.ndarray:
    """What errors of numbers are divided by; where a range is 0 it is 1, so that an error stays visible."""
    if ranges is None:
        known = ~np.isnan(values)
        scale = np.where(known, values, -np.inf).max(axis=0) - np.where(known, values, np.inf).min(axis=0)
        return np.where(scale > 0, scale, 1.0)
    scale = np.asarray(ranges, dtype=float)
    if scale.shape != values.shape[1:]:
        raise ValueError(f"ranges has shape {scale.shape}, and there are {values.shape[1]} columns")
    return scale


def _mean(errors: np.ndarray) -> float:
    return float(errors.mean()) if len(errors) else np.nan


def _known_mean(errors: np.ndarray) -> float:
    return _mean(errors[~np.isnan(errors)])
