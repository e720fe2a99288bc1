"""Synthetic landmarks: points of deforming 3-D shapes, seen by a camera. The 3-D truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.data.dataset import Rows
from pyrovae.data.files import Files
from pyrovae.data.preprocessing import seeded_generator
from pyrovae.data.registry import Splits, register

_LANDMARKS, _MODES = 24, 3
_SIZES = (4000, 500, 1000)
_ANGLES = (0.9, 0.5, 0.3)  # largest turn about the three axes, in radians


class Views(NamedTuple):
    """Landmarks as they are and as they are seen."""

    x: Tensor
    """Where they are seen, ``[N, L, 2]``."""
    shapes: Tensor
    """Where they are before the camera turns, ``[N, L, 3]``."""
    projections: Tensor
    """The camera of each row: ``[x, y, z, 1] @ projection`` is ``[u, v, 1]``, ``[N, 4, 3]``."""


@dataclass(frozen=True, eq=False)
class LandmarkShapes:
    """Shapes of L landmarks that deform in a few ways, seen by cameras that turn, scale and shift them.

    Parameters
    ----------
    mean : Tensor, shape ``[L, 3]``
        The mean shape.
    modes : Tensor, shape ``[K, L, 3]``
        Ways in which it deforms, each by a standard normal amount.
    noise : float, default 0.01
        Standard deviation of what is seen.

    Notes
    -----
    A camera turns the shape by up to 0.9, 0.5 and 0.3 radians about the vertical, the horizontal and the viewing axis,
    drops the depth, scales by up to a fifth and shifts. The mean shape has size 1: its points have a root mean square
    distance of 1 from their centre.

    Examples
    --------
    >>> views = LandmarkShapes.random(torch.Generator().manual_seed(0)).sample(5, torch.Generator().manual_seed(1))
    >>> views.x.shape, views.shapes.shape
    (torch.Size([5, 24, 2]), torch.Size([5, 24, 3]))
    """

    mean: Tensor
    modes: Tensor
    noise: float = 0.01

    @classmethod
    def random(cls, generator: torch.Generator, landmarks: int = _LANDMARKS, modes: int = _MODES) -> LandmarkShapes:
        """Draw a mean shape and its ways to deform.

        Parameters
        ----------
        generator : torch.Generator
            Source of the random numbers.
        landmarks : int, default 24
            Number L of landmarks.
        modes : int, default 3
            Number K of ways.
        """
        mean = torch.randn(landmarks, 3, generator=generator)
        mean = mean - mean.mean(0)
        mean = mean / mean.square().sum(1).mean().sqrt()
        # Neighbours move together: each way is a smooth function of the place.
        waves = torch.randn(modes, 3, 3, generator=generator)
        phases = 6.3 * torch.rand(modes, 1, 3, generator=generator)
        ways = torch.sin(mean @ waves + phases)
        ways = ways - ways.mean(1, keepdim=True)
        return cls(mean, 0.15 * ways / ways.square().sum(2).mean(1).sqrt()[:, None, None])

    def sample(self, num_rows: int, generator: torch.Generator) -> Views:
        """Draw shapes and cameras, and look at them.

        Parameters
        ----------
        num_rows : int
            Number N of rows.
        generator : torch.Generator
            Source of the random numbers.
        """
        amounts = torch.randn(num_rows, len(self.modes), generator=generator)
        shapes = self.mean + torch.einsum("nk,kld->nld", amounts, self.modes)
        angles = (2 * torch.rand(num_rows, 3, generator=generator) - 1) * torch.tensor(_ANGLES)
        turned = rotations(angles)
        scale = 1 + 0.2 * (2 * torch.rand(num_rows, 1, 1, generator=generator) - 1)
        shift = 0.1 * torch.randn(num_rows, 1, 2, generator=generator)
        projections = torch.zeros(num_rows, 4, 3)
        projections[:, :3, :2] = scale * turned[:, :, :2]
        projections[:, 3:, :2] = shift
        projections[:, 3, 2] = 1
        seen = shapes @ projections[:, :3, :2] + shift
        x = seen + self.noise * torch.randn(seen.shape, generator=generator)
        return Views(x, shapes, projections)


def rotations(angles: Tensor) -> Tensor:
    """Rotations about the vertical, the horizontal and the viewing axis, one after the other.

    Parameters
    ----------
    angles : Tensor, shape ``[N, 3]``
        The angles in radians.

    Returns
    -------
    Tensor, shape ``[N, 3, 3]``
        Matrices that turn row vectors from the left, ``points @ rotation``.
    """
    turned = torch.eye(3).expand(len(angles), 3, 3)
    for axis, (first, second) in zip(angles.T, ((2, 0), (1, 2), (0, 1)), strict=True):
        one = torch.eye(3).repeat(len(angles), 1, 1)
        one[:, first, first] = one[:, second, second] = axis.cos()
        one[:, first, second], one[:, second, first] = axis.sin(), -axis.sin()
        turned = turned @ one
    return turned


def landmark_views(seed: int = 0) -> dict[str, Views]:
    """The views of the data set "landmarks", with the 3-D truth, by split.

    Parameters
    ----------
    seed : int, default 0
        The seed of `pyrovae.data.load`.

    Returns
    -------
    dict of str to Views
        "train", of which the last rows are the validation rows, and "test".
    """
    shapes = LandmarkShapes.random(seeded_generator(seed, stream=0))
    return {
        "train": shapes.sample(_SIZES[0] + _SIZES[1], seeded_generator(seed, stream=1)),
        "test": shapes.sample(_SIZES[2], seeded_generator(seed, stream=2)),
    }


@register(
    "landmarks",
    summary="synthetic: 24 landmarks of deforming 3-D shapes as cameras see them, 3-D truth known",
    shape=(_LANDMARKS, 2),
    sizes=_SIZES,
    kind="real",
    source="drawn from the seed",
)
def landmarks(files: Files, validation_size: int, seed: int) -> Splits:
    """Draw the landmarks, see `landmark_views`.

    Parameters
    ----------
    files : Files
        Not used.
    validation_size : int
        Number of validation rows.
    seed : int
        Seed of shapes, cameras and noise. The test rows do not depend on `validation_size`.

    Returns
    -------
    Splits
        Rows ``[N, 24, 2]``.

    Raises
    ------
    ValueError
        `validation_size` leaves no training rows.
    """
    views = landmark_views(seed)
    x = views["train"].x
    if validation_size >= len(x):
        raise ValueError(f"validation must be below the {len(x)} training rows, not {validation_size}")
    return Splits(Rows(x[:-validation_size]), Rows(x[-validation_size:]), Rows(views["test"].x))
