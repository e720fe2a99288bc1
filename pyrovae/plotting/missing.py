"""Figures of missing entries: the error against the share that is missing, and pictures with holes filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae.metrics.missing import MissingError
from pyrovae.plotting.drawing import RUN_COLOURS, draw_mosaic, is_pictures, mosaic

COUNTED = {
    "all": ("error_all", "error per entry, all entries"),
    "missing": ("error_missing", "error per missing entry"),
}
"""Which entries a figure may count: the field of `MissingError`, and the label of the axis."""
_MARKERS = "osD^vP*X"


def missing_errors(curves: Mapping[str, Sequence[MissingError]], counted: str = "missing") -> Figure:
    """Draw the error of several runs against the share of missing entries.

    Parameters
    ----------
    curves : mapping of str to sequence of MissingError
        Errors by the name of the run, see `pyrovae.metrics.missing_errors`.
    counted : {"missing", "all"}, default "missing"
        The error per missing entry, with its standard error, or per entry of all entries.

    Returns
    -------
    Figure
        A line for each run, and a dashed one for the mean of the training rows where that is known.

    Raises
    ------
    ValueError
        If there is nothing to draw, or something else is to be counted.
    """
    if counted not in COUNTED:
        raise ValueError(f"counted must be one of {', '.join(COUNTED)}, got {counted!r}")
    if not any(curves.values()):
        raise ValueError("there are no errors to draw")
    name, label = COUNTED[counted]
    figure = Figure(figsize=(6.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (run, errors) in enumerate(curves.items()):
        errors = sorted(errors, key=lambda error: error.ratio)
        colour, marker = RUN_COLOURS[number % len(RUN_COLOURS)], _MARKERS[number % len(_MARKERS)]
        ratios, values = [error.ratio for error in errors], [getattr(error, name) for error in errors]
        bars = [error.standard_error for error in errors] if counted == "missing" else None
        axes.errorbar(ratios, values, yerr=bars, color=colour, marker=marker, markersize=4, label=run, capsize=2)
    if counted == "missing":
        means = {error.ratio: error.error_of_mean for errors in curves.values() for error in errors}
        known = sorted((ratio, value) for ratio, value in means.items() if value == value)
        if known:
            axes.plot(*zip(*known, strict=True), color="0.5", linestyle="--", label="mean of the training rows")
    axes.set(xlabel="share of missing entries", ylabel=label, title="Missing entries")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def inpainting(
    truth: Tensor, mask: Tensor, answers: Mapping[str, Tensor], show_range: tuple[float, float] = (0, 1)
) -> Figure:
    """Draw pictures with holes, what several methods make of them, and the truth; a column for each picture.

    Parameters
    ----------
    truth : Tensor, shape ``[N, C, H, W]`` or ``[N, H, W]``
        The complete pictures.
    mask : Tensor of bool, shape of `truth`
        True where a pixel is observed. The holes are drawn white.
    answers : mapping of str to Tensor
        The pictures as each method fills them in, by its name, see `pyrovae.metrics.recover`.
    show_range : tuple of float, default (0, 1)
        Values that become black and white.

    Returns
    -------
    Figure
        A row for the pictures with holes, one for each method, and one for the truth.

    Raises
    ------
    ValueError
        If these are no pictures, or shapes differ.
    """
    if not is_pictures(truth) or not len(truth):
        raise ValueError(f"inpainting takes pictures [N, C, H, W] or [N, H, W], got shape {tuple(truth.shape)}")
    for name, values in {"mask": mask, **answers}.items():
        if values.shape != truth.shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, and the pictures {tuple(truth.shape)}")
    holes = torch.where(mask, truth, torch.nan)
    rows = {"with holes": holes, **answers, "truth": truth}
    pictures = mosaic(torch.cat([values.to(truth) for values in rows.values()]), len(truth), show_range)
    figure, axes = draw_mosaic(pictures, "Missing pixels filled in")
    axes.set_yticks(pictures.rows, list(rows))
    return figure
