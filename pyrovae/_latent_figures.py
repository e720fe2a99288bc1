"""Figures of latents: scatter and profile by class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from pyrovae._drawing import clean, heat_map

METHODS = ("auto", "pca", "tsne")

TSNE_ROWS = 500
"""Above these t-SNE takes longer than a few seconds."""
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")

# Tol's "muted" colours and black, which people of all kinds of colour vision tell apart.
_CLASSES = (
    *("#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE"),
    *("#AA4499", "#44AA99", "#882255", "#999933", "#000000"),
)
_UNKNOWN = "#BBBBBB"


def latent_scatter(latents: Tensor, labels: Tensor | None = None, method: str = "auto", seed: int = 0) -> Figure:
    """Latents in the plane, coloured by label, with the label written where the median of its class is.

    Two dimensions are drawn as they are, more through principal components or t-SNE, one as a histogram.

    Args:
        latents: `[N, latent_dim]`, such as `metrics.latent_means` gives.
        labels: `[N]`, -1 for unknown.
        method: "pca", "tsne", or "auto" for t-SNE up to 500 rows and principal components beyond.
        seed: seed of t-SNE.

    Raises:
        ValueError: for an unknown method.
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
        axes.set(title="Latent means", xlabel="$z$", ylabel="number of data")
    else:
        points, names = _in_plane(points, method, seed)
        axes.set(**names)
        if names["xlabel"].startswith("t-SNE"):
            axes.set(xticks=[], yticks=[])  # its lengths mean nothing
        size = float(np.clip(9000 / max(len(points), 1), 5, 30))
        for label, colour, marker in _class_styles(classes):
            part = points[classes == label]
            name = _class_name(label)
            axes.scatter(*part.T, s=size, c=colour, marker=marker, alpha=0.7, linewidths=0, label=name)
            if labels is not None and label >= 0:
                text = axes.annotate(str(label), np.median(part, 0), ha="center", va="center", weight="bold", size=13)
                text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    if labels is not None:
        axes.legend(title="class", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=1.3)
    clean(axes)
    return figure


def latent_profile(latents: Tensor, labels: Tensor) -> Figure:
    """The mean latent of each class as a heat map, classes down and latent dimensions across.

    Args:
        latents: `[N, latent_dim]`, such as `metrics.latent_means` gives.
        labels: `[N]`; rows labelled -1 are left out.

    Raises:
        ValueError: if no row has a label.
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


def _class_styles(labels: Tensor) -> Iterator[tuple[int, str, str]]:
    """Label, colour and marker of each class that occurs; after ten classes the colours return with another marker.

    >>> [style for style in _class_styles(torch.tensor([7, -1]))]
    [(-1, '#BBBBBB', '.'), (7, '#882255', 'o')]
    """
    for label in labels.unique().tolist():
        if label < 0:
            yield label, _UNKNOWN, "."
        else:
            yield label, _CLASSES[label % len(_CLASSES)], _MARKERS[label // len(_CLASSES) % len(_MARKERS)]


def _in_plane(points: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, dict[str, str]]:
    """Points `[N, D]` brought to `[N, 2]` as `latent_scatter` says, with the title and the names of the axes."""
    number, dimension = points.shape
    if dimension == 2:
        return points, {"title": "Latent means", "xlabel": "$z_1$", "ylabel": "$z_2$"}
    if method == "auto":
        method = "tsne" if 3 < number <= TSNE_ROWS else "pca"
    if method == "pca":
        analysis = PCA(2, random_state=seed).fit(points)
        first, second = (
            f"component {i} ({s:.0%} of the variance)" for i, s in enumerate(analysis.explained_variance_ratio_, 1)
        )
        title = f"Latent means: principal components of {dimension} dimensions"
        return analysis.transform(points), {"title": title, "xlabel": first, "ylabel": second}
    embedding = TSNE(2, perplexity=min(30.0, (number - 1) / 3), init="pca", random_state=seed)
    title = f"Latent means: t-SNE of {dimension} dimensions"
    return embedding.fit_transform(points), {"title": title, "xlabel": "t-SNE 1", "ylabel": "t-SNE 2"}


def _class_name(label: int) -> str:
    """What a legend calls a class."""
    return str(label) if label >= 0 else "unknown"
