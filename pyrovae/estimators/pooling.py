"""Rubin's rules: one answer from the analyses of several completed tables."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Pooled(NamedTuple):
    """What several completed tables say together of an estimate. Every field has the shape of one estimate."""

    estimate: Any
    """The mean of the estimates."""
    standard_error: Any
    """Its standard error, in the unit of the estimate. What is missing widens it."""
    degrees_of_freedom: Any
    """Degrees of freedom of the t distribution of (truth - estimate) / standard_error."""
    missing_information: Any
    """The share of the information that is missing, in [0, 1]."""

    def interval(self, coverage: float = 0.95) -> tuple[Any, Any]:
        """Find the interval that holds the truth with some probability.

        Parameters
        ----------
        coverage : float, default 0.95
            That probability, in (0, 1).

        Returns
        -------
        low, high : float or ndarray
            The ends, in the unit of the estimate.

        Raises
        ------
        ValueError
            For a coverage outside of (0, 1).
        """
        if not (isinstance(coverage, Real) and 0 < coverage < 1):
            raise ValueError(f"coverage must be between 0 and 1, got {coverage!r}")
        half = stats.t.ppf((1 + coverage) / 2, self.degrees_of_freedom) * self.standard_error
        return self.estimate - half, self.estimate + half


def pool(estimates: ArrayLike, variances: ArrayLike, num_rows: float | None = None) -> Pooled:
    r"""Pool estimates of several completed tables by Rubin's rules.

    Use it after `VAEImputer.impute_draws`: analyse each completed table as if nothing had been missing, and give the
    estimates and their squared standard errors.

    Parameters
    ----------
    estimates : array-like, shape ``[M, ...]``
        The estimate of each of M >= 2 completed tables: a number, an array of coefficients, or a Series or DataFrame,
        whose entries are matched by their labels.
    variances : array-like, shape of `estimates`
        Their squared standard errors, positive.
    num_rows : float, optional
        Rows of the table, for the degrees of freedom of small tables. They are those of a mean, `num_rows` - 1; for a
        regression of k coefficients give the number of rows - k + 1. None stands for a large table.

    Returns
    -------
    Pooled
        Estimate, standard error, degrees of freedom and the share of missing information.

    Raises
    ------
    ValueError
        For fewer than two estimates, other shapes or labels, values that are not finite or hidden by a mask, complex
        ones, and a number of rows below 2.

    Notes
    -----
    With the mean :math:`\bar U` of the variances and the variance B of the estimates (over M - 1),

    .. math::
        T = \bar U + (1 + 1/M) B, \qquad \lambda = (1 + 1/M) B / T, \qquad
        \frac{1}{\nu} = \frac{\lambda^2}{M - 1} + \frac{\nu_0 + 3}{(\nu_0 + 1)\,\nu_0\,(1 - \lambda)}

    where :math:`\nu_0` is `num_rows` - 1. The standard error is the root of T, and the share of missing information is
    :math:`\lambda + 2 (1 - \lambda) / (\nu + 3)`.

    The rules hold for draws that are independent between tables and between rows, and that vary with the uncertainty of
    the model too. Draws of one trained model do not do the last, so that standard errors come out a little too small
    for small tables. To include it, train one imputer for each table, on rows drawn with replacement.

    References
    ----------
    D. Rubin (1987), "Multiple imputation for nonresponse in surveys", equations 3.1.2 to 3.1.10. J. Barnard and
    D. Rubin (1999), "Small-sample degrees of freedom with multiple imputation", equation 3.

    Examples
    --------
    >>> pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], num_rows=11)
    >>> float(pooled.estimate), round(float(pooled.degrees_of_freedom), 3)
    (2.0, 1.433)
    """
    over = [part for part in (estimates, variances) if isinstance(part, pd.Series | pd.DataFrame)]
    if len(over) == 2 and list(over[0].index) != list(over[1].index):
        raise ValueError("estimates and variances name the tables otherwise; give both in one order")
    of_tables = [_tables(part) for part in (estimates, variances)]
    labelled = [one for part in of_tables for one in part if isinstance(one, pd.Series | pd.DataFrame)]
    first = labelled[0] if labelled else None
    in_order = all(_axes(one) == _axes(first) for one in labelled)  # then arrays beside them are matched by place
    values, squares = (
        _numbers(what, part, first, in_order) for what, part in zip(("estimates", "variances"), of_tables, strict=True)
    )
    if values.shape != squares.shape or values.ndim == 0 or len(values) < 2:
        raise ValueError(
            f"estimates and variances must be of one shape [M, ...] with M at least 2, got {values.shape} and "
            f"{squares.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("estimates must be finite numbers")
    if not (np.isfinite(squares) & (squares > 0)).all():
        raise ValueError(f"variances must be positive numbers, the least is {squares.min()}")
    if num_rows is not None and not (isinstance(num_rows, Real) and num_rows >= 2):
        raise ValueError(f"num_rows must be at least 2, got {num_rows!r}")
    count = len(values)
    between = (1 + 1 / count) * values.var(0, ddof=1)
    total = squares.mean(0) + between
    share = between / total
    inverse = share**2 / (count - 1)
    if num_rows is not None and np.isfinite(num_rows):
        complete = num_rows - 1
        inverse = inverse + (complete + 3) / ((complete + 1) * complete * (1 - share))
    with np.errstate(divide="ignore"):
        degrees = np.float64(1.0) / inverse  # infinite where all estimates are equal and the table is large
    return Pooled(values.mean(0), np.sqrt(total), degrees, share + 2 * (1 - share) / (degrees + 3))


def _tables(values: Any) -> list[Any]:
    """The values of each table; of a frame over the tables its rows, with their labels."""
    if isinstance(values, pd.DataFrame):
        return [row for _, row in values.iterrows()]
    return list(values) if np.iterable(values) else [values]


def _axes(one: Any) -> list[list[Any]]:
    return [list(axis) for axis in one.axes]


def _numbers(
    what: str, tables: Sequence[Any], first: pd.Series | pd.DataFrame | None, in_order: bool
) -> NDArray[np.float64]:
    """Numbers of each table as an array; those with labels in the order of the first ones."""
    if any(np.ma.is_masked(one) for one in tables):
        raise ValueError(f"{what} have entries that a mask hides; leave these out, or fill them")
    if first is not None:
        tables = [_in_order(what, one, first, in_order) for one in tables]
    try:
        found = np.asarray(tables)
    except ValueError:  # of several shapes
        found = np.array(None)
    if found.dtype == object or np.iscomplexobj(found):
        raise ValueError(f"{what} must be real numbers, of one shape for all tables")
    return found.astype(np.float64)


def _in_order(what: str, one: Any, first: pd.Series | pd.DataFrame, in_order: bool) -> NDArray:
    if not isinstance(one, pd.Series | pd.DataFrame):
        if not in_order:
            raise ValueError(f"{what} must have labels, as other tables have them in another order")
        return np.asarray(one)
    places = [axis.get_indexer(wanted) for axis, wanted in zip(one.axes, first.axes, strict=False) if axis.is_unique]
    fits = one.shape == first.shape and len(places) == len(first.axes) and all((part >= 0).all() for part in places)
    if not fits:
        raise ValueError(f"{what} must have the labels of the first estimate, {[*first.axes[-1]]}, each of them once")
    return one.to_numpy()[np.ix_(*places)]
