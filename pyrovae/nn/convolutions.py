"""What convolutional encoders and decoders share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyrovae.nn.mlp import activation_module

CONV_LAYERS = ("plain", "residual")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity skip, ``[N, C, H, W]`` -> ``[N, C, H, W]``.

    Use it to make convolutional nets deeper. An activation stands before each convolution, none behind the sum: the
    layer that follows should begin with one.

    Parameters
    ----------
    channels : int
        Number of channels C.
    activation : str or callable, default "relu"
        As for `MLP`.

    Notes
    -----
    The block computes ``x + conv(f(conv(f(x))))``, without batch normalisation.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun (2016), "Identity mappings in deep residual networks", figure 4(e).

    Examples
    --------
    >>> import torch
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


def residual_blocks(layer: str, channels: int, activation: str | Callable[[], nn.Module]) -> list[nn.Module]:
    """Make the blocks that a kind of layer adds at one size of the pictures: one `ResidualBlock`, or none.

    Parameters
    ----------
    layer : {"plain", "residual"}
        Kind of layer.
    channels : int
        Channels of the pictures at this size.
    activation : str or callable
        As for `MLP`.

    Returns
    -------
    list of Module
        One block for "residual", empty for "plain".

    Raises
    ------
    ValueError
        The layer is another one.
    """
    if layer not in CONV_LAYERS:
        raise ValueError(
            f"layer {layer!r} is not for convolutional nets, whose layers are {' or '.join(CONV_LAYERS)}; "
            "choose one of them, or dense nets"
        )
    return [ResidualBlock(channels, activation)] if layer == "residual" else []


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Check that data are pictures that convolutional nets can halve twice.

    Parameters
    ----------
    shape : sequence of int
        Shape of one datum.

    Returns
    -------
    tuple of int
        Channels, height and width.

    Raises
    ------
    ValueError
        The shape does not have three sizes, a size is below 1, or 4 does not divide the height and the width.
    """
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4 or min(shape) < 1:
        raise ValueError(
            f"convolutional nets take pictures (channels, height, width) of a size divisible by 4, got {tuple(shape)}; "
            "use dense nets, or pad the pictures"
        )
    channels, height, width = shape
    return channels, height, width
