"""Values of a latent that the model has and the guide never draws: importance weights leave their part out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Empirical, ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import (
    Independent,
    MixtureSameFamily,
    Transform,
    TransformedDistribution,
    VonMises,
    constraints,
)

from pyrovae.infer.densities import masked_log_prob
from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout
from pyrovae.programs import Program, Traces, trace, trace_pair
from pyrovae.sites import Site, is_local, is_point, latent_sites, masks_of, name_of, rows_first, sample_sites

NEGLIGIBLE = 12.0
"""Nats below the density at the best of `DRAWS` draws, from which on values out of reach are left alone.

The tails of a normal distribution are, from five standard deviations on: less than a millionth of the evidence.
"""
DRAWS = 10
STEP = 1e-3
"""How far beyond the values of the guide the model is asked for its density, relative to the edge."""
MARGIN = 1e-6
"""What the ends of two ranges may differ by, relative to the end."""


class Ends(NamedTuple):
    """The least and the largest value of each entry of a distribution."""

    low: Tensor
    high: Tensor

    @property
    def vary(self) -> bool:
        """Whether entries have ends of their own, which may be others for other rows."""
        return bool(self.low.dim() or self.high.dim())


def check_reach(
    model: Program,
    guide: Program,
    layout: Layout,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    traces: Traces | None = None,
    first_row: int = 0,
) -> bool:
    """Refuse a latent of a datum with values that the model has and the guide never draws, if they have probability.

    Each datum has one entry of one latent moved to where the guide draws nothing, beside several draws of the others.

    Parameters
    ----------
    model, guide : callable
        The programs, with what is given fixed.
    layout : Layout
        How their traces are laid out.
    args, kwargs : tuple and mapping
        Rows and further arguments.
    traces : Traces, optional
        Traces of both on these, if there are some.
    first_row : int, default 0
        The number of the first of these rows, for messages.

    Returns
    -------
    bool
        Whether other rows may have other ranges, so that they are to be checked, too.

    Raises
    ------
    ValueError
        Naming the site and the value.
    """
    traces = traces or trace_pair(model, guide, args, kwargs)
    of_model, vary = sample_sites(traces.model), False
    for name, q in latent_sites(traces.guide).items():
        p = of_model.get(name)
        if p is None or p["is_observed"] or not is_local(q, layout.plates) or is_point(q) or is_point(p):
            continue
        ours, theirs = ends_of(p["fn"]), ends_of(q["fn"])
        if ours is None or theirs is None or _is_hidden(p):
            continue
        vary = vary or ours.vary or theirs.vary
        if _moved(q, ours, theirs, layout) is not None:
            _check_moved(model, guide, layout, args, kwargs, name, (ours, theirs), first_row)
    return vary


def ends_of(fn: Any) -> Ends | None:
    """The range of the entries of a distribution; None where it is no range of numbers, or not known."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    if isinstance(fn, Empirical) or VonMises.__name__ in name_of(fn):  # angles repeat
        return None
    if isinstance(fn, MixtureSameFamily):
        parts = ends_of(fn.component_distribution)
        if parts is None or not parts.vary:
            return parts
        shape, dim = fn.component_distribution.batch_shape + fn.event_shape, -1 - len(fn.event_shape)
        return Ends(parts.low.expand(shape).amin(dim), parts.high.expand(shape).amax(dim))
    if isinstance(fn, TransformedDistribution):
        ends = ends_of(fn.base_dist)
        for transform in fn.transforms:
            ends = None if ends is None else _through(transform, ends)
        if ends is not None:  # else as the distribution says, a half-normal one for instance
            return ends
    ends = _of_support(fn)
    if ends is None:
        return None
    try:
        torch.broadcast_shapes(ends.low.shape, ends.high.shape, fn.batch_shape + fn.event_shape)
    except RuntimeError:
        return None
    return ends


def _of_support(fn: Any) -> Ends | None:
    try:
        support: Any = fn.support
    except (NotImplementedError, AttributeError):
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if support is constraints.boolean:
        low, high = 0, 1
    elif low is None and high is None and support is not constraints.real:
        return None
    ends = (-torch.inf if low is None else low), (torch.inf if high is None else high)
    return Ends(*(torch.as_tensor(end, dtype=torch.float64) for end in ends))


def _through(transform: Transform, ends: Ends) -> Ends | None:
    """A range after a monotone transform of single entries."""
    if transform.domain.event_dim or transform.codomain.event_dim or not transform.bijective:
        return None
    try:
        one, other = (transform(end) for end in ends)
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    if bool(one.isnan().any() | other.isnan().any()):
        return None
    return Ends(torch.minimum(one, other), torch.maximum(one, other))


def _is_hidden(site: Site) -> bool:
    """Whether a site counts for no datum."""
    return any(mask is False or (isinstance(mask, Tensor) and not bool(mask.any())) for mask in masks_of(site))


def _moved(q: Site, ours: Ends, theirs: Ends, layout: Layout) -> Tensor | None:
    """A draw with one entry of each datum where the model has values and the guide has none; None if there is none."""
    value = q["value"]
    (low, high), (first, last) = ([end.to(value.device) for end in ends] for ends in (ours, theirs))
    below = (first > low + MARGIN * (1 + first.abs())).expand(value.shape)
    above = (last < high - MARGIN * (1 + last.abs())).expand(value.shape)
    if not bool((below | above).any()):
        return None
    if bool(q["fn"].support.is_discrete):
        under, over = first - 1, last + 1
    else:  # not beyond the values of the model
        under, over = first - STEP * (1 + first.abs()), last + STEP * (1 + last.abs())
        under = torch.where(under > low, under, (first + low) / 2)
        over = torch.where(over < high, over, (last + high) / 2)
    moved = torch.where(below, under, over).to(value.dtype)
    entries = torch.zeros_like(value, dtype=torch.bool)
    by_row = rows_first(below | above, q, layout.plates)
    one = by_row.flatten(1) if by_row.dim() > 1 else by_row.unsqueeze(1)
    rows_first(entries, q, layout.plates).copy_((one & (one.cumsum(1) == 1)).reshape(by_row.shape))
    return torch.where(entries, moved, value)


def _check_moved(
    model: Program,
    guide: Program,
    layout: Layout,
    args: tuple,
    kwargs: Mapping[str, Any],
    name: str,
    ends: tuple[Ends, Ends],
    first_row: int,
) -> None:
    """Compare the density of the model where the guide draws nothing with that at draws of the guide.

    Raises
    ------
    ValueError
        If some datum has values there.
    """
    best, beyond, moved = list[Tensor](), list[Tensor](), list[tuple[Any, Any, Tensor]]()
    with pyro.validation_enabled(False):  # impossible data have a density of 0, or none, and no error
        for _ in range(DRAWS):
            traces = trace_pair(model, guide, args, kwargs)
            q, p = latent_sites(traces.guide)[name], sample_sites(traces.model)[name]
            value = _moved(q, *ends, layout)
            if value is None:
                return
            drawn = traces.guide.copy()
            message: Any = {**q, "value": value}
            drawn.nodes[name] = message
            try:
                other = sample_sites(trace(poutine.replay(model, trace=drawn), args, kwargs))
                beyond.append(_density(other, layout))
            except Exception:  # a table without such an entry, say: whatever a program makes of values it never sees
                return
            best.append(_density(sample_sites(traces.model), layout))
            moved.append((q, p, value))
    found, known = (torch.stack(part).nan_to_num(-torch.inf, posinf=torch.inf).amax(0) for part in (beyond, best))
    wrong = (found > known - NEGLIGIBLE) & (found > -torch.inf)
    if bool(wrong.any()):
        row, (q, p, value) = int(wrong.int().argmax()), moved[-1]
        changed, new = (rows_first(of, q, layout.plates)[row] for of in (value != q["value"], value))
        raise ValueError(
            f"site {name!r} is never {float(new[changed].flatten()[0]):.4g} in the guide ({name_of(q['fn'])}), where "
            f"the model ({name_of(p['fn'])}) has probability, so importance weights leave a part of the evidence of "
            f"row {first_row + row} out; give the guide a distribution over all values of the model's"
        )


def _density(sites: Mapping[str, Site], layout: Layout) -> Tensor:
    """The log-probability of each datum with its latents, ``[B]``."""
    scorer = Scorer(layout)
    local = [site for site in sites.values() if is_local(site, layout.plates)]
    return reduce(add, (scorer.per_datum(masked_log_prob(site), site)[0] for site in local))
