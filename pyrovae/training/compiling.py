"""Whether the steps of a training are worth compiling, and what is said meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyrovae.infer.compile import TRIALS, CompiledLoss
from pyrovae.infer.compile_errors import WHY, CompileError
from pyrovae.storage import CheckpointError, load_information
from pyrovae.training.batching import HeldBatches
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.options import TrainingOptions
from pyrovae.training.schedules import Constant

if TYPE_CHECKING:
    from pyrovae.training.loop import Fit

logger = logging.getLogger(__name__)
ENOUGH_STEPS = 10_000
"""Steps from which on compiling pays: it takes ten seconds or more, and saves a millisecond or two in each step."""

ENOUGH_TO_RECORD = 2000
"""Steps from which on recording pays: it takes a second, and saves the work of the handlers, half a millisecond."""

EARLY, APART, FAR_APART, AT_MOST_APART = 32, 20, 400, 1000
"""Of so many first steps those are compared with the programs whose number is a power of two; then the first one of an
epoch, if it is so far from the last comparison, at first or where a number that the programs may look at has changed,
and else so far; and a step that is so far from it at most. A comparison takes as long as two or three steps."""
_DOUBTED = 8
LATER_EPOCHS = 1000
"""Finished epochs from which on the smaller last batch is compiled too: it comes once an epoch, so that a second graph
takes as long to pay. The number of epochs that are asked for does not matter, since a training may get more later."""


def settings_before(resumed: RunFolder | None) -> dict[str, Any]:
    """What a training that goes on was: whether its steps are compiled, recorded or captured, and oneDNN multiplies."""
    if resumed is not None and resumed.state_path.exists():
        with suppress(CheckpointError):  # which is said when the state is loaded
            before = load_information(resumed.state_path).get("settings", {})
            known = {name: before.get(name) for name in ("compiled", "onednn", "captured")}
            return {name: value for name, value in known.items() if isinstance(value, bool) or value == "recorded"}
    return {}


def way_of_steps(options: TrainingOptions, num_batches: int | None, before: Mapping[str, Any]) -> bool | str:
    """Decide by the length of the training, and say so in one line of the log.

    A training that goes on stays what it was, since compiled code rounds otherwise.

    Parameters
    ----------
    options : TrainingOptions
        The options.
    num_batches : int or None
        Batches of an epoch, where known.
    before : mapping
        What the training that goes on was.

    Returns
    -------
    bool or "recorded"
        Whether to compile the steps, or to record them alone.
    """
    if "compiled" in before:
        logger.info("compile='auto': the steps are %s, as before", _WORDS[before["compiled"]])
        return before["compiled"]
    chosen: bool | str = False
    if options.refine_steps:
        reason = "steps that refine answers cannot be compiled"
    elif num_batches is None:
        reason = "the length of the stream is unknown"
    else:
        steps = num_batches * options.epochs
        chosen = steps >= ENOUGH_STEPS or ("recorded" if steps >= ENOUGH_TO_RECORD else False)
        reason = f"{steps} steps are {'enough' if chosen is True else 'few'} (from {ENOUGH_STEPS} on it pays)"
    logger.info("compile='auto': %s, so the steps are %s", reason, _WORDS[chosen])
    return chosen


_WORDS: dict[bool | str, str] = {True: "compiled", False: "not compiled", "recorded": "recorded, not compiled"}


@contextmanager
def compiling(rows: int, *, recorded: bool = False) -> Iterator[None]:
    """A context that says what is going on, and how long it took."""
    if recorded:
        logger.info("recording the step for batches of %d rows, in a second or so", rows)
        yield
        return
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # a second that only those who compile wait for

    logger.info(
        "compiling the step for batches of %d rows: some ten seconds, less once its code is in %s", rows, cache_dir()
    )
    begun = time.monotonic()
    yield
    logger.info("compiled in %.1f s", time.monotonic() - begun)


class CompiledSteps:
    """Compiled or recorded steps: those of full batches, and those of the smaller last one from some epoch on.

    Parameters
    ----------
    loss : CompiledLoss
        Loss and gradients as compiled code.
    full : int
        Rows of a full batch.
    later : bool
        Whether the smaller last batch is compiled too, see `LATER_EPOCHS`.
    recorded : bool
        Whether the steps are recorded alone.
    """

    def __init__(self, loss: CompiledLoss, full: int, *, later: bool, recorded: bool) -> None:
        self.loss, self.full, self.recorded, self._later = loss, full, recorded, later
        self._compiles_last: bool | None = None  # once that was tried
        self.compares, self._seen = False, ""
        self._steps = self._since = self._doubted = self._differing = 0

    def prepare(
        self, x: Tensor, beta: float, data: Mapping[str, Tensor], picking: Callable[..., AbstractContextManager[Any]]
    ) -> None:
        """Compile for full batches, of which this may be one; `picking` is the context of their steps."""
        if len(x) == self.full:
            with compiling(len(x), recorded=self.recorded), picking(data):
                self.loss.prepare(x, beta, **data)

    def begin(self, *, first: bool, last: bool) -> None:
        """Begin a step, perhaps the first one of an epoch, perhaps of the last one. `compares` then says what it is.

        Compared are some of the first steps, the first one of an epoch where that is not too often, one of a thousand,
        and the first one of the last epoch.
        """
        self._steps, self._since = self._steps + 1, self._since + 1
        early = self._steps <= EARLY and self._steps & (self._steps - 1) == 0
        apart = AT_MOST_APART
        if first and self._since >= APART:
            before, self._seen = self._seen, self.loss.seen()
            apart = APART if self._seen != before else min(max(APART, self._steps // 4), FAR_APART)
        self.compares = early or self._doubted > 0 or self._since >= apart or (first and last)

    @property
    def until_compared(self) -> int:
        """Steps until the next one that may be compared with the programs, if no epoch begins before."""
        return 0 if self._steps < EARLY or self._doubted > 0 else AT_MOST_APART - 1 - self._since

    def pass_over(self, steps: int) -> None:
        """Count steps that are not compared, no more than `until_compared`."""
        self._steps, self._since = self._steps + steps, self._since + steps

    def __call__(self, x: Tensor, beta: float, data: Mapping[str, Tensor]) -> Tensor:
        """The loss of a batch, whose gradients are put into the parameters.

        Raises
        ------
        CompileError
            If the programs give something else than what was recorded of them, and not once alone: rounding may turn a
            draw into another one.
        """
        if not self.compares:
            return self.loss(x, beta, **data)
        loss, differs = self.loss.compared(x, beta, **data)
        self._since, self._doubted = 0, self._doubted - 1
        if differs:
            self._differing, self._doubted = self._differing + 1, _DOUBTED if self._doubted < 0 else self._doubted
            if self._differing >= TRIALS:
                how = "recorded" if self.recorded else "compiled"
                raise CompileError(f"what the steps compute has changed since they were {how}: {differs}{WHY}")
        elif self._doubted <= 0:
            self._doubted = self._differing = 0
        return loss

    def has(self, x: Tensor, beta: float, data: Mapping[str, Tensor], epoch: int) -> bool:
        """Whether a step for some rows is compiled."""
        if len(x) == self.full:
            return True
        if not self._later or epoch < LATER_EPOCHS:
            return False
        if self._compiles_last is None:
            try:
                with compiling(len(x), recorded=self.recorded):
                    self.loss.prepare(x, beta, **data)
                self._compiles_last = True
            except CompileError as error:
                logger.info("the last batch of an epoch is not compiled: %s", error)
                self._compiles_last = False
        return self._compiles_last


def compiled_steps(fit: Fit, before: Mapping[str, Any]) -> CompiledSteps | None:
    """Compiled or recorded steps of a training, if they are asked for, or if they pay; None without.

    Parameters
    ----------
    fit : Fit
        The training.
    before : mapping
        What a training that goes on was, see `settings_before`.

    Raises
    ------
    CompileError
        If the pair cannot be compiled, or there is no compiler, unless it was left open whether to compile.
    """
    options = fit.options
    chosen = way_of_steps(options, fit.train.num_batches, before) if options.compile == "auto" else options.compile
    while chosen:
        try:
            return _prepared(fit, before, recorded=chosen == "recorded")
        except CompileError as error:
            if options.compile != "auto":
                raise
            logger.info("the steps are not %s: %s", "compiled" if chosen is True else "recorded", error)
        chosen = "recorded" if chosen is True else False
    return None


def _prepared(fit: Fit, before: Mapping[str, Any], *, recorded: bool) -> CompiledSteps:
    """Compiled or recorded steps, ready for full batches. The first batch shows their shape."""
    how: dict[str, Any] = {"per_row": not fit.parallel.several, "weighted": fit.kl_weight != Constant(1.0)}
    # Another choice rounds otherwise; and trainings of earlier versions did without it.
    how["onednn"] = before.get("onednn", False if before.get("compiled") else None)
    if recorded:
        how["backend"] = "eager"
    x, given = fit.first
    fit.vae.train()
    loss = CompiledLoss(fit.vae, fit.objective, num_data=fit.rows, **how)
    loss.labels = fit.train.known_labels if isinstance(fit.train, HeldBatches) else None
    later = isinstance(fit.train, HeldBatches) and not fit.parallel.several
    compiled = CompiledSteps(loss, fit.full, later=later, recorded=recorded)
    compiled.prepare(x, fit.kl_weight(0.0), given, fit.picking)
    return compiled
