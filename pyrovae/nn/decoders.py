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
    """An `MLP` from the latent to raw likelihood parameters, ``[..., latent_dim]`` -> ``[..., *raw_shape]``.

    Parameters
    ----------
    latent_dim : int
        Size of the latent.
    raw_shape : sequence of int
        `raw_shape` of the likelihood.
    hidden : sequence of int, default (500,)
        Sizes of the hidden layers, from the latent to the data. Not used with tied weights.
    tied_to : DenseEncoder, optional
        An encoder with plain layers. The decoder then uses its weights, transposed, and has its hidden sizes in
        reverse. This saves parameters. None gives the decoder its own weights.
    **options
        Options of `MLP`. With tied weights only `activation`.

    Raises
    ------
    ValueError
        The sizes or options do not suit `MLP`. With tied weights: the encoder has gated or residual layers, or
        `raw_shape` has another number of entries than the data.

    Examples
    --------
    >>> DenseDecoder(10, (1, 4, 4))(torch.zeros(2, 3, 10)).shape
    torch.Size([2, 3, 1, 4, 4])
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
                    "a likelihood of one parameter per pixel"
                )
            self.net = TiedMLP(latent_dim, tied_to.net, **options)

    def forward(self, z: Tensor) -> Tensor:
        """Compute raw likelihood parameters ``[..., *raw_shape]`` of latents ``[..., latent_dim]``."""
        return self.net(z).unflatten(-1, self.raw_shape)


class ConvDecoder(nn.Module):
    """Dense layers and transposed convolutions, ``[..., latent_dim]`` -> ``[..., C, H, W]``.

    Use it for pictures.

    Parameters
    ----------
    latent_dim : int
        Size of the latent.
    raw_shape : sequence of int, ``(C, H, W)``
        `raw_shape` of the likelihood. 4 must divide H and W.
    channels : tuple of int, default (32, 64)
        Channels at half and at a quarter of the size of the picture, in this order, as in `ConvEncoder`.
    hidden : int, default 256
        Size of the hidden dense layer before the convolutions.
    activation : str or callable, default "relu"
        As for `MLP`.
    layer : {"plain", "residual"}, default "plain"
        "residual" puts a `ResidualBlock` before each doubling of the size, which mirrors the encoder.
    tied_to : ConvEncoder, optional
        An encoder with plain layers. The decoder then uses its convolution kernels, transposed. None gives the decoder
        its own kernels.

    Raises
    ------
    ValueError
        The shape or the layer does not suit. With tied weights: one of the nets has residual layers, or the kernels do
        not fit `channels` and C.

    Examples
    --------
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
        self._tied: tuple[nn.Conv2d, ...] = ()
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
                    f"and channels={channels}; tie only with a likelihood of one parameter per pixel"
                )
            self._tied = tuple(convolutions[::-1])
            self.biases = nn.ParameterList([nn.Parameter(torch.zeros(c.in_channels)) for c in self._tied])

    def forward(self, z: Tensor) -> Tensor:
        """Compute raw likelihood parameters ``[..., C, H, W]`` of latents ``[..., latent_dim]``."""
        flat = self.dense(z.reshape(-1, z.shape[-1])).reshape(-1, *self.quarter)
        if self._tied:
            (low, high), (bias1, bias2) = self._tied, self.biases
            flat = self.activation(F.conv_transpose2d(flat, low.weight, bias1, stride=2, padding=1))
            flat = F.conv_transpose2d(flat, high.weight, bias2, stride=2, padding=1)
        else:
            flat = self.up2(self.activation(self.up1(flat)))
        return flat.reshape(*z.shape[:-1], *flat.shape[1:])
