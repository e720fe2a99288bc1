"""The importance-sampled log-likelihood of rows of data."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrovae.data.rows import cut
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.functional import LogLikelihood, LogWeightSum
from pyrovae.infer.log_weights import conditioned, weights_of
from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout

if TYPE_CHECKING:
    from pyrovae.vae import VAE


def check_counts(**counts: int) -> None:
    """Check that numbers of samples and rows are whole and at least 1.

    Raises
    ------
    ValueError
        Naming the first that is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def log_likelihood(
    vae: VAE,
    layout: Layout,
    x: Tensor,
    num_samples: int,
    chunk_size: int,
    vectorize: bool,
    condition: Mapping[str, Tensor],
    data: Mapping[str, Tensor],
) -> LogLikelihood:
    """Estimate log p(x) of every row with exactly `num_samples` importance samples, in bounded memory.

    Parameters
    ----------
    vae : VAE
        The pair, prepared and within its scope.
    layout : Layout
        Its plates.
    x : Tensor
        Data `[B, ...]`.
    num_samples : int
        Importance samples per datum.
    chunk_size : int
        Pairs of datum and sample evaluated at once.
    vectorize : bool
        Run the samples of a chunk in one call.
    condition : mapping from str to Tensor
        Values of latents outside the plate over the data.
    data : mapping from str to Tensor
        Further arguments by row.
    """
    # Few rows at a time and many samples of each: a chunk should hold more samples than the guide has work.
    rows = max(1, min(len(x), chunk_size // (min(num_samples, 64) if vectorize else 1)))
    parts = []
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        batch = cut(data, part, len(x))
        fixed = {name: vae.cut_latent(name, value, part, len(x)) for name, value in condition.items()}
        model, guide = conditioned(vae.model, vae.guide, fixed)
        programs = enumerated(model, layout), guide
        per_call = max(1, chunk_size // len(x[part])) if vectorize else 1
        total, scorer = LogWeightSum(), Scorer(layout, fixed=condition)
        while total.count < num_samples:
            count = min(per_call, num_samples - total.count)
            nesting = layout.max_plate_nesting if count > 1 else None
            weights = weights_of(*programs, count, nesting, scorer, (x[part],), batch)
            if weights.log_p.shape[1] != len(x[part]):
                raise ValueError(
                    f"the plate over the data holds {weights.log_p.shape[1]} rows for {len(x[part])} rows of x; a pair "
                    "that draws a subsample of its own has no log-likelihood of each row"
                )
            total.add(weights.log_weight)
        parts.append(LogLikelihood(*(field.to(weights.log_p.dtype) for field in total.result())))
    return LogLikelihood(*(torch.cat(field) for field in zip(*parts, strict=True)))
