"""Building blocks of the figures: mosaics of pictures, heat maps, pairs of data, bars."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

# Okabe and Ito's colours, which people of all kinds of colour vision tell apart.
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
RUN_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, "#56B4E9", "#000000")
"""The colours of several runs or methods in one figure, in this order."""

_WRITTEN = 12  # classes whose shares there is room to write


class Mosaic(NamedTuple):
    """Pictures side by side, as one picture."""

    pixels: np.ndarray
    """`[height, width, 3]`, 0 = black, 1 = white."""
    rows: list[float]
    """Where the centres of the rows are, in pixels from the top."""
    columns: list[float]
    """Where the centres of the columns are, in pixels from the left."""


def is_pictures(x: Tensor) -> bool:
    """Tell whether data are pictures: ``[N, C, H, W]`` of one or three channels, or ``[N, H, W]``.

    >>> is_pictures(torch.zeros(5, 3, 8, 8)), is_pictures(torch.zeros(5, 64))
    (True, False)
    """
    return x.dim() == 3 or (x.dim() == 4 and x.shape[1] in (1, 3))


def mosaic(pictures: Tensor, columns: int, show_range: tuple[float, float], group: int = 1) -> Mosaic:
    """Put pictures side by side in reading order, on white.

    Parameters
    ----------
    pictures : Tensor, shape ``[N, C, H, W]`` or ``[N, H, W]``
        Pictures, see `is_pictures`. NaN is drawn white.
    columns : int
        Pictures per row.
    show_range : tuple of float
        Values that become black and white. Values beyond them are clipped.
    group : int, default 1
        Number of rows that belong together. Groups stand further apart.

    Returns
    -------
    Mosaic
        The pixels, and where the rows and columns are.

    Examples
    --------
    >>> mosaic(torch.zeros(3, 1, 8, 8), 2, (0.0, 1.0)).pixels.shape
    (17, 17, 3)
    """
    low, high = show_range
    values = pictures if pictures.dim() == 4 else pictures.unsqueeze(1)
    shade = ((values.detach().cpu().double() - low) / (high - low)).clamp(0, 1).nan_to_num(nan=1.0)
    tiles = shade.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    height, width = tiles.shape[1:3]
    gap = max(1, round(height / 14))
    num_rows = math.ceil(len(tiles) / columns)
    tops = [row * (height + gap) + (row // group * 2 * gap if group > 1 else 0) for row in range(num_rows)]
    lefts = [column * (width + gap) for column in range(columns)]
    pixels = np.ones((tops[-1] + height, lefts[-1] + width, 3))
    for position, tile in enumerate(tiles):
        top, left = tops[position // columns], lefts[position % columns]
        pixels[top : top + height, left : left + width] = tile
    centre = (height - 1) / 2, (width - 1) / 2
    return Mosaic(pixels, [top + centre[0] for top in tops], [left + centre[1] for left in lefts])


def draw_mosaic(pictures: Mosaic, title: str) -> tuple[Figure, Axes]:
    """Draw a mosaic as a figure without ticks. The size of the figure goes by the number of pictures."""
    height, width = pictures.pixels.shape[:2]
    inches = float(np.clip(0.75 * len(pictures.columns), 2.5, 8.0))
    figure = Figure(figsize=(inches + 0.4, inches * height / width + 0.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(pictures.pixels, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure, axes


def heat_map(values: Tensor, title: str, *, rows: str, columns: str, value: str) -> tuple[Figure, Axes]:
    """Draw a matrix as colours. Rows and columns count from 1.

    Values of both signs have two colours, which part at the mean of the matrix.

    Parameters
    ----------
    values : Tensor, shape ``[R, C]``
        The matrix.
    title : str
        Title of the figure.
    rows : str
        What a row is.
    columns : str
        What a column is.
    value : str
        What an entry is.

    Returns
    -------
    Figure, Axes
        The figure and the axes of the matrix.
    """
    height, width = values.shape
    size = float(np.clip(0.3 * width + 2.0, 4.5, 9.0)), float(np.clip(0.3 * height + 1.2, 2.5, 7.0))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    matrix = values.detach().cpu().double().numpy()
    norm, cmap = None, "viridis"
    if np.nanmin(matrix) < 0 < np.nanmax(matrix):
        middle = float(np.nanmean(matrix))
        norm, cmap = CenteredNorm(middle), "RdBu_r"
        value = f"{value}\n(white: their mean, {middle + 0.0:.2g})"
    sides = (0.5, width + 0.5, height + 0.5, 0.5)
    image = axes.imshow(matrix, aspect="auto", interpolation="nearest", cmap=cmap, norm=norm, extent=sides)
    axes.set(title=title, xlabel=columns, ylabel=rows)
    for axis, length in ((axes.xaxis, width), (axes.yaxis, height)):
        axis.set_major_locator(FixedLocator(counted(length)))
    figure.colorbar(image, label=value)
    return figure, axes


def counted(length: int, most: int = 12) -> list[int]:
    """Some of the numbers from 1 to a length, with the first, at equal steps.

    >>> counted(5), counted(30)
    ([1, 2, 3, 4, 5], [1, 5, 10, 15, 20, 25, 30])
    """
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, length) if length <= most * step)
    return list(range(1, length + 1)) if step == 1 else [1, *range(step, length + 1, step)]


def picture_pairs(x: Tensor, x_hat: Tensor, title: str, show_range: tuple[float, float]) -> Figure:
    """Draw pictures in rows of ten, each with a second one below."""
    columns = min(10, len(x))
    strips = math.ceil(len(x) / columns)
    blank = x.new_full((strips * columns - len(x), *x.shape[1:]), math.nan)
    lines = [torch.cat([values, blank]).unflatten(0, (strips, columns)) for values in (x, x_hat)]
    pictures = mosaic(torch.stack(lines, 1).flatten(0, 2), columns, show_range, group=2)
    figure, axes = draw_mosaic(pictures, title)
    axes.set_yticks(pictures.rows, ["original", "reconstruction"] * strips)
    return figure


def profile_pairs(x: Tensor, x_hat: Tensor, title: str) -> Figure:
    """Draw data as curves over their entries, each with a second curve in the same panel."""
    columns = min(3, len(x))
    lines = math.ceil(len(x) / columns)
    figure = Figure(figsize=(max(3.0 * columns, 5.0), 1.4 * lines + 1.2), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    marker = "o" if x[0].numel() <= 30 else None
    for axes, original, copy in zip(panels, x.reshape(len(x), -1), x_hat.reshape(len(x), -1), strict=False):
        axes.plot(original, color="black", marker=marker, markersize=4, linewidth=1, label="original")
        axes.plot(copy, color=ORANGE, marker=marker, markersize=3, linewidth=1.5, label="reconstruction")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        clean(axes)
    for axes in panels[len(x) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    figure.supxlabel("entry of the datum", fontsize="medium")
    figure.supylabel("value", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    return figure


def class_confusion(found: Tensor, labels: Tensor) -> Figure:
    """Draw which class rows were taken for, by their true class, as shares of its rows.

    Parameters
    ----------
    found : Tensor of int, shape ``[N]``
        The classes that rows were taken for.
    labels : Tensor of int, shape ``[N]``
        The true ones. Rows labelled -1 are left out.

    Returns
    -------
    Figure
        The figure. The title has the share of wrong rows.

    Raises
    ------
    ValueError
        No row has a label.
    """
    known = labels >= 0
    if not bool(known.any()):
        raise ValueError("no row has a label, so there is nothing to compare with")
    true, taken = labels[known].cpu().numpy(), found[known].cpu().numpy()
    number = int(max(true.max(), taken.max())) + 1
    counts = np.zeros((number, number))
    np.add.at(counts, (true, taken), 1)
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    size = float(np.clip(0.42 * number + 1.2, 3.6, 9.0))
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if number <= _WRITTEN:
        for (row, place), share in np.ndenumerate(shares):
            if share > 0:
                colour, size_of = ("white" if share > 0.6 else "black"), ("small" if number <= 6 else "x-small")
                axes.text(place, row, f"{share:.0%}", ha="center", va="center", color=colour, size=size_of)
    ticks = range(number) if number <= 2 * _WRITTEN else range(0, number, math.ceil(number / _WRITTEN))
    axes.set(xticks=ticks, yticks=ticks, xlabel="taken for", ylabel="class")
    axes.tick_params(length=0)
    axes.set_title(f"Classes of {len(true)} rows: {np.mean(true != taken):.1%} wrong")
    figure.colorbar(image, label="share of the rows of a class", shrink=0.8)
    return figure


def gradient_variance(frame: pd.DataFrame) -> Figure:
    """Draw the signal-to-noise ratio of the gradients of objectives as bars, on a logarithmic scale.

    Use it to compare estimators. Each objective has one bar for the model and one for the guide.

    Parameters
    ----------
    frame : DataFrame
        Result of `metrics.gradient_variance`.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        There is no finite, positive ratio. A logarithmic scale can show no other.
    """
    ratios = frame.pivot(index="objective", columns="program", values="signal_to_noise")
    shown = ratios.where(np.isfinite(ratios) & (ratios > 0))
    if shown.isna().all(axis=None):
        raise ValueError("there is no finite, positive signal-to-noise ratio to draw")
    names = list(dict.fromkeys(frame["objective"]))  # in the order given, from the top
    labels = [label for label in ("model", "guide") if label in shown]
    figure = Figure(figsize=(6.4, 1.4 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(labels)
    for number, label in enumerate(labels):
        places = np.arange(len(names)) + (number - (len(labels) - 1) / 2) * height
        values = shown.loc[names, label]
        bars = axes.barh(places, values, height, color={"model": BLUE, "guide": ORANGE}[label], label=label)
        axes.bar_label(bars, fmt="{:.2g}", padding=3, fontsize="small")
        for place, name in zip(places, names, strict=True):
            if np.isnan(values[name]):
                text = f" no bar: {ratios.at[name, label]:.2g}"
                axes.text(0, place, text, va="center", fontsize="small", transform=axes.get_yaxis_transform())
    low, high = np.nanmin(shown.to_numpy()), np.nanmax(shown.to_numpy())
    axes.set_xscale("log")
    axes.set_xlim(low / 3, high * 4)
    # Within two decades the powers of ten alone are too few labels, and all the minor ones run into each other.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(title="Gradient estimators", xlabel="signal-to-noise ratio of the gradient")
    axes.tick_params(axis="y", length=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    clean(axes)
    return figure


def clean(axes: Axes) -> None:
    """Hide the frame above and on the right."""
    axes.spines[["top", "right"]].set_visible(False)
