"""Amortised guides over discrete latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.models.parts import layer_names
from pyrovae.nn import MLP
from pyrovae.nn.variables import Bits, OneHot


class BernoulliLayers(PyroModule):
    """q(z_1|x) q(z_2|z_1) ... q(z_L|z_{L-1}), binary layers from the data upwards.

    Sites: those of `SigmoidBeliefNetwork`, in the plate "data", dimension -1. Missing entries enter as `centre`.

    Args:
        data_shape: shape of one datum.
        sizes: numbers of variables, from the data upwards.
        hidden: hidden layers of the net between two layers; none is the classical linear net.
        activation: of those hidden layers.
        centre: the mean of the data, of shape `data_shape`, which is subtracted from them; 0 by default.
        variable: how layers are drawn, `Bits()` or `RelaxedBits(...)`.

    Raises:
        ValueError: without layers, for sizes below 1, or a `centre` of another shape.

    Reference: Mnih and Rezende (2016), section 4 and appendix.

    >>> BernoulliLayers((1, 4, 4), (5, 3))(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        sizes: Sequence[int],
        hidden: Sequence[int] = (),
        *,
        activation: str | Callable[[], nn.Module] = "tanh",
        centre: Tensor | None = None,
        variable: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.names = layer_names(sizes)
        self.sampled_as = Bits() if variable is None else variable
        self.register_buffer("centre", torch.zeros(tuple(data_shape)) if centre is None else centre.clone())
        if self.centre.shape != torch.Size(data_shape):
            raise ValueError(f"centre must have the shape of a datum {tuple(data_shape)}, got {tuple(centre.shape)}")
        widths = [math.prod(data_shape), *sizes]
        self.upward = nn.ModuleList(
            MLP(below, hidden, above, activation=activation) for below, above in pairwise(widths)
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        if mask is not None:
            x = torch.where(mask, x, self.centre)
        below = (x - self.centre).flatten(1)
        with pyro.plate("data", len(x), dim=-1):
            for name, net in zip(self.names, self.upward, strict=True):
                z = pyro.sample(name, self.sampled_as(net(below)))
                below = self.sampled_as.features(z)
        return z


class AmortizedCategorical(PyroModule):
    """q(z|x), independent categorical variables whose logits an encoder gives; missing entries enter as zeros.

    Site: `z` (one-hot, event shape `[num_variables, num_classes]`) in the plate "data", dimension -1.

    Args:
        encoder: a module from data `[B, ...]` to features `[B, out_features]`, with that attribute.
        num_variables: number of categorical variables.
        num_classes: classes of each.
        variable: how latents are drawn, `OneHot()` or `RelaxedOneHot(...)`.

    Raises:
        ValueError: for fewer than one variable or two classes.

    Reference: Jang, Gu and Poole (2017), section 4.2.

    >>> from pyrovae.nn import DenseEncoder
    >>> AmortizedCategorical(DenseEncoder((1, 4, 4), (8,)), 3, 5)(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(
        self, encoder: nn.Module, num_variables: int, num_classes: int, *, variable: nn.Module | None = None
    ) -> None:
        super().__init__()
        if num_variables < 1 or num_classes < 2:
            raise ValueError(f"need at least 1 variable of 2 classes, got {num_variables} of {num_classes}")
        self.encoder = encoder
        self.head = nn.Linear(encoder.out_features, num_variables * num_classes)
        self.shape = (num_variables, num_classes)
        self.sampled_as = OneHot() if variable is None else variable

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        if mask is not None:
            x = torch.where(mask, x, 0.0)
        with pyro.plate("data", len(x), dim=-1):
            logits = self.head(self.encoder(x)).unflatten(-1, self.shape)
            return pyro.sample("z", self.sampled_as(logits))
