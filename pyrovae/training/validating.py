"""The loss of validation rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from pyrovae.batches import arguments
from pyrovae.rng import seeded
from pyrovae.training.batching import Batches
from pyrovae.training.endings import non_finite

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit


@torch.no_grad()
def validation_loss(fit: Fit, validation: Batches) -> float:
    """The validation loss in nats per datum, at KL weight 1, with the same random numbers every time.

    Raises
    ------
    NonFiniteLossError
        If it is NaN or infinite.
    """
    fit.vae.eval()
    total, rows, bad = 0.0, 0, None
    with seeded(fit.parallel.validation_seed()):
        for part, count in validation.in_order():
            x, data = arguments(fit.vae, part)
            rows += count
            with fit.vae.minibatch_scale(count, fit.rows):
                if fit.refined is None:
                    loss = fit.objective.loss(fit.vae.model, fit.vae.guide, x, **data)
                else:
                    loss = fit.refined.loss(fit.objective, x, data)
            loss = float(sum(loss) if isinstance(loss, tuple) else loss)
            if bad is None and not math.isfinite(loss):
                bad = x, data
            total += loss
    total, rows = fit.parallel.total(total, rows)
    if not math.isfinite(total):
        raise non_finite(fit, f"the validation loss is {total}", *(bad or (None, None)))
    return total / rows
