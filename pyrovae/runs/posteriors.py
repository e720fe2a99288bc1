"""Posteriors of held-out rows of a run whose guide has parameters of its own for each training row."""

from __future__ import annotations

from dataclasses import replace

from pyrovae.batches import arguments
from pyrovae.data.dataset import Dataset, Rows
from pyrovae.guides import RowGuide
from pyrovae.rng import forked
from pyrovae.vae import VAE

FIT_STEPS = 200
"""Gradient steps of a held-out row, where no others are asked for."""
_SHOWN = 2000  # rows that figures are drawn of


def has_rows(vae: VAE) -> bool:
    """Whether the guide has parameters of its own for each training row, and so none for others."""
    return isinstance(vae.guide, RowGuide)


def check_steps(vae: VAE, steps: int) -> None:
    """Refuse steps of a fit for a pair that fits nothing.

    Raises
    ------
    ValueError
        If the guide has an encoder, and the number is not that which stands where none was given.
    """
    if steps != FIT_STEPS and not has_rows(vae):
        raise ValueError(
            f"fit_steps is for an auto-decoder, whose held-out rows are fitted, got {steps}; this pair has an encoder, "
            "so leave it out"
        )


def fitted(vae: VAE, rows: Rows, steps: int = FIT_STEPS, *, scale: str | None = None, progress: bool = True) -> VAE:
    """The pair over some rows: itself if it knows them, else with posteriors that are fitted to them.

    Parameters
    ----------
    vae : VAE
        The pair.
    rows : Rows
        The rows; those with an index are training rows.
    steps : int, default 200
        Gradient steps of a row.
    scale : {"fixed", "learned", "none"}, optional
        What the posteriors are; None keeps what the training had.
    progress : bool, default True
        Show a progress bar.
    """
    if not has_rows(vae) or rows.index is not None:
        return vae
    x, given = arguments(vae, rows)
    return vae.fit_posterior(x, steps=steps, scale=scale, progress=progress, **given)


def for_likelihood(vae: VAE, rows: Rows, steps: int = FIT_STEPS, *, progress: bool = True) -> tuple[VAE, Rows]:
    """The pair over some rows with posteriors that have importance weights, and the rows as it takes them.

    Where the training fixed the scale of the posterior, or had points, a scale is fitted here, also of training rows.
    """
    if not has_rows(vae):
        return vae, rows
    guide: RowGuide = vae.guide
    if not guide.has_fixed_scale and not guide.is_point:
        return fitted(vae, rows, steps, progress=progress), rows
    unnumbered = replace(rows, index=None)
    return fitted(vae, unnumbered, steps, scale="learned", progress=progress), unnumbered


def shown(vae: VAE, dataset: Dataset, steps: int = FIT_STEPS, *, progress: bool = True) -> tuple[VAE, Dataset]:
    """The pair over the rows that figures are drawn of, and a data set of them."""
    if not has_rows(vae):
        return vae, dataset
    name = next((name for name in ("test", "validation") if len(dataset.splits()[name])), "train")
    rows = dataset.splits()[name].take(slice(_SHOWN))
    if name == "train":
        return vae, dataset
    with forked():
        vae = fitted(vae, rows.to(vae.device), steps, progress=progress)
    return vae, replace(dataset, test=rows) if name == "test" else replace(dataset, validation=rows)
