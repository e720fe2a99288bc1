"""Training and validation data as the Trainer uses them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.data.dataset import Rows, Transform


class TrainingData(NamedTuple):
    """Training and validation data as the Trainer uses them; `Dataset`s have the same names."""

    train: Rows
    validation: Rows | None = None
    transform: Transform | None = None


def training_data(data: Any) -> TrainingData:
    """Training data from a `Dataset`, a tensor, or a pair of tensors.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(data, TrainingData):
        return data._replace(train=data.train.numbered())
    if isinstance(data, Tensor):
        return TrainingData(Rows(data).numbered())
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return TrainingData(Rows(data[0]).numbered(), Rows(data[1]))
    try:
        validation = data.validation if data.validation is not None and len(data.validation.x) else None
        return TrainingData(data.train.numbered(), validation, data.transform)
    except AttributeError:
        raise TypeError(
            f"data must be a Dataset, a tensor, or a pair of tensors (training, validation), got {type(data).__name__}"
        ) from None


def rows_on(rows: Rows, device: torch.device) -> Rows:
    """Rows on a device.

    Raises
    ------
    ValueError
        If there are none.
    """
    if not len(rows):
        raise ValueError("there are no rows to train or validate on")
    return rows.to(device)
