"""Held-out figures of a VAE: likelihood, bound, reconstruction, active units, neighbours, classes, gradient noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data import Dataset, Rows
from pyrovae.data.dataset import slices
from pyrovae.metrics.classification import classification_error, latents_of, stick_weights_of
from pyrovae.metrics.latents import (
    ACTIVE,
    has_sticks,
    infers_class,
    knn_error,
    row_means,
    sticks_used,
    unit_variances,
)
from pyrovae.vae import VAE

_NEIGHBOURS = (3, 5, 10)

Progress = Callable[[Sequence[slice]], Iterable[slice]]
"""Wraps the batches that are gone through, as `tqdm` does."""


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of a VAE, in nats per datum where nothing else is said.

    The names of the attributes are the keys of `to_dict` and of the command line's JSON, and stay as they are.
    """

    log_likelihood: float
    """Mean of the importance-sampled log p(x): in expectation a lower bound, which rises with `num_samples`."""
    standard_error: float
    """Standard error of `log_likelihood` as an estimate for new rows: the standard deviation of the rows' estimates
    over the square root of their number. The estimates scatter by their sampling error too, so it is included. NaN
    for a single row."""
    sampling_error: float
    """The part of it that importance sampling causes, which is all there is for these very rows: the root of the
    summed squares of the rows' standard errors, over their number."""
    num_samples: int
    """Importance samples a row."""
    num_rows: int
    """Rows evaluated."""
    bound: float
    """Mean evidence lower bound, one draw of the latents a row."""
    kl: float
    """Mean KL(q(z|x) || p(z)), exact where the pair of distributions has a closed form."""
    reconstruction_error: float
    """Mean squared error of `VAE.reconstruct` per observed entry, in squared units of the data; NaN where p(x|z)
    has no mean."""
    active_units: int
    """Latent dimensions whose posterior mean varies over the rows, see `active_units`."""
    latent_dim: int
    """Latent dimensions, those of all sites together but for a class that is inferred."""
    bits_per_dimension: float | None
    """See `bits_per_dimension`; None where the figure would mean nothing."""
    effective_sample_size: float
    """Median over the rows of Kish's effective number of samples, between 1 and `num_samples`."""
    active_units_by_site: dict[str, int] | None = None
    """`active_units` of each latent, by the name of its site, where there are several. Latents of layers above the
    first are taken at the mean of the layer below, see `latent_means`."""
    classification_error: float | None = None
    """Share of wrong classes among the labelled rows, for a pair that infers a class."""
    sticks_used: float | None = None
    """Mean number of weights that hold 99 % of a row's stick, for a pair with sticks; see `sticks_used`."""
    sticks_used_by_class: tuple[float | None, ...] | None = None
    """The same for the rows of every class, where there are labels; None for a class without rows."""
    knn_error_3: float | None = None
    """Error of 3 nearest neighbours among the labelled rows of `neighbours`, by the Euclidean distance of latent means,
    or by the Hellinger distance of mean stick weights."""
    knn_error_5: float | None = None
    """Of 5."""
    knn_error_10: float | None = None
    """Of 10."""

    def to_dict(self) -> dict[str, Any]:
        """The figures by name, ready for JSON: None stands for a figure that is not finite.

        Figures that only some pairs have are left out for the others.
        """
        optional = {field.name for field in fields(self) if field.default is None}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
            if value is not None or name not in optional
        }


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

    Labels of the split are handed to pairs whose programs both take `y`, unless `y` is one of their latents: the
    likelihood is then that of the data alone, and the labels tell the error of q(y|x). A mask is handed over always.

    Args:
        vae: the VAE.
        split: the rows; those of a `Dataset` that has a `transform` are its validation or test rows.
        dataset: where the rows come from, which says how to count bits per dimension.
        kind: the kind of the values (see `Dataset`) where there is no `dataset`; without either no bits are counted.
        num_samples: importance samples a row.
        chunk_size: pairs of row and sample evaluated at once, which bounds the memory.
        batch_size: rows between two steps of `progress`.
        neighbours: labelled rows in whose neighbourhood, by the latents, the rows are classified; other rows than `x`.
        progress: wraps the batches, for instance `tqdm.tqdm`; None shows nothing.

    Raises:
        ValueError: if there are no rows.
        TypeError: if there is a mask and a program takes none.

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
    rows = len(split.x)
    if not rows:
        raise ValueError("there are no rows to evaluate")
    parts_of_rows, labelled = slices(rows, batch_size), split
    # With the labels, because there are pairs that do not run without.
    x, data = arguments(vae, split.take(parts_of_rows[0]))
    if infers_class(vae.prepare(x, **data)):
        split = split.without_labels()
    parts: list[tuple[Tensor, ...]] = []
    probability = True
    with programs.evaluating(vae):
        for part in parts_of_rows if progress is None else progress(parts_of_rows):
            x, data = arguments(vae, split.take(part))
            estimate = vae.log_likelihood(x, num_samples, chunk_size=chunk_size, return_details=True, **data)
            _, nll, kl = vae.bound_terms(x, **data)
            error = _reconstruction_error(vae, x, data)
            means = row_means(vae, x, data)
            parts.append((*estimate, nll, kl, error, *means.values()))
            probability = probability and _is_probability(vae, x, data, dataset.kind if dataset else kind)
    columns = (torch.cat(part).double().cpu() for part in zip(*parts, strict=True))
    value, sampling, size, nll, kl, error, *sites = columns
    variances = unit_variances(vae, dict(zip(means, sites, strict=True)))
    active = {name: int((part > ACTIVE).sum()) for name, part in variances.items()}
    entries = split.x.numel() if split.mask is None else int(split.mask.sum())
    log_likelihood = float(value.mean())
    weights = stick_weights_of(vae, labelled) if has_sticks(vae) else None
    bits = None
    if probability:
        bits = bits_per_dimension(log_likelihood, entries / rows, dataset=dataset, kind=kind)
    return Evaluation(
        log_likelihood=log_likelihood,
        standard_error=float(value.std()) / rows**0.5 if rows > 1 else math.nan,
        sampling_error=float(sampling.square().sum().sqrt()) / rows,
        num_samples=num_samples,
        num_rows=rows,
        bound=-float((nll + kl).mean()),
        kl=float(kl.mean()),
        reconstruction_error=float(error.sum()) / max(entries, 1),
        active_units=sum(active.values()),
        latent_dim=sum(len(part) for part in variances.values()),
        bits_per_dimension=bits,
        effective_sample_size=float(size.median()),
        active_units_by_site=active if len(active) > 1 else None,
        **_class_figures(vae, labelled),
        **({} if weights is None else _stick_figures(weights, labelled.y)),
        **_neighbour_figures(vae, labelled, neighbours, weights),
    )


def bits_per_dimension(
    log_likelihood: float, num_entries: float, *, dataset: Dataset | None = None, kind: str | None = None
) -> float | None:
    """Code length of a datum in bits per entry, `-log_likelihood / (num_entries log 2)`.

    For values of kind "binary" and "8-bit" this is a code length of the data. For "unit" and "symmetric" values it is
    that of a density, which depends on the scale of the values and may be negative; where the data set says that bytes
    were dequantised, the logarithm of the number of levels in a unit of the values is added (8 bits in [0, 1], 7 bits
    in [-1, 1]), which makes it an upper bound on the code length of the bytes. None for "real" values.

    Reference: Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, section 3.1.

    Args:
        log_likelihood: mean log-likelihood of a datum, in nats.
        num_entries: entries of a datum.
        dataset: says kind and dequantisation.
        kind: the kind of the values where there is no `dataset`.

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


def _class_figures(vae: VAE, split: Rows) -> dict[str, Any]:
    if not infers_class(vae) or split.y is None or not bool((split.y >= 0).any()):
        return {}
    return {"classification_error": classification_error(vae, split)}


def _stick_figures(weights: Tensor, y: Tensor | None) -> dict[str, Any]:
    used = sticks_used(weights).double()
    figures: dict[str, Any] = {"sticks_used": float(used.mean())}
    if y is None or not bool((y >= 0).any()):
        return figures
    y = y.cpu()
    by_class = [used[y == label] for label in range(int(y.max()) + 1)]
    figures["sticks_used_by_class"] = tuple(float(part.mean()) if len(part) else None for part in by_class)
    return figures


def _neighbour_figures(vae: VAE, split: Rows, neighbours: Rows | None, weights: Tensor | None) -> dict[str, float]:
    if neighbours is None or any(part.y is None or not bool((part.y >= 0).any()) for part in (split, neighbours)):
        return {}
    known = neighbours.y >= 0
    if int(known.sum()) < max(_NEIGHBOURS):
        return {}
    near = neighbours.take(known)
    if weights is None:
        latents = latents_of(vae, near), latents_of(vae, split)
    else:  # a probability distribution; between roots of it the distance is Hellinger's
        latents = stick_weights_of(vae, near).sqrt(), weights.sqrt()
    errors = knn_error(latents[0], near.y, latents[1], split.y, _NEIGHBOURS)
    return {f"knn_error_{k}": error for k, error in errors.items()}


def _reconstruction_error(vae: VAE, x: Tensor, data: dict[str, Tensor]) -> Tensor:
    """Squared error of each row, `[B]`; NaN where the distribution of the data has no mean."""
    try:
        return _squared_error(vae.reconstruct(x, **data), x, data.get("mask"))
    except NotImplementedError:
        return x.new_full((len(x),), math.nan)


def _squared_error(x_hat: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    error = (x_hat - x).square()
    return (error if mask is None else torch.where(mask, error, 0.0)).flatten(1).sum(1)


def _is_probability(vae: VAE, x: Tensor, data: dict[str, Tensor], kind: str | None) -> bool:
    """Whether p(x|z) measures data of this kind, as a cross-entropy of grey values and a density of bytes do not."""
    if kind is None or kind == "real":
        return False
    latents = {name: q.sample() for name, q in vae.posterior(x, **data).items()}
    p = vae.decode(latents, **{name: value for name, value in data.items() if name == "y"})
    if kind in ("binary", "8-bit") and not p.support.is_discrete:
        return False
    draw = p.sample()
    x = x.reshape(draw.shape)
    if "mask" in data:
        x = torch.where(data["mask"].reshape(draw.shape), x, draw)
    return bool(p.support.check(x).all())
