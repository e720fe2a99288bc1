"""What models, and guides, of several families share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import pyro
from pyro import poutine
from torch import Tensor

from pyrovae.likelihoods import Likelihood


def num_rows(x: Tensor | None, size: int | None) -> int:
    """The number of rows of a call, from the data or from `size`.

    Raises:
        ValueError: if neither is given, or both.
    """
    if (x is None) == (size is None):
        raise ValueError("give either data x or the number of rows to draw, size=")
    return len(x) if x is not None else size


def observe(likelihood: Likelihood, raw: Tensor, x: Tensor | None, mask: Tensor | None) -> Tensor:
    """The data site `x`: scored on the observed entries of `x`, or drawn whole where `x` is None."""
    return pyro.sample("x", likelihood(raw, None if x is None else mask), obs=likelihood.fill(x, mask))


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
