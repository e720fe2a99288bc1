"""What methods of VAE return, and how a VAE was put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from pyrovae.data.dataset import DataSpec

OUTPUTS = ("draw", "mean", "mode")
"""What `VAE.sample` may give of the distribution of the data."""


class Forward(NamedTuple):
    """What `VAE.forward` returns."""

    reconstruction: Tensor | dict[str, Tensor]
    """Mean of p(x|z) at one draw of z, shaped like the data; by site where several are observed."""
    nll: Tensor
    """-log p(x|z) of all observed sites at that draw, `[B]`, in nats."""
    kl: Tensor
    """KL(q(z|x) || p(z)), `[B]`, in nats: exact where torch has the pair registered, else from that draw, as for layers
    that model and guide draw in opposite orders."""


class MadeBy(NamedTuple):
    """How a pair was put together: enough to put it together again."""

    pair: str
    """Its name in the registry, or `module:function`."""
    options: Mapping[str, Any]
    """Options of the pair."""
    spec: DataSpec
    """What the builder knew of the data."""
