"""Encoders from data to features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae.nn.convolutions import picture_shape, residual_blocks
from pyrovae.nn.mlp import MLP, activation_module


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
        depth, height, width = picture_shape(data_shape)
        first, second = channels
        self.net = nn.Sequential(
            nn.Conv2d(depth, first, 4, stride=2, padding=1),
            *residual_blocks(layer, first, activation),
            activation_module(activation),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            *residual_blocks(layer, second, activation),
            activation_module(activation),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), out_features),
            activation_module(activation),
        )
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """Features of the pictures."""
        return self.net(x.reshape(-1, *x.shape[-3:])).reshape(*x.shape[:-3], self.out_features)
