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
    """A linear layer whose output is a diagonal normal, ``[..., in_features]`` -> event ``[out_features]``.

    Use it in the guide of a real vector latent.

    Parameters
    ----------
    in_features : int
        Size of the features.
    out_features : int
        Size of the latent.
    min_scale : float, default 1e-4
        Smallest standard deviation, in the units of the latent.

    Notes
    -----
    The scale is the softplus of the raw output plus `min_scale`.

    Examples
    --------
    >>> GaussianHead(3, 2)(torch.zeros(5, 3)).event_shape
    torch.Size([2])
    """

    def __init__(self, in_features: int, out_features: int, *, min_scale: float = 1e-4) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * out_features)
        self.min_scale = min_scale

    def forward(self, features: Tensor) -> Independent:
        """Return the distribution at features ``[..., in_features]``, with `batch_shape` ``[...]``."""
        loc, raw = self.linear(features).chunk(2, -1)
        return Normal(loc, F.softplus(raw) + self.min_scale).to_event(1)


class GaussianLayer(nn.Module):
    """An `MLP` and a `GaussianHead`, from one latent layer to the distribution of the next.

    Use it between the layers of `HierarchicalVAE` and of its guide. The scales start near 1 at any depth, so the
    divergences between the layers of a new model are small.

    Parameters
    ----------
    in_features : int
        Size of the layer that is conditioned on.
    hidden : sequence of int
        Sizes of the hidden layers. An empty sequence makes the mean linear.
    out_features : int
        Size of the layer whose distribution is returned.
    min_scale : float, default 1e-4
        Smallest standard deviation, in the units of the latent.
    **options
        Options of `MLP`.

    Examples
    --------
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
        """Return the distribution of this layer given values ``[..., in_features]`` of the other one."""
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
        Number of classes of each variable, at least 2.
    variable : Module, default ``OneHot()``
        How the variables are drawn: `OneHot()`, or `RelaxedOneHot(...)` for reparameterised draws.

    Raises
    ------
    ValueError
        There are fewer than one variable or two classes.

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
        """Return the distribution at features ``[..., in_features]``, with `batch_shape` ``[...]``."""
        return self.variable(self.linear(features).unflatten(-1, self.shape))
