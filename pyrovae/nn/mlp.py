"""Fully connected nets on the last dimension, any number of leading dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky-relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
LAYERS = ("plain", "gated", "residual")


def activation_module(activation: str | Callable[[], nn.Module]) -> nn.Module:
    """An activation from its name, or from a function that makes one (a class such as `torch.nn.ReLU`).

    Raises:
        ValueError: naming the known activations.
    """
    if not isinstance(activation, str):
        return activation()
    try:
        return ACTIVATIONS[activation.replace("_", "-")]()
    except KeyError:
        raise ValueError(f"unknown activation {activation!r}; known are {', '.join(ACTIVATIONS)}") from None


class Gated(nn.Module):
    r"""A gated linear layer, `(W x + b) * sigmoid(V x + c)`, `[..., in_features]` -> `[..., out_features]`.

    Reference: Dauphin et al. (2017), Language Modeling with Gated Convolutional Networks, equation 1.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return F.glu(self.linear(x), dim=-1)


class Residual(nn.Module):
    """A linear layer with activation and an identity skip, `x + f(W x + b)`; without the skip where sizes differ.

    Reference: He et al. (2016), Deep Residual Learning for Image Recognition, equation 1.
    """

    def __init__(self, in_features: int, out_features: int, activation: str | Callable[[], nn.Module]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.activation = activation_module(activation)
        self.skip = in_features == out_features

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        change = self.activation(self.linear(x))
        return x + change if self.skip else change


class MLP(nn.Module):
    """Hidden layers and an optional linear output layer, `[..., in_features]` -> `[..., out_features]`.

    Args:
        in_features: size of the input.
        hidden: sizes of the hidden layers.
        out_features: size of the output; None leaves out the last linear layer.
        activation: a name out of `ACTIVATIONS` or a function that makes a module; gated layers have none.
        layer: "plain", "gated" or "residual" (identity skips between hidden layers of equal size).
        dropout: probability of dropping a hidden unit in training.

    Raises:
        ValueError: for an unknown layer or activation, or sizes below 1.

    >>> import torch
    >>> MLP(4, (8, 8), 2, layer="gated")(torch.zeros(5, 3, 4)).shape
    torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int | None = None,
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        layer: str = "plain",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}; known are {', '.join(LAYERS)}")
        sizes = [in_features, *hidden]
        if min(sizes + ([] if out_features is None else [out_features])) < 1:
            raise ValueError(f"layer sizes must be at least 1, got {sizes} and {out_features}")
        self.layers = nn.Sequential()
        for before, after in pairwise(sizes):
            if layer == "gated":
                self.layers.append(Gated(before, after))
            elif layer == "residual":
                self.layers.append(Residual(before, after, activation))
            else:
                self.layers.extend([nn.Linear(before, after), activation_module(activation)])
            if dropout:
                self.layers.append(nn.Dropout(dropout))
        if out_features is not None:
            self.layers.append(nn.Linear(sizes[-1], out_features))
        self.in_features = in_features
        self.out_features = sizes[-1] if out_features is None else out_features

    def forward(self, x: Tensor) -> Tensor:
        """Apply the net."""
        return self.layers(x)


class TiedMLP(nn.Module):
    """A decoder whose hidden and output weights are those of a plain encoder MLP, transposed.

    The encoder keeps its weights: only the first layer (from the latent) and the biases are parameters of this net.

    Args:
        in_features: size of the latent.
        encoder: the plain `MLP` without output layer whose weights are used.
        activation: as for `MLP`.

    Raises:
        ValueError: if the encoder has other than linear layers and activations.

    >>> import torch
    >>> encoder = MLP(6, (5, 4))
    >>> TiedMLP(2, encoder)(torch.zeros(3, 2)).shape
    torch.Size([3, 6])
    """

    def __init__(self, in_features: int, encoder: MLP, *, activation: str | Callable[[], nn.Module] = "relu") -> None:
        super().__init__()
        if any(isinstance(module, Gated | Residual) for module in encoder.layers):
            raise ValueError("weights can be tied to an encoder with plain layers only")
        linear = [module for module in encoder.layers if isinstance(module, nn.Linear)][::-1]
        # In a tuple, so that the encoder's layers do not become this module's own.
        self._tied: tuple[Any, ...] = tuple(linear)
        self.first = nn.Linear(in_features, linear[0].out_features)
        self.biases = nn.ParameterList([nn.Parameter(layer.weight.new_zeros(layer.in_features)) for layer in linear])
        self.activation = activation_module(activation)
        self.in_features, self.out_features = in_features, linear[-1].in_features

    def forward(self, z: Tensor) -> Tensor:
        """Apply the net."""
        hidden = self.first(z)
        for layer, bias in zip(self._tied, self.biases, strict=True):
            hidden = F.linear(self.activation(hidden), layer.weight.T, bias)
        return hidden
