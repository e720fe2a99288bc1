"""The Trainer: one loop over a torch optimizer and any `pyro.infer.ELBO`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrovae.infer.objectives import make_objective
from pyrovae.training.callbacks import Callback
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.data import training_data
from pyrovae.training.loop import Fit, History
from pyrovae.training.schedules import Schedule, parse_schedule
from pyrovae.training.state import LRScheduler
from pyrovae.vae import VAE

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
MONITORS = ("validation_loss", "loss", "validation_error")
LR_SCHEDULES = ("constant", "cosine", "plateau", "step")
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


@dataclass
class Trainer:
    """Train a VAE by stochastic gradients.

    Minibatches are cut from tensors on the VAE's device. Losses are in nats per datum. The first run checks all
    distributions' arguments where Pyro's validation is on, later batches are not checked.

    Args:
        objective: a `pyro.infer.ELBO` (of Pyro or of this library), or its name.
        num_particles: particles of an objective given by name; None is the objective's own default, 1 for those of
            Pyro and NVIL and 10 for those that need several.
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
        compile: run full batches as compiled code, for objectives of this library (see `CompiledLoss`): the same
            training up to rounding in less time, after a minute of compiling at the start.
        patience: stop after so many epochs without a better `monitor`; None never stops early.
        monitor: "validation_loss", "loss", or "validation_error", the classification error of a pair that infers the
            class; the weights of the epoch where it was lowest are restored at the end. The labels of validation rows
            are hidden from such a pair but for this error.
        seed: seed of the training; the caller's random numbers are left as they were. None uses the caller's.
        progress: show a progress bar.
        callbacks: further callbacks.
        checkpoint_seconds: least time between two checkpoints of a run folder.

    Raises:
        ValueError: for unknown names and impossible numbers.

    >>> import pyro, pyro.distributions as dist
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
    num_particles: int | None = None
    optimizer: str | Callable[[Sequence[Tensor]], Optimizer] = "adam"
    lr: float = 1e-3
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr_schedule: str = "constant"
    gradient_clip: float | None = None
    kl_weight: str | float | Schedule = 1.0
    epochs: int = 100
    batch_size: int = 128
    compile: bool = False
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
        if self.monitor not in MONITORS:
            raise ValueError(f"monitor must be one of {', '.join(MONITORS)}, got {self.monitor!r}")
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
        data = training_data(data)
        if self.patience is not None and self.monitor != "loss" and data.validation is None:
            raise ValueError(f"early stopping watches {self.monitor}, and there are no validation data")
        with ExitStack() as stack:
            if self.seed is not None:
                stack.enter_context(torch.random.fork_rng())
                torch.manual_seed(self.seed)
            fit = Fit(self, vae, data, run)
            stack.enter_context(vae.scope())
            return fit.run(resume, stack)

    def make_objective(self, vae: VAE, x: Tensor, **data: Tensor | None) -> ELBO:
        """The objective for a pair; one given by name is new, and loops over particles that do not vectorise."""
        if not isinstance(self.objective, str):
            return self.objective
        # The depth of plates is known, and a program without plates has its rows in dimension -1 all the same.
        options: dict[str, Any] = {"max_plate_nesting": max(1, vae.sites.max_plate_nesting)}
        objective = make_objective(self.objective, num_particles=self.num_particles, **options)
        if objective.num_particles > 1 and not vae.vectorizes(x, **data):
            options["vectorize_particles"] = False
            objective = make_objective(self.objective, num_particles=self.num_particles, **options)
        return objective

    def make_optimizer(self, vae: VAE, learned: nn.Module | None = None) -> Optimizer:
        """The optimizer over the parameters of a VAE and of what the objective itself learns."""
        modules = [vae] if learned is None else [vae, learned]
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
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
