"""How well entries are found again that are hidden: the error against the share of missing entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.data.rows import Rows
from pyrovae.decoding import only_site
from pyrovae.guides import RowGuide
from pyrovae.likelihoods import likelihood_of, squared_error
from pyrovae.masks import fill_missing
from pyrovae.rng import seeded
from pyrovae.vae import VAE

Progress = Callable[[Sequence[Any]], Iterable[Any]]


class MissingError(NamedTuple):
    """Errors at one share of missing entries: means of the squared error, or of what the likelihood calls its error."""

    ratio: float
    """The share that was asked for."""
    share_missing: float
    """The share of entries that was missing."""
    error_all: float
    """Per entry, over all of them: observed ones as reconstructed, missing ones as imputed."""
    error_missing: float
    """Per missing entry."""
    error_observed: float
    """Per observed entry, as reconstructed."""
    standard_error: float
    """Standard error of `error_missing` over the rows; NaN for a single row."""
    error_of_mean: float
    """Per missing entry, if the mean of the training rows is put there; NaN without training rows."""
    num_rows: int
    """Rows."""


def recover(
    vae: VAE, x: Tensor, mask: Tensor, *, refine: int = 0, steps: int = 200, num_samples: int = 100, **fitting: Any
) -> Tensor:
    """Find whole rows from their observed entries: these as reconstructed, the missing ones as imputed.

    Parameters
    ----------
    vae : VAE
        The pair. Where its guide has parameters for each row (an auto-decoder), they are fitted to these rows.
    x : Tensor, shape ``[N, ...]``
        Rows. What is missing is not looked at.
    mask : Tensor of bool, shape of `x`
        True where an entry is observed.
    refine : int, default 0
        Gradient steps that refine the answer of an amortised guide.
    steps : int, default 200
        Gradient steps that fit the posteriors of an auto-decoder.
    num_samples : int, default 100
        Importance samples of each row.
    **fitting
        Further arguments of `VAE.fit_posterior`.

    Returns
    -------
    Tensor, shape of `x`
        The rows.

    Raises
    ------
    ValueError
        If `refine` is asked of a guide that has no answer to refine, or is negative.
    """
    if refine < 0:
        raise ValueError(f"refine must not be negative, got {refine}")
    x = fill_missing(x, mask, 0.0)
    if isinstance(vae.guide, RowGuide):
        if refine:
            raise ValueError(
                "refine is for guides with an encoder; the posteriors of an auto-decoder are fitted with steps"
            )
        vae = vae.fit_posterior(x, mask, steps=steps, **fitting)
    elif refine:
        vae = vae.fit_posterior(x, mask, steps=refine, start="guide", **fitting)
    imputed = vae.impute(x, mask, num_samples=num_samples)
    seen = torch.cat(
        [
            only_site(vae.reconstruct(x[part], mask=mask[part]))
            for part in torch.arange(len(x), device=x.device).split(1000)
        ]
    )
    return torch.where(mask, seen.to(imputed), imputed)


def missing_errors(
    vae: VAE,
    rows: Rows,
    masks: Mapping[float, Tensor],
    *,
    train: Rows | None = None,
    refine: int = 0,
    steps: int = 200,
    num_samples: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
    **fitting: Any,
) -> list[MissingError]:
    """Hide entries of rows, find them again, and compare, for several shares.

    Parameters
    ----------
    vae : VAE
        The pair.
    rows : Rows
        The rows, with their true values. Entries that they lack are hidden too, and count in no error.
    masks : mapping of float to Tensor of bool
        For each share, what stays observed, of the shape of ``rows.x``. See `pyrovae.data.patterns.random_mask`.
    train : Rows, optional
        Training rows, whose mean is the simplest answer.
    refine, steps, num_samples, **fitting
        See `recover`.
    seed : int, default 0
        Seed of the draws; the caller's random numbers stay as they were.
    progress : callable, optional
        Wraps the shares, as `tqdm` does.

    Returns
    -------
    list of MissingError
        In the order of `masks`.

    Raises
    ------
    ValueError
        For a mask of another shape, one that hides nothing, and what `recover` refuses.

    Examples
    --------
    >>> from pyrovae.data import load
    >>> from pyrovae.data.patterns import random_mask
    >>> from pyrovae.pairs import find_pair
    >>> digits = load("digits")
    >>> vae = find_pair("gaussian").build(digits, latent_dim=2, likelihood="bernoulli")
    >>> rows = digits.test.take(slice(20))
    >>> masks = {0.3: random_mask((1, 8, 8), 20, 0.3)}
    >>> [error.num_rows for error in missing_errors(vae, rows, masks, num_samples=5)]
    [20]
    """
    likelihood = likelihood_of(vae)
    error = squared_error if likelihood is None else likelihood.error
    mean = None if train is None else _mean_of(train)
    found, was_training = [], vae.training
    vae.eval()
    try:
        for ratio in list(masks) if progress is None else progress(list(masks)):
            mask = masks[ratio].to(rows.x.device)
            if mask.shape != rows.x.shape or mask.dtype != torch.bool:
                raise ValueError(
                    f"the mask of share {ratio} must be of bools of the shape of the rows {tuple(rows.x.shape)}, got "
                    f"{mask.dtype} of {tuple(mask.shape)}"
                )
            known = torch.ones_like(mask) if rows.mask is None else rows.mask
            seen, asked = mask & known, known & ~mask
            if not bool(asked.any()):
                raise ValueError(f"the mask of share {ratio} hides no entry, so there is nothing to find again")
            with seeded(seed), torch.no_grad():
                options = {"refine": refine, "steps": steps, "num_samples": num_samples, **fitting}
                answer = recover(vae, rows.x, seen, progress=False, **options)
            truth = fill_missing(rows.x, known, 0.0)
            found.append(_summary(ratio, error(answer, truth), seen, asked, mean, truth, error))
    finally:
        vae.train(was_training)
    return found


def _summary(
    ratio: float,
    errors: Tensor,
    seen: Tensor,
    asked: Tensor,
    mean: Tensor | None,
    truth: Tensor,
    error: Callable[[Tensor, Tensor], Tensor],
) -> MissingError:
    errors = errors.double()
    known = seen | asked

    def over(mask: Tensor, values: Tensor = errors) -> float:
        return float(values[mask].mean()) if bool(mask.any()) else float("nan")

    asked_rows = asked.flatten(1).sum(1)
    sums = torch.where(asked, errors, 0.0).flatten(1).sum(1)
    # The error is a ratio of sums over rows; its standard error is that of the residuals.
    residuals = sums - sums.sum() / asked_rows.sum() * asked_rows
    spread = residuals.std() * len(sums) ** 0.5 / asked_rows.sum() if len(sums) > 1 else torch.tensor(float("nan"))
    of_mean = float("nan") if mean is None else over(asked, error(mean.expand_as(truth), truth).double())
    return MissingError(
        ratio=float(ratio),
        share_missing=float(asked.sum() / known.sum()),
        error_all=over(known),
        error_missing=over(asked),
        error_observed=over(seen),
        standard_error=float(spread),
        error_of_mean=of_mean,
        num_rows=len(errors),
    )


def _mean_of(rows: Rows) -> Tensor:
    if rows.mask is None:
        return rows.x.mean(0)
    return fill_missing(rows.x, rows.mask, 0.0).sum(0) / rows.mask.sum(0).clamp(min=1)
