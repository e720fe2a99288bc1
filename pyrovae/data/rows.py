"""Rows of data: tensors that are cut together, and what is passed along with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

_WHOLE = "_pyrovae_whole"  # attribute of tensors that are no rows, however long they are


def as_whole(value: Any) -> Any:
    """A value that is never cut into rows; a tensor is marked, since it may be as long as a batch by chance."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return value
    marked = value.view_as(value)
    setattr(marked, _WHOLE, True)
    return marked


def holds_rows(value: Any, rows: int) -> bool:
    """Whether a value is a tensor with so many rows, neither sparse nor marked by `as_whole`."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.dim():
        return False
    return len(value) == rows and not hasattr(value, _WHOLE)


def cut(data: Mapping[str, Any], which: Tensor | slice, rows: int) -> dict[str, Any]:
    """Some rows of those values that hold `rows` rows; the others as they are."""
    return {name: value[which] if holds_rows(value, rows) else value for name, value in data.items()}


def refuse_lists(data: Mapping[str, Any], rows: int, at_once: int) -> None:
    """Refuse what is no tensor and may be a value for each row, where rows are taken in parts: it would stay whole.

    Raises
    ------
    TypeError
        Naming the argument.
    """
    for name, value in data.items() if at_once < rows else ():
        if isinstance(value, np.ndarray) and not value.ndim:
            continue
        if isinstance(value, list | tuple | np.ndarray) and len(value) == rows:
            raise TypeError(
                f"{name}= is a {type(value).__name__} as long as the {rows} rows, and only tensors follow the rows; "
                "give a tensor if it has a value for each of them, and make it an attribute of the programs if not"
            )


def to_device(value: Any, device: torch.device | str) -> Any:
    """A value on a device: tensors, what has a method `to` (packed sequences), and what tuples, lists, dicts hold."""
    if isinstance(value, Tensor):
        moved = value.to(device)
        if moved is not value and hasattr(value, _WHOLE):
            setattr(moved, _WHOLE, True)
        return moved
    if callable(getattr(value, "to", None)):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: to_device(part, device) for name, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(to_device(part, device) for part in value)
    return value


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of data: the one type for them in data sets, training, evaluation and estimators.

    Parameters
    ----------
    x : Tensor, shape ``[N, ...]``
        The data. Data sets hold float32.
    y : Tensor of int64, shape ``[N]``, optional
        Labels, -1 where the label is unknown.
    mask : Tensor of bool, shape ``[N, ...]``, optional
        True where an entry is observed. None means that all are.
    index : Tensor of int64, shape ``[N]``, optional
        Which training row each row is. It stays with the row when rows are taken or shuffled. Held-out rows have none.
    more : mapping of str to Tensor, optional
        Further tensors with a row for each datum, by the argument of the programs that they are for.
    whole : mapping, optional
        Further arguments of the programs that are passed as they are, whatever the rows.

    Examples
    --------
    >>> rows = Rows(torch.zeros(3, 1, 8, 8)).numbered()
    >>> len(rows), rows.take(slice(1, 3)).index
    (3, tensor([1, 2]))
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None
    more: Mapping[str, Tensor] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("x", "y", "mask", "index"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and (value is not None or name == "x"):
                raise TypeError(f"{name} must be a tensor, not {type(value).__name__}; torch.as_tensor makes one")

    @classmethod
    def of(cls, x: Tensor, **data: Any) -> Self:
        """Rows from the arguments of programs by name.

        Tensors with a row for each datum are cut with the rows, everything else is passed whole. `y`, `mask` and
        `index` are those fields where they look like them: whole numbers, bools of the shape of `x`.

        Examples
        --------
        >>> rows = Rows.of(torch.zeros(3, 2), c=torch.zeros(3, 4), table=torch.zeros(7))
        >>> list(rows.more), list(rows.whole)
        (['c'], ['table'])
        """
        fields: dict[str, Tensor] = {}
        more, whole = {}, {}
        for name, value in data.items():
            if value is None:
                continue
            if not holds_rows(value, len(x)):
                whole[name] = value
            elif (name == "mask" and value.dtype == torch.bool and value.shape == x.shape) or (
                name in ("y", "index") and value.dim() == 1 and not value.is_floating_point()
            ):
                fields[name] = value
            else:
                more[name] = value
        return cls(x, **fields, more=more, whole=whole)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, which: Tensor | slice) -> Rows:
        """Some of the rows: by their positions, by True or False for each row, or by a slice."""
        return self._mapped(lambda value: value[which])

    def gathered(self, positions: Tensor) -> Rows:
        """The rows at positions from 0, whole numbers ``[M]``, as `take` gives them, in half of the time or less."""
        return self._mapped(lambda value: value.index_select(0, positions))

    def copied(self) -> Rows:
        """The same rows in memory of their own."""
        return self._mapped(torch.clone)

    def contiguous(self) -> Rows:
        """The same rows, each field in one piece of memory, as those that `gathered` gives."""
        made = self._mapped(Tensor.contiguous)
        strided = {n: v for n, v in self.whole.items() if isinstance(v, Tensor) and v.layout == torch.strided}
        return replace(made, whole={**self.whole, **{n: v.contiguous() for n, v in strided.items()}})

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on `device`."""
        moved = self._mapped(lambda value: value.to(device))
        return replace(moved, whole=to_device(self.whole, device)) if self.whole else moved

    def replace(self, **fields: Any) -> Rows:
        """The same rows with other values of some fields."""
        return replace(self, **fields)

    def numbered(self) -> Rows:
        """The same rows, numbered from 0 if they have no index yet: training rows are."""
        return self if self.index is not None else replace(self, index=torch.arange(len(self), device=self.x.device))

    def fields(self) -> dict[str, Any]:
        """Those of `mask`, `y` and `index` that there are, by name, and all further arguments."""
        values = {"mask": self.mask, "y": self.y, "index": self.index}
        given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if self.more or self.whole:
            given |= {**self.more, **{name: as_whole(value) for name, value in self.whole.items()}}
        return given

    @property
    def labelled(self) -> Tensor:
        """True for every row with a known label, ``[N]``."""
        if self.y is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.x.device)
        return self.y >= 0

    def without_labels(self) -> Rows:
        """The same rows with unknown labels (-1), if they have labels at all."""
        return self if self.y is None else replace(self, y=torch.full_like(self.y, -1))

    def batches(self, batch_size: int) -> Iterator[Rows]:
        """The rows in parts of `batch_size`; the last part holds what is left.

        Raises
        ------
        ValueError
            If `batch_size` is below 1.
        TypeError
            For a list or an array as long as the rows, of which parts are taken.
        """
        refuse_lists(self.whole, len(self), batch_size)
        return (self.take(part) for part in slices(len(self), batch_size))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Rows:
        y, mask, index = (None if value is None else function(value) for value in (self.y, self.mask, self.index))
        more = {name: function(value) for name, value in self.more.items()} if self.more else self.more
        return Rows(function(self.x), y, mask, index, more, self.whole)


Transform = Callable[[Rows], Rows]
"""What a data set does to each minibatch of training rows."""


def slices(rows: int, batch_size: int) -> list[slice]:
    """The rows from 0 to `rows` in parts of `batch_size`.

    Raises
    ------
    ValueError
        If `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return [slice(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]


def transform_x(function: Callable[[Tensor], Tensor]) -> Transform:
    """A transform of rows that changes their `x` by a function of it."""
    return partial(_with_x, function)


def _with_x(function: Callable[[Tensor], Tensor], rows: Rows) -> Rows:
    return rows.replace(x=function(rows.x))
