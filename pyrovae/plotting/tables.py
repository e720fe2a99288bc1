"""Figures of tables: marginals, associations, imputed entries against the truth, errors, calibration of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pyrovae.data.columns import LEVELS, NUMBERS
from pyrovae.data.schema import Schema
from pyrovae.plotting.drawing import BLUE, RUN_COLOURS, clean
from pyrovae.plotting.table_parts import (
    association_matrix,
    draw_bars,
    draw_confusion,
    draw_histograms,
    draw_points,
    label_size,
    panels_of,
    short,
)

_PANELS = 24
_NAMED = 40  # columns that a matrix or a list has room for
_MARKERS = "os^Dv"
_UNITS = "RMSE / range of numbers, mean difference / number of ordered levels,\nshare of wrong entries of other levels"


def marginals(real: pd.DataFrame, generated: pd.DataFrame, schema: Schema) -> Figure | None:
    """Draw how the values of each column are distributed in real and in generated rows.

    Numbers have histograms on the same bins. If a few values would squash the rest, the bins end at the 1st and 99th
    percentile, the first and the last bin hold what lies beyond, and the label says so. Levels have bars, the 12 most
    frequent ones and "other". Shares are of the entries that are not missing. The first 24 columns are drawn.

    Parameters
    ----------
    real, generated : DataFrame
        The rows, with the columns of the schema.
    schema : Schema
        What the columns are. Columns without two values are left out.

    Returns
    -------
    Figure or None
        The figure; None if no column can be drawn.
    """
    first, second = _values(real, schema), _values(generated, schema)
    shown = _shown(schema, first)[:_PANELS]
    if not shown:
        return None
    title = f"Marginals{_of(shown, schema)}: {len(first)} real and {len(second)} generated rows"
    figure, panels = panels_of(len(shown), title)
    for axes, place in zip(panels, shown, strict=True):
        column = schema.columns[place]
        draw = draw_histograms if column.levels is None else draw_bars
        draw(axes, column, _known(first[:, place]), _known(second[:, place]))
        axes.set_title(short(column.name, 26), size="medium")
        clean(axes)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    return figure


def associations(real: pd.DataFrame, generated: pd.DataFrame, schema: Schema) -> Figure | None:
    """Draw how strongly columns go together in real and in generated rows, as two matrices on one scale.

    Two columns of numbers have the absolute value of Spearman's rank correlation, two of levels Cramer's V, and a
    number and a level the correlation ratio. All lie between 0 and 1. The first 40 columns are drawn.

    Parameters
    ----------
    real, generated, schema
        See `marginals`.

    Returns
    -------
    Figure or None
        The figure; None if there are less than two columns, or none varies. Pairs of which one does not vary are grey.

    Notes
    -----
    Each pair is taken from the rows that have both entries. Cramer's V of many levels in few rows is too large, so take
    equally many rows of both kinds.
    """
    first, second = _values(real, schema), _values(generated, schema)
    chosen = _shown(schema, first)[:_NAMED]
    if len(chosen) < 2:
        return None
    numeric = np.array([schema.columns[place].kind in NUMBERS for place in chosen])
    matrices = [association_matrix(values[:, chosen], numeric) for values in (first, second)]
    if np.isnan(matrices[0]).all():
        return None
    side = float(np.clip(0.2 * len(chosen) + 1.6, 3.2, 7.0))
    figure = Figure(figsize=(2 * side + 1.9, side + 1.5), layout="constrained")
    cmap = colormaps["viridis"].with_extremes(bad="lightgrey")
    names = [short(schema.columns[place].name, 18) for place in chosen]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, matrix, title in zip(panels, matrices, ("real", "generated"), strict=True):
        image = axes.imshow(matrix, cmap=cmap, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90, size=label_size(len(names)))
        axes.set_yticks(range(len(names)), names, size=label_size(len(names)))
        axes.set_title(title)
        axes.tick_params(length=0)
    different = np.abs(matrices[0] - matrices[1])[~np.eye(len(names), dtype=bool)]
    if np.isfinite(different).any():
        panels[1].set_title(f"generated (mean difference {np.nanmean(different):.2f})")
    label = "|Spearman| of numbers, Cramer's V of levels,\ncorrelation ratio of a number and a level"
    figure.colorbar(image, ax=panels, label=label, pad=0.02)
    figure.suptitle(f"Associations{_of(chosen, schema)}: {len(first)} real and {len(second)} generated rows")
    return figure


def imputed_against_true(
    truth: pd.DataFrame, imputed: pd.DataFrame, hidden: ArrayLike, schema: Schema
) -> Figure | None:
    """Draw imputed entries against the true ones, a panel for each column.

    Numbers are points about the diagonal; axes end as those of `marginals`, and points beyond stand at the edge. Levels
    are a matrix: a row holds what a true level was imputed by, as shares. The first 24 columns are drawn.

    Parameters
    ----------
    truth, imputed : DataFrame
        The rows as they are, and as they were completed.
    hidden : array of bool, shape ``[N, D]``
        Which entries were imputed, in the order of the columns of the schema. Entries whose truth is missing do not
        count.
    schema : Schema
        What the columns are.

    Returns
    -------
    Figure or None
        The figure; None if no hidden entry has a truth.

    Raises
    ------
    ValueError
        `hidden` has another shape than the table.
    """
    true, guess = _values(truth, schema), _values(imputed, schema)
    asked = np.asarray(hidden, dtype=bool)
    if asked.shape != true.shape or guess.shape != true.shape:
        raise ValueError(
            f"truth, imputed and hidden must be of one shape, got {true.shape}, {guess.shape} and {asked.shape}"
        )
    asked = asked & ~np.isnan(true) & ~np.isnan(guess)
    shown = _shown(schema, np.where(asked, true, np.nan))[:_PANELS]
    if not shown:
        return None
    some = asked[:, shown]
    title = f"Imputed against true values{_of(shown, schema)}: {some.sum()} hidden entries of {some.any(1).sum()} rows"
    figure, panels = panels_of(len(shown), title, square=True)
    for axes, place in zip(panels, shown, strict=True):
        column, rows = schema.columns[place], asked[:, place]
        draw = draw_points if column.levels is None else draw_confusion
        draw(axes, column, true[rows, place], guess[rows, place])
        axes.set_title(f"{short(column.name, 20)} ({rows.sum()})", size="medium")
    return figure


def errors_by_column(
    errors: Mapping[str, Mapping[str, float | None]], *, title: str = "Error of imputed entries by column"
) -> Figure | None:
    """Draw the error of each column as dots, one colour for each method.

    Parameters
    ----------
    errors : mapping of str to mapping of str to float
        Errors by method and column, as `pyrovae.metrics.column_errors` has them. None and NaN are left out. The first
        40 columns are drawn.
    title : str
        Title of the figure.

    Returns
    -------
    Figure or None
        The figure; None if there is no error.
    """
    frame = pd.DataFrame({name: pd.Series(dict(found), dtype=float) for name, found in errors.items()})
    order = list(dict.fromkeys(column for found in errors.values() for column in found))
    frame = frame.reindex(order).replace([np.inf, -np.inf], np.nan).dropna(how="all")
    if frame.empty:
        return None
    shown = frame.iloc[:_NAMED]
    more = f"\nthe first {len(shown)} of {len(frame)} columns" if len(shown) < len(frame) else ""
    figure = Figure(figsize=(7.0, 1.7 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown))
    for number, name in enumerate(shown):
        colour, marker = RUN_COLOURS[number % len(RUN_COLOURS)], _MARKERS[number % len(_MARKERS)]
        look: dict[str, Any] = {"color": colour, "marker": marker}
        # One method stands a little above the other, so that equal errors are both seen.
        shift = 0.3 * ((number + 0.5) / shown.shape[1] - 0.5)
        axes.plot(
            shown[name], places + shift, linestyle="none", alpha=0.85, clip_on=False, label=short(name, 30), **look
        )
    axes.set_yticks(places, [short(column, 28) for column in shown.index])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.grid(axis="y", alpha=0.3)
    axes.set(title=title + more, xlabel=_UNITS)
    axes.xaxis.label.set_fontsize("small")
    figure.legend(loc="outside upper center", ncols=min(4, shown.shape[1]), frameon=False)
    clean(axes)
    return figure


def interval_calibration(coverages: Mapping[float, float], num_entries: int) -> Figure:
    """Draw the share of entries that intervals cover against the share that they claim.

    Points on the diagonal are right, points below belong to intervals that are too narrow. The band holds 95 % of what
    chance alone gives right intervals, if entries are independent. Entries of one row are not, so that it is somewhat
    too narrow.

    Parameters
    ----------
    coverages : mapping of float to float
        Measured shares, as of `pyrovae.metrics.interval_coverage`, by the levels of the intervals, such as 0.9.
    num_entries : int
        How many entries were counted.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        There is nothing to draw, or a share is not between 0 and 1.
    """
    levels, shares = np.array(sorted(coverages)), np.array([coverages[level] for level in sorted(coverages)])
    if not len(levels) or num_entries < 1:
        raise ValueError(f"give at least one level and one entry, got {len(levels)} and {num_entries}")
    if not ((levels >= 0) & (levels <= 1) & (shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"levels and shares must lie between 0 and 1, got {dict(coverages)}")
    from scipy.stats import binom  # not above: it takes a second that few commands need

    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    claimed = np.linspace(0, 1, 101)
    low, high = (binom.ppf(end, num_entries, claimed) / num_entries for end in (0.025, 0.975))
    axes.fill_between(claimed, low, high, color="black", alpha=0.15, linewidth=0, label="95 % of chance")
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, label="right intervals")
    axes.plot(levels, shares, "o-", color=BLUE, label="measured")
    axes.set(xlabel="level of the interval", ylabel="share of entries within it", xlim=(0, 1), ylim=(0, 1), aspect=1)
    axes.set_title(f"Calibration of intervals: {num_entries} entries")
    axes.legend(frameon=False, loc="upper left")
    clean(axes)
    return figure


def _values(frame: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
    return schema.encode(frame, extra="ignore", unseen="missing")[0]


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _shown(schema: Schema, values: NDArray[np.float64]) -> list[int]:
    """Columns of numbers and levels that have a value."""
    fits = np.array([column.kind in (*NUMBERS, *LEVELS) for column in schema.columns])
    return np.flatnonzero(fits & ~np.isnan(values).all(0)).tolist()


def _of(shown: Sequence[int], schema: Schema) -> str:
    return "" if len(shown) == len(schema) else f" of {len(shown)} of {len(schema)} columns"
