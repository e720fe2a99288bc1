"""Values of a latent that the model has and the guide never draws: importance weights leave their part out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Empirical, MaskedDistribution
from torch import Tensor
from torch.distributions import (
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
from pyrovae.sites import Site, is_local, is_point, latent_sites, name_of, rows_first, sample_sites, within

NEGLIGIBLE = 12.0
"""Nats below the density of an entry at the best of `DRAWS` values, from which on values out of reach are left alone.

The tails of a normal distribution are, from five standard deviations on: less than a millionth of the evidence.
"""
DRAWS = 5
MOST_MOVES = 16
"""Entries of a datum's latent, on either side, of which values out of reach are tried."""
STEP = 1e-3
"""How far beyond the values of the guide the model is asked for its density, relative to the edge."""
MARGIN = 1e-6
"""What the ends of two ranges may differ by, relative to the end."""


class Ends(NamedTuple):
    """The least and the largest value of each entry of a distribution."""

    low: Tensor
    high: Tensor
    is_fixed: bool
    """Whether they are those of its kind, whatever its parameters."""


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
        Whether other rows or parameters may have other ranges, so that they are to be checked, too.

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
        found = _out_of_reach(q, p)
        if found is None:
            continue
        vary = vary or not found.is_fixed
        if bool((found.below | found.above).any()):
            _check_moved(model, guide, layout, args, kwargs, name, first_row)
    return vary


def ends_of(fn: Any) -> Ends | None:
    """The range of the entries of a distribution; None where it is no range of numbers, or not known."""
    fn = within(fn)
    if isinstance(fn, Empirical) or VonMises.__name__ in name_of(fn):  # angles repeat
        return None
    if isinstance(fn, MixtureSameFamily):
        parts = ends_of(fn.component_distribution)
        if parts is None or parts.is_fixed:
            return parts
        shape, dim = fn.component_distribution.batch_shape + fn.event_shape, -1 - len(fn.event_shape)
        return Ends(parts.low.expand(shape).amin(dim), parts.high.expand(shape).amax(dim), False)
    if type(fn).__name__ == TransformedDistribution.__name__:  # others, such as Gumbel, say what their support is
        ends = ends_of(fn.base_dist)
        for transform in fn.transforms:
            ends = None if ends is None else _through(transform, ends)
        if ends is not None:
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
    fixed = not isinstance(low, Tensor) and not isinstance(high, Tensor)
    ends = (-torch.inf if low is None else low), (torch.inf if high is None else high)
    least, most = (torch.as_tensor(end, dtype=torch.float64) for end in ends)
    return Ends(least, most, fixed)


def _through(transform: Transform, ends: Ends) -> Ends | None:
    """A range after a monotone transform of single entries."""
    if transform.domain.event_dim or transform.codomain.event_dim or not transform.bijective:
        return None
    try:
        one, other = transform(ends.low), transform(ends.high)
    except (RuntimeError, ValueError, NotImplementedError):
        return None
    if bool(one.isnan().any() | other.isnan().any()):
        return None
    infinite = bool(one.isinf().all() and other.isinf().all())
    return Ends(torch.minimum(one, other), torch.maximum(one, other), infinite)


class _OutOfReach(NamedTuple):
    """Which entries of a latent have values in the model that the guide does not have, and such values."""

    below: Tensor
    above: Tensor
    under: Tensor
    """A value just below those of the guide."""
    over: Tensor
    is_fixed: bool
    """Whether both ranges are those of the kinds of distributions."""


def _out_of_reach(q: Site, p: Site) -> _OutOfReach | None:
    """Compare the ranges of both programs; None where one is not known."""
    ours, theirs, value = ends_of(p["fn"]), ends_of(q["fn"]), q["value"]
    if ours is None or theirs is None:
        return None
    low, high, first, last = (end.to(value.device) for end in (*ours[:2], *theirs[:2]))
    counts = _counted(p, value) & _counted(q, value)
    below = (first > low + MARGIN * (1 + first.abs())) & counts
    above = (last < high - MARGIN * (1 + last.abs())) & counts
    if bool(q["fn"].support.is_discrete):
        under, over = first - 1, last + 1
    else:  # not beyond the values of the model
        under, over = first - STEP * (1 + first.abs()), last + STEP * (1 + last.abs())
        under = torch.where(under > low, under, (first + low) / 2)
        over = torch.where(over < high, over, (last + high) / 2)
    under, over = (end.to(value.dtype).expand(value.shape) for end in (under, over))
    return _OutOfReach(below, above, under, over, ours.is_fixed and theirs.is_fixed)


def _counted(site: Site, value: Tensor) -> Tensor:
    """Which entries of a value no mask hides."""
    counts = torch.ones_like(value, dtype=torch.bool)
    masks, fn = [(site["mask"], site["fn"].event_dim)], site["fn"]
    while fn is not None:
        if isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, fn.event_dim))
        fn = getattr(fn, "base_dist", None)
    for mask, event_dim in masks:
        if isinstance(mask, Tensor):
            counts = counts & mask.to(torch.bool).reshape(mask.shape + (1,) * event_dim)
        elif mask is False:
            counts = torch.zeros_like(counts)
    return counts


def _check_moved(
    model: Program, guide: Program, layout: Layout, args: tuple, kwargs: Mapping[str, Any], name: str, first_row: int
) -> None:
    """Compare the density of the model where the guide draws nothing with that at values of the guide.

    Raises
    ------
    ValueError
        If some datum has values there.
    """

    def density_at(pair: Traces, place: tuple[int, ...], values: Tensor) -> Tensor:
        """The density where one entry of each datum has other values, ``[B]``; -inf where the programs fail."""
        q = latent_sites(pair.guide)[name]
        value = q["value"].clone()
        index: Any = (slice(None), *place)
        rows_first(value, q, layout.plates)[index] = values
        drawn = pair.guide.copy()
        message: Any = {**q, "value": value}
        drawn.nodes[name] = message
        try:
            moved = _density(sample_sites(trace(poutine.replay(model, trace=drawn), args, kwargs)), layout)
        except Exception:  # a table without such an entry, say: whatever a program makes of values it never sees
            return torch.full((len(values),), -torch.inf, device=values.device)
        return moved.nan_to_num(-torch.inf, posinf=torch.inf)

    with pyro.validation_enabled(False):  # impossible data have a density of 0, or none, and no error
        pairs = [trace_pair(model, guide, args, kwargs) for _ in range(DRAWS)]
        for pair in pairs:
            q, p = latent_sites(pair.guide)[name], sample_sites(pair.model)[name]
            known = _density(sample_sites(pair.model), layout).nan_to_num(-torch.inf, posinf=torch.inf)
            for where, values in _moves(q, p):
                where, values = (rows_first(part, q, layout.plates) for part in (where, values))
                places = where.any(0).nonzero()
                for number in torch.linspace(0, len(places) - 1, min(len(places), MOST_MOVES)).long():
                    place = tuple(places[number].tolist())
                    index: Any = (slice(None), *place)
                    beyond = density_at(pair, place, values[index])
                    wrong = where[index] & (beyond > known - NEGLIGIBLE) & (beyond > -torch.inf)
                    for other in pairs if bool(wrong.any()) else ():  # this draw may be far from the best value
                        site = latent_sites(other.guide)[name]
                        at_other = density_at(pair, place, rows_first(site["value"], site, layout.plates)[index])
                        wrong = wrong & (beyond > at_other - NEGLIGIBLE)
                    if bool(wrong.any()):
                        row = int(wrong.int().argmax())
                        raise ValueError(
                            f"site {name!r} is never {float(values[index][row]):.4g} in the guide "
                            f"({name_of(q['fn'])}), where the model ({name_of(p['fn'])}) has probability, so "
                            f"importance weights leave a part of the evidence of row {first_row + row} out; give the "
                            "guide a distribution over all values of the model's"
                        )


def _moves(q: Site, p: Site) -> Iterator[tuple[Tensor, Tensor]]:
    """Values that the guide does not have, at its edges and draws of the model, and which entries may have them."""
    found = _out_of_reach(q, p)
    if found is None:
        return
    yield found.below, found.under
    yield found.above, found.over
    prior = p["fn"].sample().to(q["value"].dtype).expand(q["value"].shape)
    yield (found.below & (prior <= found.under)) | (found.above & (prior >= found.over)), prior


def _density(sites: Mapping[str, Site], layout: Layout) -> Tensor:
    """The log-probability of each datum with its latents, ``[B]``."""
    scorer = Scorer(layout)
    local = [site for site in sites.values() if is_local(site, layout.plates)]
    return reduce(add, (scorer.per_datum(masked_log_prob(site), site)[0] for site in local))
