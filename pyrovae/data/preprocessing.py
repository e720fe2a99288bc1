"""Changing what the values of a data set are: binarisation, dequantisation, scale. Each takes and returns a Dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.dataset import Dataset, Split

# Which stream of random numbers a split draws from, so that a change to one split leaves the others as they were.
_STREAMS = {"train": 0, "validation": 1, "test": 2}


def seeded_generator(seed: int, stream: int) -> torch.Generator:
    """Return a generator for one of several independent streams that belong to `seed`."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def binarize(dataset: Dataset, mode: str, seed: int = 0) -> Dataset:
    """Replace grey values by draws from Bernoulli distributions with these means.

    With "static", every split is drawn once. With "dynamic", validation and test rows are drawn once (the same draws
    as with "static"), and `transform` draws each training minibatch anew; `train.x` keeps the grey values.

    Reference: Salakhutdinov and Murray (2008), section 5; Burda et al. (2016), section 5, resample at every step.

    Args:
        dataset: of kind "8-bit" or "unit".
        mode: "static" or "dynamic".
        seed: fixes the draws.

    Raises:
        ValueError: for another kind or mode.

    >>> from pyrovae.data import load
    >>> binarize(load("digits"), "static").train.x.unique()
    tensor([0., 1.])
    """
    if mode not in ("static", "dynamic"):
        raise ValueError(f"binarize must be None, 'static' or 'dynamic', not {mode!r}")
    _require(dataset, ("8-bit", "unit"), "binarize")
    frozen = dataset.splits()
    transform = None
    if mode == "dynamic":
        frozen.pop("train")
        transform = torch.bernoulli
    drawn = _draw_once(frozen, lambda x, generator: torch.bernoulli(x, generator=generator), seed)
    return replace(dataset, kind="binary", transform=transform, **drawn)


def dequantize(dataset: Dataset, seed: int = 0) -> Dataset:
    """Spread the values k/255 evenly over the intervals [k/256, (k+1)/256].

    A density p on the result bounds the probability of the bytes: with D values per datum,
    log P(bytes) >= E log p(x) - D log 256. `transform` draws the noise of each training minibatch anew, `train.x`
    keeps the values k/255; the noise of validation and test rows is drawn once.

    Reference: Theis, van den Oord and Bethge (2016), section 3.1.

    Args:
        dataset: of kind "8-bit".
        seed: fixes the noise of validation and test rows.

    Raises:
        ValueError: for another kind.
    """
    _require(dataset, ("8-bit",), "dequantize")
    frozen = {name: split for name, split in dataset.splits().items() if name != "train"}
    return replace(dataset, kind="unit", transform=_add_noise, **_draw_once(frozen, _add_noise, seed))


def rescale_symmetric(dataset: Dataset) -> Dataset:
    """Map [0, 1] to [-1, 1], the range of a tanh output.

    Args:
        dataset: of kind "8-bit" or "unit".

    Raises:
        ValueError: for another kind.

    >>> from pyrovae.data import load
    >>> rescale_symmetric(load("digits")).train.x.aminmax()
    torch.return_types.aminmax(
    min=tensor(-1.),
    max=tensor(1.))
    """
    _require(dataset, ("8-bit", "unit"), "scale='symmetric'")
    transform = None if dataset.transform is None else partial(_through_unit_scale, dataset.transform)
    scaled = {name: split._replace(x=split.x * 2 - 1) for name, split in dataset.splits().items()}
    return replace(dataset, kind="symmetric", transform=transform, **scaled)


def _require(dataset: Dataset, kinds: tuple[str, ...], option: str) -> None:
    if dataset.kind not in kinds:
        raise ValueError(
            f"{option} needs values of kind {' or '.join(map(repr, kinds))}, but {dataset.name} is {dataset.kind!r}"
        )


def _draw_once(
    splits: dict[str, Split], draw: Callable[[Tensor, torch.Generator], Tensor], seed: int
) -> dict[str, Split]:
    return {
        name: split._replace(x=draw(split.x, seeded_generator(seed, _STREAMS[name]))) for name, split in splits.items()
    }


def _add_noise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x * 255 + noise) / 256


def _through_unit_scale(transform: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return transform((x + 1) / 2) * 2 - 1
