"""Compiled steps one after another, without what lies between them in Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.infer.compile import BoundLoss, known_labels
from pyrovae.training.batching import HeldBatches
from pyrovae.training.callbacks import Callback, ProgressBar
from pyrovae.training.compiling import CompiledSteps

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit

_LEFT, _FOR_EACH = 3, 8
"""Steps that may be left because they cannot be done directly, and direct ones that there must be for each further one.
Each of them loses the batches that were gathered with it."""


def direct_steps(fit: Fit) -> DirectSteps | None:
    """Direct steps of a training; None where something may change between two steps, or must be done there.

    They take one process, rows that are held, steps that are compiled or recorded and read their loss at once, Adam or
    AdamW without clipping, no parameters of rows, and no callback of the user that is told of batches.
    """
    told = (getattr(callback.on_batch, "__func__", None) for callback in fit.callbacks)
    watched = any(function not in (Callback.on_batch, ProgressBar.on_batch) for function in told)
    if (
        fit.compiled is None
        or not isinstance(fit.train, HeldBatches)
        or fit.train.changes_rows
        or fit.parallel.several
        or fit.row_steps is not None
        or fit.losses.at_once > 1
        or not fit.steps.is_direct
        or fit.options.gradient_clip is not None
        or watched
    ):
        return None
    return DirectSteps(fit.compiled, fit.train)


class DirectSteps:
    """Full batches of an epoch: compiled loss, optimizer, next batch.

    The steps of a training look each time whether the pair, the batch or the optimizer has changed, and hand gradients
    over by the parameters. That takes a tenth of a millisecond, a tenth of the step of a small batch. Here it is looked
    at once, for as many steps as can be done before one is to be compared with the programs, or there is something to
    save. The numbers are the same, bit for bit.

    Parameters
    ----------
    compiled : CompiledSteps
        The compiled steps.
    train : HeldBatches
        The batches.
    """

    def __init__(self, compiled: CompiledSteps, train: HeldBatches) -> None:
        self.compiled, self.train = compiled, train
        self._done = self._left = 0

    @property
    def pays(self) -> bool:
        """Whether enough steps could be done directly so far."""
        return self._left <= _LEFT + self._done // _FOR_EACH

    def run(self, fit: Fit) -> bool:
        """Do the next full batches, as far as that goes; whether a step has begun that is left to do."""
        state = fit.state
        bound: dict[tuple, tuple[BoundLoss, Callable[[Sequence[Tensor]], None]]] = {}
        for x, data in self.train.full(state):
            fit.begin_step()
            if self.compiled.compares:
                return True
            beta, labels = fit.kl_weight(fit.progress.time), known_labels(data.get("y"))
            if labels not in bound:
                loss_of = self.compiled.loss.bound(x, beta, **data)
                move = None if loss_of is None else fit.steps.bound(loss_of.targets)
                if loss_of is None or move is None:
                    self._left += 1
                    return True
                bound[labels] = loss_of, move
            loss_of, move = bound[labels]
            with torch.no_grad():
                loss, gradients = loss_of(x, beta, data)
                value = float(loss)
                if not math.isfinite(value):
                    fit.stop_for_non_finite(f"the loss is {value}", x, data)
                move(gradients)
            state.loss_sum += value
            self._done += 1
            waits = fit.interrupt.seen or fit.is_due
            fit.end_batch(len(x))
            if waits:  # somebody may have changed something
                return False
        return False
