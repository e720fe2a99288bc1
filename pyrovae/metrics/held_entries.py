"""The error of held-out entries of a table, epoch by epoch: what early stopping of a table watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.rows import Rows, slices
from pyrovae.likelihoods.tables import level_probs
from pyrovae.vae import VAE

HELD_OUT_LOSS = "held_out_loss"
"""The column of the metrics."""
_ROWS_AT_ONCE = 4096
_SMALLEST = 1e-4


def held_entry_figures(vae: VAE, rows: Rows) -> Mapping[str, Callable[[], float]]:
    """The column of a training's metrics for validation rows that say what the guide may see.

    Parameters
    ----------
    vae : VAE
        A pair of the kind `tabular`.
    rows : Rows
        Scaled rows. ``more["seen"]`` is False for entries that are hidden from the guide.

    Returns
    -------
    mapping of str to callable
        `held_out_loss`, see `held_out_loss`; nothing if no entry is observed and hidden.
    """
    seen = rows.more.get("seen")
    if seen is None:
        return {}
    mask = torch.ones_like(rows.x, dtype=torch.bool) if rows.mask is None else rows.mask
    held = mask & ~seen
    if not bool(held.any()):
        return {}
    return {HELD_OUT_LOSS: partial(held_out_loss, vae, rows.x, mask & seen, held)}


@torch.no_grad()
def held_out_loss(vae: VAE, x: Tensor, seen: Tensor, held: Tensor) -> float:
    """How badly a pair predicts held-out entries from those that are seen, at the mean of the latent.

    Parameters
    ----------
    vae : VAE
        A pair of the kind `tabular`.
    x : Tensor, shape ``[N, D]``
        Scaled rows.
    seen, held : Tensor of bool, shape ``[N, D]``
        What the guide sees, and what is predicted.

    Returns
    -------
    float
        The mean over the held-out entries of half the squared error of numbers, in units of the variance of their
        column, and of the log loss of levels in nats. The lower the better.
    """
    model: Any = vae.model
    guide: Any = vae.guide
    variance = _variances(x, seen | held)
    was_training = vae.training
    vae.eval()
    total = x.new_zeros(())
    for part in slices(len(x), _ROWS_AT_ONCE):
        raw = model.decoder(guide.posterior(x[part], seen[part]).mean)
        filled = model.likelihood.fill(x[part], seen[part] | held[part])

        def loss(fn: Any, columns: Tensor, filled: Tensor = filled) -> Tensor:
            true = filled.index_select(-1, columns)
            probs = level_probs(fn)
            if probs is None:
                return 0.5 * (fn.mean - true).square() / variance.index_select(-1, columns)
            index = true.long().clamp(max=probs.shape[-1] - 1).unsqueeze(-1)
            return -probs.gather(-1, index).squeeze(-1).clamp(min=_SMALLEST).log()

        each = model.likelihood.elementwise(raw).joined(loss)
        total += torch.where(held[part], each, 0.0).sum()
    vae.train(was_training)
    return float(total / held.sum())


def _variances(x: Tensor, mask: Tensor) -> Tensor:
    """The variance of the observed entries of each column, ``[D]``."""
    count = mask.sum(0).clamp(min=1)
    mean = torch.where(mask, x, 0.0).sum(0) / count
    return (torch.where(mask, x - mean, 0.0).square().sum(0) / count).clamp(min=1e-6)
