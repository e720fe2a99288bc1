"""Encoders from data to features."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.masks import fill_missing
from pyrovae.nn.convolutions import picture_shape, residual_blocks
from pyrovae.nn.mlp import MLP, activation_module


def encoded(encoder: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the features of data by an encoder, with a mask where the encoder takes one.

    Guides call it, so that for complete data any module serves as an encoder, such as a plain `nn.Sequential`.

    Parameters
    ----------
    encoder : Module
        From data, and their mask, to features.
    x : Tensor, shape ``[..., *data_shape]``
        The data.
    mask : Tensor of bool, shape of `x`, or None
        True where an entry is observed. None means that all are.

    Returns
    -------
    Tensor, shape ``[..., out_features]``
        The features.

    Raises
    ------
    TypeError
        There is a mask, and the encoder takes none.
    """
    if mask is None:
        return encoder(x)
    if "mask" not in inspect.signature(encoder.forward).parameters:
        raise TypeError(
            f"the data have missing entries, and the encoder {type(encoder).__name__} takes no mask; encoders take "
            "(x, mask) and fill in missing entries themselves, as DenseEncoder does"
        )
    return encoder(x, mask)


def num_features(encoder: Any) -> int:
    """Return the attribute `out_features` of an encoder, which may be any module that has one."""
    return encoder.out_features


class FlatEncoder(nn.Module):
    """The entries of the data as features, ``[..., *data_shape]`` -> ``[..., out_features]``. It has no parameters.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    centre : Tensor, shape `data_shape`, optional
        The mean of the data, which is subtracted. Missing entries count as the mean, so they become zeros. None
        subtracts nothing.

    Raises
    ------
    ValueError
        `centre` has another shape.

    Examples
    --------
    >>> FlatEncoder((1, 4, 4))(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 16])
    """

    centre: Tensor

    def __init__(self, data_shape: Sequence[int], centre: Tensor | None = None) -> None:
        super().__init__()
        self.data_dim = len(data_shape)
        zeros = torch.zeros(tuple(data_shape))
        self.register_buffer("centre", zeros if centre is None else centre.clone(), persistent=centre is not None)
        if centre is not None and centre.shape != torch.Size(data_shape):
            raise ValueError(f"centre must have the shape of a datum {tuple(data_shape)}, got {tuple(centre.shape)}")
        self.out_features = math.prod(data_shape)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Flatten data ``[..., *data_shape]`` to ``[..., out_features]``, less the centre."""
        return (fill_missing(x, mask, self.centre) - self.centre).flatten(-self.data_dim)


class DenseEncoder(nn.Module):
    """An `MLP` on flattened data, ``[..., *data_shape]`` -> ``[..., out_features]``.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    hidden : sequence of int, default (500,)
        Sizes of the hidden layers, at least one. The last one is `out_features`.
    sees_mask : bool, default False
        Whether the net also gets the mask, 1 where an entry is observed. Choose it for data with missing entries: then
        a missing entry is not taken for a zero.
    **options
        Options of `MLP`.

    Raises
    ------
    ValueError
        There is no hidden layer, or the sizes or options do not suit `MLP`.

    Examples
    --------
    >>> DenseEncoder((1, 4, 4), (8,))(torch.zeros(2, 3, 1, 4, 4)).shape
    torch.Size([2, 3, 8])
    """

    def __init__(
        self, data_shape: Sequence[int], hidden: Sequence[int] = (500,), *, sees_mask: bool = False, **options: Any
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("an encoder needs at least one hidden layer")
        self.data_dim = len(data_shape)
        self.sees_mask = sees_mask
        self.net = MLP((2 if sees_mask else 1) * math.prod(data_shape), hidden, **options)
        self.out_features = self.net.out_features

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute features ``[..., out_features]`` of data ``[..., *data_shape]``. Missing entries become zeros."""
        filled = fill_missing(x, mask, 0.0)
        if self.sees_mask:
            filled = torch.stack([filled, _as_numbers(mask, filled)], -1 - self.data_dim)
            return self.net(filled.flatten(-1 - self.data_dim))
        return self.net(filled.flatten(-self.data_dim))


class ConvEncoder(nn.Module):
    """Strided convolutions and a dense layer, ``[..., C, H, W]`` -> ``[..., out_features]``.

    Use it for pictures.

    Parameters
    ----------
    data_shape : sequence of int, ``(C, H, W)``
        Shape of one picture. 4 must divide H and W.
    channels : tuple of int, default (32, 64)
        Channels at half and at a quarter of the size of the picture.
    out_features : int, default 256
        Size of the dense layer.
    activation : str or callable, default "relu"
        As for `MLP`.
    layer : {"plain", "residual"}, default "plain"
        "residual" puts a `ResidualBlock` after each halving of the size.
    sees_mask : bool, default False
        Whether the net also gets the mask, as further channels, see `DenseEncoder`.

    Raises
    ------
    ValueError
        The data are not pictures of a size that 4 divides, or the layer is another one.

    Examples
    --------
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
        sees_mask: bool = False,
    ) -> None:
        super().__init__()
        depth, height, width = picture_shape(data_shape)
        first, second = channels
        self.sees_mask = sees_mask
        self.net = nn.Sequential(
            nn.Conv2d(2 * depth if sees_mask else depth, first, 4, stride=2, padding=1),
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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute features ``[..., out_features]`` of pictures ``[..., C, H, W]``. Missing entries become zeros."""
        x = fill_missing(x, mask, 0.0)
        if self.sees_mask:
            x = torch.cat([x, _as_numbers(mask, x)], -3)
        return self.net(x.reshape(-1, *x.shape[-3:])).reshape(*x.shape[:-3], self.out_features)


def _as_numbers(mask: Tensor | None, x: Tensor) -> Tensor:
    """The mask as numbers of the type of the data; ones where all entries are observed."""
    return torch.ones_like(x) if mask is None else mask.to(x.dtype)
