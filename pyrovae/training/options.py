"""The options of a training, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyro.infer import ELBO
from torch.optim import Optimizer

from pyrovae.infer.objectives import make_objective
from pyrovae.training.callbacks import Callback
from pyrovae.training.optimizers import DEFAULT_LR, LR_SCHEDULES, OPTIMIZERS, parse_rates
from pyrovae.training.schedules import Schedule, parse_schedule


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
    optimizer: str | Callable[[Sequence[Any]], Optimizer] = "adam"
    lr: float | Mapping[str, float] = DEFAULT_LR
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    lr_schedule: str = "constant"
    gradient_clip: float | None = None
    kl_weight: str | float | Schedule = 1.0
    epochs: int = 100
    batch_size: int = 128
    drop_last: bool = False
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
        self.lr = parse_rates(self.lr)
        if isinstance(self.optimizer, str) and self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {self.optimizer!r}; known are {', '.join(OPTIMIZERS)}")
        if self.lr_schedule not in LR_SCHEDULES:
            raise ValueError(
                f"unknown learning-rate schedule {self.lr_schedule!r}; known are {', '.join(LR_SCHEDULES)}"
            )
        for name in ("epochs", "batch_size", "num_particles", "patience", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if isinstance(self.objective, str):
            make_objective(self.objective, num_particles=self.num_particles)
