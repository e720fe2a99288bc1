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
    """Make an activation from its name, or by a function.

    Parameters
    ----------
    activation : str or callable
        A name out of `ACTIVATIONS`, or a function that makes a module, such as the class `torch.nn.ReLU`.

    Returns
    -------
    Module
        A new activation.

    Raises
    ------
    ValueError
        The name is unknown. The message lists the known ones.

    Examples
    --------
    >>> activation_module("leaky-relu")
    LeakyReLU(negative_slope=0.01)
    """
    if not isinstance(activation, str):
        return activation()
    try:
        return ACTIVATIONS[activation.replace("_", "-")]()
    except KeyError:
        raise ValueError(f"unknown activation {activation!r}; known are {', '.join(ACTIVATIONS)}") from None


class Gated(nn.Module):
    """A gated linear layer, ``[..., in_features]`` -> ``[..., out_features]``.

    Parameters
    ----------
    in_features : int
        Size of the input.
    out_features : int
        Size of the output.

    Notes
    -----
    The layer computes ``(W x + b) * sigmoid(V x + c)``.

    References
    ----------
    Y. Dauphin, A. Fan, M. Auli and D. Grangier (2017), "Language modeling with gated convolutional networks", equation
    1.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., in_features]``."""
        return F.glu(self.linear(x), dim=-1)


class Residual(nn.Module):
    """A linear layer with an activation and an identity skip, ``[..., in_features]`` -> ``[..., out_features]``.

    Parameters
    ----------
    in_features : int
        Size of the input.
    out_features : int
        Size of the output. The skip is left out where it differs from `in_features`.
    activation : str or callable
        As for `MLP`.

    Notes
    -----
    The layer computes ``x + f(W x + b)``, and ``f(W x + b)`` without the skip.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun (2016), "Deep residual learning for image recognition", equation 1.
    """

    def __init__(self, in_features: int, out_features: int, activation: str | Callable[[], nn.Module]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.activation = activation_module(activation)
        self.skip = in_features == out_features

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., in_features]``."""
        change = self.activation(self.linear(x))
        return x + change if self.skip else change


class MLP(nn.Module):
    """Hidden layers and an optional linear output layer, ``[..., in_features]`` -> ``[..., out_features]``.

    Parameters
    ----------
    in_features : int
        Size of the input.
    hidden : sequence of int
        Sizes of the hidden layers. It may be empty.
    out_features : int, optional
        Size of the output. None leaves out the linear output layer.
    activation : str or callable, default "relu"
        A name out of `ACTIVATIONS`, or a function that makes a module. Gated layers do not use it.
    layer : {"plain", "gated", "residual"}, default "plain"
        Kind of the hidden layers. "residual" has identity skips between layers of equal size. Try "gated" or "residual"
        if "plain" does not fit well enough.
    dropout : float, default 0.0
        Probability of dropping a hidden unit in training.

    Raises
    ------
    ValueError
        The layer or its activation is unknown, or a size is below 1.

    Examples
    --------
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
            shown = sizes if out_features is None else [*sizes, out_features]
            raise ValueError(f"layer sizes must be at least 1, got {', '.join(map(str, shown))}")
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
        """Apply the net to ``[..., in_features]``."""
        return self.layers(x)


class TiedMLP(nn.Module):
    """A decoder that uses the weights of a plain encoder `MLP`, transposed, ``[..., in_features]`` -> ``[..., D]``.

    Use it to save parameters. D is the size of the encoder's input.

    Parameters
    ----------
    in_features : int
        Size of the latent.
    encoder : MLP
        The net whose weights are used: plain layers, at least one, and no output layer.
    activation : str or callable, default "relu"
        As for `MLP`.

    Raises
    ------
    ValueError
        The encoder has gated or residual layers.

    Notes
    -----
    The encoder owns the weights. The parameters of this net are its first layer, from the latent, and its biases.

    Examples
    --------
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
        """Apply the net to ``[..., in_features]``."""
        hidden = self.first(z)
        for layer, bias in zip(self._tied, self.biases, strict=True):
            hidden = F.linear(self.activation(hidden), layer.weight.T, bias)
        return hidden
