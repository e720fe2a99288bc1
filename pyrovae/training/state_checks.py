"""What stands in the state of a training, checked before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyrovae.storage import AGAIN, CheckpointError
from pyrovae.training.grouped_optimizer import stepping

_MOMENTS: dict[str, tuple[str, ...]] = {
    "Adam": ("exp_avg", "exp_avg_sq"),
    "AdamW": ("exp_avg", "exp_avg_sq"),
    "Adamax": ("exp_avg", "exp_inf"),
}
"""Tensors of the shape of their parameter, without which an optimizer cannot go on."""
_OF_ITS_SHAPE = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer")
_COUNTS = ("epoch", "batch", "batch_size", "rows", "best_epoch")


@contextmanager
def damaged_in_one_line(path: Path) -> Iterator[None]:
    """A context in which whatever a damaged state trips over is one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
        raise CheckpointError(f"{path} is damaged ({reason}); {AGAIN}") from None


def check_moments(optimizer: Optimizer, moments: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Refuse the state of an optimizer whose tensors do not suit its parameters.

    A fused optimizer does not look at the shapes, and writes beyond the end of a tensor that is too small.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer, before it gets the state.
    moments : mapping of int to mapping
        The state of each parameter by its number.
    path : Path
        Where it comes from, for the message.

    Raises
    ------
    CheckpointError
        Naming the parameter, the tensor, and the shapes.
    """
    parameters, kinds = [], []
    for group in optimizer.param_groups:
        parameters += group["params"]
        kinds += [type(stepping(optimizer, group)).__name__] * len(group["params"])
    for number, values in moments.items():
        if not 0 <= number < len(parameters):
            raise CheckpointError(
                f"{path} is of another optimizer: it has a state of parameter {number}, and there are {len(parameters)}"
            )
        shape, needed = parameters[number].shape, _MOMENTS.get(kinds[number], ())
        for name in (*needed, *(("step",) if needed else ())):
            if name not in values:
                raise CheckpointError(f"{path} is damaged: the state of parameter {number} lacks {name!r}; {AGAIN}")
        for name, value in values.items():
            wanted = shape if name in _OF_ITS_SHAPE else torch.Size() if needed and name == "step" else None
            # The rows of a table have a count of steps each.
            by_row = name == "step" and len(shape) == 2 and isinstance(value, Tensor) and value.shape == shape[:1]
            if isinstance(value, Tensor) and wanted is not None and value.shape != wanted and not by_row:
                raise CheckpointError(
                    f"{path} is damaged: {name!r} of parameter {number} has shape {tuple(value.shape)}, expected "
                    f"{tuple(wanted)}; {AGAIN}"
                )


def check_groups(optimizer: Optimizer, groups: Any, path: Path) -> None:
    """Refuse settings of the groups of an optimizer that are none.

    Raises
    ------
    CheckpointError
        Naming what is wrong.
    """
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise CheckpointError(f"{path} is damaged: the groups of its optimizer are no list of settings; {AGAIN}")
    for own, group in zip(optimizer.param_groups, groups, strict=False):
        if "lr" in own and not isinstance(group.get("lr"), int | float):
            raise CheckpointError(
                f"{path} is damaged: a learning rate of its optimizer is {group.get('lr')!r}; {AGAIN}"
            )


def check_plain(plain: Mapping[str, Any], permutation: Tensor | None, path: Path) -> None:
    """Refuse counts that are none, a history that is no list of rows, and an order that leaves rows out.

    Raises
    ------
    CheckpointError
        Naming what is wrong.
    """
    for name in _COUNTS:
        value = plain[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise CheckpointError(f"{path} is damaged: {name!r} is {value!r}; {AGAIN}")
    for name, others in (("loss_sum", ()), ("seconds", ()), ("best_value", (type(None),))):
        value = plain[name]
        if not isinstance(value, (int, float, *others)) or isinstance(value, bool):
            raise CheckpointError(f"{path} is damaged: {name!r} is {value!r}; {AGAIN}")
    history = plain["history"]
    rows = history if isinstance(history, list) else [None]
    if not all(isinstance(row, dict) and all(isinstance(v, int | float) for v in row.values()) for row in rows):
        raise CheckpointError(f"{path} is damaged: its history is no list of metrics; {AGAIN}")
    if len(rows) != plain["epoch"]:
        raise CheckpointError(f"{path} is damaged: it has {plain['epoch']} epochs and metrics of {len(rows)}; {AGAIN}")
    if permutation is not None and not torch.equal(
        permutation.sort().values, torch.arange(permutation.numel(), device=permutation.device)
    ):
        raise CheckpointError(f"{path} is damaged: the order of its rows leaves some out; {AGAIN}")
