"""Training and validation data as the Trainer uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class TrainingData(NamedTuple):
    """Training and validation data as the Trainer uses them; `Dataset`s have the same names."""

    train: Any
    validation: Any = None
    transform: Callable[[Tensor], Tensor] | None = None


class Rows(NamedTuple):
    """Rows of data on one device: `x` `[N, ...]`, labels `y` `[N]`, and `mask` `[N, ...]` with True = observed."""

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None


def training_data(data: Any) -> TrainingData:
    """Training data from a `Dataset`, a tensor, or a pair of tensors.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(data, Tensor):
        return TrainingData(Rows(data))
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return TrainingData(Rows(data[0]), Rows(data[1]))
    try:
        validation = data.validation if data.validation is not None and len(data.validation.x) else None
        return TrainingData(data.train, validation, data.transform)
    except AttributeError:
        raise TypeError(
            f"data must be a Dataset, a tensor, or a pair of tensors (training, validation), got {type(data).__name__}"
        ) from None


def rows_on(rows: Any, device: torch.device) -> Rows:
    """Rows on a device.

    Raises:
        ValueError: if there are none.
    """
    if not len(rows.x):
        raise ValueError("there are no rows to train or validate on")
    return Rows(*(None if value is None else value.to(device) for value in (rows.x, rows.y, rows.mask)))
