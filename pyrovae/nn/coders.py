"""Encoders from data to features and decoders from latents to the raw parameters of a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyrovae.nn.mlp import MLP, TiedMLP, activation_module

CONV_LAYERS = ("plain", "residual")


class DenseEncoder(nn.Module):
    """An `MLP` on flattened data, `[..., *data_shape]` -> `[..., out_features]`.

    Args:
        data_shape: shape of one datum.
        hidden: sizes of the hidden layers; the last one is `out_features`.
        **options: those of `MLP`.
    """

    def __init__(self, data_shape: Sequence[int], hidden: Sequence[int] = (500,), **options: Any) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("an encoder needs at least one hidden layer")
        self.data_dim = len(data_shape)
        self.net = MLP(math.prod(data_shape), hidden, **options)
        self.out_features = self.net.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features of the data."""
        return self.net(x.flatten(-self.data_dim))


class DenseDecoder(nn.Module):
    """An `MLP` from the latent to raw likelihood parameters, `[..., latent_dim]` -> `[..., *raw_shape]`.

    Args:
        latent_dim: size of the latent.
        raw_shape: `raw_shape` of the likelihood.
        hidden: sizes of the hidden layers, from the latent outwards.
        tied_to: a `DenseEncoder` with plain layers whose weights are used, transposed, instead of own ones; `hidden`
            is then the encoder's, reversed.
        **options: those of `MLP`.

    Raises:
        ValueError: if weights are tied and `raw_shape` has not the size of the data.
    """

    def __init__(
        self,
        latent_dim: int,
        raw_shape: Sequence[int],
        hidden: Sequence[int] = (500,),
        *,
        tied_to: DenseEncoder | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.raw_shape = tuple(raw_shape)
        size = math.prod(raw_shape)
        if tied_to is None:
            self.net: nn.Module = MLP(latent_dim, hidden, size, **options)
        else:
            if tied_to.net.in_features != size:
                raise ValueError(
                    f"tied weights give {tied_to.net.in_features} outputs, the likelihood needs {size}: tie only with "
                    "a likelihood of one parameter a pixel"
                )
            self.net = TiedMLP(latent_dim, tied_to.net, **options)

    def forward(self, z: Tensor) -> Tensor:
        """Raw likelihood parameters."""
        return self.net(z).unflatten(-1, self.raw_shape)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity skip, `x + conv(f(conv(f(x))))`, `[N, C, H, W]` -> `[N, C, H, W]`.

    The activation comes before each convolution, so the sum is to be activated by what follows.

    Reference: He et al. (2016), Identity Mappings in Deep Residual Networks, figure 4(e), without batch normalisation.

    Args:
        channels: C.
        activation: as for `MLP`.

    >>> ResidualBlock(4)(torch.zeros(2, 4, 7, 7)).shape
    torch.Size([2, 4, 7, 7])
    """

    def __init__(self, channels: int, activation: str | Callable[[], nn.Module] = "relu") -> None:
        super().__init__()
        self.change = nn.Sequential(
            activation_module(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation_module(activation),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return x + self.change(x)


class ConvEncoder(nn.Module):
    """Strided convolutions and a dense layer, `[..., C, H, W]` -> `[..., out_features]`.

    Args:
        data_shape: `(C, H, W)` with H and W divisible by 4.
        channels: channels after the first and the second halving of the picture.
        out_features: size of the dense layer.
        activation: as for `MLP`.
        layer: "plain", or "residual" for a `ResidualBlock` after each halving.

    Raises:
        ValueError: if the data are no pictures of a size divisible by 4, or for another layer.

    >>> ConvEncoder((1, 28, 28))(torch.zeros(2, 3, 1, 28, 28)).shape
    torch.Size([2, 3, 256])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        channels: tuple[int, int] = (32, 64),
        out_features: int = 256,
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        layer: str = "plain",
    ) -> None:
        super().__init__()
        depth, height, width = _picture(data_shape)
        first, second = channels
        self.net = nn.Sequential(
            nn.Conv2d(depth, first, 4, stride=2, padding=1),
            *_blocks(layer, first, activation),
            activation_module(activation),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            *_blocks(layer, second, activation),
            activation_module(activation),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), out_features),
            activation_module(activation),
        )
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features of the pictures."""
        return self.net(x.reshape(-1, *x.shape[-3:])).reshape(*x.shape[:-3], self.out_features)


class ConvDecoder(nn.Module):
    """A dense layer and transposed convolutions, `[..., latent_dim]` -> `[..., C, H, W]`.

    Args:
        latent_dim: size of the latent.
        raw_shape: `raw_shape` of the likelihood, `(C, H, W)` with H and W divisible by 4.
        channels: channels at half and at a quarter of the picture's size, as in `ConvEncoder`.
        hidden: size of the dense layer before the convolutions.
        activation: as for `MLP`.
        layer: "plain", or "residual" for a `ResidualBlock` before each doubling, which mirrors the encoder.
        tied_to: a plain `ConvEncoder` whose convolution kernels are used, transposed, instead of own ones.

    Raises:
        ValueError: for another shape or layer, kernels that do not fit, or tied weights with other than plain layers.

    >>> ConvDecoder(10, (1, 28, 28))(torch.zeros(2, 3, 10)).shape
    torch.Size([2, 3, 1, 28, 28])
    """

    def __init__(
        self,
        latent_dim: int,
        raw_shape: Sequence[int],
        channels: tuple[int, int] = (32, 64),
        hidden: int = 256,
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        layer: str = "plain",
        tied_to: ConvEncoder | None = None,
    ) -> None:
        super().__init__()
        depth, height, width = _picture(raw_shape)
        first, second = channels
        self.quarter = (second, height // 4, width // 4)
        self.dense = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            activation_module(activation),
            nn.Linear(hidden, math.prod(self.quarter)),
            *(nn.Sequential(nn.Unflatten(1, self.quarter), block) for block in _blocks(layer, second, activation)),
            activation_module(activation),
        )
        self.activation = activation_module(activation)
        self._tied: tuple[nn.Module, ...] = ()
        if tied_to is None:
            up1, blocks = nn.ConvTranspose2d(second, first, 4, stride=2, padding=1), _blocks(layer, first, activation)
            self.up1: nn.Module = nn.Sequential(up1, *blocks) if blocks else up1
            self.up2: nn.Module = nn.ConvTranspose2d(first, depth, 4, stride=2, padding=1)
        else:
            if layer != "plain" or any(isinstance(module, ResidualBlock) for module in tied_to.net):
                raise ValueError("weights can be tied between convolutional nets with plain layers only")
            convolutions = [module for module in tied_to.net if isinstance(module, nn.Conv2d)]
            shapes = [tuple(c.weight.shape[:2]) for c in convolutions]
            if shapes != [(first, depth), (second, first)]:
                raise ValueError(
                    f"kernels of {shapes} (out, in) channels cannot be tied to a decoder with {depth} raw channels "
                    f"and channels={channels}; tie only with a likelihood of one parameter a pixel"
                )
            self._tied = tuple(convolutions[::-1])
            self.biases = nn.ParameterList([nn.Parameter(torch.zeros(c.in_channels)) for c in self._tied])

    def forward(self, z: Tensor) -> Tensor:
        """Raw likelihood parameters."""
        flat = self.dense(z.reshape(-1, z.shape[-1])).reshape(-1, *self.quarter)
        if self._tied:
            (low, high), (bias1, bias2) = self._tied, self.biases
            flat = self.activation(F.conv_transpose2d(flat, low.weight, bias1, stride=2, padding=1))
            flat = F.conv_transpose2d(flat, high.weight, bias2, stride=2, padding=1)
        else:
            flat = self.up2(self.activation(self.up1(flat)))
        return flat.reshape(*z.shape[:-1], *flat.shape[1:])


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


def _blocks(layer: str, channels: int, activation: str | Callable[[], nn.Module]) -> list[nn.Module]:
    """What a kind of layer adds where a picture has been halved or is to be doubled."""
    if layer not in CONV_LAYERS:
        raise ValueError(
            f"layer {layer!r} is not for convolutional nets, whose layers are {' or '.join(CONV_LAYERS)}; "
            "choose one of them, or dense nets"
        )
    return [ResidualBlock(channels, activation)] if layer == "residual" else []


def _picture(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4 or min(shape) < 1:
        raise ValueError(
            f"convolutional nets take pictures (channels, height, width) of a size divisible by 4, got {tuple(shape)}; "
            "use dense nets, or pad the pictures"
        )
    return tuple(shape)
