"""A figure of the inference gap: what family and encoder of a guide cost each row."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from pyrovae.metrics.gaps import InferenceGap
from pyrovae.plotting.drawing import BLUE, ORANGE, clean

_BINS = 40


def inference_gaps(gap: InferenceGap, *, title: str = "Inference gap") -> Figure:
    """Draw the approximation and the amortisation gap of the rows as histograms, with their means.

    Parameters
    ----------
    gap : InferenceGap
        What `metrics.inference_gap` found.
    title : str, default "Inference gap"
        Title of the figure.

    Returns
    -------
    Figure
        The figure.
    """
    parts = {"approximation gap": gap.approximation, "amortisation gap": gap.amortisation}
    values = {name: part.double().numpy() for name, part in parts.items()}
    whole = np.concatenate(list(values.values()))
    low, high = np.quantile(whole, [0.002, 0.998])
    bins: list[float] = np.linspace(min(low, 0.0), max(high, 1e-3), _BINS + 1).tolist()
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for (name, part), colour in zip(values.items(), (BLUE, ORANGE), strict=True):
        label = f"{name}: mean {part.mean():.2f}"
        axes.hist(np.clip(part, bins[0], bins[-1]), bins, color=colour, alpha=0.6, label=label)
        axes.axvline(part.mean(), color=colour, linewidth=2)
    axes.set(title=f"{title}\n{len(whole) // 2} rows", xlabel="nats", ylabel="number of rows")
    axes.legend(frameon=False)
    clean(axes)
    return figure
