"""Rubin's rules: one answer from the analyses of several completed tables."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
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
        The estimate of each of M >= 2 completed tables: a number, or an array of coefficients.
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
        For fewer than two estimates, other shapes, values that are not finite, and a number of rows below 2.

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
    values, squares = np.asarray(estimates, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if values.shape != squares.shape or values.ndim == 0 or len(values) < 2:
        raise ValueError(
            f"estimates and variances must be of one shape [M, ...] with M at least 2, got {values.shape} and "
            f"{squares.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("estimates must be finite numbers")
    if not (np.isfinite(squares) & (squares > 0)).all():
        raise ValueError(f"variances must be positive numbers, the least is {squares.min()}")
    if num_rows is not None and not num_rows >= 2:
        raise ValueError(f"num_rows must be at least 2, got {num_rows}")
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
