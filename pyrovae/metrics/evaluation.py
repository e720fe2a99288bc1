"""Held-out figures of a VAE."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data import Dataset, Rows
from pyrovae.data.dataset import slices
from pyrovae.families import families_of
from pyrovae.likelihoods import Likelihood, likelihood_of
from pyrovae.masks import fill_missing
from pyrovae.metrics.classification import infers_label, latents_of
from pyrovae.metrics.figures import NEIGHBOURS, Evaluation
from pyrovae.metrics.latents import ACTIVE, knn_error, row_means, unit_variances
from pyrovae.vae import VAE

Progress = Callable[[Sequence[slice]], Iterable[slice]]
"""Wraps the batches that are gone through, as `tqdm` does."""


@dataclass(frozen=True)
class Evaluated:
    """What the figures of families are computed from.

    Parameters
    ----------
    vae : VAE
        The pair, in evaluation mode.
    rows : Rows
        The rows under evaluation, with their labels.
    neighbours : Rows, optional
        Labelled rows to compare them with.
    """

    vae: VAE
    rows: Rows
    neighbours: Rows | None = None

    @cached_property
    def vectors(self) -> Tensor:
        """Vectors of the rows whose distance tells how alike they are, see `row_vectors`."""
        return row_vectors(self.vae, self.rows)


def row_vectors(vae: VAE, rows: Rows) -> Tensor:
    """Vectors of rows, ``[N, D]``, whose distance tells how alike they are: latent means, or what their family says."""
    own = next((f.row_vectors for f in families_of(vae) if f.row_vectors is not None), None)
    return (latents_of if own is None else own)(vae, rows)


@torch.no_grad()
def evaluate(
    vae: VAE,
    split: Rows,
    *,
    dataset: Dataset | None = None,
    kind: str | None = None,
    num_samples: int = 5000,
    chunk_size: int = 8192,
    batch_size: int = 128,
    neighbours: Rows | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a VAE on some rows, in evaluation mode and batch by batch on the VAE's device.

    Labels of the rows are handed to pairs whose programs both take `y`, unless the label is one of their latents: the
    likelihood is then that of the data alone, and the labels tell the error of q(y|x). A mask is handed over always.

    Parameters
    ----------
    vae : VAE
        The VAE.
    split : Rows
        The rows. For a `Dataset` with a `transform`, take validation or test rows, or `Dataset.seen("train")`.
    dataset : Dataset, optional
        Where the rows come from. It says how to count bits per dimension.
    kind : str, optional
        The kind of the values (see `Dataset`) where there is no `dataset`. Without either, no bits are counted.
    num_samples : int, default 5000
        Importance samples per datum. 1000 is enough for a first look.
    chunk_size : int, default 8192
        Pairs of datum and sample evaluated at once, which bounds the memory.
    batch_size : int, default 128
        Rows between two steps of `progress`.
    neighbours : Rows, optional
        Labelled rows in whose neighbourhood the rows are classified; other rows than those of `split`.
    progress : callable, optional
        Wraps the batches, for instance ``tqdm.tqdm``. None shows nothing.

    Returns
    -------
    Evaluation
        The figures, see `known_figures`.

    Raises
    ------
    ValueError
        If there are no rows.
    TypeError
        If there is a mask, and a program takes none.

    Examples
    --------
    >>> import pyro, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
    >>> def guide(x):  # the exact posterior
    ...     with pyro.plate("data", len(x)):
    ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))
    >>> result = evaluate(VAE(model, guide), Rows(torch.zeros(4, 1)), num_samples=10)
    >>> round(result.log_likelihood, 4), result.num_rows, result.latent_dim
    (-1.2655, 4, 1)
    """
    rows = len(split)
    if not rows:
        raise ValueError("there are no rows to evaluate")
    kind = dataset.kind if dataset is not None else kind
    parts_of_rows, labelled = slices(rows, batch_size), split
    if infers_label(vae, split):
        split = split.without_labels()
    likelihood = likelihood_of(vae)
    parts: list[tuple[Tensor, ...]] = []
    probability = True
    with programs.evaluating(vae):
        for part in parts_of_rows if progress is None else progress(parts_of_rows):
            x, data = arguments(vae, split.take(part))
            estimate = vae.log_likelihood(x, num_samples, chunk_size=chunk_size, return_details=True, **data)
            _, nll, kl = vae.bound_terms(x, **data)
            error = _reconstruction_error(vae, likelihood, x, data)
            means = row_means(vae, x, data)
            parts.append((*estimate, nll, kl, error, *means.values()))
            probability = probability and _is_probability(vae, x, data, kind)
        columns = (torch.cat(part).double().cpu() for part in zip(*parts, strict=True))
        value, sampling, size, nll, kl, error, *sites = columns
        variances = unit_variances(vae, dict(zip(means, sites, strict=True)))
        active = {name: int((part > ACTIVE).sum()) for name, part in variances.items()}
        entries = split.x.numel() if split.mask is None else int(split.mask.sum())
        log_likelihood = float(value.mean())
        bits = bits_per_dimension(log_likelihood, entries / rows, dataset=dataset, kind=kind) if probability else None
        figures = {
            "log_likelihood": log_likelihood,
            "standard_error": float(value.std()) / rows**0.5 if rows > 1 else math.nan,
            "sampling_error": float(sampling.square().sum().sqrt()) / rows,
            "num_samples": num_samples,
            "num_rows": rows,
            "bound": -float((nll + kl).mean()),
            "kl": float(kl.mean()),
            "reconstruction_error": float(error.sum()) / max(entries, 1),
            "active_units": sum(active.values()),
            "latent_dim": sum(len(part) for part in variances.values()),
            **({"active_units_by_site": active} if len(active) > 1 else {}),
            "bits_per_dimension": bits,
            "effective_sample_size": float(size.median()),
        }
        evaluated = Evaluated(vae, labelled, neighbours)
        for family in families_of(vae):
            for measure in family.measures:
                figures |= measure.compute(evaluated)
        return Evaluation(figures | _neighbour_figures(evaluated))


def bits_per_dimension(
    log_likelihood: float, num_entries: float, *, dataset: Dataset | None = None, kind: str | None = None
) -> float | None:
    """Code length of a datum in bits per entry, `-log_likelihood / (num_entries log 2)`.

    For values of kind "binary" and "8-bit" this is a code length of the data. For "unit" and "symmetric" values it is
    that of a density, which depends on the scale of the values and may be negative; where the data set says that bytes
    were dequantised, the logarithm of the number of levels in a unit of the values is added (8 bits in [0, 1], 7 bits
    in [-1, 1]), which makes it an upper bound on the code length of the bytes. None for "real" values.

    Parameters
    ----------
    log_likelihood : float
        Mean log-likelihood, in nats per datum.
    num_entries : float
        Entries per datum.
    dataset : Dataset, optional
        Says kind and dequantisation.
    kind : str, optional
        The kind of the values where there is no `dataset`.

    Returns
    -------
    float or None
        Bits per entry.

    References
    ----------
    Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1.

    Examples
    --------
    >>> round(bits_per_dimension(-100.0, 784, kind="binary"), 4)
    0.184
    """
    kind = dataset.kind if dataset is not None else kind
    if kind is None or kind == "real" or not num_entries:
        return None
    bits = -log_likelihood / (num_entries * math.log(2))
    if dataset is not None and dataset.options.get("dequantize"):
        bits += 8 if kind == "unit" else 7
    return bits


def _neighbour_figures(evaluated: Evaluated) -> dict[str, float]:
    rows, neighbours = evaluated.rows, evaluated.neighbours
    if neighbours is None or not bool(rows.labelled.any()):
        return {}
    near = neighbours.take(neighbours.labelled)
    if len(near) < max(NEIGHBOURS):
        return {}
    errors = knn_error(row_vectors(evaluated.vae, near), near.y, evaluated.vectors, rows.y, NEIGHBOURS)
    return {f"knn_error_{k}": error for k, error in errors.items()}


def _reconstruction_error(vae: VAE, likelihood: Likelihood | None, x: Tensor, data: dict[str, Tensor]) -> Tensor:
    """Summed error of the observed entries of each row, ``[B]``; NaN where the distribution of the data has no mean.

    Or where no data site is the data as they are, such as one for each step of a sequence.
    """
    try:
        x_hat = vae.reconstruct(x, **data)
        x_hat = vae.like_data(x_hat, x) if likelihood is None else x_hat
    except NotImplementedError:
        x_hat = None
    if x_hat is None:
        return x.new_full((len(x),), math.nan)
    error = (x_hat - x).square() if likelihood is None else likelihood.error(x_hat, x)
    return fill_missing(error, _entries(x, data), 0.0).flatten(1).sum(1)


def _is_probability(vae: VAE, x: Tensor, data: dict[str, Tensor], kind: str | None) -> bool:
    """Whether p(x|z) measures data of this kind, as a cross-entropy of grey values and a density of bytes do not."""
    if kind is None or kind == "real":
        return False
    latents = {name: q.sample() for name, q in vae.posterior(x, **data).items()}
    given = {name: value for name, value in data.items() if name != "mask"}
    rows = x if vae.looks_at_data(draws_data=False, **given) else None
    p = vae.decode(latents, data=rows, **given)
    if isinstance(p, dict) or vae.like_data(p, x) is None:
        return False  # the likelihood is not that of x alone
    if kind in ("binary", "8-bit") and not p.support.is_discrete:
        return False
    draw = p.sample()
    mask = _entries(x, data)
    mask = None if mask is None else mask.reshape(draw.shape)
    return bool(p.support.check(fill_missing(x.reshape(draw.shape), mask, draw)).all())


def _entries(x: Tensor, data: dict[str, Tensor]) -> Tensor | None:
    """The mask over the entries of the data; a `mask` of another shape is an argument of a user's programs."""
    mask = data.get("mask")
    return mask if mask is not None and mask.shape == x.shape else None
