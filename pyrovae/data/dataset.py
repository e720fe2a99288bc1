"""What a data set is: three splits of tensors and what is known about their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

KINDS = ("binary", "unit", "symmetric", "8-bit", "real")


class Split(NamedTuple):
    """Rows of a data set, all tensors on one device.

    Shapes: `x` `[N, ...]` float32; `y` `[N]` int64 labels with -1 = unknown, or None; `mask` `[N, ...]` bool with
    True = observed, or None when everything is.

    >>> Split(torch.zeros(3, 1, 8, 8)).to("cpu").x.shape
    torch.Size([3, 1, 8, 8])
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None

    def take(self, rows: Tensor | slice) -> Split:
        """Some of the rows, by their numbers, by True or False for each, or by a slice."""
        return Split(*(None if value is None else value[rows] for value in self))

    def to(self, device: torch.device | str) -> Split:
        """Return the same rows on `device`."""
        return Split(*(None if tensor is None else tensor.to(device) for tensor in self))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test rows, with what training and evaluation need to know about them.

    Units: `kind` says what the values are once `transform` has been applied: "binary" (0 or 1), "unit" (in [0, 1]),
    "symmetric" (in [-1, 1]), "8-bit" (multiples of 1/255 in [0, 1]) or "real".

    Args:
        name: the name it is loaded by.
        train: rows to learn from, before `transform`.
        validation: rows for early stopping.
        test: rows for the final figures.
        kind: one of "binary", "unit", "symmetric", "8-bit" and "real".
        transform: applied to each minibatch `[B, ...]` of `train.x`, never to validation and test rows. It draws from
            torch's global generator (dynamic binarisation, dequantisation). None where the rows are used as they are.
        evidence: the exact log p(x) in nats, `[B, ...]` to `[B]`, where it is known.
        options: keyword arguments with which `load` makes this set again, ready for JSON. Where the files lie is not
            among them, because that is a property of the machine.

    Raises:
        ValueError: for an unknown kind, and for tensors that do not fit together.

    >>> rows = Split(torch.zeros(6, 2), y=torch.tensor([0, 1, 2, 0, 1, -1]))
    >>> dataset = Dataset("mine", train=rows, validation=rows, test=rows, kind="real")
    >>> dataset.shape, dataset.num_classes
    (torch.Size([2]), 3)
    """

    name: str
    train: Split
    validation: Split
    test: Split
    kind: str
    transform: Callable[[Tensor], Tensor] | None = None
    evidence: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {self.kind!r}")
        for name, split in self.splits().items():
            if split.x.shape[1:] != self.shape:
                raise ValueError(
                    f"a row of {name}.x has shape {tuple(split.x.shape[1:])}, of train.x {tuple(self.shape)}"
                )
            if split.y is not None and split.y.shape != split.x.shape[:1]:
                raise ValueError(
                    f"{name}.y must hold one label for each of the {len(split.x)} rows, "
                    f"but its shape is {tuple(split.y.shape)}"
                )
            if split.mask is not None and split.mask.shape != split.x.shape:
                raise ValueError(f"{name}.mask has shape {tuple(split.mask.shape)}, {name}.x {tuple(split.x.shape)}")

    @property
    def shape(self) -> torch.Size:
        """Shape of one datum."""
        return self.train.x.shape[1:]

    @property
    def num_classes(self) -> int | None:
        """Number of classes, counted on the training labels; None without labels."""
        if self.train.y is None or not len(self.train.y):
            return None
        return int(self.train.y.max()) + 1 or None

    def splits(self) -> dict[str, Split]:
        """Return the three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to(self, device: torch.device | str) -> Dataset:
        """Return the same data set with all rows on `device`."""
        return replace(self, **{name: split.to(device) for name, split in self.splits().items()})
