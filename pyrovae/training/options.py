"""The options of a training, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from pyro.infer import ELBO
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch.optim import Optimizer

from pyrovae.infer.objectives import make_objective, objective_names
from pyrovae.options import parse_optimizer, parse_rates
from pyrovae.plain import plain
from pyrovae.training.callbacks import Callback
from pyrovae.training.lr_schedules import LRScheduler, check_lr_schedule
from pyrovae.training.optimizers import DEFAULT_LR, Kind, check_optimizer
from pyrovae.training.schedules import Schedule, parse_schedule

REFINE_LR, BATCH_SIZE = 0.05, 128
"""Defaults of options that need another one, or data of a kind, to have an effect."""


def without_idle(training: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training that is there, without those that earlier versions took and made nothing of."""
    without = () if training.get("refine_steps") else ("refine_lr",)
    return {name: value for name, value in training.items() if name not in without}


@dataclass
class TrainingOptions:
    """The options of a training; `Trainer` says what they are.

    Raises
    ------
    ValueError
        For unknown names and impossible numbers.
    """

    objective: str | ELBO = "elbo"
    num_particles: int | None = None
    optimizer: Kind | Mapping[str, str | type[Optimizer]] = "adam"
    lr: float | Mapping[str, float] = DEFAULT_LR
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr_schedule: str | type[LRScheduler] | PyroLRScheduler | Callable[[Optimizer], LRScheduler] = "constant"
    lr_schedule_options: Mapping[str, Any] = field(default_factory=dict)
    gradient_clip: float | None = None
    kl_weight: str | float | Schedule = 1.0
    epochs: int = 100
    batch_size: int = BATCH_SIZE
    drop_last: bool = False
    compile: bool | str = False
    refine_steps: int = 0
    refine_lr: float = REFINE_LR
    patience: int | None = None
    monitor: str = "validation_loss"
    seed: int | None = 0
    progress: bool = True
    callbacks: Sequence[Callback] = ()
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Check the options."""
        for option in fields(self):
            setattr(self, option.name, plain(getattr(self, option.name)))
        self.kl_weight = parse_schedule(self.kl_weight)
        self.lr = parse_rates(self.lr)
        self.optimizer = parse_optimizer(self.optimizer)
        check_lr_schedule(self.lr_schedule, self.optimizer, self.lr_schedule_options)
        with_schedule = isinstance(self.lr_schedule, PyroLRScheduler)
        check_optimizer(self.lr_schedule if with_schedule else self.optimizer, self.lr, self.optimizer_options)
        for name in ("epochs", "batch_size", "num_particles", "patience", "gradient_clip"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
            if (
                name != "gradient_clip"
                and value is not None
                and (isinstance(value, bool) or not isinstance(value, int))
            ):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if isinstance(self.checkpoint_seconds, bool) or not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds must be a number of seconds from 0, got {self.checkpoint_seconds!r}")
        if isinstance(self.refine_steps, bool) or not isinstance(self.refine_steps, int) or self.refine_steps < 0:
            raise ValueError(f"refine_steps must be a whole number of at least 0, got {self.refine_steps!r}")
        if not isinstance(self.compile, bool) and self.compile not in ("auto", "recorded"):
            raise ValueError(f"compile must be True, False, 'auto' or 'recorded', got {self.compile!r}")
        if self.refine_steps and self.compile not in (False, "auto"):
            raise ValueError(
                f"steps that refine answers are not compiled; leave out compile={self.compile!r} or refine_steps"
            )
        if not self.refine_lr > 0:
            raise ValueError(f"refine_lr must be positive, got {self.refine_lr}")
        if self.refine_lr != REFINE_LR and not self.refine_steps:
            raise ValueError(
                f"refine_lr is for refine_steps, got {self.refine_lr}; leave it out, or give refine_steps=10, say"
            )
        if not isinstance(self.objective, str | ELBO):
            raise TypeError(
                f"objective must be one of the names {', '.join(objective_names())}, or a pyro.infer.ELBO, "
                f"got {self.objective!r}"
            )
        if not isinstance(self.objective, str) and self.num_particles is not None:
            raise ValueError(
                f"num_particles is for an objective given by name, got {self.num_particles}; give it to "
                f"{type(self.objective).__name__} itself, and leave it out here"
            )
        if isinstance(self.objective, str):
            make_objective(self.objective, num_particles=self.num_particles)
