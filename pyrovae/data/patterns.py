"""Masks of missing entries of data of any shape: single entries, points whose numbers vanish together, blocks.

Use these for pictures, landmarks and vectors; `pyrovae.data.missing` has the mechanisms of tables. A mask is True where
an entry is observed, as everywhere in the library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.dataset import TABLE, Dataset, Rows
from pyrovae.data.hiding import HideAtRandom
from pyrovae.data.preprocessing import seeded_generator

PATTERNS = ("entries", "points", "block")
"""What is hidden as one."""
_HIDING = 5  # the first of the streams of random numbers, one for each split


def random_mask(
    shape: Sequence[int], num_rows: int, rate: float, pattern: str = "entries", generator: torch.Generator | None = None
) -> Tensor:
    """Hide a share of every datum at random.

    Parameters
    ----------
    shape : sequence of int
        Shape of one datum.
    num_rows : int
        Number N of rows.
    rate : float
        Share to hide, from 0 to 1.
    pattern : {"entries", "points", "block"}, default "entries"
        "entries" hides each entry on its own with probability `rate`. "points" hides the numbers of a point together,
        each point on its own with probability `rate`: the coordinates of a landmark (data ``[L, D]`` or ``[D, L]``, D
        is the dimension of size 2 or 3), the channels of a pixel (data ``[C, H, W]``). "block" hides one block of
        neighbours in each datum, at a random place, of the share `rate` of its area: a rectangle of the proportions of
        the picture (all channels), a run of entries of a vector, a run of landmarks.
    generator : torch.Generator, optional
        Source of the random numbers. None takes the global one.

    Returns
    -------
    Tensor of bool, shape ``[N, *shape]``
        True where an entry is observed.

    Raises
    ------
    ValueError
        For a rate out of range, another pattern, and "points" of data that have none.

    Examples
    --------
    >>> mask = random_mask((1, 4, 4), 3, 0.25, "block", torch.Generator().manual_seed(0))
    >>> (~mask).sum((1, 2, 3)).tolist()
    [4, 4, 4]
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the share of missing entries must be from 0 to 1, got {rate}")
    if pattern not in PATTERNS:
        raise ValueError(f"the pattern of missing entries must be one of {', '.join(PATTERNS)}, got {pattern!r}")
    shape = tuple(shape)
    if pattern == "entries":
        return torch.rand(num_rows, *shape, generator=generator) >= rate
    points = points_of(shape)
    if pattern == "points":
        if math.prod(points) == math.prod(shape):
            raise ValueError(
                f"a datum of shape {shape} has no points of several numbers, so the pattern 'points' hides nothing "
                "that 'entries' does not"
            )
        mask = torch.rand(num_rows, *points, generator=generator) >= rate
    else:
        mask = _block(points, num_rows, rate, generator)
    return mask.expand(num_rows, *shape).clone()


def points_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the points of a datum, with 1 for the dimension that holds the numbers of a point.

    Examples
    --------
    >>> points_of((3, 28, 28)), points_of((68, 2)), points_of((2, 68)), points_of((10,))
    ((1, 28, 28), (68, 1), (1, 68), (10,))
    """
    shape = tuple(shape)
    if len(shape) == 3:
        return (1, *shape[1:])
    if len(shape) == 2:
        return (shape[0], 1) if shape[1] in (2, 3) or shape[0] not in (2, 3) else (1, shape[1])
    return shape


def hide_in_training(dataset: Dataset, rate: float, pattern: str = "entries", seed: int = 0) -> Dataset:
    """Hide a share of the training and validation rows once and for all: training on incomplete data.

    Parameters
    ----------
    dataset : Dataset
        The data, no table. What is missing already stays missing.
    rate, pattern
        See `random_mask`.
    seed : int, default 0
        Fixes what is hidden.

    Returns
    -------
    Dataset
        The data with masks. Hidden values are replaced by zeros, so that nothing can look at them. Test rows stay
        complete; a figure on incomplete test rows draws its own mask.

    Raises
    ------
    ValueError
        For a table, a rate or a pattern that does not suit, and if no entry is left.

    Examples
    --------
    >>> from pyrovae.data import load
    >>> hidden = hide_in_training(load("digits"), 0.3)
    >>> round(float((~hidden.train.mask).float().mean()), 1), hidden.test.mask
    (0.3, None)
    """
    if dataset.kind == TABLE:
        raise ValueError("missing is for data of one kind; the entries that a table lacks are those of its file")
    splits: dict[str, Any] = {}
    for number, name in enumerate(("train", "validation")):
        rows = dataset.splits()[name]
        generator = seeded_generator(seed, _HIDING + number)
        splits[name] = hidden(rows, random_mask(dataset.shape, len(rows), rate, pattern, generator))
    if len(dataset.train) and not splits["train"].mask.any():
        raise ValueError(f"missing={rate} leaves no entry of {dataset.name} to train on")
    return replace(dataset, **splits)


def hidden(rows: Rows, mask: Tensor) -> Rows:
    """Rows that lack what a mask hides, with zeros there, besides what they lack already."""
    mask = mask.to(rows.x.device) if rows.mask is None else rows.mask & mask.to(rows.x.device)
    return rows.replace(x=torch.where(mask, rows.x, torch.zeros_like(rows.x)), mask=mask)


def hide_from_encoder(dataset: Dataset, rate: tuple[float, float]) -> Dataset:
    """Hide entries of each minibatch from the encoder, while they are scored all the same, see `HideAtRandom`.

    Parameters
    ----------
    dataset : Dataset
        The data, no table.
    rate : tuple of float
        Range that the rate of each row is drawn from.

    Returns
    -------
    Dataset
        The data with a further transform.

    Raises
    ------
    ValueError
        For a table, whose training hides entries anyway, and a range out of 0 and 1.
    """
    if dataset.kind == TABLE:
        raise ValueError("hide is for data of one kind; the training of a table hides entries as it is")
    return replace(dataset, transform=_Then(dataset.transform, HideAtRandom(rate)))


class _Then:
    """One transform of rows after another."""

    def __init__(self, first: Any, then: Any) -> None:
        self.first, self.then = first, then

    def __call__(self, rows: Rows) -> Rows:
        return self.then(rows if self.first is None else self.first(rows))


def _block(points: tuple[int, ...], num_rows: int, rate: float, generator: torch.Generator | None) -> Tensor:
    """True outside of one block in each row, ``[N, *points]``."""
    spread = [dim for dim, size in enumerate(points) if size > 1]
    if not spread:
        return torch.rand(num_rows, *points, generator=generator) >= rate
    hides = torch.ones(num_rows, *points, dtype=torch.bool)
    left = rate * math.prod(points)
    for position, dim in enumerate(spread):
        size, dims = points[dim], len(spread) - position
        rest = math.prod(points[other] for other in spread[position + 1 :])
        # The last side makes up for the rounding of those before it, so that the area is right to half a line.
        wanted = size * (left / (size * rest)) ** (1 / dims) if left > 0 else 0.0
        side = min(size, max(1 if left > 0 else 0, round(wanted)))
        start = (torch.rand(num_rows, generator=generator) * (size - side + 1)).long()
        place = torch.arange(size) - start[:, None]
        inside = (place >= 0) & (place < side)
        hides &= inside.reshape(num_rows, *(size if other == dim else 1 for other in range(len(points))))
        left = left / max(side, 1)
    return ~hides
