"""What models, and guides, of several families share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent
from torch import Tensor


def num_rows(x: Tensor | None, size: int | None) -> int:
    """The number of rows of a call, from the data or from `size`.

    Raises:
        ValueError: if neither is given, or both.
    """
    if (x is None) == (size is None):
        raise ValueError("give either data x or the number of rows to draw, size=")
    return len(x) if x is not None else size


def observe(name: str, fn: Independent, x: Tensor | None, mask: Tensor | None, fill_value: float) -> Tensor:
    """The data site: scored on the observed entries of `x`, or drawn where `x` is None.

    Missing entries are filled with a value of the support before scoring, because a NaN under a mask still gives NaN
    gradients.
    """
    if x is not None and mask is not None:
        x = torch.where(mask, x, fill_value)
        fn = fn.base_dist.mask(mask).to_event(fn.reinterpreted_batch_ndims)
    return pyro.sample(name, fn, obs=x)


def layer_names(sizes: Sequence[int]) -> tuple[str, ...]:
    """The names of the sites of a stack of layers, from the data upwards: `z`, or `z1`, `z2` and so on.

    Raises:
        ValueError: without layers, or for sizes below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must hold at least one positive number, got {tuple(sizes)}")
    return ("z",) if len(sizes) == 1 else tuple(f"z{layer}" for layer in range(1, len(sizes) + 1))


def share_of_global(rows: int, num_data: int | None) -> AbstractContextManager:
    """A context in which a global site counts by the part of the data that a batch of `rows` rows is."""
    return nullcontext() if num_data is None else poutine.scale(scale=rows / num_data)
