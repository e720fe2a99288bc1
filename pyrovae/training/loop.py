"""One training under way: the loop that the Trainer starts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data.dataset import Rows
from pyrovae.distributed import Processes
from pyrovae.infer.direct_elbo import Estimator
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.objective import Objective
from pyrovae.infer.refining import Refinement
from pyrovae.rng import forked
from pyrovae.storage import load_module_tensors
from pyrovae.support import SupportCheck
from pyrovae.training.averages import check_averages, is_running_average
from pyrovae.training.batching import Batch, HeldBatches, batches_of
from pyrovae.training.callbacks import Progress, ProgressBar
from pyrovae.training.captured import CapturedSteps, captured_steps
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.checks import check_objective, check_pair, trying
from pyrovae.training.compiling import CompiledSteps, compiled_steps, settings_before
from pyrovae.training.data import TrainingData
from pyrovae.training.data_checks import check_stream, check_support
from pyrovae.training.direct_steps import DirectSteps
from pyrovae.training.endings import interrupted, non_finite
from pyrovae.training.fused_steps import FusedSteps
from pyrovae.training.history import History, NonFiniteLossError, TrainingInterrupted
from pyrovae.training.interrupts import Interrupt
from pyrovae.training.losses import AT_ONCE, Losses
from pyrovae.training.lr_schedules import step_lr_scheduler
from pyrovae.training.optimizers import learning_rates, parameter_groups
from pyrovae.training.options import TrainingOptions
from pyrovae.training.parallel import Parallel
from pyrovae.training.parallel_checks import check_parallel
from pyrovae.training.pyro_optimizers import parameter_names
from pyrovae.training.refined import RefinedTraining
from pyrovae.training.resuming import WATCHED, settings_of
from pyrovae.training.row_steps import row_steps, tables_of
from pyrovae.training.saving import Saving
from pyrovae.training.schedules import Constant, parse_schedule, value_at
from pyrovae.training.setup import check_arguments, find_monitor, make_steps, objective_for, validation_batches
from pyrovae.training.state import TrainingState
from pyrovae.training.validating import validation_loss
from pyrovae.vae import VAE

logger = logging.getLogger(__name__)


class Fit:
    """One training, from start to end. `Trainer.fit` makes it and runs it.

    Parameters
    ----------
    options : TrainingOptions
        Options of the training.
    vae : VAE
        The VAE. It is prepared here.
    data : TrainingData
        Training and validation data.
    run : RunFolder or None
        Where to save. None does not save.
    processes : Processes
        Those that share the training.
    """

    def __init__(
        self, options: TrainingOptions, vae: VAE, data: TrainingData, run: RunFolder | None, processes: Processes
    ) -> None:
        self.options, self.vae = options, vae
        self.parallel = Parallel(processes, vae, options.seed)
        how: dict[str, Any] = {"drop_last": options.drop_last, "seed": options.seed, "parallel": self.parallel}
        self.train = batches_of(vae, data.train, data, options.batch_size, **how)
        self.rows = self.train.total
        self.kl_weight = parse_schedule(options.kl_weight)
        self.model, self.device = vae.model, vae.device
        with forked():
            x, given = arguments(vae, self.train.first())
            check_arguments(vae, given)
            with trying("the first batch", x, given):
                self.objective = objective_for(vae.prepare(x, **given), options, x, **given)
            # Whatever an objective finds out in its first call, and all checks, happen here: no random number is used
            # up and no running statistic moves, so that a resumed training is where it was.
            with torch.no_grad(), programs.evaluating(vae), vae.scope():
                with trying("the first batch", x, given), vae.minibatch_scale(len(x), self.rows):
                    check_objective(vae, self.objective, x, given)
                    check_averages(vae, self.objective, self.train, x, given)
                    self.objective.loss(vae.model, vae.guide, x, **given)
                has_sites = bool(pyro.get_param_store())
        self.figures, self.validation = validation_batches(vae, data, self.parallel)
        with forked():
            check_parallel(vae, self.objective, options, x, given, processes.size)
            check_pair(vae, self.objective, self.train, self.validation, x, given)
            self.support = SupportCheck(vae, x, given)
            for name, batches in (("train", self.train), ("validation", self.validation)):
                if batches is not None:
                    check_support(self.support, vae, batches, name, progress=options.progress)
        self.checked_stream = isinstance(self.train, HeldBatches)  # of which all rows were seen
        self.learned = self.objective.module if isinstance(self.objective, Objective) else None
        self.refined = self.refining(x, given) if options.refine_steps else None
        self.full = self.parallel.most(options.batch_size) if self.train.resumes_within_epochs else len(x)
        groups = parameter_groups(vae, self.learned)
        self.groups = tuple(groups)
        self.clipped = [p for name, parameters in groups.items() if name != "objective" for p in parameters]
        self.optimizer, self.scheduler = make_steps(options, groups, parameter_names(vae, self.learned))
        self.row_steps = row_steps(self.optimizer, tables_of(vae)) if "index" in given else None
        self.steps, self.per_row = FusedSteps(self.optimizer), False
        by_rows = {id(table.values) for table in ([] if self.row_steps is None else self.row_steps.tables)}
        self.summed = [p for parameters in groups.values() for p in parameters if id(p) not in by_rows]
        alone = not self.parallel.several and self.row_steps is None and self.refined is None and self.steps.can_skip
        self.losses = Losses(self.device, AT_ONCE.get(self.device.type, 1) if alone else 1)
        self.compiled: CompiledSteps | None = None
        self.captured: CapturedSteps | None = None
        self.direct = DirectSteps()
        self.before: dict[str, Any] = {}
        self.first = x, given
        measured = [] if self.validation is None else ["validation_loss", *self.figures]
        self.monitor = find_monitor(options.monitor, [*measured, *learning_rates(self.optimizer)])
        if not has_sites:
            self.model = programs.with_param_site(vae.model, vae.parameters())
        self.estimate = Estimator(self.objective, vae, self.model, reads=self.losses.at_once == 1)
        self.state = TrainingState(batch_size=options.batch_size, settings=settings_of(options))
        self.state.keep_weights(vae)
        self.progress = Progress(vae, options.epochs, self.train.num_batches, loss=self.mean_loss)
        callbacks = [*([ProgressBar()] if options.progress else []), *options.callbacks]
        self.callbacks = [c for c in callbacks if processes.first or c.everywhere]
        self.interrupt, self.resumes, self.started_at = Interrupt(ends=processes.several), False, time.monotonic()
        self.saving = Saving(self, run)

    def compile(self, resume: bool) -> None:
        """Compile or record steps for full batches, if that is asked for, or if it pays.

        Raises
        ------
        CompileError
            If the pair cannot be compiled, or there is no compiler, unless it was left open whether to compile.
        """
        self.before = settings_before(self.saving.folder if resume else None)
        self.compiled = compiled_steps(self, self.before)

    def refining(self, x: Tensor, given: Mapping[str, Tensor]) -> RefinedTraining:
        """What refines the answers of the guide in each step."""
        with forked(), programs.evaluating(self.vae), self.vae.scope():
            how = Refinement(self.options.refine_steps, lr=self.options.refine_lr)
            return RefinedTraining(self.vae, how, x, given)

    def picking(self, given: Mapping[str, Tensor]) -> AbstractContextManager[list[Tensor]]:
        """A context in which tables of rows are those of a batch alone, as leaves with gradients of their own."""
        return nullcontext([]) if self.row_steps is None else self.row_steps.picking(given["index"])

    def run(
        self,
        resume: bool,
        stack: ExitStack,
        prints: Mapping[str, Any],
        *,
        allow_changed_data: bool = False,
    ) -> History:
        """Train to the end, from the start or from the last state. The caller closes `stack` when the training ends.

        `prints` are the fingerprints of "train" and "validation" rows, where they are known.
        """
        self.resumes = resume
        self.parallel.align(self.learned)
        if self.parallel.several:
            self.state.keep_weights(self.vae)
        with self.parallel.processes.together():
            if resume:
                self.saving.restore(prints, allow_changed_data=allow_changed_data)
        self.state.data = prints.get("train")
        self.state.validation = prints.get("validation") or self.state.validation
        self.state.settings[WATCHED] = self.monitor
        recorded = self.compiled is not None and self.compiled.recorded
        self.state.settings["compiled"] = "recorded" if recorded else self.compiled is not None
        self.state.settings["onednn"] = self.compiled is not None and self.compiled.loss.onednn
        if self.compiled is not None and self.before.get("captured", True):
            weighted = self.kl_weight != Constant(1.0)
            self.captured = captured_steps(self.compiled.loss, self.steps, self.losses, self.clip, weighted=weighted)
        self.started_at -= self.state.seconds
        self.optimizer.zero_grad()  # what others have left
        self.steps.forget()
        stack.enter_context(pyro.validation_enabled(False))
        self.progress.resumed = resume
        if self.saving.folder is not None and not resume and not self.saving.replaces:
            with self.parallel.processes.together():
                self.saving.save()
        stack.enter_context(self.interrupt)
        try:
            self.notify("on_start")
            try:
                while self.state.stopped is None:
                    self.epoch()
            finally:
                self.notify("on_end")
        except (NonFiniteLossError, TrainingInterrupted):  # which all processes raise
            raise
        except Exception as error:
            self.parallel.processes.leave(error)
            raise
        load_module_tensors(self.vae, self.state.best, "the best weights")
        self.vae.eval()
        return History(self.state.history, self.state.best_epoch, self.state.stopped)

    @property
    def is_new(self) -> bool:
        """Whether the training began in this call, and no epoch of it has ended."""
        return not self.resumes and not self.state.epoch

    def epoch(self) -> None:
        """Do one pass over the data, or the rest of one that was interrupted."""
        state = self.state
        self.vae.train()
        for rows, count in self.batches():
            if not self.checked_stream and count:
                check_stream(self.support, self.vae, rows, state, self.parallel.start)
            self.end_batch(self.step(rows, count))
        self.checked_stream = True
        self.finish_epoch()
        if self.asked_to_stop and state.stopped is None:
            raise interrupted(self)

    def batches(self) -> Iterator[Batch]:
        """The rest of an epoch; what direct steps can do of it, they do before the next one is given."""
        train = self.train
        while isinstance(train, HeldBatches) and self.direct.can_run(self) and self.state.batch < train.num_batches:
            self.direct.run(self, train)
            if self.state.batch < train.num_batches:
                yield train.next(self.state)
        for batch in train.epoch(self.state):
            self.begin_step()
            yield batch

    def begin_step(self) -> None:
        """Count a step, and decide whether it is compared with the programs."""
        self.progress.epoch, self.progress.batch = self.state.epoch, self.state.batch
        if self.compiled is not None:
            self.compiled.begin(first=not self.state.batch, last=self.state.epoch + 1 == self.options.epochs)

    def end_batch(self, rows: int, batches: int = 1) -> None:
        """Count a batch, or some of together so many rows, and do what is to be done between two of them."""
        state = self.state
        state.rows += rows
        state.batch += batches
        if len(self.losses) >= self.losses.at_once:
            self.read_losses()
        self.notify("on_batch")
        if state.batch != self.train.num_batches:
            if self.asked_to_stop:
                raise interrupted(self)
            if self.train.resumes_within_epochs:
                self.saving.save_if_due()

    @property
    def asked_to_stop(self) -> bool:
        """Whether there was a Ctrl-C that all processes know of."""
        return self.parallel.stops if self.parallel.several else self.interrupt.seen

    def step(self, rows: Rows, count: int) -> int:
        """Do one step of the optimizer. Return the number of rows of the batch."""
        x, data = arguments(self.vae, rows, self.device) if count else (None, {})
        beta, number = value_at(self.kl_weight, self.progress.time), self.state.batch + 1
        captures = self.captured is not None and self.compiled is not None and not self.compiled.compares
        if captures and self.captured is not None and x is not None and len(x) == self.full:
            whole = self.captured(x, beta, data)
            if whole is not None:
                self.losses.add(whole, number, x, data)
                return count
        own, leaves = 0.0, list[Tensor]()
        if x is not None:
            with self.vae.telling_of_data(x, data):
                own, leaves = self.gradients(x, data, beta, count)
        skip = None
        if isinstance(own, Tensor) and x is not None and self.losses.at_once > 1:
            self.losses.add(own, number, x, data)
            self.losses.mark(own)
            skip = self.losses.skip
        else:
            self.read_losses()
            own, asked = float(own), [self.interrupt.seen, self.saving.is_due]
            loss, count = self.parallel.reduce(own, count, self.summed, self.learned, asked)
            self.add_loss(loss, None if math.isfinite(own) else x, data)
        gradients = [p.grad for p in (*leaves, *self.steps.parameters) if p.grad is not None]
        if gradients and not self.per_row:  # none where a mask hides everything
            torch._foreach_mul_(gradients, 1 / count)
        self.clip(leaves)
        self.steps.step(skip)
        if self.row_steps is not None and leaves:
            self.row_steps.step(data["index"], leaves)
        self.steps.forget_gradients()
        return count

    def add_loss(self, loss: float, x: Tensor | None, data: Mapping[str, Tensor]) -> None:
        """Count the loss of a batch, and stop if it is not finite. `x` is None if another process had the batch."""
        if not math.isfinite(loss):
            raise non_finite(self, f"the loss is {loss}", x, data)
        self.state.loss_sum += loss

    def clip(self, leaves: Sequence[Tensor] = ()) -> None:
        """Clip the norm of the gradient, if that is asked for."""
        if self.options.gradient_clip is not None:
            by_rows = self.row_steps is not None
            self.parallel.clip(self.clipped, leaves, self.options.gradient_clip, by_rows=by_rows)

    def read_losses(self) -> None:
        """Add up the losses that wait on the device, and stop at one that is not finite."""
        values, bad = self.losses.read()
        for value in values:
            self.state.loss_sum += value
        if bad is not None:
            raise non_finite(self, f"the loss is {values[-1]}", bad.x, bad.data, bad.batch)

    def mean_loss(self) -> float:
        """Mean loss of the epoch so far, or of the one that just ended, in nats per datum."""
        self.read_losses()
        state = self.state
        if state.rows:
            return state.loss_sum / state.rows
        return state.history[-1]["loss"] if state.history else float("nan")

    def gradients(self, x: Tensor, data: Mapping[str, Tensor], beta: float, count: int) -> tuple[Any, list[Tensor]]:
        """The summed loss of rows, with its gradients, and leaves of tables."""
        with self.picking(data) as leaves:
            code = self.compiled
            compiled = code is not None and code.has(x, beta, data, self.state.epoch)
            self.per_row = compiled and not self.parallel.several
            if code is not None and compiled:
                loss = code(x, beta, data)
            else:
                weight = KLWeightMessenger(beta) if beta != 1 else nullcontext()
                draws = self.parallel.drawing(self.state.epoch, self.state.batch)
                if self.refined is not None:
                    self.refined.refine(x, data, beta)
                with draws, weight, self.vae.minibatch_scale(count, self.rows):
                    if self.losses.at_once > 1 and isinstance(self.objective, Objective):
                        loss = self.objective.tensor_and_grads(self.model, self.vae.guide, x, **data)
                    elif self.refined is None:
                        self.per_row = self.estimate.divides and not self.parallel.several
                        loss = self.estimate(count if self.per_row else 1, x, **data)
                    else:
                        loss = self.refined.loss_and_grads(self.objective, self.model, x, data)
            loss = sum(loss) if isinstance(loss, tuple) else loss  # Pyro's wake-sleep: one loss for each program
        return loss, leaves

    def finish_epoch(self) -> None:
        """Validate, keep the best weights, move the schedules, decide whether to stop, and save."""
        state = self.state
        self.read_losses()
        if self.row_steps is not None:
            self.parallel.complete(self.row_steps.tables)
        self.check_parameters()
        row = {"epoch": state.epoch + 1, "loss": state.loss_sum / state.rows}
        if self.validation is not None:
            row["validation_loss"] = validation_loss(self, self.validation)
        row |= {name: compute() for name, compute in self.figures.items()}
        row["kl_weight"] = float(self.kl_weight(state.epoch))
        row |= learning_rates(self.optimizer)
        row["seconds"] = round(time.monotonic() - self.started_at, 3)
        row, self.parallel.saves = self.parallel.same(row, self.saving.is_due)
        state.seconds = row["seconds"]
        state.history.append(row)
        state.epoch, state.batch, state.rows, state.loss_sum, state.permutation = state.epoch + 1, 0, 0, 0.0, None
        value = row[self.monitor]
        step_lr_scheduler(self.scheduler, value)
        if state.best_value is None or value < state.best_value or self.compares_nothing(row):
            state.best_value, state.best_epoch = value, state.epoch
            state.keep_weights(self.vae)
        state.stopped = self.reason_to_stop()
        self.progress.metrics = row
        self.notify("on_epoch")
        if state.stopped is None and self.train.resumes_within_epochs:
            self.saving.save_if_due()
        elif self.saving.folder is not None:
            self.saving.save()

    def compares_nothing(self, row: Mapping[str, float]) -> bool:
        """Whether the monitor is the training loss, and the best epoch had another KL weight than this one.

        The later weights are then kept.
        """
        if self.monitor != "loss" or not self.state.best_epoch:
            return False
        return row["kl_weight"] != self.state.history[self.state.best_epoch - 1]["kl_weight"]

    def reason_to_stop(self) -> str | None:
        """Why the training is over; None if it goes on."""
        state, options = self.state, self.options
        if state.epoch >= options.epochs:
            return f"all {options.epochs} epochs done"
        if options.patience is not None and state.epoch - state.best_epoch >= options.patience:
            return f"no better {self.monitor} for {options.patience} epochs"
        return None

    def check_parameters(self) -> None:
        """Stop if a parameter is not finite, or if the optimizer does not know it."""
        named = dict(self.vae.named_parameters())
        sums = [value.detach().sum().isfinite() for value in named.values()]  # a tenth of the time of a look at all
        if sums and not torch.stack(sums).all():  # a GPU is waited for once
            for name, value in named.items():
                if not value.isfinite().all():
                    raise non_finite(self, f"parameter {name!r} is not finite")
        learned = () if self.learned is None else self.learned.parameters()
        known = {id(parameter) for parameter in [*self.vae.parameters(), *learned]}
        for name, in_store in pyro.get_param_store().named_parameters():
            if id(in_store) not in known and not is_running_average(name):
                raise ValueError(
                    f"parameter {name!r} appeared only during training, so it was not trained; "
                    "let every parameter exist from the first run of the pair"
                )

    def notify(self, event: str) -> None:
        """Tell the callbacks where the training stands."""
        progress, state = self.progress, self.state
        progress.epoch, progress.batch = state.epoch, state.batch
        for callback in self.callbacks:
            getattr(callback, event)(progress)
