"""More sticks for a trained stick-breaking pair, where they are needed.

The posterior of a Dirichlet process has infinitely many sticks, of which all but a few are at the prior. Their number
need not be chosen beforehand: train, look whether much of the stick is left over, add sticks, go on. A net with
infinitely many inputs cannot be had, but this is the exact version of it: the remainder of the stick is the sum of all
weights beyond the truncation, so that a decoder which weighs them all alike, with a posterior that leaves their
fractions at the prior, is the same model with the same bound, whatever number of them is written out. Adding sticks
writes out more, and training may then tell them apart:

    vae = fit_growing(Trainer(objective="mean-field", epochs=20), vae, dataset)
"""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from pyrovae import programs
from pyrovae.batches import batches
from pyrovae.data import Dataset, Rows
from pyrovae.guides.sticks import BetaHead, FractionsHead, KumaraswamyHead
from pyrovae.metrics.sticks import prior_of_sticks, stick_weights
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import MLP, Residual, TiedMLP
from pyrovae.priors import StickBreakingPrior
from pyrovae.rng import forked, seeded
from pyrovae.training import Trainer
from pyrovae.training.checkpoint import RunFolder
from pyrovae.vae import VAE

logger = logging.getLogger(__name__)


def fit_growing(
    trainer: Trainer,
    vae: VAE,
    dataset: Dataset,
    *,
    count: int = 10,
    most: int = 1000,
    run: str | Path | None = None,
) -> VAE:
    """Train a stick-breaking VAE, adding sticks and training on for as long as that lowers the validation loss.

    No sticks are added either where `needs_sticks` finds no need of them in the validation rows.

    Parameters
    ----------
    trainer : Trainer
        How each of the trainings goes; its schedules start again each time.
    vae : VAE
        A VAE that `add_sticks` takes. It is trained in place.
    dataset : Dataset
        The data, with validation rows.
    count : int, default 10
        Sticks to add at a time.
    most : int, default 1000
        Weights at which to stop.
    run : str or Path, optional
        A folder for one run folder for each number of weights, such as `10-weights`. Called again after an
        interruption, with a VAE as new as the first time, this goes on where it stopped. None saves nothing.

    Returns
    -------
    VAE
        The VAE with the number of weights of the lowest validation loss, trained.

    Raises
    ------
    ValueError
        For a VAE that `add_sticks` does not take, or data without validation rows.
    """
    if dataset.validation is None or not len(dataset.validation.x):
        raise ValueError("whether more sticks are needed is seen on validation rows, and there are none")
    add_sticks(vae, count)  # what it does not take had better be known before the training
    best, lowest = vae, math.inf
    while True:
        weights = vae.model.prior.num_features
        folder = None if run is None else RunFolder(Path(run) / f"{weights}-weights")
        history = trainer.fit(vae, dataset, run=folder, resume=folder is not None and folder.state_path.exists())
        loss = min(row["validation_loss"] for row in history.rows)
        if loss >= lowest:
            logger.info("%d weights do not lower the validation loss of %.4f", weights, lowest)
            return best
        best, lowest = vae, loss
        if weights + count > most or not needs_sticks(vae, dataset.validation.x, mask=dataset.validation.mask):
            return best
        vae = add_sticks(vae, count)
        logger.info("the validation rows need more than %d weights; going on with %d", weights, weights + count)


@torch.no_grad()
def needs_sticks(
    vae: VAE, x: Tensor, *, remainder: float = 0.01, divergence: float = 0.01, **data: Tensor | None
) -> bool:
    """Whether the last stick that is broken off is in use, and leaves over more than a small part of the whole.

    It is not in use where its fraction is at the prior, and then the remainder would be left at the prior too, however
    large that is: `(concentration / (1 + concentration))^(K - 1)` in the mean. Guides that cannot be at the prior, with
    logit-normal or Gamma fractions, seem to use all sticks. `pyrovae.metrics.sticks_used` counts the sticks that hold
    most of the whole.

    Parameters
    ----------
    vae : VAE
        A stick-breaking VAE.
    x : Tensor, shape ``[N, ...]``
        The data.
    remainder : float, default 0.01
        Largest share of the stick to leave over, in the mean over the data.
    divergence : float, default 0.01
        KL divergence of the last fraction from its prior up to which it is not in use, in nats, in the mean over the
        data; without a closed form in the mean over a hundred draws.
    **data : Tensor
        `mask`, `y`.

    Returns
    -------
    bool
        Whether more sticks would be used.

    Raises
    ------
    ValueError
        For a VAE without a stick, a share outside (0, 1) and a negative divergence.
    """
    if not 0 < remainder < 1:
        raise ValueError(f"remainder is a share of the stick between 0 and 1, got {remainder}")
    if divergence < 0:
        raise ValueError(f"divergence must not be negative, got {divergence}")
    known: dict[str, Any] = dict(data)
    if stick_weights(vae, x, **known)[:, -1].mean().item() <= remainder:
        return False
    total, prior = 0.0, prior_of_sticks(vae).base_dist
    with programs.evaluating(vae), forked():
        for rows, given in batches(vae, Rows.of(x, **data), 1000):
            total += _divergence(vae.posterior(rows, **given)["z"].base_dist, prior)[..., -1].sum().item()
    return total / len(x) > divergence


def _divergence(q: Distribution, p: Distribution) -> Tensor:
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        with seeded(0):
            value = q.sample((100,))
        return (q.log_prob(value) - p.log_prob(value)).mean(0)


@torch.no_grad()
def add_sticks(vae: VAE, count: int) -> VAE:
    r"""A copy of a stick-breaking VAE whose remainder is broken into `count` more sticks, the same function and bound.

    The columns of the decoder's first layer for the new weights are copies of that of the old remainder, which their
    sum is; the new fractions have their prior as posterior, with weights of zero in the guide's head. So p(x|z), the
    log weights and the exact KL of every datum are what they were, and training goes on from there.

    Parameters
    ----------
    vae : VAE
        A `StickBreakingVAE` with `KumaraswamySticks` or `BetaSticks` (both families contain the prior, since
        Kumaraswamy(1, b) is Beta(1, b)), a concentration that is fixed or learned, and a decoder that begins with a
        linear or gated layer.
    count : int
        Sticks to add, at least 1.

    Returns
    -------
    VAE
        The copy.

    Raises
    ------
    ValueError
        For other pairs, of which no exact copy of this kind can be made.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    head = getattr(vae.guide, "head", vae.guide)
    if not isinstance(vae.model, StickBreakingVAE) or not isinstance(head, KumaraswamyHead | BetaHead):
        raise ValueError(
            "sticks are added to a StickBreakingVAE with KumaraswamySticks or BetaSticks, whose fractions can be at "
            f"the prior exactly; got {programs.describe(vae.model)} and {programs.describe(head)}"
        )
    if vae.model.hyperprior is not None:
        raise ValueError(
            "a posterior of the new fractions is exactly at the prior for one concentration, not for all that a "
            "hyperprior has; fix or learn the concentration"
        )
    grown = copy.deepcopy(vae)
    model, guide, old = grown.model, grown.guide, vae.model.prior
    concentration = float(old.concentration)
    model.prior = _longer_prior(old, count)
    _widen_decoder(model.decoder, old.num_features, count)
    _check_decoder(vae, model)
    _widen_head(guide.head, count, concentration)
    larger = VAE(model, guide).train(vae.training)
    if vae.made_by is not None:
        options = {**vae.made_by.options, "truncation": model.prior.num_features}
        larger.made_by = vae.made_by._replace(options=options)
    return larger


def _longer_prior(old: StickBreakingPrior, count: int) -> StickBreakingPrior:
    learned = isinstance(old.log_concentration, nn.Parameter)
    new = StickBreakingPrior(old.num_features + count, learn=learned)
    new.log_concentration.data, new.gain = old.log_concentration.data.clone(), old.gain.clone()
    return new


def _widen_decoder(decoder: nn.Module, truncation: int, count: int) -> None:
    """Give the first linear layer more columns, in place: copies of the last one."""
    layers = [part for part in decoder.modules() if isinstance(part, nn.Linear)]
    if not layers or layers[0].in_features != truncation:
        raise ValueError(f"the decoder does not begin with a linear layer on the {truncation} weights of the stick")
    first = layers[0]
    first.weight = nn.Parameter(torch.cat([first.weight, first.weight[:, -1:].expand(-1, count)], 1))
    first.in_features += count
    for part in decoder.modules():
        if isinstance(part, MLP | TiedMLP) and part.in_features == truncation:
            part.in_features += count
        elif isinstance(part, Residual) and part.linear is first and part.skip:
            raise ValueError("the decoder's first layer has an identity skip, which cannot take more weights")


def _check_decoder(vae: VAE, model: StickBreakingVAE) -> None:
    """Compare the old and the new decoder on weights of which both see the same."""
    prior = model.prior
    z = torch.linspace(0.05, 0.95, prior.latent_dim).to(prior.log_concentration)
    z = torch.stack([z.flip(0) ** 2, torch.full_like(z, 0.1)])
    with programs.evaluating(vae.model), programs.evaluating(model):
        before = vae.model.decoder(vae.model.prior.decoder_input(z[:, : vae.model.prior.latent_dim]))
        after = model.decoder(prior.decoder_input(z))
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3):
        raise ValueError("the decoder takes more than a linear layer from the weights, so it cannot take more of them")


def _widen_head(head: FractionsHead, count: int, concentration: float) -> None:
    """Give a head more fractions, in place, all at the prior whatever the features."""
    raw = head.initial(concentration)
    weights, biases = [], []
    for weight, bias, value in zip(head.linear.weight.chunk(2), head.linear.bias.chunk(2), raw, strict=True):
        weights += [weight, weight.new_zeros(count, weight.shape[1])]
        biases += [bias, bias.new_full((count,), value)]
    head.linear.weight, head.linear.bias = nn.Parameter(torch.cat(weights)), nn.Parameter(torch.cat(biases))
    head.linear.out_features += 2 * count
