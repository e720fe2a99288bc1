"""Figures of latents: a scatter and a profile by class, and the way from one datum to another."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from pyro.distributions import TorchDistribution
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from pyrovae import programs
from pyrovae.decoding import only_site
from pyrovae.metrics.latents import ACTIVE, posterior_means
from pyrovae.plotting.drawing import clean, draw_mosaic, heat_map, is_pictures, mosaic
from pyrovae.vae import VAE

METHODS = ("auto", "pca", "tsne")

logger = logging.getLogger(__name__)
TSNE_ROWS = 500
"""Above these t-SNE takes longer than a few seconds."""
_TSNE_DIMENSIONS = 50
_NO_SPREAD = 1e-6  # of the size of the points, below which they are drawn as they are
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")

# Tol's "muted" colours and black, which people of all kinds of colour vision tell apart.
_CLASSES = (
    *("#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE"),
    *("#AA4499", "#44AA99", "#882255", "#999933", "#000000"),
)
_UNKNOWN = "#BBBBBB"


def latent_scatter(latents: Tensor, labels: Tensor | None = None, method: str = "auto", seed: int = 0) -> Figure:
    """Draw latents as points in the plane, coloured by label.

    Two dimensions are drawn as they are. More are reduced by principal components or t-SNE. One is drawn as a
    histogram. Each label is written at the median of its class.

    Parameters
    ----------
    latents : Tensor, shape ``[N, latent_dim]``
        Latents, such as `metrics.latent_means` gives.
    labels : Tensor of int, shape ``[N]``, optional
        Labels; -1 means unknown. None draws all points alike.
    method : {"auto", "pca", "tsne"}, default "auto"
        How more than two dimensions are reduced. "auto" takes t-SNE for 4 to 500 rows, and else principal components.
    seed : int, default 0
        Seed of the reduction.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        The method is unknown, or a latent is not finite.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known are {', '.join(METHODS)}")
    points = latents.detach().cpu().double().numpy()
    classes = torch.zeros(len(points), dtype=torch.long) if labels is None else labels.cpu()
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    if points.shape[1] == 1:
        groups = [(points[classes == label, 0], label, colour) for label, colour, _ in _class_styles(classes)]
        values, shown, colours = zip(*groups, strict=True)
        axes.hist(values, 30, color=colours, label=[_class_name(label) for label in shown], stacked=True)
        axes.set(title=_title(points), xlabel="$z$", ylabel="number of data")
    else:
        points, names = in_plane(points, method, seed)
        draw_classes(axes, points, labels, **names)
    if labels is not None:
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=1.3)
    clean(axes)
    return figure


def latent_profile(latents: Tensor, labels: Tensor) -> Figure:
    """Draw the mean latent of each class as a heat map, with a row per class and a column per latent dimension.

    Parameters
    ----------
    latents : Tensor, shape ``[N, latent_dim]``
        Latents, such as `metrics.latent_means` gives.
    labels : Tensor of int, shape ``[N]``
        Labels. Rows labelled -1 are left out.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        No row has a label.
    """
    latents, labels = latents.detach().cpu(), labels.cpu()
    classes = labels[labels >= 0].unique().tolist()
    if not classes:
        raise ValueError("no row has a label, so there are no classes to average over")
    profile = torch.stack([latents[labels == label].mean(0) for label in classes])
    names = {"rows": "class", "columns": "latent dimension", "value": "mean of $z$"}
    figure, axes = heat_map(profile, "Mean latent of each class", **names, diverging=True)
    axes.set_yticks(range(len(classes)), list(map(str, classes)))
    return figure


@torch.no_grad()
def is_discrete(q: TorchDistribution) -> bool:
    """Whether a distribution is of discrete values."""
    return q.support is not None and q.support.is_discrete


def interpolation(
    vae: VAE,
    x0: Tensor,
    x1: Tensor,
    steps: int = 10,
    *,
    show_range: tuple[float, float] = (0.0, 1.0),
    **data: Tensor | None,
) -> Figure:
    """Draw means of p(x|z) on the straight line between the latent means of two data, or on several such lines.

    Pictures stand in a row between the two data. Other data are drawn as a heat map, with a row per step.

    Parameters
    ----------
    vae : VAE
        The VAE.
    x0 : Tensor, shape ``[R, ...]``
        Where the lines begin. R must be 1 for data that are not pictures.
    x1 : Tensor, shape of `x0`
        Where the lines end.
    steps : int, default 10
        Points on a line, with its two ends, at least 2.
    show_range : tuple of float, default (0.0, 1.0)
        Values of pictures shown as black and white.
    **data : Tensor
        `mask` and `y` of the rows of `x0` and then of `x1`, each ``[2 R, ...]``. A line is decoded with the label of
        `x0`.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        The shapes differ or do not suit, there are fewer than two steps, or a latent is discrete.
    """
    rows = len(x0)
    if x0.shape != x1.shape or not rows or (rows > 1 and not is_pictures(x0)):
        raise ValueError(
            "give two batches of one shape, of a single row where data are no pictures, "
            f"got {tuple(x0.shape)} and {tuple(x1.shape)}"
        )
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    ends = torch.cat([x0, x1]).to(vae.device)
    given = {name: value.to(vae.device) for name, value in data.items() if value is not None}
    with programs.evaluating(vae):
        discrete = [name for name, q in vae.posterior(ends, **given).items() if is_discrete(q)]
        if discrete:
            raise ValueError(f"latent site {discrete[0]!r} is discrete, so there is nothing between two of its values")
        means = posterior_means(vae, ends, **given)
        weight = torch.linspace(0, 1, steps, device=vae.device).repeat(rows)
        start, end = (torch.arange(rows, device=vae.device).repeat_interleave(steps) + shift for shift in (0, rows))
        latents = {name: _lerp(mean[start], mean[end], weight) for name, mean in means.items()}
        labels = {name: value[start] for name, value in given.items() if name != "mask"}
        fn: TorchDistribution = only_site(vae.decode(latents, **labels))
        decoded = fn.mean.reshape(rows, steps, *x0.shape[1:])
    title = "Interpolation between two data"
    if not is_pictures(x0):
        values = decoded[0].reshape(steps, -1)
        return heat_map(values, title, rows="step", columns="entry of the datum", value="mean of p(x|z)")[0]
    lines = torch.cat([ends[:rows, None], decoded, ends[rows:, None]], 1)
    pictures = mosaic(lines.flatten(0, 1), steps + 2, show_range)
    figure, axes = draw_mosaic(pictures, title)
    axes.set_xticks([pictures.columns[i] for i in (0, 1, -2, -1)], ["datum", "0", "1", "datum"])
    axes.set_xlabel("position between the latent means")
    return figure


def _lerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(start, end, weight.reshape(-1, *[1] * (start.dim() - 1)))


def draw_classes(axes: Axes, points: np.ndarray, labels: Tensor | None, **names: str) -> None:
    """Draw points ``[N, 2]`` coloured by label, with the labels at the medians. `names` is what `in_plane` returns."""
    classes = torch.zeros(len(points), dtype=torch.long) if labels is None else labels.cpu()
    axes.set(**names)
    if names["xlabel"].startswith("t-SNE"):
        axes.set(xticks=[], yticks=[])  # its lengths mean nothing
    size = float(np.clip(9000 / max(len(points), 1), 5, 30))
    for label, colour, marker in _class_styles(classes):
        part = points[classes == label]
        style: dict[str, Any] = {"c": colour, "marker": marker, "alpha": 0.7, "linewidths": 0}
        axes.scatter(part[:, 0], part[:, 1], s=size, label=_class_name(label), **style)
        if labels is not None and label >= 0:
            text = axes.annotate(str(label), np.median(part, 0), ha="center", va="center", weight="bold", size=13)
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _class_styles(labels: Tensor) -> Iterator[tuple[int, str, str]]:
    """Label, colour and marker of each class that occurs. After ten classes the colours return with another marker.

    >>> [style for style in _class_styles(torch.tensor([7, -1]))]
    [(-1, '#BBBBBB', '.'), (7, '#882255', 'o')]
    """
    for label in labels.unique().tolist():
        if label < 0:
            yield label, _UNKNOWN, "."
        else:
            yield label, _CLASSES[label % len(_CLASSES)], _MARKERS[label // len(_CLASSES) % len(_MARKERS)]


def in_plane(points: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, dict[str, str]]:
    """Reduce points ``[N, D]`` to ``[N, 2]`` as `latent_scatter` does. Return them with title and names of the axes.

    Raises
    ------
    ValueError
        If a point is not finite.
    """
    number, dimension = points.shape
    plain = {"title": _title(points), "xlabel": "$z_1$", "ylabel": "$z_2$"}
    if dimension == 2:
        return points, plain
    scale = np.sqrt(points.var(0).sum())
    if number < 3 or not scale > _NO_SPREAD * max(1.0, np.abs(points).max()):
        return points[:, :2], plain
    scaled = (points - points.mean(0)) / scale
    if method == "auto":
        method = "tsne" if 3 < number <= TSNE_ROWS else "pca"
    if method == "tsne":
        embedded = _embedded(scaled, seed)
        if embedded is not None:
            title = f"{plain['title']}: t-SNE of {dimension} dimensions"
            return embedded, {"title": title, "xlabel": "t-SNE 1", "ylabel": "t-SNE 2"}
    analysis = PCA(2, random_state=seed).fit(points)
    first, second = (
        f"component {i} ({s:.0%} of the variance)" for i, s in enumerate(analysis.explained_variance_ratio_, 1)
    )
    title = f"{plain['title']}: principal components of {dimension} dimensions"
    return analysis.transform(points), {"title": title, "xlabel": first, "ylabel": second}


def _title(points: np.ndarray) -> str:
    """The title of a figure of latent means, which says, as a line of the log does, where the posterior has collapsed.

    Raises
    ------
    ValueError
        If a point is not finite.
    """
    wrong = np.flatnonzero(~np.isfinite(points).all(1))
    if len(wrong):
        raise ValueError(
            f"the latents of {len(wrong)} of {len(points)} rows are not finite, the first of row {wrong[0]}"
        )
    variances = points.var(0)
    if len(points) < 2 or (variances > ACTIVE).any():
        return "Latent means"
    logger.warning(
        "the posterior has collapsed: the latent means of %d rows hardly differ (largest variance of a dimension %.2g)",
        len(points),
        variances.max(),
    )
    return f"Latent means (collapsed: largest variance {variances.max():.2g})"


def _embedded(points: np.ndarray, seed: int) -> np.ndarray | None:
    """The t-SNE of centred points of spread 1; None where too few of them differ.

    It crashes on points that are all alike, and takes long in many dimensions, so principal components come first.
    """
    number = len(points)
    if len(np.unique(points.round(6), axis=0)) < 4:
        return None
    parts = min(_TSNE_DIMENSIONS, number - 1, points.shape[1])
    reduced = PCA(parts, random_state=seed).fit_transform(points)
    generator = np.random.RandomState(seed)
    # Points that are alike start at different places; otherwise as scikit-learn starts.
    start = 1e-4 * (reduced[:, :2] / reduced[:, 0].std() + 0.01 * generator.standard_normal((number, 2)))
    embedding = TSNE(2, perplexity=min(30.0, (number - 1) / 3), init=start.astype(np.float32), random_state=seed)
    found = embedding.fit_transform(reduced.astype(np.float32))
    return found if np.isfinite(found).all() else None


def _class_name(label: int) -> str:
    """What a legend calls a class."""
    return str(label) if label >= 0 else "unknown"
