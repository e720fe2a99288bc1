"""Schedules of the learning rate: by name, of torch, and of `pyro.optim`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch.optim import Optimizer

LR_SCHEDULES = ("constant", "cosine", "plateau", "step")
LRScheduler = torch.optim.lr_scheduler.LRScheduler


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """A context that says what could not be made, in one line."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, KeyError) as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from error


def check_lr_schedule(schedule: Any, optimizer: Any, options: Mapping[str, Any]) -> None:
    """Refuse what is no schedule of the learning rate, and one that comes with another optimizer.

    Raises
    ------
    TypeError
        If it is no schedule.
    ValueError
        For an unknown name, two schedules or two optimizers, and options of what takes none.
    """
    if isinstance(schedule, str) and schedule not in LR_SCHEDULES:
        raise ValueError(f"unknown learning-rate schedule {schedule!r}; known are {', '.join(LR_SCHEDULES)}")
    if not isinstance(schedule, str) and not callable(schedule):
        raise TypeError(
            "lr_schedule must be a name, a torch scheduler class, a function from an optimizer to a scheduler, or a "
            f"scheduler of pyro.optim, got {type(schedule).__name__}"
        )
    if options and not (isinstance(schedule, type) and issubclass(schedule, LRScheduler)):
        raise ValueError("lr_schedule_options are for a scheduler class; put them into what you give as lr_schedule")
    if isinstance(schedule, PyroLRScheduler) and optimizer != "adam":
        raise ValueError("a scheduler of pyro.optim has its own optimizer; leave out optimizer=")
    if isinstance(optimizer, PyroLRScheduler) and schedule != "constant":
        raise ValueError(
            "the optimizer is a scheduler of pyro.optim, which has its own schedule; leave out lr_schedule="
        )


def make_lr_scheduler(
    schedule: str | type[LRScheduler] | Callable[[Optimizer], LRScheduler],
    optimizer: Optimizer,
    epochs: int,
    options: Mapping[str, Any] | None = None,
) -> LRScheduler | None:
    """A schedule of the learning rates, to be stepped once per epoch; None for a constant one.

    Parameters
    ----------
    schedule : str, class or callable
        A name of `LR_SCHEDULES`, a torch class, or a function from the optimizer to a schedule.
    optimizer : Optimizer
        The optimizer.
    epochs : int
        Epochs of the training.
    options : mapping, optional
        Further arguments of a class.

    Raises
    ------
    TypeError
        If a function gives something else.
    ValueError
        If a class lacks arguments or does not take them.
    """
    schedulers = torch.optim.lr_scheduler
    if schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, epochs)
    if schedule == "step":
        return schedulers.StepLR(optimizer, max(1, math.ceil(epochs / 3)))
    if schedule == "plateau":
        return schedulers.ReduceLROnPlateau(optimizer, factor=1 / 3, patience=10)
    if isinstance(schedule, str):
        return None
    name = getattr(schedule, "__name__", type(schedule).__name__)
    with one_line(f"lr_schedule {name} (its arguments go into lr_schedule_options=)"):
        made = schedule(optimizer, **(options or {}))
    if not all(hasattr(made, name) for name in ("step", "state_dict", "load_state_dict")):
        raise TypeError(f"the lr_schedule function must give a torch scheduler, got {type(made).__name__}")
    if getattr(made, "optimizer", optimizer) is not optimizer:
        raise ValueError("the lr_schedule function must make its scheduler of the optimizer that it is given")
    return made


def step_lr_scheduler(scheduler: LRScheduler | None, value: float) -> None:
    """Go on by an epoch, whose monitor has this value."""
    if scheduler is None:
        return
    if "metrics" in inspect.signature(scheduler.step).parameters:
        scheduler.step(value)  # type: ignore[arg-type]  # of ReduceLROnPlateau
    else:
        scheduler.step()
