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
from torch import Tensor

from pyrovae import programs
from pyrovae.decoding import only_site
from pyrovae.metrics.latents import ACTIVE, posterior_means
from pyrovae.plotting.drawing import clean, counted, draw_mosaic, heat_map, is_pictures, mosaic
from pyrovae.vae import VAE

METHODS = ("auto", "pca", "tsne")

logger = logging.getLogger(__name__)
TSNE_ROWS = 500
"""Above these t-SNE takes longer than a few seconds."""
_TSNE_DIMENSIONS = 50
_FEW = 5  # units in use, of which principal components show most
_NO_SPREAD = 1e-6  # of the size of the points, below which they are drawn as they are
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")

# Tol's "muted" colours and black, which people of all kinds of colour vision tell apart.
_CLASSES = (
    *("#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE"),
    *("#AA4499", "#44AA99", "#882255", "#999933", "#000000"),
)
_UNKNOWN, _UNKNOWN_NAME = "#BBBBBB", "unknown"


def latent_scatter(
    latents: Tensor, labels: Tensor | None = None, method: str = "auto", seed: int = 0, used: Tensor | None = None
) -> Figure:
    """Draw latents as points in the plane, coloured by label.

    Two dimensions are drawn as they are. More are reduced by principal components or t-SNE. One is drawn as a
    histogram. Each label is written near the median of its class. The title says how many units are in use.

    Parameters
    ----------
    latents : Tensor, shape ``[N, latent_dim]``
        Latents, such as `metrics.latent_means` gives.
    labels : Tensor of int, shape ``[N]``, optional
        Labels; -1 means unknown. None draws all points alike.
    method : {"auto", "pca", "tsne"}, default "auto"
        How more than two dimensions are reduced. "auto" takes principal components of up to five units in use, and
        where they are more than 500 rows or less than four; else t-SNE.
    seed : int, default 0
        Seed of the reduction.
    used : Tensor of bool, shape ``[latent_dim]``, optional
        Which units are in use. None takes those whose variance is above 0.01, see `metrics.active_units`.

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
    in_use = _in_use(points, used)
    classes = torch.zeros(len(points), dtype=torch.long) if labels is None else labels.cpu()
    figure = Figure(figsize=(6.0, 5.2), layout="constrained")
    axes = figure.subplots()
    if points.shape[1] == 1:
        groups = [(points[classes == label, 0], label, colour) for label, colour, _ in _class_styles(classes)]
        values, shown, colours = zip(*groups, strict=True)
        axes.hist(values, 30, color=colours, label=[_class_name(label) for label in shown], stacked=True)
        axes.set(title=_title(points, in_use), xlabel="$z$", ylabel="number of data")
        if labels is not None:
            axes.legend(title="class", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        points, names = in_plane(points, method, seed, in_use)
        draw_classes(axes, points, labels, **names)
        legend_of_unknown(axes)
    clean(axes)
    return figure


def legend_of_unknown(axes: Axes) -> None:
    """Say what grey points are, where there are any. The other classes are written among their points."""
    handles = [(h, name) for h, name in zip(*axes.get_legend_handles_labels(), strict=True) if name == _UNKNOWN_NAME]
    if handles:
        axes.legend(*zip(*handles, strict=True), loc="upper left", bbox_to_anchor=(0.0, 1.0), markerscale=1.3)


def latent_profile(latents: Tensor, labels: Tensor, used: Tensor | None = None) -> Figure:
    """Draw the mean latent of each class as a heat map, with a row per class and a column per unit in use.

    Parameters
    ----------
    latents : Tensor, shape ``[N, latent_dim]``
        Latents, such as `metrics.latent_means` gives.
    labels : Tensor of int, shape ``[N]``
        Labels. Rows labelled -1 are left out.
    used : Tensor of bool, shape ``[latent_dim]``, optional
        Which units are in use. None takes those whose variance is above 0.01, see `metrics.active_units`. All are
        drawn where none is in use.

    Returns
    -------
    Figure
        The figure. Units have their own numbers, from 1.

    Raises
    ------
    ValueError
        No row has a label.
    """
    latents, labels = latents.detach().cpu(), labels.cpu()
    classes = labels[labels >= 0].unique().tolist()
    if not classes:
        raise ValueError("no row has a label, so there are no classes to average over")
    in_use = np.flatnonzero(_in_use(latents.double().numpy(), used))
    units = in_use if len(in_use) else np.arange(latents.shape[1])
    profile = torch.stack([latents[labels == label].mean(0) for label in classes])[:, units]
    title = f"Mean latent of each class: {len(in_use)} of {latents.shape[1]} units in use"
    figure, axes = heat_map(profile, title, rows="class", columns="unit", value="mean of $z$")
    axes.set_yticks(range(1, len(classes) + 1), list(map(str, classes)))
    places = counted(len(units))
    axes.set_xticks(places, [str(units[place - 1] + 1) for place in places])
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
    """Draw points ``[N, 2]`` coloured by label, labels near the medians. `names` is what `in_plane` returns."""
    classes = torch.zeros(len(points), dtype=torch.long) if labels is None else labels.cpu()
    axes.set(**names)
    if names["xlabel"].startswith("t-SNE"):
        axes.set(xticks=[], yticks=[])  # its lengths mean nothing
    size = float(np.clip(9000 / max(len(points), 1), 5, 30))
    medians: dict[int, np.ndarray] = {}
    for label, colour, marker in _class_styles(classes):
        part = points[classes == label]
        style: dict[str, Any] = {"c": colour, "marker": marker, "alpha": 0.7, "linewidths": 0}
        axes.scatter(part[:, 0], part[:, 1], s=size, label=_class_name(label), **style)
        if labels is not None and label >= 0:
            medians[label] = np.median(part, 0)
    if medians:
        low, spread = points.min(0), np.ptp(points, 0)
        scale = np.where(spread > 0, spread, 1.0)
        for label, place in zip(medians, apart((np.stack([*medians.values()]) - low) / scale), strict=True):
            text = axes.annotate(str(label), low + scale * place, ha="center", va="center", weight="bold", size=13)
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def apart(places: np.ndarray, distance: float = 0.06) -> np.ndarray:
    """Move points ``[N, 2]`` of the unit square a little, so that no two are closer than a distance.

    >>> apart(np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.9]])).round(2).tolist()
    [[0.47, 0.5], [0.53, 0.5], [0.9, 0.9]]
    """
    moved = places.astype(float)
    for _ in range(200):
        steps = moved[:, None] - moved
        lengths = np.linalg.norm(steps, axis=-1)
        np.fill_diagonal(lengths, np.inf)
        close = lengths < distance * 0.999
        if not close.any():
            break
        # Points on one spot part sideways, the first to the left.
        order = np.sign(np.arange(len(moved))[:, None] - np.arange(len(moved)))
        steps[lengths == 0] = np.stack([order, np.zeros_like(order)], -1)[lengths == 0]
        units = steps / np.where(lengths > 0, lengths, 1.0)[..., None]
        push = np.where(close, (distance - lengths.clip(max=distance)) / 2, 0.0)
        moved = moved + (push[..., None] * units).sum(1)
    return moved


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


def in_plane(
    points: np.ndarray, method: str, seed: int, used: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, str]]:
    """Reduce points ``[N, D]`` to ``[N, 2]`` as `latent_scatter` does. Return them with title and names of the axes.

    Raises
    ------
    ValueError
        If a point is not finite.
    """
    number, dimension = points.shape
    in_use = _in_use(points, None) if used is None else used
    plain = {"title": _title(points, in_use), "xlabel": "$z_1$", "ylabel": "$z_2$"}
    if dimension == 2:
        return points, plain
    scale = np.sqrt(points.var(0).sum())
    if number < 3 or not scale > _NO_SPREAD * max(1.0, np.abs(points).max()):
        return points[:, :2], plain
    scaled = (points - points.mean(0)) / scale
    if method == "auto":
        method = "tsne" if 3 < number <= TSNE_ROWS and in_use.sum() > _FEW else "pca"
    if method == "tsne":
        embedded = _embedded(scaled, seed)
        if embedded is not None:
            return embedded, {"title": f"{plain['title']}\nt-SNE", "xlabel": "t-SNE 1", "ylabel": "t-SNE 2"}
    from sklearn.decomposition import PCA  # not above: it takes a second that few commands need

    analysis = PCA(2, random_state=seed).fit(points)
    shares = analysis.explained_variance_ratio_
    first, second = (f"component {i} ({share:.0%} of the variance)" for i, share in enumerate(shares, 1))
    title = f"{plain['title']}\nprincipal components with {shares.sum():.0%} of the variance"
    return analysis.transform(points), {"title": title, "xlabel": first, "ylabel": second}


def _in_use(points: np.ndarray, used: Tensor | None) -> np.ndarray:
    """Which units are in use, ``[D]``."""
    return points.var(0) > ACTIVE if used is None else used.cpu().numpy().astype(bool)


def _title(points: np.ndarray, used: np.ndarray) -> str:
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
    if len(points) < 2 or used.any() or (variances > ACTIVE).any():
        return f"Latent means: {used.sum()} of {len(used)} units in use"
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
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

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
    return str(label) if label >= 0 else _UNKNOWN_NAME
