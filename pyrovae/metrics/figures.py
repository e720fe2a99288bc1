"""The figures of an evaluation in words, and the record that holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pyrovae.families import EvaluationFigure, families

NEIGHBOURS = (3, 5, 10)
SHARE_OF_ROWS = "share of rows"
"""The unit of errors of classification, counted over the labelled rows."""
_NATS = "nats per datum"

FIGURES = (
    EvaluationFigure(
        "log_likelihood",
        _NATS,
        "mean log p(x) by importance sampling; on average a lower bound, which rises with `num_samples`",
    ),
    EvaluationFigure(
        "cross_entropy",
        _NATS,
        "in place of `log_likelihood` where Bernoulli pixels score grey values, which have no likelihood then: what "
        "would be -`log_likelihood`, by the same formula; `bound` is a bound on -`cross_entropy`",
    ),
    EvaluationFigure(
        "standard_error",
        _NATS,
        "standard error of `log_likelihood` or `cross_entropy` over rows; null for a single row",
    ),
    EvaluationFigure(
        "sampling_error",
        _NATS,
        "the part of `standard_error` that comes from importance sampling: should be small; null for a single sample",
    ),
    EvaluationFigure("num_samples", "per datum", "number of importance samples"),
    EvaluationFigure("num_rows", "rows", "number of rows that were evaluated"),
    EvaluationFigure("bound", _NATS, "mean evidence lower bound (ELBO), at one draw of the latents per datum"),
    EvaluationFigure(
        "kl",
        _NATS,
        "mean KL divergence of the guide's posterior from the prior: exact where a closed form is known, else sampled",
    ),
    EvaluationFigure(
        "reconstruction_error",
        "per observed entry",
        "mean error of `VAE.reconstruct`: the squared error, or what the likelihood says; null if it has no mean",
    ),
    EvaluationFigure(
        "active_units",
        "dimensions",
        "latent dimensions in use: the variance of the posterior mean is above 0.01, for sticks above 0.01 of the "
        "prior's variance",
    ),
    EvaluationFigure("latent_dim", "dimensions", "all latent dimensions; an inferred class is not counted"),
    EvaluationFigure(
        "active_units_by_site", "dimensions", "`active_units` of each latent by its name; only if there are several"
    ),
    EvaluationFigure(
        "bits_per_dimension",
        "bits per entry",
        "code length, -`log_likelihood` in bits per observed entry; null for real values, and if the likelihood is no "
        "probability of values of this kind",
    ),
    EvaluationFigure(
        "effective_sample_size", "samples", "median over the rows of the effective number of importance samples (Kish)"
    ),
    EvaluationFigure(
        "standard_errors",
        "as the figures",
        "standard errors over rows of `bound`, `kl`, `reconstruction_error`, `bits_per_dimension` and shares of rows",
    ),
    *(
        EvaluationFigure(
            f"knn_error_{k}",
            SHARE_OF_ROWS,
            f"error of classifying labelled rows by their {k} nearest training rows, in distance of latent means, or "
            "for sticks in Hellinger distance of mean weights",
        )
        for k in NEIGHBOURS
    ),
)
"""The figures of every pair; families add theirs."""


def known_figures() -> dict[str, EvaluationFigure]:
    """All figures that an evaluation may hold, by name: those of every pair first, then those of families."""
    added = (figure for family in families() for measure in family.measures for figure in measure.figures)
    return {figure.name: figure for figure in (*FIGURES, *added)}


class Evaluation(Mapping[str, Any]):
    """Held-out figures of a VAE, by name and as attributes; `known_figures` says what each one is.

    A figure that does not apply to the pair or the data is not among them. As an attribute it is None.

    Parameters
    ----------
    figures : mapping of str to Any
        The figures.
    """

    def __init__(self, figures: Mapping[str, Any]) -> None:
        self._figures = dict(figures)

    def __getitem__(self, name: str) -> Any:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._figures and name not in known_figures():
            raise AttributeError(f"there is no figure {name!r}; known are {', '.join(known_figures())}")
        return self._figures.get(name)

    def __repr__(self) -> str:
        return f"Evaluation({', '.join(f'{name}={value!r}' for name, value in self._figures.items())})"

    def to_dict(self) -> dict[str, Any]:
        """The figures by name, ready for JSON: None stands for a figure that is not finite."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self._figures.items()
        }
