"""What a resumed training is asked for, beside what it was: the same, something new, or what cannot be had."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from pyrovae.data.fingerprints import is_same
from pyrovae.storage import CheckpointError
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.json_values import as_json
from pyrovae.training.lr_schedules import LRScheduler
from pyrovae.training.options import TrainingOptions
from pyrovae.training.state import TrainingState

WATCHED = "watched"
"""What the settings of a state call the column that told its best epoch."""
_TOLD = (
    *("objective", "num_particles", "optimizer", "lr", "optimizer_options", "lr_schedule", "lr_schedule_options"),
    *("gradient_clip", "kl_weight", "batch_size", "drop_last", "monitor", "seed"),
    *("refine_steps", "refine_lr"),
)
_FIXED = {
    "objective": "losses of two objectives cannot be compared",
    "num_particles": "losses of other numbers of particles cannot be compared",
    "monitor": "the best epoch so far was chosen by the other one",
    "seed": "the draws go on from where they stopped",
    "optimizer_options": "the optimizer goes on as it was",
    "lr_schedule": "the schedule goes on as it was",
    "lr_schedule_options": "the schedule goes on as it was",
    "refine_steps": "losses at posteriors that were refined by other steps cannot be compared",
    "refine_lr": "losses at posteriors that were refined by other steps cannot be compared",
}
"""Options that a training keeps to its end, and why."""


def settings_of(options: TrainingOptions) -> dict[str, Any]:
    """The options of a training as far as a word or a number tells them, ready for JSON.

    Classes are told by their names. Functions and objects are left out, because nothing tells whether two are alike.
    """
    found = {}
    for name in _TOLD:
        value = getattr(options, name)
        if isinstance(value, type):
            value = f"{value.__module__}.{value.__qualname__}"
        elif name == "kl_weight" and not isinstance(value, int | float | str):
            value = repr(value) if type(value).__module__.startswith("pyrovae.") else None
        elif callable(value) or (name == "objective" and not isinstance(value, str)):
            continue
        try:
            found[name] = as_json(value, name)
        except ValueError:
            continue
    return found


def check_settings(folder: RunFolder, state: TrainingState, options: TrainingOptions, monitor: str) -> None:
    """Refuse options that a resumed training would not follow, and fewer epochs than it has done.

    Parameters
    ----------
    folder : RunFolder
        Where the training is.
    state : TrainingState
        The state that it stopped in.
    options : TrainingOptions
        What is asked for.
    monitor : str
        The column of the metrics that tells the best epoch.

    Raises
    ------
    CheckpointError
        Naming the option, what it was and what it is to be.
    """
    asked, before = settings_of(options), state.settings
    for name, why in _FIXED.items():
        if name in before and name in asked and before[name] != asked[name]:
            raise CheckpointError(
                f"the training of {folder.path} has {name}={before[name]!r}, and {name}={asked[name]!r} was given: "
                f"{why}; leave it as it was, or begin anew"
            )
    if before.get(WATCHED, monitor) != monitor and state.best_epoch:
        hint = "; give validation rows as before" if monitor == "loss" else "; give no validation rows, as before"
        raise CheckpointError(
            f"the best epoch of {folder.path} was chosen by {before[WATCHED]}, and {monitor} would choose the next "
            f"one{hint}, or begin anew"
        )
    has_rate, has_schedule = "lr" in before and "lr" in asked, options.lr_schedule != "constant"
    if has_rate and before["lr"] != asked["lr"] and has_schedule:
        raise CheckpointError(
            f"the training of {folder.path} has lr={before['lr']!r}, and lr={asked['lr']!r} was given: its schedule "
            "began at the other one; leave it as it was, or begin anew"
        )
    if options.epochs < state.epoch:
        raise CheckpointError(
            f"{folder.path} has done {state.epoch} epochs, and epochs={options.epochs} was given; give at least as many"
        )


def check_data(folder: RunFolder, state: TrainingState, prints: Mapping[str, Any]) -> None:
    """Refuse to go on with other training or validation rows than those that a training began with.

    Raises
    ------
    CheckpointError
        If the fingerprints differ.
    """
    for what, known in (("training", state.data), ("validation", state.validation)):
        now = prints.get("train" if what == "training" else what)
        if known is not None and now is not None and not is_same(known, now):
            raise CheckpointError(
                f"the {what} rows are not those that the training of {folder.path} began with (their fingerprint "
                "differs); give the same data, or go on with these on purpose (allow_changed_data=True, on the command "
                "line --allow-changed-data)"
            )


def apply_settings(
    state: TrainingState,
    options: TrainingOptions,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    rates: Sequence[Any],
) -> None:
    """Let a resumed training follow another learning rate, and its schedule another number of epochs.

    Parameters
    ----------
    state : TrainingState
        The state, whose settings become those that are asked for.
    options : TrainingOptions
        What is asked for.
    optimizer : Optimizer
        The optimizer, with the state.
    scheduler : LRScheduler or None
        The schedule, with the state.
    rates : sequence of float
        The rates of the groups as they are asked for.

    Notes
    -----
    A cosine that is to end later goes on at the rate that one over all epochs would have now. So it may jump up once,
    and does not rise from 0 again. Steps of the schedule "step" are a third of all epochs likewise.
    """
    asked = settings_of(options)
    if scheduler is None and "lr" in state.settings and state.settings["lr"] != asked.get("lr"):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    epochs, schedulers = options.epochs, torch.optim.lr_scheduler
    if options.lr_schedule == "cosine" and isinstance(scheduler, schedulers.CosineAnnealingLR):
        if scheduler.T_max != epochs:
            scheduler.T_max = epochs
            _set_rates(optimizer, scheduler, (1 + math.cos(math.pi * scheduler.last_epoch / epochs)) / 2)
    elif options.lr_schedule == "step" and isinstance(scheduler, schedulers.StepLR):
        size = max(1, math.ceil(epochs / 3))
        if scheduler.step_size != size:
            scheduler.step_size = size
            _set_rates(optimizer, scheduler, scheduler.gamma ** (scheduler.last_epoch // size))
    state.settings = asked


def _set_rates(optimizer: Optimizer, scheduler: LRScheduler, factor: float) -> None:
    for group, base in zip(optimizer.param_groups, scheduler.base_lrs, strict=True):
        group["lr"] = base * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
