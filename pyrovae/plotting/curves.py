"""Curves of trainings: the losses of one over its epochs, and those of several side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from pyrovae.plotting.drawing import BLUE, GREEN, ORANGE, PURPLE, RUN_COLOURS, VERMILION, clean

Rows = Sequence[Mapping[str, float]]
Points = list[tuple[float, float]]

_LOSS = "loss (nats per datum)"
_LATER = 10  # the first of so many parts of the epochs does not set the scale
_SHADE = "0.9"


def training_curves(rows: Rows) -> Figure:
    """Draw the losses over the epochs.

    Below them stand the KL weight, the learning rate and further validation figures, where they change. The vertical
    axis spans the losses after the first tenth of the epochs, because the steep beginning would flatten the rest;
    triangles at the top say where a curve is cut. Epochs in which the KL weight rises are shaded.

    Parameters
    ----------
    rows : sequence of mapping of str to float
        Metrics of the epochs: `History.rows` or ``RunFolder.read_metrics()``.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        There are no rows.
    """
    if not rows:
        raise ValueError("there are no metrics to draw: no epoch has ended yet")
    settings = _changing(rows)
    figure = Figure(figsize=(6.4, 3.8 + 1.2 * len(settings)), layout="constrained")
    ratios = [3.0] + [1.0] * len(settings)
    top, *lower = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for number, (first, last) in enumerate(_warm_ups(rows)):
        for axes in (top, *lower):
            label = "KL warm-up" if axes is top and not number else None
            axes.axvspan(first, last, color=_SHADE, linewidth=0, label=label)
    drawn: dict[str, Points] = {}
    for name, label, colour in (("loss", "training", BLUE), ("validation_loss", "validation", ORANGE)):
        points = _points(rows, name)
        if points:
            drawn[colour] = points
            top.plot(*zip(*points, strict=True), color=colour, label=label, marker="o" if len(points) < 3 else None)
        if points and name == "validation_loss":
            epoch, value = min(points, key=lambda point: point[1])
            label = f"lowest: {value:.2f} in epoch {epoch:.0f}"
            top.plot(epoch, value, "o", color=colour, markeredgecolor="black", label=label)
    _cut(top, drawn)
    top.set(title="Training", ylabel=_LOSS)
    top.legend(frameon=False, loc="upper right")
    for axes, (name, (label, colour)) in zip(lower, settings.items(), strict=True):
        axes.plot([row["epoch"] for row in rows], [row.get(name, math.nan) for row in rows], color=colour)
        axes.set_ylabel(label)
    (lower or [top])[-1].set_xlabel("epoch")
    _end_on_the_last(top, [row["epoch"] for row in rows])
    for axes in (top, *lower):
        axes.grid(alpha=0.3)
        clean(axes)
    return figure


def compared_curves(runs: Mapping[str, Rows]) -> Figure:
    """Draw the losses of several trainings in one plot: of validation rows drawn through, of training rows dotted.

    Losses are comparable between runs on the same data whose likelihood is of the same kind.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        Metrics of the epochs by the name of the run, see `training_curves`. Runs without any are left out.

    Returns
    -------
    Figure
        The figure, with a colour for each run.

    Raises
    ------
    ValueError
        No run has metrics.
    """
    known = {name: rows for name, rows in runs.items() if rows}
    if not known:
        raise ValueError("there are no metrics to draw: no epoch of any run has ended yet")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    shown: list[tuple[str, Points]] = []
    for (name, rows), colour in zip(known.items(), itertools.cycle(RUN_COLOURS), strict=False):
        validation, training = _points(rows, "validation_loss"), _points(rows, "loss")
        for points, style in ((validation, "-"), (training, ":")):
            if points:
                label = name if style == "-" or not validation else None
                marker = "o" if len(points) < 3 else None
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=marker)
                shown.append((colour, points))
    _cut(axes, shown)
    axes.set(title="Training of several runs\nvalidation drawn through, training dotted", ylabel=_LOSS, xlabel="epoch")
    axes.legend(frameon=False, loc="upper right")
    _end_on_the_last(axes, [row["epoch"] for rows in known.values() for row in rows])
    axes.grid(alpha=0.3)
    clean(axes)
    return figure


def _changing(rows: Rows) -> dict[str, tuple[str, str]]:
    """The columns that have a panel of their own, with its label and its colour."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    others = {n: (n.replace("_", "\n"), PURPLE) for n in names if n.startswith("validation_")}
    others |= {n: (n.replace("_", "\n"), VERMILION) for n in names if n.startswith("lr")}
    others |= {"kl_weight": ("KL weight", GREEN), "lr": ("learning rate", VERMILION)}
    others.pop("validation_loss", None)
    return {n: look for n, look in others.items() if len({row[n] for row in rows if n in row}) > 1}


def _points(rows: Rows, name: str) -> Points:
    return [(row["epoch"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]


def _warm_ups(rows: Rows) -> list[tuple[float, float]]:
    """First and last epoch of each stretch over which the KL weight rises."""
    found: list[tuple[float, float]] = []
    points = _points(rows, "kl_weight")
    for (epoch, weight), (following, later) in itertools.pairwise(points):
        if later > weight:
            begun = found.pop()[0] if found and found[-1][1] == epoch else epoch
            found.append((begun, following))
    return found


def _cut(axes: Axes, drawn: Mapping[str, Points] | Sequence[tuple[str, Points]]) -> None:
    """End the vertical axis at the losses after the first tenth of the epochs, and mark curves that go beyond."""
    curves = list(drawn.items()) if isinstance(drawn, Mapping) else list(drawn)
    settled = [value for _, points in curves for _, value in points[len(points) // _LATER :]]
    if not settled:
        return
    margin = 0.05 * (max(settled) - min(settled)) or 0.5
    low, high = min(settled) - margin, max(settled) + margin
    axes.set_ylim(low, high)
    beyond = [(colour, point) for colour, points in curves for point in points if point[1] > high]
    for colour in dict.fromkeys(colour for colour, _ in beyond):
        last = max(epoch for other, (epoch, _) in beyond if other == colour)
        axes.plot(last, high, "^", color=colour, clip_on=False, zorder=3)
    if beyond:
        highest = max(value for _, (_, value) in beyond)
        axes.plot([], [], "^", color="0.4", label=f"goes on above, to {highest:.4g}")


def _end_on_the_last(axes: Axes, epochs: Sequence[float]) -> None:
    """Tick whole epochs, the last of them too."""
    first, last = min(epochs), max(epochs)
    if first == last:
        axes.set_xticks([last])
        return
    found = [tick for tick in MaxNLocator(8, integer=True).tick_values(first, last) if first <= tick <= last]
    room = 0.75 * (found[1] - found[0] if len(found) > 1 else last - first)
    ticks = [first, *(tick for tick in found if tick - first >= room and last - tick >= room)]
    axes.xaxis.set_major_locator(FixedLocator([*ticks, last]))
