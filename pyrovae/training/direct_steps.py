"""Compiled steps one after another, without what lies between them in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.infer.compile import BoundLoss, known_labels
from pyrovae.training.batching import HeldBatches
from pyrovae.training.callbacks import Callback, ProgressBar
from pyrovae.training.schedules import Constant, Cyclic, Decay, WarmUp

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit

_LEFT, _FOR_EACH = 3, 8
"""Steps that may be left because they cannot be done directly: so many, and one more for each so many direct ones."""
_SCHEDULES = (Constant, WarmUp, Decay, Cyclic)


class DirectSteps:
    """Full batches of an epoch: compiled loss, optimizer, next batch.

    The ordinary step of a training looks each time whether the pair, the batch or the optimizer has changed, and hands
    gradients over by the parameters. That takes a tenth of a millisecond, a tenth of the step of a small batch. Here
    that is checked once, for all steps up to one that is to be compared with the programs, or up to a save. The numbers
    are the same, bit for bit.
    """

    def __init__(self) -> None:
        self._done = self._left = 0

    def can_run(self, fit: Fit) -> bool:
        """Whether nothing may change between two steps, and nothing has to be done there.

        That takes one process, a training on the CPU, rows in memory, steps that are compiled or recorded, Adam or
        AdamW without clipping, no parameters for each row, and no function of the user that is called between batches.
        """
        told = [one for one in fit.callbacks if type(one) is not ProgressBar or "on_batch" in vars(one)]
        return (
            fit.compiled is not None
            and fit.captured is None
            and fit.losses.at_once == 1  # as on the CPU
            and not fit.parallel.several
            and isinstance(fit.train, HeldBatches)
            and not fit.train.changes_rows
            and fit.row_steps is None
            and fit.steps.is_direct
            and fit.options.gradient_clip is None
            and type(fit.kl_weight) in _SCHEDULES
            and all(getattr(one.on_batch, "__func__", None) is Callback.on_batch for one in told)
            and self._left <= _LEFT + self._done // _FOR_EACH
        )

    def run(self, fit: Fit, train: HeldBatches) -> None:
        """Do the next full batches, as far as that goes, and begin the next step."""
        bound: dict[tuple, tuple[BoundLoss, Callable[[Sequence[Tensor]], None]]] = {}
        for x, data in train.full(fit.state):
            fit.begin_step()
            if fit.compiled is None or fit.compiled.compares:
                return
            beta, labels = fit.kl_weight(fit.progress.time), known_labels(data.get("y"))
            if labels not in bound:
                loss_of = fit.compiled.loss.bound(x, beta, **data)
                move = None if loss_of is None else fit.steps.bound(loss_of.targets)
                if loss_of is None or move is None:
                    self._left += 1
                    return
                bound[labels] = loss_of, move
            loss_of, move = bound[labels]
            with torch.no_grad():
                loss, gradients = loss_of(x, beta, data)
                fit.add_loss(float(loss), x, data)
                move(gradients)
            self._done += 1
            saved = fit.saving.at
            fit.end_batch(len(x))
            if fit.saving.at != saved:  # callbacks may have changed something when they were told
                break
        if fit.state.batch < train.num_batches:
            fit.begin_step()
