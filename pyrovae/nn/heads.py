"""Heads: from features to the distribution of a latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, Normal, TorchDistribution
from torch import Tensor, nn

from pyrovae.nn.mlp import MLP
from pyrovae.nn.variables import OneHot


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


class CategoricalHead(nn.Module):
    """A linear layer whose output is a vector of categorical variables, ``[..., in_features]`` -> one-hot draws.

    Parameters
    ----------
    in_features : int
        Size of the features.
    num_variables : int
        Number of categorical variables, at least 1.
    num_classes : int
        Classes of each, at least 2.
    variable : Module, default ``OneHot()``
        How they are drawn: `OneHot()`, or `RelaxedOneHot(...)` for reparameterised draws.

    Raises
    ------
    ValueError
        For fewer than one variable or two classes.

    Examples
    --------
    >>> CategoricalHead(8, 3, 5)(torch.zeros(2, 8)).event_shape
    torch.Size([3, 5])
    """

    def __init__(
        self, in_features: int, num_variables: int, num_classes: int, *, variable: nn.Module | None = None
    ) -> None:
        super().__init__()
        if num_variables < 1 or num_classes < 2:
            raise ValueError(f"need at least 1 variable of 2 classes, got {num_variables} of {num_classes}")
        self.linear = nn.Linear(in_features, num_variables * num_classes)
        self.shape = (num_variables, num_classes)
        self.variable = OneHot() if variable is None else variable

    def forward(self, features: Tensor) -> TorchDistribution:
        """The distribution at these features."""
        return self.variable(self.linear(features).unflatten(-1, self.shape))
