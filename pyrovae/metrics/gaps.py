"""How much of the log-likelihood a guide loses: by its family, and by answering with an encoder."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data.dataset import Rows
from pyrovae.infer.likelihood import check_counts
from pyrovae.infer.log_weights import log_weights
from pyrovae.rng import seeded
from pyrovae.vae import VAE


class InferenceGap(NamedTuple):
    """The gap between log p(x) and the bound of a guide, in its two parts, of each row, in nats."""

    log_likelihood: Tensor
    """log p(x), by importance sampling from the refined posterior, ``[N]``."""
    refined: Tensor
    """The bound of the refined posterior, ``[N]``."""
    amortised: Tensor
    """The bound of the guide as it is, ``[N]``."""
    standard_error: Tensor
    """Standard error of `log_likelihood`, ``[N]``."""

    @property
    def approximation(self) -> Tensor:
        """What the family of the posterior costs, ``[N]``: log p(x) minus the bound of its best member."""
        return self.log_likelihood - self.refined

    @property
    def amortisation(self) -> Tensor:
        """What the encoder costs, ``[N]``: the bound of the best member of the family minus that of its answer."""
        return self.refined - self.amortised

    @property
    def total(self) -> Tensor:
        """Both together, ``[N]``: log p(x) minus the bound of the guide."""
        return self.log_likelihood - self.amortised

    def means(self) -> dict[str, float]:
        """The figures of `pyrovae evaluate --inference-gap`, means over the rows in nats."""
        return {
            "log_likelihood_refined": float(self.log_likelihood.double().mean()),
            "bound_refined": float(self.refined.double().mean()),
            "bound_amortised": float(self.amortised.double().mean()),
            "approximation_gap": float(self.approximation.double().mean()),
            "amortisation_gap": float(self.amortisation.double().mean()),
        }


def inference_gap(
    vae: VAE,
    x: Tensor,
    mask: Tensor | None = None,
    *,
    steps: int = 500,
    lr: float = 0.05,
    num_samples: int = 1000,
    num_draws: int = 100,
    chunk_size: int = 8192,
    seed: int = 0,
    progress: bool = True,
    **data: Any,
) -> InferenceGap:
    """Measure the inference gap of a guide on some rows: log p(x), and the bounds of its refined and its own posterior.

    Use it to see whether a larger encoder, or another family of the posterior, is worth the effort.

    Parameters
    ----------
    vae : VAE
        A pair with a guide that answers, such as an encoder, and a family that a gradient can refine.
    x : Tensor, shape ``[N, ...]``
        Rows.
    mask : Tensor of bool, shape of `x`, optional
        True where an entry is observed.
    steps : int, default 500
        Gradient steps of the refinement. Too few count a part of the amortisation gap as approximation gap.
    lr : float, default 0.05
        Learning rate of the refinement.
    num_samples : int, default 1000
        Importance samples of log p(x), from the refined posterior.
    num_draws : int, default 100
        Draws that each bound is the mean of, the same ones for both.
    chunk_size : int, default 8192
        Pairs of row and draw at a time, which bounds the memory.
    seed : int, default 0
        Seed of all draws; the caller's random numbers stay as they were.
    progress : bool, default True
        Show a progress bar.
    **data : Tensor
        `y` and further arguments of the programs.

    Returns
    -------
    InferenceGap
        The gaps of each row.

    Notes
    -----
    ::

        log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q])

    with q* the best posterior of the family for the row. The first part is the approximation gap, the second one the
    amortisation gap. Importance sampling is low on average, and so is the approximation gap; `standard_error` tells.

    References
    ----------
    C. Cremer, X. Li and D. Duvenaud (2018), "Inference suboptimality in variational autoencoders", equation 3.
    """
    check_counts(num_samples=num_samples, num_draws=num_draws, chunk_size=chunk_size)
    fitted = vae.fit_posterior(x, mask, steps=steps, lr=lr, start="guide", seed=seed, progress=progress, **data)
    given: dict[str, Any] = {"mask": mask, **data}
    with seeded(seed), programs.evaluating(vae), programs.evaluating(fitted):
        details = fitted.log_likelihood(x, num_samples, chunk_size=chunk_size, return_details=True, **given)
    amortised, refined = (mean_bound(pair, x, num_draws, chunk_size, seed, **given) for pair in (vae, fitted))
    return InferenceGap(*(value.cpu() for value in (details.value, refined, amortised, details.standard_error)))


@torch.no_grad()
def mean_bound(
    vae: VAE, x: Tensor, num_draws: int = 100, chunk_size: int = 8192, seed: int = 0, **data: Tensor | None
) -> Tensor:
    """The evidence lower bound of each row, as the mean over draws, ``[N]``, in nats.

    Parameters
    ----------
    vae : VAE
        The pair.
    x : Tensor, shape ``[N, ...]``
        Rows.
    num_draws : int, default 100
        Draws of the latents of a row.
    chunk_size : int, default 8192
        Pairs of row and draw at a time.
    seed : int, default 0
        Seed of the draws; the caller's random numbers stay as they were.
    **data : Tensor
        `mask`, `y`, `index` and further arguments of the programs.
    """
    rows = max(1, chunk_size // num_draws)
    parts = []
    with seeded(seed), programs.evaluating(vae):
        for part in Rows.of(x, **data).batches(rows):
            some, given = arguments(vae, part)
            vae.prepare(some, **given)
            with vae.scope():
                parts.append(log_weights(vae.model, vae.guide, num_draws, some, **given).log_weight.mean(0))
    return torch.cat(parts)
