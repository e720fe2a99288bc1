"""Sticks: what a VAE with a stick-breaking prior says of the weights of a row."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import batches
from pyrovae.data.dataset import Rows
from pyrovae.metrics.classification import with_inferred_labels
from pyrovae.metrics.latents import posterior_means
from pyrovae.priors import StickBreakingPrior
from pyrovae.vae import VAE


def has_sticks(vae: VAE) -> bool:
    """Whether the latent `z` of a VAE is the fractions of a stick."""
    return isinstance(getattr(vae.model, "prior", None), StickBreakingPrior)


def prior_of_sticks(vae: VAE) -> TorchDistribution:
    """The prior of the fractions of a stick; at the posterior mean of a concentration that is inferred."""
    return vae.model.prior(vae.global_means().get("concentration"))


@torch.no_grad()
def stick_weights(vae: VAE, x: Tensor, batch_size: int = 1000, **data: Tensor | None) -> Tensor:
    """The mean of the weights of the stick under q(z|x).

    Fractions are independent under the guide, so the mean of a weight is the product of means of fractions.

    Parameters
    ----------
    vae : VAE
        A VAE with a `StickBreakingPrior`.
    x : Tensor, shape ``[N, ...]``
        The data.
    batch_size : int, default 1000
        Rows at a time, which bounds the memory.
    **data : Tensor
        `mask`, `y`, `index` and further arguments of the programs.

    Returns
    -------
    Tensor, shape ``[N, truncation]``
        The weights, on the CPU. They sum to 1.

    Raises
    ------
    ValueError
        If the VAE has another prior.
    """
    if not has_sticks(vae):
        raise ValueError(f"this VAE has no stick: its prior is no StickBreakingPrior, latents {vae.sites.latent}")
    prior = vae.model.prior
    with programs.evaluating(vae):
        parts = [
            prior.features(posterior_means(vae, part, **given)["z"])
            for part, given in batches(vae, Rows.of(x, **data), batch_size)
        ]
    return torch.cat(parts).cpu()


def stick_weights_of(vae: VAE, rows: Rows) -> Tensor:
    """`stick_weights` of rows, ``[N, truncation]``; where a class is inferred, at the most probable one.

    Raises
    ------
    ValueError
        If the VAE has no stick.
    """
    labelled = with_inferred_labels(vae, rows)
    return stick_weights(vae, labelled.x, **labelled.fields())


def sticks_used(weights: Tensor, mass: float = 0.99) -> Tensor:
    """How many weights of a stick, from the first on, hold so much of it.

    Parameters
    ----------
    weights : Tensor, shape ``[N, truncation]``
        Weights of sticks, such as `stick_weights` gives.
    mass : float, default 0.99
        The share of the stick.

    Returns
    -------
    Tensor of int, shape ``[N]``
        Numbers of weights.

    Examples
    --------
    >>> sticks_used(torch.tensor([[0.6, 0.395, 0.005], [0.2, 0.2, 0.6]]))
    tensor([2, 3])
    """
    held = weights.double().cumsum(-1) >= mass - 1e-6
    last = torch.full_like(held[..., :1], True)
    return torch.cat([held[..., :-1], last], -1).int().argmax(-1) + 1
