"""Weights that let columns of all kinds count alike in training, by how steep their likelihoods are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pyrovae.likelihoods.tables import COUNTS, OF_LEVELS, POSITIVE, ColumnFamilies

BALANCES = ("none", "lipschitz")
_LEAST = 1e-2


def lipschitz_weights(columns: ColumnFamilies, values: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Weights of columns under which the gradients of their log-likelihoods change equally fast.

    Use it where levels are learned much worse than numbers, or the other way round: a decoder that serves all columns
    follows those with the largest gradients.

    Parameters
    ----------
    columns : ColumnFamilies
        The columns.
    values : ndarray, shape ``[N, D]``
        Scaled numbers and codes of levels, NaN where they are missing.

    Returns
    -------
    ndarray, shape ``[D]``
        The weights, whose mean is 1.

    Notes
    -----
    The local Lipschitz constant L of the gradient with regard to a column's location, log-rate or logits is taken where
    the column is fitted without latents: the inverse variance for numbers (of their logs, for positive families), the
    mean of counts, and for levels the largest eigenvalue of ``diag(p) - p p'`` with the shares p (for ordered ones, the
    largest ``q (1 - q)`` of the shares q up to a level). Weights are proportional to 1/L, at least a hundredth of the
    largest. Standardised numbers have L = 1, and two levels that are equally frequent 1/4. The reference scales the
    columns so that the constants agree, and splits levels up; weighing the terms has the same gradients for a normal,
    and is possible for all families.

    References
    ----------
    A. Javaloy and I. Valera (2020), "Lipschitz standardization for multivariate learning", arXiv:2002.11369.

    Examples
    --------
    >>> numbers = np.array([[-1.0, 0.0], [1.0, 1.0]] * 50)
    >>> lipschitz_weights(ColumnFamilies(("normal", "bernoulli"), (0, 2)), numbers)
    array([0.4, 1.6])
    """
    inverse = np.ones(len(columns.families))
    for column, (family, levels) in enumerate(zip(columns.families, columns.num_levels, strict=True)):
        seen = values[:, column][~np.isnan(values[:, column])]
        if not len(seen):
            continue
        if family in OF_LEVELS:
            constant = _of_levels(seen.astype(int), levels, family)
        elif family in COUNTS:
            constant = float(seen.mean())
        else:
            marginal = columns.marginals[column]
            spread = 1.0 if marginal is not None else np.var(np.log(seen) if family in POSITIVE else seen)
            constant = 1 / max(float(spread), 1e-12)
        inverse[column] = 1 / max(constant, 1e-12)
    inverse = np.maximum(inverse, _LEAST * inverse.max())
    return inverse / inverse.mean()


def _of_levels(codes: NDArray[np.int64], levels: int, family: str) -> float:
    shares = np.bincount(codes, minlength=levels) / len(codes)
    if family == "ordered":
        below = shares.cumsum()[:-1]
        return float((below * (1 - below)).max())
    if family == "bernoulli":  # of one logit
        return float(shares[1] * shares[0])
    largest = np.linalg.eigvalsh(np.diag(shares) - np.outer(shares, shares))[-1] if levels <= 500 else shares.max()
    return float(largest)
