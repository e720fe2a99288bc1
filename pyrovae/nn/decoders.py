"""Decoders from latents to the raw parameters of a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrovae.nn.convolutions import ResidualBlock, picture_shape, residual_blocks
from pyrovae.nn.encoders import ConvEncoder, DenseEncoder
from pyrovae.nn.mlp import MLP, TiedMLP, activation_module


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
        depth, height, width = picture_shape(raw_shape)
        first, second = channels
        self.quarter = (second, height // 4, width // 4)
        self.dense = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            activation_module(activation),
            nn.Linear(hidden, math.prod(self.quarter)),
            *(
                nn.Sequential(nn.Unflatten(1, self.quarter), block)
                for block in residual_blocks(layer, second, activation)
            ),
            activation_module(activation),
        )
        self.activation = activation_module(activation)
        self._tied: tuple[nn.Module, ...] = ()
        if tied_to is None:
            up1, blocks = (
                nn.ConvTranspose2d(second, first, 4, stride=2, padding=1),
                residual_blocks(layer, first, activation),
            )
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
