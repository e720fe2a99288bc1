"""All that a training needs to go on where it stopped, in memory and on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyrovae.distributed import launch
from pyrovae.storage import (
    CheckpointError,
    check_module_tensors,
    load_module_tensors,
    load_tensors,
    module_tensors,
    save_tensors,
)
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.grouped_optimizer import kind_of
from pyrovae.training.json_values import as_json, from_json
from pyrovae.training.lr_schedules import LRScheduler
from pyrovae.training.state_checks import check_groups, check_moments, check_plain, damaged_in_one_line
from pyrovae.vae import VAE


@dataclass
class TrainingState:
    """How far a training is, its history and its best weights."""

    epoch: int = 0
    """Finished epochs."""
    batch: int = 0
    """Finished batches of the present epoch."""
    batch_size: int = 0
    """Rows per batch."""
    rows: int = 0
    """Rows of the finished batches of the present epoch."""
    loss_sum: float = 0.0
    """Summed loss of these batches, in nats."""
    seconds: float = 0.0
    """Time spent training, in seconds, with that before a resume."""
    history: list[dict[str, float]] = field(default_factory=list)
    best_value: float | None = None
    """Value of the monitor in the best epoch; None before the first epoch has ended."""
    best_epoch: int = 0
    """The best epoch, counted from 1; 0 before the first has ended."""
    stopped: str | None = None
    """Why the training ended; None while it goes on."""
    permutation: Tensor | None = None
    """The order of the rows in the present epoch; None before its first batch."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The best weights so far; at first those that the training began with."""
    averages: dict[str, Tensor] = field(default_factory=dict)
    """Running averages of baselines that Pyro keeps in its store, by their names there."""
    data: dict[str, Any] | None = None
    """The fingerprint of the training rows; None of a stream."""
    validation: dict[str, Any] | None = None
    """That of the validation rows."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The options of the training, as far as they are told by a word or a number."""

    @torch.no_grad()
    def keep_weights(self, vae: VAE) -> None:
        """Take the present weights for the best ones, without new memory where they have their shapes."""
        for name, tensor in module_tensors(vae).items():
            kept = self.best.get(name)
            if kept is not None and kept.shape == tensor.shape and kept.dtype == tensor.dtype:
                kept.copy_(tensor)
            else:
                self.best[name] = tensor.detach().clone()


_PLAIN = (
    "epoch",
    "batch",
    "batch_size",
    "rows",
    "loss_sum",
    "seconds",
    "history",
    "best_value",
    "best_epoch",
    "stopped",
)


def save_best(run: RunFolder, state: TrainingState) -> None:
    """Write the best weights."""
    save_tensors(run.weights_path, state.best, {"epoch": state.best_epoch, "value": state.best_value})


def save_state(
    run: RunFolder,
    state: TrainingState,
    vae: VAE,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    learned: nn.Module | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Write the best weights, the metrics and, last, the state.

    Parameters
    ----------
    run : RunFolder
        Where to write.
    state : TrainingState
        How far the training is.
    vae : VAE
        The pair, with its present weights.
    optimizer : Optimizer
        The optimizer.
    scheduler : LRScheduler or None
        The schedule of the learning rate.
    learned : Module, optional
        What the objective itself learns.
    generator : torch.Generator, optional
        Random numbers of a loader's own.
    """
    saved = optimizer.state_dict()
    information = {name: getattr(state, name) for name in _PLAIN}
    information |= {"data": state.data, "validation": state.validation, "settings": state.settings}
    if (begun_by := launch()) is not None:
        information["launch"] = begun_by
    information["optimizer"] = kind_of(optimizer)
    information["groups"] = as_json(saved["param_groups"], "the optimizer")
    information["values"] = {
        str(index): as_json({name: v for name, v in values.items() if not isinstance(v, Tensor)}, "the optimizer")
        for index, values in saved["state"].items()
    }
    # Functions are made again with the schedule.
    kept = {} if scheduler is None else {n: v for n, v in scheduler.state_dict().items() if not callable(v)}
    information["scheduler"] = None if scheduler is None else as_json(kept, "the schedule of the learning rate")
    save_best(run, state)
    information["metrics"] = run.write_metrics(state.history) if state.history else None
    tensors = {f"weights.{name}": value for name, value in module_tensors(vae).items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    if learned is not None:
        tensors |= {f"objective.{name}": value for name, value in module_tensors(learned).items()}
    for index, values in saved["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
    tensors |= {f"averages.{name}": value for name, value in state.averages.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if vae.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(vae.device)
    if generator is not None:
        tensors["rng.loader"] = generator.get_state()
    if state.permutation is not None:
        tensors["permutation"] = state.permutation
    save_tensors(run.state_path, tensors, information)


def load_state(
    run: RunFolder,
    vae: VAE,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    learned: nn.Module | None = None,
    generator: torch.Generator | None = None,
) -> TrainingState:
    """Read what `save_state` wrote.

    The weights, the optimizer, the schedule, `learned` and torch's random numbers are set to what they were.

    Parameters
    ----------
    run : RunFolder
        Where to read.
    vae : VAE
        The pair.
    optimizer : Optimizer
        The optimizer, of the same kind and for the same parameters as in the training that wrote the state.
    scheduler : LRScheduler or None
        The schedule of the learning rate.
    learned : Module, optional
        What the objective itself learns.
    generator : torch.Generator, optional
        Random numbers of a loader's own.

    Returns
    -------
    TrainingState
        How far the training is.

    Raises
    ------
    CheckpointError
        The state is missing or damaged, or it is of another architecture, another optimizer or a newer version.
    """
    tensors, information = load_tensors(run.state_path)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(kind, {})[rest] = value
    with damaged_in_one_line(run.state_path):
        optimizer_name = kind_of(optimizer)
        if information["optimizer"] != optimizer_name:
            found = information["optimizer"]
            raise CheckpointError(f"{run.state_path} is of the optimizer {found}, not {optimizer_name}")
        check_module_tensors(vae, parts.get("weights", {}), str(run.state_path))
        check_module_tensors(vae, parts.get("best", {}), f"the best weights in {run.state_path}")
        if learned is not None:
            check_module_tensors(learned, parts.get("objective", {}), f"the objective in {run.state_path}")
        moments: dict[int, dict[str, Any]] = {}
        for name, value in parts.get("optimizer", {}).items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        for index, values in information.get("values", {}).items():
            moments.setdefault(int(index), {}).update(from_json(values))
        check_moments(optimizer, moments, run.state_path)
        information.setdefault("rows", information["batch"] * information["batch_size"])  # of earlier versions
        plain: dict[str, Any] = {name: information[name] for name in _PLAIN}
        check_plain(plain, tensors.get("permutation"), run.state_path)
        groups = from_json(information["groups"])
        check_groups(optimizer, groups, run.state_path)
        try:  # it changes nothing that it does not know
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        except ValueError as error:
            raise CheckpointError(f"{run.state_path} is of another optimizer: {error}") from None
        load_module_tensors(vae, parts["weights"], str(run.state_path))
        if learned is not None:
            load_module_tensors(learned, parts.get("objective", {}), f"the objective in {run.state_path}")
        if scheduler is not None and information["scheduler"] is not None:
            scheduler.load_state_dict(from_json(information["scheduler"]))
        torch.set_rng_state(parts["rng"]["cpu"])
        if "cuda" in parts["rng"] and vae.device.type == "cuda":
            torch.cuda.set_rng_state(parts["rng"]["cuda"], vae.device)
        if generator is not None and "loader" in parts["rng"]:
            generator.set_state(parts["rng"]["loader"])
        more: dict[str, Any] = {}
        more |= {name: information[name] for name in ("data", "validation", "settings") if name in information}
    more["averages"] = parts.get("averages", {})
    return TrainingState(**plain, **more, permutation=tensors.get("permutation"), best=parts.get("best", {}))
