"""Building blocks of the figures of tables: panels of columns, and how strongly columns go together."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyrovae.data.columns import Column
from pyrovae.plotting.drawing import BLUE, VERMILION, clean

Values = NDArray[np.float64]
_ACROSS, _BINS, _TOP, _WRITTEN = 4, 20, 12, 4
_CLIPPED = "clipped at 1 % and 99 %"


def panels_of(number: int, title: str, *, square: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, four in a row."""
    across = min(_ACROSS, number)
    down = math.ceil(number / across)
    width = max(2.9 * across, 6.0)  # the title needs room over one or two panels too
    size = (width, (0.93 * width / across if square else 2.2) * down + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for axes in panels[number:]:
        axes.set_axis_off()
    figure.suptitle(title)
    return figure, panels[:number]


def draw_histograms(axes: Axes, column: Column, real: Values, generated: Values) -> None:
    """Shares of numbers in the same bins."""
    low, high, clipped = _ends(real, generated)
    whole = column.integer or column.kind == "count"
    edges = _edges(low, high, whole, min(len(real), len(generated) or len(real)))
    first, second = (
        _shares(np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0].astype(float)) for part in (real, generated)
    )
    axes.stairs(first, edges, fill=True, color=BLUE, alpha=0.5, label="real")
    axes.stairs(second, edges, color=VERMILION, linewidth=1.5, label="generated")
    axes.set(xlabel="\n".join(filter(None, (_unit(column), _CLIPPED if clipped else ""))), ylabel="share")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=whole))


def draw_bars(axes: Axes, column: Column, real: Values, generated: Values) -> None:
    """Shares of levels."""
    names, groups = top_levels(column, real, generated)
    for values, shift, colour, label in ((real, -0.2, BLUE, "real"), (generated, 0.2, VERMILION, "generated")):
        shares = _shares(np.bincount(groups[values.astype(int)], minlength=len(names)).astype(float))
        axes.barh(np.arange(len(names)) + shift, shares, 0.4, color=colour, alpha=0.7, label=label)
    axes.set_yticks(range(len(names)), names, size=label_size(len(names)))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("share")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.tick_params(axis="y", length=0)


def draw_points(axes: Axes, column: Column, true: Values, imputed: Values) -> None:
    """Imputed numbers against true ones, with the diagonal."""
    low, high, clipped = _ends(true, imputed)
    margin = 0.04 * (high - low) or 0.5
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color="black", linewidth=0.8)
    alpha = float(np.clip(60 / len(true), 0.15, 0.8))
    points = np.clip(np.stack([true, imputed], 1), low, high)
    axes.scatter(points[:, 0], points[:, 1], s=9, color=BLUE, alpha=alpha, linewidths=0, rasterized=True)
    unit = _unit(column)
    axes.set(xlim=ends, ylim=ends, ylabel=f"imputed{', days' if unit else ''}")
    axes.set_xlabel("\n".join(filter(None, (f"true{', ' if unit else ''}{unit}", _CLIPPED if clipped else ""))))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, integer=column.integer or column.kind == "count"))
    clean(axes)


def draw_confusion(axes: Axes, column: Column, true: Values, imputed: Values) -> None:
    """Which levels a true level was imputed by, as shares of a row."""
    names, groups = top_levels(column, true, imputed)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (groups[true.astype(int)], groups[imputed.astype(int)]), 1)
    number = counts.sum(1, keepdims=True)
    shares = np.divide(counts, number, out=np.full_like(counts, np.nan), where=number > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if len(names) <= _WRITTEN:
        for (row, place), share in np.ndenumerate(shares):
            colour = "white" if share > 0.6 else "black"
            text = "" if np.isnan(share) else f"{share:.2f}"
            axes.text(place, row, text, ha="center", va="center", color=colour, size="small")
    axes.set_xticks(range(len(names)), names, rotation=90, size=label_size(len(names)))
    axes.set_yticks(range(len(names)), names, size=label_size(len(names)))
    axes.tick_params(length=0)
    axes.set(xlabel="imputed", ylabel="true")


def top_levels(column: Column, *parts: Values) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the most frequent levels and "other", and which of them each level is.

    Levels that do not occur are left out. The first part counts before the second. Ordered levels keep their order.
    """
    levels = column.levels or ()
    counts = [np.bincount(part.astype(int), minlength=len(levels)) for part in parts]
    order = np.lexsort([-count for count in reversed(counts)])
    order = order[np.sum(counts, 0)[order] > 0]
    top = np.sort(order[:_TOP]) if column.kind == "ordinal" else order[:_TOP]
    groups = np.full(len(levels), len(top))
    groups[top] = np.arange(len(top))
    texts = (f"{levels[code]:g}" if isinstance(levels[code], float) else str(levels[code]) for code in top)
    names = [short(text, 14) for text in texts]
    return names + ["other"] * (len(order) > len(top)), groups


def association_matrix(values: Values, numeric: NDArray[np.bool_]) -> Values:
    """How strongly columns go together, in [0, 1], ``[D, D]``; NaN where one of them does not vary."""
    size = values.shape[1]
    found = np.full((size, size), np.nan)
    for first in range(size):
        for second in range(first + 1):
            both = ~np.isnan(values[:, first]) & ~np.isnan(values[:, second])
            x, y = values[both, first], values[both, second]
            if len(x) and np.ptp(x) > 0 and np.ptp(y) > 0:
                strength = _association(x, y, bool(numeric[first]), bool(numeric[second]))
                found[first, second] = found[second, first] = min(strength, 1.0)
    return found


def _association(x: Values, y: Values, x_numeric: bool, y_numeric: bool) -> float:
    if x_numeric and y_numeric:
        from scipy.stats import rankdata  # not above: it takes a second that few commands need

        return abs(float(np.corrcoef(rankdata(x), rankdata(y))[0, 1]))
    if x_numeric:
        return _correlation_ratio(x, y)
    return _correlation_ratio(y, x) if y_numeric else _cramers_v(x, y)


def _correlation_ratio(numbers: Values, levels: Values) -> float:
    """Root of the share of the variance that lies between the levels."""
    _, groups = np.unique(levels, return_inverse=True)
    centred = (numbers - numbers.mean()) / np.ptp(numbers)
    sums, sizes = np.bincount(groups, centred), np.bincount(groups)
    return math.sqrt(float((sums**2 / sizes).sum() / (centred**2).sum()))


def _cramers_v(x: Values, y: Values) -> float:
    # Only cells that occur are held: there may be thousands of levels.
    (_, rows, in_rows), (_, columns, in_columns) = (
        np.unique(part, return_inverse=True, return_counts=True) for part in (x, y)
    )
    cells, counts = np.unique(rows * len(in_columns) + columns, return_counts=True)
    expected = in_rows[cells // len(in_columns)] * in_columns[cells % len(in_columns)].astype(float)
    per_row = max(float((counts**2 / expected).sum()) - 1, 0.0)
    return math.sqrt(per_row / (min(len(in_rows), len(in_columns)) - 1))


def short(text: str, length: int) -> str:
    """Text on one line, cut in the middle where it is too long. Dollars are no formula.

    >>> short("length of the petal in cm", 14)
    'length o…in cm'
    """
    line, end = " ".join(text.split()), (length - 1) * 2 // 5
    line = line if len(line) <= length else f"{line[: length - 1 - end]}…{line[-end:]}"
    return line.replace("$", r"\$")


def label_size(number: int) -> str:
    """The size of so many labels."""
    return "small" if number <= 6 else "x-small" if number <= 30 else "xx-small"


def _ends(*parts: Values) -> tuple[float, float, bool]:
    """Ends of an axis, and whether they are percentiles, because a few values would squash the rest."""
    held = [part for part in parts if len(part)]
    low, high = min(float(part.min()) for part in held), max(float(part.max()) for part in held)
    inner = [np.percentile(part, [1, 99]) for part in held]
    near, far = min(float(first) for first, _ in inner), max(float(last) for _, last in inner)
    return (near, far, True) if 0 < far - near < (high - low) / 2 else (low, high, False)


def _edges(low: float, high: float, whole: bool, rows: int) -> Values:
    """Edges of at most 20 bins, fewer for few rows. Bins of whole numbers hold equally many of these."""
    number = int(np.clip(round(2 * rows ** (1 / 3)), 5, _BINS))
    if whole:
        first, last = math.floor(low), math.ceil(high)
        width = math.ceil((last - first + 1) / number)
        return first - 0.5 + width * np.arange(math.ceil((last - first + 1) / width) + 1.0)
    return np.linspace(low, high, number + 1) if high > low else np.array([low - 0.5, low + 0.5])


def _shares(counts: Values) -> Values:
    return counts / max(counts.sum(), 1.0)


def _unit(column: Column) -> str:
    return "" if column.origin is None else f"days from {column.origin[:10]}"
