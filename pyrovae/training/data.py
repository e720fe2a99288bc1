"""Training and validation data as the Trainer uses them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.data.dataset import Rows, Transform


class TrainingData(NamedTuple):
    """Training and validation data as the Trainer uses them. A `Dataset` has fields of the same names.

    Parameters
    ----------
    train : Rows
        Training rows.
    validation : Rows, optional
        Validation rows.
    transform : callable, optional
        What is done to each training minibatch, from `Rows` to `Rows`.
    """

    train: Rows
    validation: Rows | None = None
    transform: Transform | None = None


def training_data(data: Any) -> TrainingData:
    """Make training data from a `Dataset`, a tensor, or a pair of tensors. The training rows are numbered.

    Parameters
    ----------
    data : Dataset, TrainingData, Tensor or pair of Tensor
        The data. A pair is training and validation data.

    Returns
    -------
    TrainingData
        The data.

    Raises
    ------
    TypeError
        The data are something else.
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
    """Move rows to a device.

    Raises
    ------
    ValueError
        There are no rows.
    """
    if not len(rows):
        raise ValueError("there are no rows to train or validate on")
    return rows.to(device)
