"""Compiled or captured steps one after another, without what lies between them in Python."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.infer.bound_loss import BoundLoss, known_labels
from pyrovae.training.batching import HeldBatches
from pyrovae.training.callbacks import Callback, ProgressBar
from pyrovae.training.captured import CapturedSteps
from pyrovae.training.fused_steps import BoundSteps
from pyrovae.training.native_steps import NATIVE, can_move
from pyrovae.training.schedules import Constant, Cyclic, Decay, WarmUp

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit

_LEFT, _FOR_EACH = 3, 8
"""Steps that may be left because they cannot be done directly: so many, and one more for each so many direct ones."""
_BEFORE_GROUPS = 100
"""Direct steps before the first group: short trainings do without the library."""
_FEWEST = 3
"""Steps of the smallest group: a group of less takes longer than its steps do."""
_SECONDS = 0.05
"""What a group takes about, so that Ctrl-C is heard soon."""
_SCHEDULES = (Constant, WarmUp, Decay, Cyclic)


@dataclass
class _Bound:
    """What does the steps of an epoch whose batches are alike in their labels, and whether it does them in groups."""

    labels: tuple[bool, ...]
    loss_of: BoundLoss
    move: BoundSteps
    is_grouped: bool


class DirectSteps:
    """Full batches of an epoch: compiled loss, optimizer, next batch; or the replays of a captured graph.

    The ordinary step of a training looks each time whether the pair, the batch or the optimizer has changed, and hands
    gradients over by the parameters. That takes a tenth of a millisecond, a tenth of the step of a small batch. Here
    that is checked once, for all steps up to one that is to be compared with the programs, or up to a save. Groups of
    steps are then done by `NativeSteps`, where inductor has compiled them. The numbers are the same, bit for bit.
    """

    def __init__(self) -> None:
        self._done = self._left = 0
        self._at_most = 1  # steps of a group, as far as time goes

    def can_run(self, fit: Fit) -> bool:
        """Whether nothing may change between two steps, and nothing has to be done there.

        That takes one process, rows in memory, steps that are compiled or recorded, Adam or AdamW, no parameters for
        each row, and no function of the user that is called between batches. On the CPU gradients must not be clipped;
        elsewhere the steps must be captured.
        """
        told = [one for one in fit.callbacks if type(one) is not ProgressBar or "on_batch" in vars(one)]
        return (
            fit.compiled is not None
            and not fit.parallel.several
            and isinstance(fit.train, HeldBatches)
            and not fit.train.changes_rows
            and fit.row_steps is None
            and fit.steps.is_direct
            and type(fit.kl_weight) in _SCHEDULES
            and all(getattr(one.on_batch, "__func__", None) is Callback.on_batch for one in told)
            and (self._can_bind(fit) if fit.captured is None else self._can_replay(fit, fit.train))
        )

    def _can_bind(self, fit: Fit) -> bool:
        on_cpu = fit.losses.at_once == 1
        return on_cpu and fit.options.gradient_clip is None and self._left <= _LEFT + self._done // _FOR_EACH

    @staticmethod
    def _can_replay(fit: Fit, train: HeldBatches) -> bool:
        alike = fit.compiled is not None and (fit.compiled.loss.labels is not None or train.rows.y is None)
        return alike and fit.captured is not None and fit.captured.chosen is True

    def run(self, fit: Fit, train: HeldBatches) -> None:
        """Do the next full batches, as far as that goes, and begin the next step."""
        if fit.captured is None:
            self._bound_steps(fit, train)
        else:
            self._replays(fit, train, fit.captured)

    @staticmethod
    def _replays(fit: Fit, train: HeldBatches, captured: CapturedSteps) -> None:
        """Replay a captured graph for the next full batches; for the first one it is looked whether it still holds."""
        saved, looks = fit.saving.at, True
        for x, data in train.full(fit.state):
            fit.begin_step()
            if fit.compiled is None or fit.compiled.compares:
                return
            beta = fit.kl_weight(fit.progress.time)
            loss = captured(x, beta, data) if looks else captured.again(x, beta, data)
            if loss is None:
                return
            looks = not captured.is_ready
            fit.losses.add(loss, fit.state.batch + 1, x, data)
            fit.end_batch(len(x))
            if fit.saving.at != saved:  # callbacks may have changed something when they were told
                break
        if fit.state.batch < train.num_batches:
            fit.begin_step()

    def _bound_steps(self, fit: Fit, train: HeldBatches) -> None:
        known: dict[tuple, _Bound] = {}
        for x, data in train.full(fit.state):
            fit.begin_step()
            if fit.compiled is None or fit.compiled.compares:
                return
            beta, labels = fit.kl_weight(fit.progress.time), known_labels(data.get("y"))
            if labels not in known:
                loss_of = fit.compiled.loss.bound(x, beta, **data)
                move = None if loss_of is None else fit.steps.bound(loss_of.targets)
                if loss_of is None or move is None:
                    self._left += 1
                    return
                known[labels] = _Bound(labels, loss_of, move, can_move(move))
            bound, saved = known[labels], fit.saving.at
            if not bound.is_grouped or not self._group(fit, train, bound, beta, x, data):
                begun = time.monotonic()
                with torch.no_grad():
                    loss, gradients = bound.loss_of(x, beta, data)
                    fit.add_loss(float(loss), x, data)
                    bound.move(gradients)
                del loss, gradients  # so that the next ones lie in the same memory, which the caches still hold
                self._time(1, begun)
                self._done += 1
                fit.end_batch(len(x))
            if fit.saving.at != saved:  # callbacks may have changed something when they were told
                break
        if fit.state.batch < train.num_batches:
            fit.begin_step()

    def _group(
        self, fit: Fit, train: HeldBatches, bound: _Bound, beta: float, x: Tensor, data: Mapping[str, Tensor]
    ) -> bool:
        """Do some steps together, of which the first one has begun, and say whether that was done."""
        compiled, state = fit.compiled, fit.state
        if self._done < _BEFORE_GROUPS or compiled is None or compiled.recorded or fit.saving.is_often:
            return False
        most = min(1 + compiled.until_compared, fit.steps.until_cleared, self._at_most)
        if most < _FEWEST or not NATIVE.is_there():
            return False
        batches = train.together(state)
        steps = batches.labelled(min(most, batches.number), bound.labels)
        if steps < _FEWEST:
            return False
        entry = bound.loss_of.entry(x, beta, data)
        if entry is None:
            bound.is_grouped = False
            return False
        begun, weight = time.monotonic(), fit.kl_weight
        moving = type(weight) is not Constant
        betas = [weight(fit.progress.time_at(state.batch + step)) if moving else beta for step in range(steps)]
        before = bound.loss_of.before_all(x, betas)
        with torch.no_grad():
            losses, done, problem = NATIVE.run(entry, before, batches, steps, bound.move)
        self._time(steps, begun)
        for loss in losses[:done]:
            state.loss_sum += loss
        self._done += done
        if done:
            compiled.pass_over(done - 1)
            fit.steps.count(done)
        if done == steps:
            fit.end_batch(done * batches.size, done)
            return True
        state.rows, state.batch = state.rows + done * batches.size, state.batch + done
        if done:
            fit.begin_step()
        if problem is not None:
            raise problem
        x, data = next(train.full(state))
        fit.add_loss(losses[-1], x, data)  # which says where it comes from
        return True

    def _time(self, steps: int, begun: float) -> None:
        """Find out how many steps may be done together."""
        self._at_most = int(_SECONDS * steps / max(time.monotonic() - begun, 1e-9))
