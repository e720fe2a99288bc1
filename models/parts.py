"""What models, and guides, of several families share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.infer.minibatch import COUNTED
from pyrovae.likelihoods import Likelihood


def num_rows(x: Tensor | None, size: int | None) -> int:
    """Return the number of rows of a call, from the data or from `size`.

    Raises
    ------
    ValueError
        Neither is given, or both are.
    """
    if x is not None and size is None:
        return len(x)
    if x is None and size is not None:
        return size
    raise ValueError("give either data x or the number of rows to draw, size=")


def observe(likelihood: Likelihood, raw: Tensor, x: Tensor | None, mask: Tensor | None) -> Tensor:
    """Sample the data site `x`: score the observed entries of data, or draw a whole datum for every row.

    Parameters
    ----------
    likelihood : Likelihood
        The likelihood of a datum.
    raw : Tensor, shape ``[..., *likelihood.raw_shape]``
        Raw parameters, from a decoder.
    x : Tensor, shape ``[B, *data_shape]``, or None
        The data. None draws them.
    mask : Tensor of bool, shape of `x`, or None
        True where an entry is observed. Not used without data.

    Returns
    -------
    Tensor
        The data, with a value of the support in missing entries; or the draw.
    """
    return pyro.sample("x", likelihood(raw, None if x is None else mask), obs=likelihood.fill(x, mask))


def layer_names(sizes: Sequence[int]) -> tuple[str, ...]:
    """Return the names of the sites of a stack of layers, from the data upwards: `z`, or `z1`, `z2` and so on.

    Raises
    ------
    ValueError
        There is no layer, or a size is below 1.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes must hold at least one positive number, got {tuple(sizes)}")
    return ("z",) if len(sizes) == 1 else tuple(f"z{layer}" for layer in range(1, len(sizes) + 1))


def global_site() -> Any:
    """Return `infer` of a latent that belongs to all data together; Pyro's `InferDict` does not know this key."""
    return {"is_global": True}


def share_of_global(rows: int, num_data: int | None) -> AbstractContextManager:
    """A context in which a global site counts by the part of the data that a batch of `rows` rows is."""
    return nullcontext() if num_data is None else _Share(rows / num_data)


class _Share(Messenger):
    """Scale sites by a share, and tell `MinibatchScale` that it is done."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["scale"] = msg["scale"] * self.share
        msg["infer"] = {**(msg["infer"] or {}), COUNTED: True}
