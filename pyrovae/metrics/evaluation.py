"""Held-out figures of a VAE."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data import Dataset, Rows
from pyrovae.data.checking import check_kind, check_labels
from pyrovae.data.dataset import TABLE, slices
from pyrovae.distributed import in_parts
from pyrovae.families import families_of
from pyrovae.infer.log_weights import log_condition
from pyrovae.infer.recorded import sharing_recordings
from pyrovae.likelihoods import Likelihood, likelihood_of, squared_error
from pyrovae.masks import fill_missing
from pyrovae.metrics.classification import infers_label, latents_of
from pyrovae.metrics.figures import NEIGHBOURS, SHARE_OF_ROWS, Evaluation, known_figures
from pyrovae.metrics.latents import ACTIVE, SiteMeans, joined, knn_error, row_means, unit_variances
from pyrovae.rng import forked, seeded
from pyrovae.support import SupportCheck
from pyrovae.vae import VAE

logger = logging.getLogger(__name__)

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"""Wraps what is gone through, as `tqdm` does: batches, or names of imputers or figures."""


GREY = (
    "the values are grey, and pixels of 0 or 1 (Bernoulli) give grey values no probability: the figures are those of "
    "the cross-entropy, which is no likelihood; binarize='dynamic' (--binarize dynamic) gives data that have one"
)
"""Why there is a cross-entropy in place of a likelihood."""


class NonFiniteFigureError(RuntimeError):
    """Figures of some rows are NaN or infinite; the message names the rows."""


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
        Training rows to compare them with.
    figures : mapping of str to Any, default {}
        The figures of every pair, which are there already.
    baselines : sequence of str or None, default ()
        Imputers to compare a pair of tables with; None takes those that suit its size.
    progress : callable, optional
        Wraps what takes long.
    finished : Any, optional
        What the pair made of its run after the training, see `pyrovae.pairs.finishing`.
    """

    vae: VAE
    rows: Rows
    neighbours: Rows | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    baselines: Sequence[str] | None = ()
    progress: Progress | None = None
    finished: Any = None

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
    condition: Mapping[str, Tensor] | None = None,
    baselines: Sequence[str] | None = None,
    compile: bool | str = "auto",
    progress: Progress | None = None,
    finished: Any = None,
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
    condition : mapping of str to Tensor, optional
        Values of latents that belong to all data. Those that are not given stand at the mean of the guide, and a log
        line says so.
    baselines : sequence of str, optional
        For a pair of tables: imputers of `pyrovae.estimators.baselines` to compare it with. They are fitted on
        `neighbours`, and left out without. None takes all that scikit-learn has, and of a large table those that are
        quick.
    compile : bool or "auto", default "auto"
        How the samples are drawn and scored, see `VAE.log_likelihood`.
    progress : callable, optional
        Wraps the batches, for instance ``tqdm.tqdm``. None shows nothing.
    finished : Any, optional
        What the pair made of its run after the training (`Run.load_finished`). None takes the pair alone.

    Returns
    -------
    Evaluation
        The figures, see `known_figures`. Where grey values are scored by a Bernoulli likelihood, `cross_entropy` stands
        in place of `log_likelihood`, and a line of the log says why.

    Raises
    ------
    ValueError
        If there are no rows, or one is outside the support of the pair.
    NonFiniteFigureError
        If figures of a row are NaN or infinite. The message names the rows.
    TypeError
        If there is a mask, and a program takes none, or what is given are no `Rows`.

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
    if not isinstance(split, Rows):
        raise TypeError(f"what is evaluated must be Rows, as in Rows(x) or dataset.test, got {type(split).__name__}")
    rows = len(split)
    if not rows:
        raise ValueError("there are no rows to evaluate")
    kind = dataset.kind if dataset is not None else kind
    parts_of_rows, labelled = slices(rows, batch_size), split
    if infers_label(vae, split):
        split = split.without_labels()
    likelihood, fixed = likelihood_of(vae), _fixed(vae, condition)
    _check_rows(vae, split, parts_of_rows, dataset)
    with programs.evaluating(vae):
        seed = int(torch.randint(2**31, ()))  # parts have streams of their own, so that processes can share them

        def figures_of(some: Sequence[slice]) -> list[tuple[list[Tensor], bool, bool, SiteMeans]]:
            found = []
            for part in some if progress is None else progress(some):
                with seeded((seed + part.start) % 2**31):
                    x, data = arguments(vae, split.take(part))
                    settings: dict[str, Any] = {"chunk_size": chunk_size, "condition": fixed, **data}
                    settings["compile"] = compile
                    estimate = vae.log_likelihood(x, num_samples, return_details=True, **settings)
                    p, nll, kl = vae.bound_terms(x, condition=fixed, **data)
                    error, count = _reconstruction_error(vae, likelihood, x, data)
                    means = row_means(vae, x, data)
                    observed, mask = vae.observed_values(x, **data), data.get("mask")
                    probable, is_grey = _is_probability(p, observed, mask, kind), scores_grey(p, observed, mask)
                values = [value.detach().cpu() for value in (*estimate, nll, kl, error, count)]
                found.append((values, probable, is_grey, joined([means])))
            return found

        with sharing_recordings(vae):
            found_of_parts = [one for some in in_parts(figures_of, parts_of_rows) for one in some]
        parts, probable, are_grey, means_of_parts = zip(*found_of_parts, strict=True)
        probability, grey, means = all(probable), any(are_grey), joined(means_of_parts)
        columns = (torch.cat(part).double().cpu() for part in zip(*parts, strict=True))
        value, sampling, size, nll, kl, error, number = columns
        _check_finite({"log-likelihood": value, "negative log-likelihood": nll, "KL divergence": kl})
        # A distribution such as Cauchy has no mean.
        found = {name: part.double() for name, part in means.values.items() if not part.isnan().all()}
        _check_finite({f"posterior mean of {name}": part for name, part in found.items()})
        variances = unit_variances(vae, SiteMeans(found, means.noise))
        active = {name: int((part > ACTIVE).sum()) for name, part in variances.items()}
        entries = float(number.sum())
        log_likelihood = float(value.mean())
        bits = bits_per_dimension(log_likelihood, entries / rows, dataset=dataset, kind=kind) if probability else None
        errors = _standard_errors(nll, kl, error, number)
        if bits is not None and rows > 1:
            ratio = log_likelihood / (entries / rows)  # of two sums, since rows may have other numbers of entries
            errors["bits_per_dimension"] = (
                float((value - ratio * number).std()) / rows**0.5 / (entries / rows * math.log(2))
            )
        if grey:
            logger.info(GREY)
        figures = {
            **({"cross_entropy": -log_likelihood} if grey else {"log_likelihood": log_likelihood}),
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
            "standard_errors": errors,
        }
        evaluated = Evaluated(vae, labelled, neighbours, figures, baselines, progress, finished)
        for family in families_of(vae):
            for measure in family.measures:
                figures |= _checked(measure.compute(evaluated))
        figures |= _neighbour_figures(evaluated)
        errors |= _errors_of_shares(figures, labelled)
        return Evaluation(figures)


def _standard_errors(nll: Tensor, kl: Tensor, error: Tensor, number: Tensor) -> dict[str, float | None]:
    """The standard errors over rows of the means that every pair has; None of a single row."""
    rows = len(nll)
    # Of a ratio of two sums, by its linear part (delta method).
    ratio = (error - number * (error.sum() / number.sum().clamp(min=1))) / number.mean().clamp(min=1 / rows)
    parts = {"bound": nll + kl, "kl": kl, "reconstruction_error": ratio}
    found = {name: float(values.std()) / rows**0.5 if rows > 1 else math.nan for name, values in parts.items()}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _errors_of_shares(figures: Mapping[str, Any], labelled: Rows) -> dict[str, float | None]:
    """The standard errors of shares of the labelled rows: those of independent draws."""
    number, units = int(labelled.labelled.sum()), {name: figure.unit for name, figure in known_figures().items()}
    shares = {name: value for name, value in figures.items() if units.get(name) == SHARE_OF_ROWS and number > 1}
    return {name: math.sqrt(max(0.0, share * (1 - share)) / number) for name, share in shares.items()}


def _check_rows(vae: VAE, rows: Rows, parts: Sequence[slice], dataset: Dataset | None) -> None:
    """Refuse rows that contradict the kind of their data set, or are outside the support of the pair.

    Raises
    ------
    ValueError
        Naming the row.
    """
    if dataset is not None:
        check_kind(rows, dataset.kind, "evaluated")
        check_labels(rows, "evaluated")
    check = None
    for part in parts:
        x, data = arguments(vae, rows.take(part))
        vae.prepare(x, **data)
        with vae.telling_of_data(x, data):
            check = SupportCheck(vae, x, data) if check is None else check
            check.check(x, data, partial(_evaluated_row, part.start))


def _evaluated_row(start: int, row: int) -> str:
    return f"evaluated row {start + row}"


def _checked(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Figures of a family, refused if one is no number; None stands for one that has no value.

    Raises
    ------
    NonFiniteFigureError
        Naming the figure.
    """
    for name, value in figures.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NonFiniteFigureError(
                f"the figure {name!r} is {value}, so there are no figures; look at the evaluated rows, and at the "
                "weights of the pair"
            )
        if isinstance(value, Mapping):
            _checked({f"{name}.{part}": inner for part, inner in value.items()})
    return figures


def _check_finite(columns: Mapping[str, Tensor]) -> None:
    """Refuse figures of rows that are no numbers.

    Raises
    ------
    NonFiniteFigureError
        Naming the figure and the rows.
    """
    for name, values in columns.items():
        wrong = (~values.reshape(len(values), -1).isfinite()).any(1).nonzero()[:, 0].tolist()
        if wrong:
            shown = ", ".join(map(str, wrong[:10])) + (", ..." if len(wrong) > 10 else "")
            first = values.reshape(len(values), -1)[wrong[0]]
            seen = first[~first.isfinite()][0].item()
            raise NonFiniteFigureError(
                f"the {name} of {len(wrong)} of {len(values)} evaluated rows is not finite ({seen} of row {wrong[0]}; "
                f"rows {shown}), so there are no figures; look at these rows, and at the weights of the pair"
            )


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
    if neighbours is None or rows.y is None or not bool(rows.labelled.any()):
        return {}
    near = neighbours.take(neighbours.labelled)
    if near.y is None or len(near) < max(NEIGHBOURS):
        return {}
    errors = knn_error(row_vectors(evaluated.vae, near), near.y, evaluated.vectors, rows.y, NEIGHBOURS)
    return {f"knn_error_{k}": error for k, error in errors.items()}


def _fixed(vae: VAE, condition: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Values of the latents of all data: those given, and the guide's means of the others."""
    given = dict(condition or {})
    unknown = sorted(set(given) - set(vae.sites.shared))
    if unknown:
        known = ", ".join(vae.sites.shared) or "none"
        raise ValueError(f"condition names {unknown[0]!r}; the latents of all data of this pair are: {known}")
    if given.keys() >= set(vae.sites.shared):
        return given
    means = {name: value for name, value in vae.global_means().items() if name not in given}
    log_condition(means)
    return given | means


def _reconstruction_error(
    vae: VAE, likelihood: Likelihood | None, x: Tensor, data: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Summed error of the observed and scored entries of each row and their number, ``[B]``; NaN without a mean.

    Errors are those of the values that the model observes, which may be something made of the data.
    """
    values, mask = by_site(vae.observed_values(x, **data)), data.get("mask")
    # A mask that is not of the shape of a site is one of rows, or the program's own matter.
    masks = {name: mask if mask is not None and mask.shape == value.shape else None for name, value in values.items()}
    for name, scored in by_site(vae.observed_masks(x, **data)).items():
        if scored is not None:
            masks[name] = scored if masks[name] is None else scored & masks[name]
    ones = {name: torch.ones_like(value, dtype=torch.float64) for name, value in values.items()}
    number = reduce(add, (_per_row(value, masks[name]) for name, value in ones.items()))
    try:
        means = by_site(vae.reconstruct(x, **data))
    except NotImplementedError:
        return x.new_full((len(x),), math.nan, dtype=torch.float64), number
    measure = squared_error if likelihood is None or len(values) > 1 else likelihood.error
    errors = {name: measure(means[name], value) for name, value in values.items()}
    return reduce(add, (_per_row(value, masks[name]) for name, value in errors.items())), number


def _per_row(value: Tensor, mask: Tensor | None) -> Tensor:
    return fill_missing(value, mask, 0.0).reshape(len(value), -1).sum(1)


def by_site(value: Any) -> dict[str, Any]:
    """What VAE gives of its data sites as a dictionary, also where there is one site."""
    return dict(value) if isinstance(value, Mapping) else {"": value}


def scores_grey(p: Any, values: Any, mask: Tensor | None) -> bool:
    """Whether p(x|z) gives probabilities to 0 and 1 alone and the values are others, which then have no likelihood."""
    if not isinstance(values, Tensor) or isinstance(p, Mapping) or not p.support.is_discrete:
        return False
    with forked():  # so that figures do not depend on the question
        return not _within_support(p, values, mask)


def _within_support(p: Any, values: Tensor, mask: Tensor | None) -> bool:
    draw = p.sample()
    if draw.shape != values.shape:
        values = values.reshape(draw.shape)
    mask = None if mask is None or mask.numel() != draw.numel() else mask.reshape(draw.shape)
    return bool(p.support.check(fill_missing(values, mask, draw)).all())


def _is_probability(p: Any, values: Any, mask: Tensor | None, kind: str | None) -> bool:
    """Whether p(x|z) measures data of this kind, as a cross-entropy of grey values and a density of bytes do not."""
    if kind in (None, "real", TABLE) or not isinstance(values, Tensor):
        return False
    if kind in ("binary", "8-bit") and not p.support.is_discrete:
        return False
    return _within_support(p, values, mask)
