"""The Trainer: one loop over a torch optimizer and any `pyro.infer.ELBO`."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import pandas as pd
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.optim import Optimizer

from pyrovae import programs
from pyrovae.callbacks import Callback, Progress, ProgressBar
from pyrovae.checkpoint import CheckpointError, RunFolder, load_module_tensors, module_tensors
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.objectives import make_objective
from pyrovae.schedules import Schedule, parse_schedule
from pyrovae.training_state import LRScheduler, TrainingState, load_state, save_best, save_state
from pyrovae.vae import VAE

logger = logging.getLogger(__name__)

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
LR_SCHEDULES = ("constant", "cosine", "plateau", "step")
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


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


class TrainingData(NamedTuple):
    """Training and validation data as the Trainer uses them; `Dataset`s have the same names."""

    train: Any
    validation: Any = None
    transform: Callable[[Tensor], Tensor] | None = None


class _Rows(NamedTuple):
    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None


@dataclass
class Trainer:
    """Train a VAE by stochastic gradients.

    Minibatches are cut from tensors on the VAE's device. Losses are in nats per datum. The first run checks all
    distributions' arguments where Pyro's validation is on, later batches are not checked.

    Args:
        objective: a `pyro.infer.ELBO` (of Pyro or of this library), or its name.
        num_particles: particles of an objective given by name.
        optimizer: "adam", "adamax", "adamw" or "sgd", fused where torch has it; or a function from parameters to a
            torch optimizer.
        lr: learning rate.
        optimizer_options: further arguments of the optimizer.
        lr_schedule: "constant", "cosine" (to 0 at the last epoch), "step" (a tenth after each third of the epochs) or
            "plateau" (a third after 10 epochs without progress of `monitor`).
        gradient_clip: largest norm of the gradient of a datum's loss, averaged over the batch; None does not clip.
        kl_weight: a number, a schedule such as `WarmUp(100)`, or its text ("warm-up:100", "decay", "cyclic:20").
            Validation always uses 1.
        epochs: passes over the training data.
        batch_size: rows a step; the last step of an epoch takes what is left.
        patience: stop after so many epochs without a better `monitor`; None never stops early.
        monitor: "validation_loss" or "loss"; the weights of the epoch where it was lowest are restored at the end.
        seed: seed of the training; the caller's random numbers are left as they were. None uses the caller's.
        progress: show a progress bar.
        callbacks: further callbacks.
        checkpoint_seconds: least time between two checkpoints of a run folder.

    Raises:
        ValueError: for unknown names and impossible numbers.

    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    >>> def guide(x):
    ...     loc = pyro.param("loc", torch.zeros(1))
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(loc, 0.7).to_event(1))
    >>> history = Trainer(epochs=2, progress=False).fit(VAE(model, guide), torch.randn(64, 1))
    >>> len(history.rows)
    2
    """

    objective: str | ELBO = "elbo"
    num_particles: int = 1
    optimizer: str | Callable[[Sequence[Tensor]], Optimizer] = "adam"
    lr: float = 1e-3
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr_schedule: str = "constant"
    gradient_clip: float | None = None
    kl_weight: str | float | Schedule = 1.0
    epochs: int = 100
    batch_size: int = 128
    patience: int | None = None
    monitor: str = "validation_loss"
    seed: int | None = 0
    progress: bool = True
    callbacks: Sequence[Callback] = ()
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check the options."""
        self.kl_weight = parse_schedule(self.kl_weight)
        if isinstance(self.optimizer, str) and self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; known are {', '.join(OPTIMIZERS)}")
        if self.lr_schedule not in LR_SCHEDULES:
            raise ValueError(
                f"unknown learning-rate schedule {self.lr_schedule!r}; known are {', '.join(LR_SCHEDULES)}"
            )
        if self.monitor not in ("validation_loss", "loss"):
            raise ValueError(f"monitor must be validation_loss or loss, got {self.monitor!r}")
        for name in ("lr", "epochs", "batch_size", "num_particles", "patience", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if isinstance(self.objective, str):
            make_objective(self.objective, num_particles=self.num_particles)

    def fit(self, vae: VAE, data: Any, *, run: RunFolder | None = None, resume: bool = False) -> History:
        """Train a VAE and leave it with its best weights, in evaluation mode.

        Args:
            vae: the VAE, on the device where the training is to be.
            data: a `Dataset`; or a tensor `[N, ...]`; or a pair of them, training and validation.
            run: a run folder to write checkpoints and metrics to.
            resume: go on from the state in `run`; with the same arguments the result is the same, bit for bit, as
                without the stop, and with more epochs a finished training goes on.

        Raises:
            NonFiniteLossError: if a loss is NaN or infinite; the last good weights are in `run` and in the VAE.
            TrainingInterrupted: on Ctrl-C, after saving.
            CheckpointError: if the state in `run` cannot be used.
            ValueError: if early stopping has no validation data, or there is no run to resume.
        """
        if resume and run is None:
            raise ValueError("resume=True needs the run folder to resume, run=")
        data = _training_data(data)
        if self.patience is not None and self.monitor == "validation_loss" and data.validation is None:
            raise ValueError("early stopping watches validation_loss, and there are no validation data")
        with ExitStack() as stack:
            if self.seed is not None:
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(self.seed)
            fit = _Fit(self, vae, data, run)
            stack.enter_context(vae.scope())
            return fit.run(resume, stack)

    def make_objective(self, vae: VAE, x: Tensor, **data: Tensor | None) -> ELBO:
        """The objective for a pair; one given by name is new, and loops over particles that do not vectorise."""
        if not isinstance(self.objective, str):
            return self.objective
        # The depth of plates is known, and a program without plates has its rows in dimension -1 all the same.
        options: dict[str, Any] = {"max_plate_nesting": max(1, vae.sites.max_plate_nesting)}
        if self.num_particles > 1 and not vae.vectorizes(x, **data):
            options["vectorize_particles"] = False
        return make_objective(self.objective, num_particles=self.num_particles, **options)

    def make_optimizer(self, vae: VAE) -> Optimizer:
        """The optimizer over the parameters of a VAE."""
        parameters = [p for p in vae.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the pair has no parameters to train")
        if not isinstance(self.optimizer, str):
            return self.optimizer(parameters)
        kind, options = OPTIMIZERS[self.optimizer], dict(self.optimizer_options)
        if kind in _FUSED and all(p.device.type in ("cpu", "cuda") for p in parameters):
            options.setdefault("fused", True)
        return kind(parameters, lr=self.lr, **options)

    def make_lr_scheduler(self, optimizer: Optimizer) -> LRScheduler | None:
        """The learning-rate schedule, stepped once an epoch."""
        schedulers = torch.optim.lr_scheduler
        if self.lr_schedule == "cosine":
            return schedulers.CosineAnnealingLR(optimizer, self.epochs)
        if self.lr_schedule == "step":
            return schedulers.StepLR(optimizer, max(1, math.ceil(self.epochs / 3)))
        if self.lr_schedule == "plateau":
            return schedulers.ReduceLROnPlateau(optimizer, factor=1 / 3, patience=10)
        return None

    def settings(self) -> dict[str, Any]:
        """The options as JSON-able values, for the record."""
        hidden = {"callbacks", "progress"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
        return {name: v if isinstance(v, str | int | float | None) else repr(v) for name, v in values.items()}


class _Fit:
    """One training under way."""

    def __init__(self, trainer: Trainer, vae: VAE, data: TrainingData, run: RunFolder | None) -> None:
        self.trainer, self.vae, self.folder = trainer, vae, run
        self.train = _to(data.train, vae.device)
        self.validation = None if data.validation is None else _to(data.validation, vae.device)
        self.rows = len(self.train.x)
        self.transform = data.transform or (lambda x: x)
        self.monitor = trainer.monitor if self.validation is not None else "loss"
        self.model = vae.model
        self.accepted = [n for n in ("y", "index") if all(programs.accepts(p, n) for p in (vae.model, vae.guide))]
        with torch.random.fork_rng():
            x, given = self.first_rows()
            self.objective = trainer.make_objective(vae.prepare(x, **given), x, **given)
        self.optimizer = trainer.make_optimizer(vae)
        self.scheduler = trainer.make_lr_scheduler(self.optimizer)
        self.state = TrainingState(best=_copy_of(vae))
        num_batches = math.ceil(self.rows / trainer.batch_size)
        self.progress = Progress(vae, trainer.epochs, num_batches)
        self.callbacks = [*([ProgressBar()] if trainer.progress else []), *trainer.callbacks]
        self.interrupted = False
        self.saved_at = self.started_at = time.monotonic()

    def run(self, resume: bool, stack: ExitStack) -> History:
        if resume:
            self.state = load_state(self.folder, self.vae, self.optimizer, self.scheduler)
            if self.state.permutation is not None and len(self.state.permutation) != self.rows:
                raise CheckpointError(
                    f"{self.folder.state_path} is of a training on {len(self.state.permutation)} rows, "
                    f"and the data have {self.rows}"
                )
            self.state.stopped = self.reason_to_stop()
        self.started_at -= self.state.seconds
        # Whatever an objective finds out in its first call, and all checks, happen here: no random number is used up
        # and no running statistic moves, so that a resumed training is where it was.
        with torch.random.fork_rng(), torch.no_grad(), programs.evaluating(self.vae):
            x, data = self.first_rows()
            self.objective.loss(self.vae.model, self.vae.guide, x, **data)
        if not pyro.get_param_store():
            self.model = _with_param_site(self.vae)
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
        trainer, state = self.trainer, self.state
        x, data = self.minibatch(self.train, index, self.transform)
        beta = trainer.kl_weight(state.epoch + state.batch / self.progress.num_batches)
        with KLWeightMessenger(beta) if beta != 1 else nullcontext():
            loss = self.objective.loss_and_grads(self.model, self.vae.guide, x, **data)
        loss = sum(loss) if isinstance(loss, tuple) else loss  # wake-sleep: one loss for each program
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
        state, trainer = self.state, self.trainer
        self.check_parameters()
        row = {"epoch": state.epoch + 1, "loss": state.loss_sum / self.rows}
        if self.validation is not None:
            row["validation_loss"] = self.validate()
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
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for index in torch.arange(rows, device=self.vae.device).split(1000):
                x, data = self.minibatch(self.validation, index)
                loss = self.objective.loss(self.vae.model, self.vae.guide, x, **data)
                loss = float(sum(loss) if isinstance(loss, tuple) else loss)
                if not math.isfinite(loss):
                    self.stop_for_non_finite(f"the validation loss is {loss}", x, data)
                total += loss
        return total / rows

    def minibatch(
        self, rows: _Rows, index: Tensor, transform: Callable[[Tensor], Tensor] = lambda x: x
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Data of some rows, and those of `mask`, `y` and `index` that there are and both programs take."""
        given = {"y": None if rows.y is None else rows.y[index], "index": index}
        data = {name: given[name] for name in self.accepted if given[name] is not None}
        if rows.mask is not None:
            data["mask"] = rows.mask[index]
        return transform(rows.x[index]), data

    def first_rows(self) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of training data, to try the pair on."""
        index = torch.arange(min(self.trainer.batch_size, self.rows), device=self.vae.device)
        return self.minibatch(self.train, index, self.transform)

    def check_parameters(self) -> None:
        for name, value in self.vae.named_parameters():
            if not value.isfinite().all():
                self.stop_for_non_finite(f"parameter {name!r} is not finite")
        known = {id(parameter) for parameter in self.vae.parameters()}
        for name, value in pyro.get_param_store().named_parameters():
            if id(value) not in known:
                raise ValueError(
                    f"parameter {name!r} appeared only during training, so it was not trained; "
                    "let every parameter exist from the first run of the pair"
                )

    def notify(self, event: str, rows: int | None = None) -> None:
        progress, state = self.progress, self.state
        progress.epoch, progress.batch = state.epoch, state.batch
        if rows:
            progress.loss = state.loss_sum / rows
        for callback in self.callbacks:
            getattr(callback, event)(progress)

    def save_if_due(self) -> None:
        if self.folder is not None and time.monotonic() - self.saved_at >= self.trainer.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        self.state.seconds = round(time.monotonic() - self.started_at, 3)
        save_state(self.folder, self.state, self.vae, self.optimizer, self.scheduler)
        self.saved_at = time.monotonic()

    def stop_for_interrupt(self) -> None:
        epoch, batch = self.state.epoch, self.state.batch
        where = f"in epoch {epoch + 1} after batch {batch}" if batch else f"after epoch {epoch}"
        if self.folder is None:
            raise TrainingInterrupted(f"interrupted {where}; the weights are as they were then")
        self.save()
        raise TrainingInterrupted(
            f"interrupted {where}; everything is saved, go on with: pyrovae train --resume {self.folder.path}"
        )

    def stop_for_non_finite(self, what: str, x: Tensor | None = None, data: Mapping[str, Tensor] | None = None) -> None:
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


def _training_data(data: Any) -> TrainingData:
    if isinstance(data, Tensor):
        return TrainingData(_Rows(data))
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return TrainingData(_Rows(data[0]), _Rows(data[1]))
    try:
        validation = data.validation if data.validation is not None and len(data.validation.x) else None
        return TrainingData(data.train, validation, data.transform)
    except AttributeError:
        raise TypeError(
            f"data must be a Dataset, a tensor, or a pair of tensors (training, validation), got {type(data).__name__}"
        ) from None


def _to(rows: Any, device: torch.device) -> _Rows:
    if not len(rows.x):
        raise ValueError("there are no rows to train or validate on")
    return _Rows(*(None if value is None else value.to(device) for value in (rows.x, rows.y, rows.mask)))


def _copy_of(vae: VAE) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module_tensors(vae).items()}


def _with_param_site(vae: VAE) -> programs.Program:
    """The model with one param site, since Pyro's objectives differentiate nothing where a pair has none.

    Plain `nn.Module`s that nobody hands to `pyro.module` make no such site.
    """
    parameter = next(vae.parameters())

    def model(*args: Any, **kwargs: Any) -> Any:
        pyro.param("pyrovae.anchor", parameter)
        return vae.model(*args, **kwargs)

    return model
