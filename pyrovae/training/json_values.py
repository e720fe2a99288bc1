"""States of optimizers and schedules as JSON values, and back to the last bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_KIND = "!"  # key of what JSON has no word for


def as_json(value: Any, what: str) -> Any:
    """A value made of what JSON has; tuples, counters, keys that are no text and tensors are marked.

    Parameters
    ----------
    value : object
        The value.
    what : str
        Whose it is, for the message.

    Raises
    ------
    ValueError
        If it holds anything else.

    Examples
    --------
    >>> as_json({"betas": (0.9, 0.999)}, "the optimizer")
    {'betas': {'!': 'tuple', 'items': [0.9, 0.999]}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [as_json(item, what) for item in value]
        return items if isinstance(value, list) else {_KIND: "tuple", "items": items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key != _KIND for key in value) and not isinstance(value, Counter):
            return {key: as_json(item, what) for key, item in value.items()}
        items = [[as_json(key, what), as_json(item, what)] for key, item in value.items()]
        return {_KIND: "counter" if isinstance(value, Counter) else "dict", "items": items}
    if isinstance(value, Tensor):
        return {_KIND: "tensor", "dtype": str(value.dtype).removeprefix("torch."), "items": value.tolist()}
    if callable(getattr(value, "item", None)):  # a number of NumPy
        return as_json(value.item(), what)
    raise ValueError(f"{what} keeps a {type(value).__name__}, which a run folder cannot hold; train without run=")


def from_json(value: Any) -> Any:
    """What `as_json` was given.

    Examples
    --------
    >>> from_json(as_json(Counter([3, 3]), "the schedule"))
    Counter({3: 2})
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: from_json(item) for key, item in value.items()}
    if kind == "tensor":
        return torch.tensor(value["items"], dtype=getattr(torch, value["dtype"]))
    if kind == "tuple":
        return tuple(from_json(item) for item in value["items"])
    pairs = {from_json(key): from_json(item) for key, item in value["items"]}
    return Counter(pairs) if kind == "counter" else pairs
