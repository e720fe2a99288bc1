"""What convolutional encoders and decoders share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyrovae.nn.mlp import activation_module

CONV_LAYERS = ("plain", "residual")


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


def residual_blocks(layer: str, channels: int, activation: str | Callable[[], nn.Module]) -> list[nn.Module]:
    """What a kind of layer adds where a picture has been halved or is to be doubled."""
    if layer not in CONV_LAYERS:
        raise ValueError(
            f"layer {layer!r} is not for convolutional nets, whose layers are {' or '.join(CONV_LAYERS)}; "
            "choose one of them, or dense nets"
        )
    return [ResidualBlock(channels, activation)] if layer == "residual" else []


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of pictures that convolutional nets can halve twice.

    Raises
    ------
    ValueError
        For data of another shape, and for sizes that 4 does not divide.
    """
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4 or min(shape) < 1:
        raise ValueError(
            f"convolutional nets take pictures (channels, height, width) of a size divisible by 4, got {tuple(shape)}; "
            "use dense nets, or pad the pictures"
        )
    return tuple(shape)
