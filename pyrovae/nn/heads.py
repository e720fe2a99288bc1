"""Heads: from features to the distribution of a latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyrovae.nn.mlp import MLP


class GaussianHead(nn.Module):
    """A linear layer whose output is a diagonal normal distribution, `[..., in_features]` -> Normal of event dim 1.

    The scale is `softplus` of the raw output plus `min_scale`, in the units of the latent.

    >>> GaussianHead(3, 2)(torch.zeros(5, 3)).event_shape
    torch.Size([2])
    """

    def __init__(self, in_features: int, out_features: int, *, min_scale: float = 1e-4) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * out_features)
        self.min_scale = min_scale

    def forward(self, features: Tensor) -> Independent:
        """The distribution at these features."""
        loc, raw = self.linear(features).chunk(2, -1)
        return Normal(loc, F.softplus(raw) + self.min_scale).to_event(1)


class GaussianLayer(nn.Module):
    """An `MLP` and a `GaussianHead`, from one latent layer to the distribution of the next.

    Scales start near 1 whatever the depth, so that a stack of layers starts with small divergences between them.

    Shapes: `[..., in_features]` -> Normal of batch shape `[...]` and event shape `[out_features]`.

    Args:
        in_features: size of the layer that is conditioned on.
        hidden: sizes of the hidden layers; none makes the mean linear.
        out_features: size of the layer.
        min_scale: least scale, in the units of the latent.
        **options: those of `MLP`.

    >>> GaussianLayer(3, (8,), 2, activation="tanh")(torch.zeros(5, 3)).event_shape
    torch.Size([2])
    """

    def __init__(
        self, in_features: int, hidden: Sequence[int], out_features: int, *, min_scale: float = 1e-4, **options: Any
    ) -> None:
        super().__init__()
        self.net = MLP(in_features, hidden, **options)
        self.head = GaussianHead(self.net.out_features, out_features, min_scale=min_scale)
        with torch.no_grad():
            self.head.linear.weight[out_features:] *= 0.1
            self.head.linear.bias[out_features:] = 0.5413  # softplus gives 1

    def forward(self, above: Tensor) -> Independent:
        """The distribution of this layer given the other one."""
        return self.head(self.net(above))
