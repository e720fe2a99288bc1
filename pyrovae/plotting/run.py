"""Figures of a run: samples, reconstructions, and all figures of a trained VAE."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data import Dataset, Rows
from pyrovae.decoding import only_site
from pyrovae.families import families_of
from pyrovae.masks import fill_missing
from pyrovae.metrics.classification import with_inferred_labels, without_class
from pyrovae.metrics.evaluation import Progress
from pyrovae.metrics.latents import ACTIVE, SiteMeans, means_by_site, unit_variances
from pyrovae.plotting.curves import training_curves
from pyrovae.plotting.drawing import (
    draw_mosaic,
    heat_map,
    is_pictures,
    mosaic,
    picture_pairs,
    profile_pairs,
)
from pyrovae.plotting.latents import TSNE_ROWS, interpolation, is_discrete, latent_profile, latent_scatter
from pyrovae.storage import write_atomically
from pyrovae.vae import VAE

_DPI = 150
SAMPLES = {
    "draw": "Samples: draws from p(x)",
    "mean": "Samples: means of p(x|z) at draws of z",
    "mode": "Samples: modes of p(x|z) at draws of z",
}
"""Titles of samples, by what `VAE.sample` was asked for."""
_ROWS = 2000  # held-out rows whose latents are drawn


def sample_grid(images: Tensor, *, title: str = "Samples", show_range: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """Draw samples side by side: pictures as a square grid, other data as a heat map with a row per sample.

    Parameters
    ----------
    images : Tensor, shape ``[N, ...]``
        Pictures ``[N, C, H, W]`` of one or three channels, or ``[N, H, W]``; or other data.
    title : str, default "Samples"
        Title of the figure.
    show_range : tuple of float, default (0.0, 1.0)
        Values of pictures shown as black and white.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        There are no samples.
    """
    if not len(images):
        raise ValueError("there is nothing to draw: the tensor has no rows")
    if is_pictures(images):
        return draw_mosaic(mosaic(images, math.ceil(math.sqrt(len(images))), show_range), title)[0]
    flat = images.reshape(len(images), -1)
    return heat_map(flat, title, rows="sample", columns="entry of the datum", value="value")[0]


def reconstructions(
    x: Tensor, x_hat: Tensor, *, title: str = "Reconstructions", show_range: tuple[float, float] = (0.0, 1.0)
) -> Figure:
    """Draw data with their reconstructions: pictures in rows of ten above each other, other data as curves.

    Parameters
    ----------
    x : Tensor, shape ``[N, ...]``
        The data, with NaN for missing entries.
    x_hat : Tensor, shape of `x`
        Their reconstructions.
    title : str, default "Reconstructions"
        Title of the figure.
    show_range : tuple of float, default (0.0, 1.0)
        Values of pictures shown as black and white.

    Returns
    -------
    Figure
        The figure.

    Raises
    ------
    ValueError
        The shapes differ, or there are no rows.
    """
    if x.shape != x_hat.shape or not len(x):
        raise ValueError(f"give rows of one shape, got {tuple(x.shape)} and {tuple(x_hat.shape)}")
    x, x_hat = x.detach().cpu(), x_hat.detach().cpu()
    return picture_pairs(x, x_hat, title, show_range) if is_pictures(x) else profile_pairs(x, x_hat, title)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file, whole or not at all. The ending of the name gives the format.

    Parameters
    ----------
    figure : Figure
        The figure.
    path : str or Path
        The file, such as "samples.png". A file of this name is replaced.

    Raises
    ------
    ValueError
        Matplotlib does not know the ending.
    """
    path = Path(path)
    known, kind = FigureCanvasBase.get_supported_filetypes(), path.suffix.lower().removeprefix(".")
    if kind not in known:
        raise ValueError(f"{path} must end in one of {', '.join(f'.{name}' for name in sorted(known))}")
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=_DPI, bbox_inches="tight")
    write_atomically(path, content.getvalue())


def run_figures(
    vae: VAE,
    dataset: Dataset,
    rows: Sequence[Mapping[str, float]],
    *,
    condition: Mapping[str, Tensor] | None = None,
    finished: Any = None,
    problems: dict[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Figure]:
    """Draw all figures of a trained VAE, on held-out rows. Figures that do not apply are left out.

    Parameters
    ----------
    vae : VAE
        The VAE.
    dataset : Dataset
        Its data.
    rows : sequence of mapping of str to float
        Metrics of the training, see `training_curves`. May be empty.
    condition : mapping of str to Tensor, optional
        Values of latents that belong to all data, for the samples. Those that are not given are drawn from the guide.
    finished : Any, optional
        What the pair made of its run after the training (`Run.load_finished`).
    problems : dict of str to str, optional
        Where to write why a figure could not be drawn, by its name. None lets the error through.
    progress : callable, optional
        Wraps the names of the figures, for instance ``tqdm.tqdm``. None shows nothing.

    Returns
    -------
    dict of str to Figure
        The figures by name: training_curves (where there are metrics), samples, reconstructions, interpolation (not for
        discrete latents), latent_scatter, latent_profile (where there are labels), and those that the families of the
        VAE add, such as samples_by_sticks. A model that observes several sites has samples and reconstructions of
        each, such as samples_x.
    """
    pictured = Pictured(vae, dataset, rows, condition or {}, finished)
    figures: dict[str, Figure] = {}
    with programs.evaluating(vae):
        x, data = pictured.first(1)
        vae.prepare(x, **data)
        plots = {name: draw for family in families_of(vae) for name, draw in family.plots.items()}
        draws = {**_RUN_FIGURES, **plots}
        for name in [*draws] if progress is None else progress([*draws]):
            figures |= _drawn(name, draws[name], pictured, problems)
    return figures


def _drawn(name: str, draw: Draw, pictured: Pictured, problems: dict[str, str] | None) -> dict[str, Figure]:
    """Figures by name; none where they need a mean that a distribution of the pair does not have."""
    try:
        drawn = draw(pictured)
    except NotImplementedError:
        return {}
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if problems is None:
            raise
        problems[name] = " ".join(str(error).split())
        return {}
    if isinstance(drawn, Figure):
        return {name: drawn}
    return {f"{name}_{site}": figure for site, figure in (drawn or {}).items()}


Draw = Callable[["Pictured"], Figure | Mapping[str, Figure] | None]
"""Draws a figure of a run, or one for each data site; None where it does not apply."""


@dataclass(frozen=True)
class Pictured:
    """What the figures of a run are drawn from.

    Parameters
    ----------
    vae : VAE
        The VAE.
    dataset : Dataset
        Its data.
    rows : sequence of mapping of str to float
        Metrics of the training.
    """

    vae: VAE
    dataset: Dataset
    rows: Sequence[Mapping[str, float]]
    condition: Mapping[str, Tensor] = field(default_factory=dict)
    finished: Any = None

    @cached_property
    def held_out(self) -> Rows:
        """The first 2000 rows of the test data, or of the validation or training data if there are none."""
        dataset = self.dataset
        name = next((name for name in ("test", "validation") if len(dataset.splits()[name])), "train")
        some = dataset.splits()[name].take(slice(_ROWS))
        return dataset.transform(some) if name == "train" and dataset.transform is not None else some

    @cached_property
    def latents(self) -> Tensor:
        """Latent means of these rows, shape ``[N, latent_dim]``."""
        return torch.cat(list(self._means.values()), 1)

    @cached_property
    def used(self) -> Tensor:
        """Which of their units are in use, as `metrics.active_units` counts them, shape ``[latent_dim]``."""
        plain = {name: mean.var(0, correction=0) for name, mean in self._means.items()}  # of classes too
        found = SiteMeans(self._means, self._by_site.noise)
        return torch.cat(list((plain | unit_variances(self.vae, found)).values())) > ACTIVE

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        return without_class(self.vae, self._by_site.values)

    @cached_property
    def _by_site(self) -> SiteMeans:
        return means_by_site(self.vae, with_inferred_labels(self.vae, self.held_out), 1000)

    @property
    def show_range(self) -> tuple[float, float]:
        """Values shown as black and white."""
        if self.dataset.kind == "real":
            x = self.held_out.x if self.held_out.mask is None else self.held_out.x[self.held_out.mask]
            return float(x.min()), float(x.max())
        return (-1.0, 1.0) if self.dataset.kind == "symmetric" else (0.0, 1.0)

    @property
    def is_pictures(self) -> bool:
        """Whether the data are pictures."""
        return is_pictures(self.held_out.x)

    def first(self, number: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the first rows and the other data of the programs. Labels that the pair infers are inferred ones."""
        some = self.held_out.take(slice(number))
        return arguments(self.vae, with_inferred_labels(self.vae, some))


def _draw_training_curves(run: Pictured) -> Figure | None:
    return training_curves(run.rows) if run.rows else None


def _draw_samples(run: Pictured) -> Figure | dict[str, Figure]:
    number, output = (64, "mean") if run.is_pictures else (20, "draw")
    x, data = run.first(number)
    given = {name: value for name, value in data.items() if name not in ("mask", "index")}
    if run.vae.needs_rows(**given):
        number, given = len(x), {**given, "data": x}
    elif given:
        number = len(x)
    samples = run.vae.sample(number, output, condition=run.condition, **given)
    return _by_site(samples, lambda values: sample_grid(values, title=SAMPLES[output], show_range=run.show_range))


def _draw_reconstructions(run: Pictured) -> Figure | dict[str, Figure]:
    x, data = run.first(20 if run.is_pictures else 9)
    values, means = run.vae.observed_values(x, **data), run.vae.reconstruct(x, **data)
    if isinstance(values, dict) and isinstance(means, dict):
        return {name: reconstructions(value, means[name]) for name, value in values.items()}
    value, mean, mask = only_site(values), only_site(means), data.get("mask")
    seen = fill_missing(value, mask if mask is not None and mask.shape == value.shape else None, math.nan)
    return reconstructions(seen, mean, show_range=run.show_range)


def _by_site(value: Tensor | Mapping[str, Tensor], draw: Callable[[Tensor], Figure]) -> Figure | dict[str, Figure]:
    """A figure, or one for each data site."""
    return {name: draw(part) for name, part in value.items()} if isinstance(value, Mapping) else draw(value)


def _draw_interpolation(run: Pictured) -> Figure | None:
    lines = min(5 if run.is_pictures else 1, len(run.held_out.x) // 2)
    if not lines:
        return None  # a single row has no other to go to
    x, data = run.first(2 * lines)
    given = {name: value for name, value in data.items() if name not in ("mask", "index")}
    # One data site of the layout of the data, decoded from latents alone.
    if run.vae.needs_rows(**given) or len(run.vae.sites.all_observed) > 1:
        return None
    if any(is_discrete(q) for q in run.vae.posterior(x, **data).values()):
        return None
    return interpolation(run.vae, *x.split(lines), show_range=run.show_range, **data)


def _draw_latent_scatter(run: Pictured) -> Figure:
    # All rows at two dimensions; of more dimensions as many as t-SNE does in a few seconds.
    number = _ROWS if run.latents.shape[1] <= 2 else TSNE_ROWS
    labels = run.held_out.y
    return latent_scatter(run.latents[:number], None if labels is None else labels[:number], used=run.used)


def _draw_latent_profile(run: Pictured) -> Figure | None:
    rows = run.held_out
    has_labels = rows.y is not None and bool(rows.labelled.any())
    return latent_profile(run.latents, rows.y, used=run.used) if has_labels and rows.y is not None else None


_RUN_FIGURES: dict[str, Draw] = {
    "training_curves": _draw_training_curves,
    "samples": _draw_samples,
    "reconstructions": _draw_reconstructions,
    "interpolation": _draw_interpolation,
    "latent_scatter": _draw_latent_scatter,
    "latent_profile": _draw_latent_profile,
}
