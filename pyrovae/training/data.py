"""Training and validation data as the Trainer uses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from pyrovae.data.arrays import is_array
from pyrovae.data.dataset import Dataset, Rows, RowStream, Transform
from pyrovae.training.forms import Collate, rows_from
from pyrovae.vae import VAE

FORMS = (
    "a Dataset, a tensor, an array of NumPy, a frame of pandas, a dict of tensors by argument name, a tuple of tensors "
    "(training, validation), a TensorDataset, a DataLoader or an IterableDataset of batches"
)


@dataclass(frozen=True)
class Stream:
    """Batches that come from a loader, of which nothing is held.

    Parameters
    ----------
    loader : iterable
        It gives the batches of an epoch each time that it is gone through: tensors, tuples or dicts.
    vae : VAE
        The pair that they are for.
    collate : callable, optional
        From a batch to what is passed to the programs.
    num_rows : int, optional
        How many rows an epoch has, where known.
    """

    loader: Iterable[Any]
    vae: VAE
    collate: Collate | None = None
    num_rows: int | None = None

    def __iter__(self) -> Iterator[Rows]:
        for batch in self.loader:
            if self.collate is None:
                yield rows_from(self.vae, batch, "the batches")
            else:
                yield rows_from(self.vae, self.collate(batch), "what collate gives")

    @property
    def num_batches(self) -> int | None:
        """Batches of an epoch, where the loader knows."""
        return _length(self.loader)

    @property
    def generator(self) -> torch.Generator | None:
        """The loader's own random numbers or those of its sampler, if there are some."""
        sampler = getattr(self.loader, "batch_sampler", None)
        owners = (self.loader, sampler, getattr(sampler, "sampler", None))
        found = (getattr(owner, "generator", None) for owner in owners)
        return next((own for own in found if isinstance(own, torch.Generator)), None)


class TrainingData(NamedTuple):
    """Training and validation data as the Trainer uses them. A `Dataset` has fields of the same names.

    Parameters
    ----------
    train : Rows, Stream or RowStream
        Training rows.
    validation : Rows or Stream, optional
        Validation rows.
    transform : callable, optional
        What is done to each training minibatch, from `Rows` to `Rows`.
    collate : callable, optional
        From a batch of rows to what is passed to the programs.
    form : {"tensor", "tuple", "dict"}, default "dict"
        As what `collate` gets a batch.
    """

    train: Rows | Stream | RowStream
    validation: Rows | Stream | None = None
    transform: Transform | None = None
    collate: Collate | None = None
    form: str = "dict"


def training_data(
    vae: VAE,
    data: Any,
    validation: Any = None,
    *,
    collate: Collate | None = None,
    num_data: int | None = None,
) -> TrainingData:
    """Make training data from any form of them. Training rows that are held are numbered.

    Parameters
    ----------
    vae : VAE
        The pair that they are for.
    data : object
        The data, see `Trainer.fit`.
    validation : object, optional
        Validation data in one of these forms.
    collate : callable, optional
        From a batch to what is passed to the programs.
    num_data : int, optional
        Rows of all data, for a stream.

    Returns
    -------
    TrainingData
        The data.

    Raises
    ------
    TypeError
        If the data are something else.
    ValueError
        If a tuple is no pair of training and validation rows, or `num_data` is another number than that of the rows.
    """
    if num_data is not None and num_data < 1:
        raise ValueError(f"num_data must be at least 1, got {num_data}")
    if isinstance(data, tuple) and not isinstance(data, TrainingData):
        if validation is not None:
            raise ValueError("validation rows are given twice, in a tuple and by validation=; give data=training rows")
        data, validation = _pair_of_tensors(data)
    found = _whole(data)
    if found is None:
        found = TrainingData(_split(vae, data, collate, num_data), form=_form(data))
    if validation is not None:
        held = _whole(validation)
        if held is not None:
            raise TypeError("validation= takes rows, not a data set of several splits; give dataset.validation")
        found = found._replace(validation=_split(vae, validation, collate, None))
    if isinstance(found.train, Rows):
        if num_data is not None and num_data != len(found.train):
            raise ValueError(f"num_data={num_data} was given, and the data have {len(found.train)} rows; leave it out")
        found = found._replace(train=rows_from(vae, found.train, "the training rows").numbered())
    if isinstance(found.validation, Rows):
        found = found._replace(validation=rows_from(vae, found.validation, "the validation rows"))
    return found._replace(collate=collate if collate is not None else found.collate)


def _whole(data: Any) -> TrainingData | None:
    """Data that come with their validation rows."""
    if isinstance(data, TrainingData):
        return data
    if isinstance(data, Dataset) or all(hasattr(data, name) for name in ("train", "validation", "transform")):
        validation = data.validation if data.validation is not None and len(data.validation.x) else None
        stream = getattr(data, "stream", None)
        return TrainingData(data.train if stream is None else stream, validation, data.transform)
    return None


def _pair_of_tensors(data: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(data) == 2 and all(map(is_array, data)):
        return data[0], data[1]
    if len(data) == 2 and all(isinstance(part, Tensor) and part.dim() for part in data):
        train, validation = data
        if train.shape[1:] == validation.shape[1:] and train.dtype == validation.dtype:
            return train, validation
    shown = ", ".join(
        f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}"
        if isinstance(part, Tensor)
        else type(part).__name__
        for part in data
    )
    raise ValueError(
        f"a tuple is training and validation rows, two tensors of one shape and type but for the rows, got ({shown}); "
        'give arguments of the programs as a dict, {"x": x, "y": y}, and validation rows by validation='
    )


def _split(vae: VAE, data: Any, collate: Collate | None, num_data: int | None) -> Rows | Stream:
    """Training or validation data in one of the forms."""
    if isinstance(data, Tensor | Rows | dict) or is_array(data):
        return rows_from(vae, data)
    if isinstance(data, TensorDataset):
        return rows_from(vae, tuple(data.tensors))
    if isinstance(data, DataLoader):
        return Stream(data, vae, collate, num_data or _length(data.dataset))
    if isinstance(data, IterableDataset):
        return Stream(data, vae, collate, num_data)
    known = "a tuple" if isinstance(data, tuple) else type(data).__name__
    if isinstance(data, TorchDataset):
        raise TypeError(f"{known} gives single rows; wrap it, DataLoader(data, batch_size=128, shuffle=True)")
    raise TypeError(f"data must be {FORMS}, got {known}")


def _form(data: Any) -> str:
    return "tensor" if isinstance(data, Tensor) else "tuple" if isinstance(data, TensorDataset) else "dict"


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return None
