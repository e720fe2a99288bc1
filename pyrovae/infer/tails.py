"""Whether importance weights can be trusted: their effective number, and how heavy their tail is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.infer.log_weights import log_weights
from pyrovae.rng import forked

if TYPE_CHECKING:
    from pyrovae.vae import VAE

FEW = 0.01
"""Share of the samples below which their effective number is warned of."""
HEAVY = 0.7
"""Index of the tail above which the mean of weights converges too slowly to be used."""
_SAMPLES = 400


def tail_index(log_weight: Tensor) -> Tensor:
    """The index of the tail of weights ``[K, B]``, by Hill's estimator on the largest fifth of each row, ``[B]``.

    Weights with an index above 0.5 have no variance, and above 1 no mean.

    Parameters
    ----------
    log_weight : Tensor, shape ``[K, B]``
        Log weights, in nats; K at least 10.

    References
    ----------
    A. Vehtari, D. Simpson, A. Gelman, Y. Yao and J. Gabry (2024), "Pareto smoothed importance sampling", section 3.

    Examples
    --------
    >>> uniform = (torch.arange(1000) + 0.5)[:, None] / 1000
    >>> round(float(tail_index(-0.5 * uniform.log())), 1)  # a Pareto distribution of index 0.5
    0.5
    """
    largest = log_weight.topk(max(2, len(log_weight) // 5) + 1, 0).values
    return (largest[:-1] - largest[-1:]).mean(0)


def warn_of_fixed_scale(
    vae: VAE, x: Tensor, data: Mapping[str, Any], condition: Mapping[str, Tensor], effective: Tensor, count: int
) -> None:
    """Warn where a posterior whose scale was fixed by hand is no proposal for a log-likelihood.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    x, data : Tensor and mapping
        Some of the rows.
    condition : mapping from str to Tensor
        Values of latents of all data.
    effective : Tensor, shape ``[B]``
        Effective numbers of samples of all rows.
    count : int
        Number of samples.
    """
    median = float(effective.median())
    with forked(), torch.no_grad(), vae.scope():
        weights = log_weights(vae.model, vae.guide, _SAMPLES, x, condition=condition, **data).log_weight
    index = float(tail_index(weights).median())
    if median >= FEW * count and index <= HEAVY:
        return
    warnings.warn(
        f"the scale of the posterior is fixed, and the log-likelihood is too low: the effective sample size is "
        f"{median:.3g} of {count} in the median row (below {FEW:.0%} is too few), and the tail of the weights has the "
        f"index {index:.2g} (above {HEAVY} is too heavy); fit one with vae.fit_posterior(x, mask, scale='learned')",
        UserWarning,
        stacklevel=4,
    )
