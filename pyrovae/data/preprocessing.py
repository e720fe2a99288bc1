"""Changes of a data set: binarisation, scale, components, labels. Each function takes and returns a Dataset."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.dataset import Dataset, Rows, Transform, transform_x

# Which stream of random numbers a split draws from, so that a change to one split leaves the others as they were.
_STREAMS = {"train": 0, "validation": 1, "test": 2}
_LABELS = 3


def seeded_generator(seed: int, stream: int) -> torch.Generator:
    """Return a generator for one of several independent streams that belong to `seed`."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def binarize(dataset: Dataset, mode: str, seed: int = 0) -> Dataset:
    """Replace grey values by draws from Bernoulli distributions with these means.

    Use it for a Bernoulli likelihood, which is then a probability of the data.

    Parameters
    ----------
    dataset : Dataset
        Data of kind "8-bit" or "unit".
    mode : {"static", "dynamic"}
        "static" draws every row once. "dynamic" draws each training minibatch anew, so that rows differ from epoch to
        epoch.
    seed : int, default 0
        Seed of the rows that are drawn once.

    Returns
    -------
    Dataset
        The data, of kind "binary". With "dynamic", validation and test rows are drawn once, as with "static". `train.x`
        keeps the grey values, and `transform` draws each minibatch.

    Raises
    ------
    ValueError
        The kind or the mode is another one.

    References
    ----------
    R. Salakhutdinov and I. Murray (2008), "On the quantitative analysis of deep belief networks", section 5. Y. Burda,
    R. Grosse and R. Salakhutdinov (2016), "Importance weighted autoencoders", section 5, draw at every step.

    Examples
    --------
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
        transform = transform_x(torch.bernoulli)
    drawn = _draw_once(frozen, lambda x, generator: torch.bernoulli(x, generator=generator), seed)
    return replace(dataset, kind="binary", transform=transform, **drawn)


def dequantize(dataset: Dataset, seed: int = 0) -> Dataset:
    """Spread the values k/255 evenly over the intervals [k/256, (k+1)/256].

    Use it for a continuous density of 8-bit data.

    Parameters
    ----------
    dataset : Dataset
        Data of kind "8-bit".
    seed : int, default 0
        Seed of the noise of validation and test rows, which is drawn once.

    Returns
    -------
    Dataset
        The data, of kind "unit". `train.x` keeps the values k/255, and `transform` draws the noise of each minibatch.

    Raises
    ------
    ValueError
        The kind is another one.

    Notes
    -----
    A density p on the result bounds the probability of the bytes. With D values per datum,
    ``log P(bytes) >= E log p(x) - D log 256``, in nats.

    References
    ----------
    L. Theis, A. van den Oord and M. Bethge (2016), "A note on the evaluation of generative models", section 3.1.
    """
    _require(dataset, ("8-bit",), "dequantize")
    frozen = {name: split for name, split in dataset.splits().items() if name != "train"}
    return replace(dataset, kind="unit", transform=transform_x(_add_noise), **_draw_once(frozen, _add_noise, seed))


def rescale_symmetric(dataset: Dataset) -> Dataset:
    """Map [0, 1] to [-1, 1], the range of a tanh output.

    Parameters
    ----------
    dataset : Dataset
        Data of kind "8-bit" or "unit".

    Returns
    -------
    Dataset
        The data, of kind "symmetric". A `transform` is changed to suit.

    Raises
    ------
    ValueError
        The kind is another one.

    Examples
    --------
    >>> from pyrovae.data import load
    >>> rescale_symmetric(load("digits")).train.x.aminmax()
    torch.return_types.aminmax(
    min=tensor(-1.),
    max=tensor(1.))
    """
    _require(dataset, ("8-bit", "unit"), "scale='symmetric'")
    transform = None if dataset.transform is None else partial(_through_unit_scale, dataset.transform)
    scaled: dict[str, Any] = {name: split.replace(x=split.x * 2 - 1) for name, split in dataset.splits().items()}
    return replace(dataset, kind="symmetric", transform=transform, **scaled)


def principal_components(dataset: Dataset, num_components: int) -> Dataset:
    """Replace every row by its first principal components, those of the training rows.

    Use it to make large pictures small enough for a dense net.

    Parameters
    ----------
    dataset : Dataset
        Data without missing entries and without `transform`.
    num_components : int
        Number of components, at least 1, and at most the number of training rows and of entries of a row.

    Returns
    -------
    Dataset
        The data, ``[N, num_components]``, of kind "real", in the units of the old data.

    Raises
    ------
    ValueError
        The number is out of range, entries are missing, or there is a `transform` (dynamic binarisation,
        dequantisation).

    Notes
    -----
    Components are centred and not whitened. So a squared error summed over all of them is that of the data, up to the
    part of the data that is left out.

    References
    ----------
    E. Nalisnick and P. Smyth (2017), "Stick-breaking variational autoencoders", section 6, take 500 components of SVHN.

    Examples
    --------
    >>> from pyrovae.data import load
    >>> reduced = principal_components(load("digits"), 20)
    >>> reduced.shape, reduced.kind
    (torch.Size([20]), 'real')
    """
    most = min(len(dataset.train.x), dataset.shape.numel())
    if isinstance(num_components, bool) or not isinstance(num_components, int) or not 1 <= num_components <= most:
        raise ValueError(f"pca of {dataset.name} must be a whole number from 1 to {most}, not {num_components!r}")
    if dataset.transform is not None:
        raise ValueError("pca excludes binarize='dynamic' and dequantize, which draw training rows anew")
    if any(split.mask is not None for split in dataset.splits().values()):
        raise ValueError(f"pca needs complete rows, and {dataset.name} has missing entries")
    from sklearn.decomposition import PCA  # not above: importing pyrovae.data must not import scikit-learn

    # Centred beforehand, because the solver would lose the small components of float32 rows in their mean.
    centre = dataset.train.x.flatten(1).mean(0, dtype=torch.float64).float()

    def centred(split: Rows) -> np.ndarray:
        return (split.x.flatten(1) - centre).numpy()

    # Both solvers are exact; the one costs the cube of the entries of a row, the other that of the smaller size.
    solver = "covariance_eigh" if len(dataset.train.x) > dataset.shape.numel() else "full"
    pca = PCA(num_components, svd_solver=solver).fit(centred(dataset.train))
    reduced: dict[str, Any] = {
        name: split.replace(x=torch.from_numpy(pca.transform(centred(split)).astype(np.float32, order="C")))
        for name, split in dataset.splits().items()
    }
    return replace(dataset, kind="real", evidence=None, **reduced)


def hide_labels(dataset: Dataset, labels: float, seed: int = 0) -> Dataset:
    """Keep the labels of some training rows, and set the others to -1.

    Use it for semi-supervised learning. The rows are drawn at random, equally many of every class. Where a class has
    fewer rows than its share, the other classes make up for it.

    Parameters
    ----------
    dataset : Dataset
        Data with labelled training rows.
    labels : float
        How many labels to keep: up to 1 a share of the training rows, above 1 a number of them.
    seed : int, default 0
        Seed of the draw. With the same seed, fewer labels are a part of more.

    Returns
    -------
    Dataset
        The data. Validation and test rows keep their labels.

    Raises
    ------
    ValueError
        There are no labels, the number is out of range, or there would be fewer labels than classes.

    Examples
    --------
    >>> from pyrovae.data import load
    >>> y = hide_labels(load("digits"), 0.1).train.y
    >>> y[y >= 0].bincount()
    tensor([12, 12, 12, 12, 12, 12, 12, 12, 12, 12])
    """
    y = dataset.train.y
    if y is None or not bool((y >= 0).any()):
        raise ValueError(f"labels needs labelled training rows, and {dataset.name} has none")
    known = torch.nonzero(y >= 0).squeeze(1)
    is_number = math.isfinite(labels)
    wanted = 0 if not is_number else round(labels * len(y)) if labels <= 1 else int(labels)
    if not is_number or not labels > 0 or (labels > 1 and wanted != labels) or wanted > len(y):
        raise ValueError(
            f"labels must be a share of the {len(y)} training rows, above 0 and up to 1, or a number of them, "
            f"not {labels}"
        )
    known = known[torch.randperm(len(known), generator=seeded_generator(seed, _LABELS))]
    groups = [known[y[known] == label] for label in y[known].unique()]
    if wanted < len(groups):
        raise ValueError(f"{wanted} labels are too few for {len(groups)} classes")
    chosen: list[Tensor] = []
    for done, group in enumerate(sorted(groups, key=len)):  # small classes first, so that the rest is known
        share = math.ceil((wanted - sum(map(len, chosen))) / (len(groups) - done))
        chosen.append(group[:share])
    kept = torch.full_like(y, -1)
    rows = torch.cat(chosen)
    kept[rows] = y[rows]
    return replace(dataset, train=dataset.train.replace(y=kept))


def _require(dataset: Dataset, kinds: tuple[str, ...], option: str) -> None:
    if dataset.kind not in kinds:
        raise ValueError(
            f"{option} needs values of kind {' or '.join(map(repr, kinds))}, but {dataset.name} is {dataset.kind!r}"
        )


def _draw_once(splits: dict[str, Rows], draw: Callable[[Tensor, torch.Generator], Tensor], seed: int) -> dict[str, Any]:
    """The fields of a `Dataset` to replace: each split with its values drawn."""
    return {
        name: split.replace(x=draw(split.x, seeded_generator(seed, _STREAMS[name]))) for name, split in splits.items()
    }


def _add_noise(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x * 255 + noise) / 256


def _through_unit_scale(transform: Transform, rows: Rows) -> Rows:
    changed = transform(rows.replace(x=(rows.x + 1) / 2))
    return changed.replace(x=changed.x * 2 - 1)
