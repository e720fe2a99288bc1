"""What data are: three splits of rows, and what builders of pairs need to know of their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pyrovae.data.rows import Rows, Transform, slices, transform_x

__all__ = ["KINDS", "TABLE", "DataSpec", "Dataset", "Rows", "Transform", "slices", "transform_x"]

KINDS = ("binary", "unit", "symmetric", "8-bit", "real")
TABLE = "table"
"""The kind of data whose columns are of kinds of their own, which their schema says."""


class DataSpec(NamedTuple):
    """What a builder of a pair needs to know of the data. It is stored with a run, so the run can be built again.

    Parameters
    ----------
    name : str
        The name of the data set.
    shape : tuple of int
        Shape of one datum.
    kind : {"binary", "unit", "symmetric", "8-bit", "real"}
        What the values are, see `Dataset`.
    num_rows : int
        Number of training rows.
    num_labelled : int, default 0
        Number of training rows with a known label.
    num_classes : int, optional
        Number of classes. None without labels.
    schema : mapping, optional
        What the columns of a table are. None for other data.

    Examples
    --------
    >>> spec = DataSpec("mine", (1, 8, 8), "binary", num_rows=100)
    >>> DataSpec.from_dict(spec.to_dict()) == spec
    True
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    num_rows: int
    num_labelled: int = 0
    num_classes: int | None = None
    schema: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {**self._asdict(), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """The spec that `to_dict` wrote.

        Raises
        ------
        ValueError
            If a field is missing, unknown or of another type. The message names the field.
        """
        kinds: dict[str, tuple[type, ...]] = {
            "name": (str,),
            "shape": (list, tuple),
            "kind": (str,),
            "num_rows": (int,),
            "num_labelled": (int,),
            "num_classes": (int, type(None)),
            "schema": (dict, type(None)),
        }
        for name, kind in kinds.items():
            if name not in values and name not in cls._field_defaults:
                raise ValueError(f"it lacks {name!r}")
            if name in values and (not isinstance(values[name], kind) or isinstance(values[name], bool)):
                raise ValueError(f"{name!r} must be {kind[0].__name__}, got {values[name]!r}")
        unknown = sorted(set(values) - set(kinds))
        if unknown:
            raise ValueError(f"it has the unknown field {unknown[0]!r}")
        shape = values["shape"]
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(f"'shape' must hold positive whole numbers, got {shape!r}")
        if values["kind"] not in (*KINDS, TABLE):
            raise ValueError(f"'kind' must be one of {', '.join((*KINDS, TABLE))}, got {values['kind']!r}")
        return cls(**{**values, "shape": tuple(shape)})


class RowStream(Protocol):
    """Training rows that are too many to be held. They come in batches, in an order that numbers alone decide."""

    @property
    def num_rows(self) -> int:
        """How many they are."""
        ...

    @property
    def epoch_rows(self) -> int:
        """About how many of them an epoch of a training takes."""
        ...

    def batches(
        self, seed: int, number: int, batch_size: int, start: int = 0, *, share: tuple[int, int] | None = None
    ) -> Iterator[Rows]:
        """The batches of a pass over all rows.

        Parameters
        ----------
        seed : int
            Seed of the order.
        number : int
            Number of the pass, from 0. Each has an order of its own.
        batch_size : int
            Rows of a batch; the last one may have fewer.
        start : int, default 0
            The batch to begin with.
        share : tuple of int, optional
            The number of a process and how many there are: only its rows of each batch come, those that
            `Processes.share` cuts. None takes all rows.
        """
        ...


def check_rows(rows: Rows, name: str) -> None:
    """Refuse masks and labels of another type or shape, and NaN in entries that count as observed.

    Parameters
    ----------
    rows : Rows
        The rows.
    name : str
        What messages call them, such as "train".

    Raises
    ------
    ValueError
        Naming the tensor, what was seen and what is expected.
    """
    x, mask, y = rows.x, rows.mask, rows.y
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"{name}.mask must be of type bool, True where an entry is observed, got {mask.dtype}")
    if mask is not None and mask.shape != x.shape:
        raise ValueError(f"{name}.mask has shape {tuple(mask.shape)}, {name}.x {tuple(x.shape)}")
    if y is not None and (y.is_floating_point() or y.dtype == torch.bool):
        raise ValueError(f"{name}.y must hold whole numbers, the classes from 0 and -1 for unknown, got {y.dtype}")
    if x.is_floating_point() and x.device.type != "meta":
        missing = x.isnan() if mask is None else x.isnan() & mask
        count = int(missing.sum())
        if count:
            raise ValueError(
                f"{name}.x has NaN in {count} entries that count as observed; give a mask that is False there, such as "
                "~x.isnan()"
            )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test rows, with what training and evaluation need to know about them.

    `kind` says what the values are once `transform` has been applied: "binary" (0 or 1), "unit" (in [0, 1]),
    "symmetric" (in [-1, 1]), "8-bit" (multiples of 1/255 in [0, 1]) or "real".

    Parameters
    ----------
    name : str
        The name of the data set.
    train : Rows
        Rows to learn from, before `transform`. They are numbered from 0 if they have no index.
    validation : Rows
        Rows for early stopping. There may be none (zero rows).
    test : Rows
        Rows for the final figures. There may be none.
    kind : {"binary", "unit", "symmetric", "8-bit", "real"}
        What the values are.
    transform : callable from Rows to Rows, optional
        What is done to each minibatch of training rows, never to validation and test rows. It draws from torch's global
        generator (dynamic binarisation, dequantisation). None uses the rows as they are.
    evidence : callable from Tensor to Tensor, optional
        The exact log p(x) in nats, ``[B, ...]`` to ``[B]``, where it is known.
    options : mapping, optional
        Keyword arguments with which `load` makes this set again, ready for JSON. Where the files are is not among
        them, because that differs between machines. Empty for a data set that `load` did not make.
    schema : mapping, optional
        What the columns of a table are, ready for JSON. Only for the kind "table", which needs it.
    stream : RowStream, optional
        All training rows, where they are too many to be held. `train` is then a sample of them, for whatever needs rows
        at hand: initial values, trees, baselines, figures. A `Trainer` trains on the stream.

    Raises
    ------
    ValueError
        For an unknown kind, and for tensors that do not fit together.
    TypeError
        For a split that is no `Rows`.

    Examples
    --------
    >>> rows = Rows(torch.zeros(6, 2), y=torch.tensor([0, 1, 2, 0, 1, -1]))
    >>> dataset = Dataset("mine", train=rows, validation=rows, test=rows, kind="real")
    >>> dataset.shape, dataset.spec.num_classes, dataset.spec.num_labelled
    (torch.Size([2]), 3, 5)
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    kind: str
    transform: Transform | None = None
    evidence: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None
    stream: RowStream | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS and (self.kind != TABLE or self.schema is None):
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {self.kind!r}")
        for name, split in self.splits().items():
            if not isinstance(split, Rows):
                raise TypeError(
                    f"{name} must be Rows, not {type(split).__name__}; write Rows(x), and train.take(slice(0)) for none"
                )
        object.__setattr__(self, "train", self.train.numbered())
        for name, split in self.splits().items():
            if split.x.shape[1:] != self.shape:
                raise ValueError(
                    f"a row of {name}.x has shape {tuple(split.x.shape[1:])}, of train.x {tuple(self.shape)}"
                )
            for label, value in (("y", split.y), ("index", split.index)):
                if value is not None and value.shape != split.x.shape[:1]:
                    what = "label" if label == "y" else "number"
                    raise ValueError(
                        f"{name}.{label} must hold one {what} for each of the {len(split)} rows, "
                        f"but its shape is {tuple(value.shape)}"
                    )
            for label, value in split.more.items():
                if not value.dim() or len(value) != len(split):
                    raise ValueError(
                        f"{name}.more[{label!r}] must hold a row for each of the {len(split)} rows, but its shape is "
                        f"{tuple(value.shape)}; what is no row goes into whole"
                    )
            check_rows(split, name)

    @property
    def shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.x.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """Number of classes, counted on the training labels; None without labels."""
        if self.train.y is None or not len(self.train):
            return None
        return int(self.train.y.max()) + 1 or None

    @property
    def spec(self) -> DataSpec:
        """What a builder of a pair needs to know of these data."""
        labelled = int(self.train.labelled.sum())
        return DataSpec(self.name, tuple(self.shape), self.kind, self.num_rows, labelled, self.num_classes, self.schema)

    @property
    def num_rows(self) -> int:
        """Number of training rows, those of a stream included."""
        return len(self.train) if self.stream is None else self.stream.num_rows

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch of a training: all of them, unless a stream takes fewer."""
        return len(self.train) if self.stream is None else self.stream.epoch_rows

    def splits(self) -> dict[str, Rows]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def seen(self, split: str) -> Rows:
        """The rows of a split as a pair sees them: training rows go through `transform`, once."""
        rows = self.splits()[split]
        return self.transform(rows) if split == "train" and self.transform is not None else rows

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with all rows on `device`."""
        moved: dict[str, Any] = {name: split.to(device) for name, split in self.splits().items()}
        return dataclasses.replace(self, **moved)
