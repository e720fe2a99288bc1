"""One training under way: the loop that the Trainer starts."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pyro
import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments, batches
from pyrovae.infer.compile import CompiledLoss
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.objective import Objective
from pyrovae.metrics.classification import classification_error
from pyrovae.metrics.latents import infers_class
from pyrovae.rng import seeded
from pyrovae.storage import CheckpointError, load_module_tensors, module_tensors
from pyrovae.training.callbacks import Progress, ProgressBar
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.data import TrainingData, rows_on
from pyrovae.training.state import TrainingState, load_state, save_best, save_state
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from pyrovae.training.trainer import Trainer


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the message says in which epoch, batch and site."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after everything was saved."""


class History(NamedTuple):
    """What a training did."""

    rows: list[dict[str, float]]
    """A row of metrics for each epoch."""
    best_epoch: int
    """The epoch, counted from 1, whose weights the VAE now has; 0 if none was better than the start."""
    reason: str
    """Why the training ended."""

    def frame(self) -> pd.DataFrame:
        """The metrics as a DataFrame, indexed by epoch."""
        return pd.DataFrame(self.rows).set_index("epoch")


class Fit:
    """One training under way.

    Args:
        trainer: its options.
        vae: the VAE, prepared here.
        data: training and validation data.
        run: where to save, if anywhere.
    """

    def __init__(self, trainer: Trainer, vae: VAE, data: TrainingData, run: RunFolder | None) -> None:
        self.trainer, self.vae, self.folder = trainer, vae, run
        self.train = rows_on(data.train, vae.device)
        self.validation = None if data.validation is None else rows_on(data.validation, vae.device)
        self.rows = len(self.train.x)
        self.transform = data.transform or (lambda rows: rows)
        self.monitor = trainer.monitor if self.validation is not None else "loss"
        self.model = vae.model
        with torch.random.fork_rng():
            x, given = self.first_rows()
            self.objective = trainer.make_objective(vae.prepare(x, **given), x, **given)
            # Whatever an objective finds out in its first call, and all checks, happen here: no random number is used
            # up and no running statistic moves, so that a resumed training is where it was.
            with torch.no_grad(), programs.evaluating(vae), vae.scope():
                self.objective.loss(vae.model, vae.guide, x, **given)
                has_sites = bool(pyro.get_param_store())
        self.find_labels()
        self.learned = self.objective.module if isinstance(self.objective, Objective) else None
        self.compiled = self.compile(x, given) if trainer.compile else None
        self.optimizer = trainer.make_optimizer(vae, self.learned)
        if not has_sites:
            self.model = programs.with_param_site(vae.model, vae.parameters())
        self.scheduler = trainer.make_lr_scheduler(self.optimizer)
        self.state = TrainingState(batch_size=trainer.batch_size, best=_copy_of(vae))
        num_batches = math.ceil(self.rows / trainer.batch_size)
        self.progress = Progress(vae, trainer.epochs, num_batches)
        self.callbacks = [*([ProgressBar()] if trainer.progress else []), *trainer.callbacks]
        self.interrupted = False
        self.saved_at = self.started_at = time.monotonic()

    def find_labels(self) -> None:
        """Keep the validation labels of a pair that infers a class for its classification error alone.

        Its bound with labels leaves q(y|x) out, so validation would not see the classifier.
        """
        rows, self.labelled = self.validation, None
        if rows is not None and rows.y is not None and infers_class(self.vae):
            self.labelled = rows if bool((rows.y >= 0).any()) else None
            self.validation = rows.without_labels()
        if self.trainer.monitor == "validation_error" and self.labelled is None:
            raise ValueError("validation_error is for a pair that infers a class, with labelled validation rows")

    def compile(self, x: Tensor, given: Mapping[str, Tensor]) -> CompiledLoss:
        """Compiled steps for full batches, of which this is one if there are any."""
        compiled = CompiledLoss(self.vae, self.objective)
        self.vae.train()
        if len(x) == self.trainer.batch_size:
            compiled.prepare(x, self.trainer.kl_weight(0.0), **given)
        return compiled

    def run(self, resume: bool, stack: ExitStack) -> History:
        """Train to the end, from the start or from the last state; `stack` is left when the training ends."""
        if resume:
            self.state = load_state(self.folder, self.vae, self.optimizer, self.scheduler, self.learned)
            if self.state.permutation is not None and len(self.state.permutation) != self.rows:
                raise CheckpointError(
                    f"{self.folder.state_path} is of a training on {len(self.state.permutation)} rows, "
                    f"and the data have {self.rows}"
                )
            batch_size, self.state.batch_size = self.state.batch_size, self.trainer.batch_size
            if self.state.batch and batch_size != self.trainer.batch_size:
                raise CheckpointError(
                    f"{self.folder.state_path} stopped in the middle of an epoch of batches of {batch_size}; "
                    f"go on with batch_size={batch_size}, not {self.trainer.batch_size}"
                )
            self.state.stopped = self.reason_to_stop()
        self.started_at -= self.state.seconds
        stack.enter_context(pyro.validation_enabled(False))
        if self.folder is not None and not resume:
            self.save()
        stack.enter_context(self.catch_interrupt())
        self.notify("on_start")
        try:
            while self.state.stopped is None:
                self.epoch()
        finally:
            self.notify("on_end")
        load_module_tensors(self.vae, self.state.best, "the best weights")
        self.vae.eval()
        return History(self.state.history, self.state.best_epoch, self.state.stopped)

    def epoch(self) -> None:
        """One pass over the data, or the rest of one that was interrupted."""
        state, trainer = self.state, self.trainer
        self.vae.train()
        if state.permutation is None:
            state.permutation = torch.randperm(self.rows)
        order = state.permutation.to(self.vae.device)
        while state.batch < self.progress.num_batches:
            start = state.batch * trainer.batch_size
            state.loss_sum += self.step(order[start : start + trainer.batch_size])
            state.batch += 1
            self.notify("on_batch", min(start + trainer.batch_size, self.rows))
            if state.batch < self.progress.num_batches:
                if self.interrupted:
                    self.stop_for_interrupt()
                self.save_if_due()
        self.finish_epoch()
        if self.interrupted and state.stopped is None:
            self.stop_for_interrupt()

    def step(self, index: Tensor) -> float:
        """One step of the optimizer; returns the loss of these rows."""
        trainer, state = self.trainer, self.state
        x, data = arguments(self.vae, self.transform(self.train.take(index)))
        beta = trainer.kl_weight(state.epoch + state.batch / self.progress.num_batches)
        if self.compiled is not None and len(x) == trainer.batch_size:
            loss = self.compiled(x, beta, **data).item()
        else:
            with KLWeightMessenger(beta) if beta != 1 else nullcontext():
                loss = self.objective.loss_and_grads(self.model, self.vae.guide, x, **data)
            loss = sum(loss) if isinstance(loss, tuple) else loss  # Pyro's wake-sleep: one loss for each program
        if not math.isfinite(loss):
            self.stop_for_non_finite(f"the loss is {loss}", x, data)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / len(x))
        if trainer.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.vae.parameters(), trainer.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def finish_epoch(self) -> None:
        """Validate, keep the best weights, move the schedules, decide whether to stop, save."""
        state, trainer = self.state, self.trainer
        self.check_parameters()
        row = {"epoch": state.epoch + 1, "loss": state.loss_sum / self.rows}
        if self.validation is not None:
            row["validation_loss"] = self.validate()
        if self.labelled is not None:
            row["validation_error"] = classification_error(self.vae, self.labelled)
        row["kl_weight"] = float(trainer.kl_weight(state.epoch))
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["seconds"] = state.seconds = round(time.monotonic() - self.started_at, 3)
        state.history.append(row)
        state.epoch, state.batch, state.loss_sum, state.permutation = state.epoch + 1, 0, 0.0, None
        value = row[self.monitor]
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(value)
        elif self.scheduler is not None:
            self.scheduler.step()
        if state.best_value is None or value < state.best_value:
            state.best_value, state.best_epoch = value, state.epoch
            state.best = _copy_of(self.vae)
        state.stopped = self.reason_to_stop()
        self.progress.metrics = row
        self.notify("on_epoch")
        if state.stopped is None:
            self.save_if_due()
        elif self.folder is not None:
            self.save()

    def reason_to_stop(self) -> str | None:
        """Why the training is over, if it is."""
        state, trainer = self.state, self.trainer
        if state.epoch >= trainer.epochs:
            return f"all {trainer.epochs} epochs done"
        if trainer.patience is not None and state.epoch - state.best_epoch >= trainer.patience:
            return f"no better {self.monitor} for {trainer.patience} epochs"
        return None

    @torch.no_grad()
    def validate(self) -> float:
        """The loss per datum of the validation data at KL weight 1, with the same random numbers every time."""
        self.vae.eval()
        total, rows = 0.0, len(self.validation.x)
        with seeded(0):
            for x, data in batches(self.vae, self.validation, 1000):
                loss = self.objective.loss(self.vae.model, self.vae.guide, x, **data)
                loss = float(sum(loss) if isinstance(loss, tuple) else loss)
                if not math.isfinite(loss):
                    self.stop_for_non_finite(f"the validation loss is {loss}", x, data)
                total += loss
        return total / rows

    def first_rows(self) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of training data, to try the pair on."""
        first = self.train.take(slice(self.trainer.batch_size))
        return arguments(self.vae, self.transform(first))

    def check_parameters(self) -> None:
        """Stop if a parameter is not finite, or is none that the optimizer knows."""
        for name, value in self.vae.named_parameters():
            if not value.isfinite().all():
                self.stop_for_non_finite(f"parameter {name!r} is not finite")
        learned = () if self.learned is None else self.learned.parameters()
        known = {id(parameter) for parameter in [*self.vae.parameters(), *learned]}
        for name, value in pyro.get_param_store().named_parameters():
            if id(value) not in known:
                raise ValueError(
                    f"parameter {name!r} appeared only during training, so it was not trained; "
                    "let every parameter exist from the first run of the pair"
                )

    def notify(self, event: str, rows: int | None = None) -> None:
        """Tell the callbacks where the training stands."""
        progress, state = self.progress, self.state
        progress.epoch, progress.batch = state.epoch, state.batch
        if rows:
            progress.loss = state.loss_sum / rows
        for callback in self.callbacks:
            getattr(callback, event)(progress)

    def save_if_due(self) -> None:
        """Save if the last time is long enough ago."""
        if self.folder is not None and time.monotonic() - self.saved_at >= self.trainer.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Write the run folder."""
        self.state.seconds = round(time.monotonic() - self.started_at, 3)
        save_state(self.folder, self.state, self.vae, self.optimizer, self.scheduler, self.learned)
        self.saved_at = time.monotonic()

    def stop_for_interrupt(self) -> None:
        """Save and leave after Ctrl-C."""
        epoch, batch = self.state.epoch, self.state.batch
        where = f"in epoch {epoch + 1} after batch {batch}" if batch else f"after epoch {epoch}"
        if self.folder is None:
            raise TrainingInterrupted(f"interrupted {where}; the weights are as they were then")
        self.save()
        # Run folders of the command line say how they were made.
        by_command = self.folder.config_path.exists()
        path = self.folder.path
        how = f", go on with: pyrovae resume {path}" if by_command else f" in {path}, go on with resume=True"
        raise TrainingInterrupted(f"interrupted {where}; everything is saved{how}")

    def stop_for_non_finite(self, what: str, x: Tensor | None = None, data: Mapping[str, Tensor] | None = None) -> None:
        """Put the best weights back and leave with the place where the numbers went wrong."""
        state = self.state
        batch = min(state.batch + 1, self.progress.num_batches)
        found = "" if x is None else f", from {programs.find_non_finite(self.vae.model, self.vae.guide, x, **data)}"
        load_module_tensors(self.vae, state.best, "the best weights")
        kept = "the VAE has"
        if self.folder is not None:
            save_best(self.folder, state)
            kept = f"the VAE and {self.folder.weights_path} have"
        weights = f"the best weights before it (epoch {state.best_epoch})" if state.best_epoch else "the first weights"
        raise NonFiniteLossError(
            f"{what} in epoch {state.epoch + 1}, batch {batch}{found}; {kept} {weights}; try a smaller learning rate "
            "or gradient_clip"
        )

    @contextmanager
    def catch_interrupt(self) -> Iterator[None]:
        """Let the batch under way end on the first Ctrl-C; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def note(*_: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _copy_of(vae: VAE) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module_tensors(vae).items()}
