"""Data that a function of the user's own makes, named ``module:function``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyrovae.data.dataset import Dataset, Rows
from pyrovae.pairs.registry import find_function, is_own
from pyrovae.rng import forked

FUNCTION = "function"
"""Key of the name of the function in the data options of a configuration."""


def is_function(name: str | Path) -> bool:
    """Whether data are named as a function, ``module:function``, and there is no file of that name."""
    return is_own(str(name)) and not Path(name).exists()


def dataset_of(name: str) -> Dataset:
    """Call a function of the user's own for its data.

    Parameters
    ----------
    name : str
        ``module:function``. The function takes no arguments and returns a `Dataset`; a tensor, or a tuple of them,
        training and validation; a dict by argument name with the data as ``x``, or first; or a `TensorDataset` of one
        tensor.

    Returns
    -------
    Dataset
        The data.

    Raises
    ------
    ValueError
        If there is no such function, it fails, or it returns something else.
    """
    function = find_function(name, "data")
    try:
        made = function()
    except Exception as error:
        raise ValueError(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
    options = {FUNCTION: name}
    if isinstance(made, Dataset):
        return replace(made, options=options)
    if isinstance(made, DataLoader | IterableDataset):
        raise ValueError(
            f"{name} returns a stream, of which a run could say nothing; return a Dataset, or train with Trainer.fit"
        )
    if isinstance(made, tuple) and len(made) == 2 and all(isinstance(part, Tensor) for part in made):
        train, validation = map(Rows, made)
    else:
        train = _rows(name, made)
        validation = train.take(slice(0))
    return Dataset(name, train, validation, train.take(slice(0)), _kind(train.x), options=options)


def _rows(name: str, made: Any) -> Rows:
    if isinstance(made, TensorDataset) and len(made.tensors) == 1:
        made = made.tensors[0]
    if isinstance(made, Rows):
        return made
    if isinstance(made, Mapping) and made:
        first = "x" if "x" in made else next(iter(made))
        made, given = made[first], {key: value for key, value in made.items() if key != first}
    else:
        given = {}
    if not isinstance(made, Tensor) or not made.dim():
        raise ValueError(
            f"{name} must return a Dataset, a tensor, a tuple of two (training, validation), or a dict by argument "
            f"name, got {type(made).__name__}"
        )
    return Rows.of(made, **given)


def _kind(x: Tensor) -> str:
    return "binary" if bool(((x == 0) | (x == 1)).all()) and x.dtype.is_floating_point else "real"


def first_rows(dataset: Dataset | None) -> Rows | None:
    """A few rows to prepare a pair on, whose programs may need more than blank data."""
    if dataset is None or not len(dataset.train):
        return None
    with forked():
        rows = dataset.train.take(slice(2))
        return rows if dataset.transform is None else dataset.transform(rows)
