"""Whether the densities of guide and model are of the same values, so that their ratio is a weight."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import VonMises, biject_to, constraints

from pyrovae.infer.densities import masked_log_prob
from pyrovae.infer.points import points_of_draws, reached
from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout
from pyrovae.programs import Program, trace, trace_pair, trial
from pyrovae.sites import (
    Site,
    is_local,
    is_point,
    latent_sites,
    name_of,
    nodes_of,
    row_dim,
    rows_first,
    sample_sites,
)

MOST_ENTRIES = 1000
"""The largest number of entries of a datum's latents whose change of variables is compared."""
ROWS_COMPARED = 8
"""Rows for which it is."""
NEGLIGIBLE = 30.0
"""Nats below the density at the best of some draws, from which on values that the guide cannot draw are left alone."""
DRAWS = 10
"""How many."""
STEP = 1e-3
"""How far beyond the values of the guide the model is asked for its density, relative to the edge."""


def check_densities(
    model: Program,
    guide: Program,
    layout: Layout,
    args: tuple,
    kwargs: Mapping[str, Any],
    fixed: Collection[str] = (),
    *,
    points_allowed: bool = False,
) -> None:
    """Refuse a guide without importance weights: a latent of a datum that is no draw, or one over other values.

    A `Delta` at a function of a draw of the datum that the model does not have is let through where its density is that
    of the draw, corrected by its `log_density`, as Pyro's AutoGuides and EasyGuides write it. With `points_allowed`
    points are let through too, for training, and a guide that cannot draw some values of the model, whose bound is one.

    Raises
    ------
    ValueError
        Naming the site that is no draw, whose `log_density` is not what the change of variables asks for, or whose
        values are others in the guide than in the model.
    """
    with trial(model, guide):
        traces = trace_pair(model, guide, args, kwargs)
        first, in_model = traces.guide, sample_sites(traces.model)
        check_kinds(in_model, {n: s for n, s in latent_sites(first).items() if n not in fixed})
        if not points_allowed:
            check_reach(model, guide, layout, args, kwargs, fixed)
        sites = {n: s for n, s in latent_sites(first).items() if n not in fixed and is_local(s, layout.plates)}
        points = [name for name, site in sites.items() if is_point(site)]
        if not points:
            return
        again, leaves = points_of_draws(guide, first, [name for name in sites if name not in in_model], args, kwargs)
        of_draws = {name for name in points if reached(nodes_of(again)[name]["value"], leaves)}
        for name in points:
            if name not in of_draws and not points_allowed:
                raise ValueError(
                    f"site {name!r} of the guide is a Delta that is no function of a draw of the datum beside the "
                    "latents, so it has no importance weights and there is no log-likelihood; draw it from a "
                    "distribution with a density, or compare training losses"
                )
        scored = [name for name in points if name in of_draws and name in in_model]
        if scored:
            _check_log_density(again, scored, leaves, layout, in_model)


def check_kinds(of_model: Mapping[str, Site], of_guide: Mapping[str, Site]) -> None:
    """Refuse a latent that is drawn from a density by one program and from probabilities by the other.

    Raises
    ------
    ValueError
        Naming the site.
    """
    if found := of_two_kinds(of_model, of_guide):
        raise ValueError(
            f"{found}, so a density would be compared with a probability and there is no bound; take one kind in both, "
            "such as a relaxed distribution, or OneHotCategoricalStraightThrough beside OneHotCategorical"
        )


def of_two_kinds(of_model: Mapping[str, Site], of_guide: Mapping[str, Site]) -> str:
    """In words the latent that is continuous in one program and discrete in the other; empty without one.

    Points, which are no draws, are left alone.
    """
    for name, q in of_guide.items():
        p = of_model.get(name)
        if p is None or q["is_observed"] or is_point(q) or is_point(p):
            continue
        theirs, ours = _is_discrete(q), _is_discrete(p)
        if theirs is None or ours is None or theirs == ours:
            continue
        words = {True: "discrete", False: "continuous"}
        in_guide = f"{words[theirs]} in the guide ({name_of(q['fn'])})"
        return f"site {name!r} is {in_guide} and {words[ours]} in the model ({name_of(p['fn'])})"
    return ""


def check_reach(
    model: Program, guide: Program, layout: Layout, args: tuple, kwargs: Mapping[str, Any], fixed: Collection[str] = ()
) -> None:
    """Refuse a latent of a datum with values that the model has and the guide never draws, if they have probability.

    Importance weights would leave out their share of the evidence, whatever the number of samples.

    Raises
    ------
    ValueError
        Naming the site and a value.
    """
    traces, best = trace_pair(model, guide, args, kwargs), None
    of_model = sample_sites(traces.model)
    for name, q in latent_sites(traces.guide).items():
        p = of_model.get(name)
        if p is None or name in fixed or is_point(q) or is_point(p) or not is_local(q, layout.plates):
            continue
        value = _out_of_reach(q, p)
        if value is None:
            continue
        drawn = traces.guide.copy()
        message: Any = {**q, "value": value}
        drawn.nodes[name] = message
        if best is None:
            some = (sample_sites(trace_pair(model, guide, args, kwargs).model) for _ in range(DRAWS))
            best = torch.stack([_density(sites, layout) for sites in (of_model, *some)]).amax(0)
        try:
            beyond = _density(sample_sites(trace(poutine.replay(model, trace=drawn), args, kwargs)), layout)
        except ValueError:
            continue  # the data are impossible there, and so are such values of the posterior
        if bool((beyond > best - NEGLIGIBLE).any()):
            changed = value != q["value"]
            raise ValueError(
                f"site {name!r} is never {float(value[changed].flatten()[0]):.4g} in the guide ({name_of(q['fn'])}), "
                f"where the model ({name_of(p['fn'])}) has probability, so importance weights leave a part of the "
                "evidence out; give the guide a distribution over all values of the model's"
            )


def _is_discrete(site: Site) -> bool | None:
    try:
        return bool(site["fn"].support.is_discrete)
    except (NotImplementedError, AttributeError):
        return None


def _density(sites: Mapping[str, Site], layout: Layout) -> Tensor:
    """The log-probability of each datum with its latents, ``[B]``."""
    scorer = Scorer(layout)
    local = [site for site in sites.values() if is_local(site, layout.plates)]
    return reduce(add, (scorer.per_datum(masked_log_prob(site), site)[0] for site in local))


def _out_of_reach(q: Site, p: Site) -> Tensor | None:
    """A draw with an entry of each datum where the model has values and the guide has none; None if there is none."""
    value = q["value"]
    ours, theirs = _ends(p["fn"], value.device), _ends(q["fn"], value.device)
    if ours is None or theirs is None:
        return None
    (low, high), (first, last) = ours, theirs
    discrete, margin = bool(q["fn"].support.is_discrete), 1e-6
    below = (first > low + margin * (1 + first.abs())).expand(value.shape)
    above = (last < high - margin * (1 + last.abs())).expand(value.shape)
    if not bool((below | above).any()):
        return None
    if discrete:
        under, over = first - 1, last + 1
    else:  # not beyond the values of the model
        under, over = first - STEP * (1 + first.abs()), last + STEP * (1 + last.abs())
        under = torch.where(under > low, under, (first + low) / 2)
        over = torch.where(over < high, over, (last + high) / 2)
    event_dim = q["fn"].event_dim
    entries = (below | above).reshape(*value.shape[: value.dim() - event_dim], -1)
    one = (entries & (entries.cumsum(-1) == 1)).reshape(value.shape)  # others of the datum stay as they are
    return torch.where(one, torch.where(below, under, over).to(value.dtype), value)


def _ends(fn: Any, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """The least and the largest value of the entries of a distribution; None if they are no range of numbers."""
    try:
        support: Any = fn.support
    except (NotImplementedError, AttributeError):
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if name_of(fn) == VonMises.__name__:
        low, high = -torch.pi, torch.pi  # torch calls them real, since angles repeat
    elif support is constraints.boolean:
        low, high = 0, 1
    elif low is None and high is None and support is not constraints.real:
        return None
    ends = (-torch.inf if low is None else low), (torch.inf if high is None else high)
    first, last = (torch.as_tensor(end, dtype=torch.float64, device=device) for end in ends)
    return first, last


def _check_log_density(
    again: Trace,
    points: Collection[str],
    leaves: Mapping[str, Tensor],
    layout: Layout,
    in_model: Mapping[str, Mapping[str, Any]],
) -> None:
    """Compare the `log_density` of Deltas at functions of draws with the change of variables, for some of the rows.

    Raises
    ------
    ValueError
        If they differ, or draws and latents have different numbers of free entries, so that there is no density.
    """
    nodes = nodes_of(again)
    reaching = [reached(nodes[name]["value"], leaves) for name in points]
    drawn = {name: leaves[name] for name in sorted(set().union(*reaching))}
    names, sources = (" and ".join(map(repr, group)) for group in (points, drawn))
    with torch.enable_grad():
        values = [rows_first(nodes[name]["value"], nodes[name], layout.plates) for name in points]
    rows = min(len(value) for value in values)
    free = sum(_free_entries(in_model[name], value[0].numel()) for name, value in zip(points, values, strict=True))
    numbers = sum(rows_first(draw, nodes[name], layout.plates)[0].numel() for name, draw in drawn.items())
    if free != numbers:
        raise ValueError(
            f"site {names} of the guide is a Delta with {free} free entries of a datum at a function of {numbers} "
            f"entries of {sources}, so it has no density; draw as many numbers as the site has, or sample it from a "
            "distribution"
        )
    if numbers != sum(value[0].numel() for value in values) or numbers > MOST_ENTRIES:
        return  # on a curved surface, such as a simplex
    for row in sorted({int(row) for row in torch.linspace(0, rows - 1, min(rows, ROWS_COMPARED))}):
        with torch.enable_grad():
            entries = torch.cat([value[row].flatten() for value in values])
        expected = _log_density_of(entries, drawn, nodes, layout, row)
        given = torch.stack([_log_density(nodes[name], layout, row).double() for name in points]).sum()
        if not torch.isclose(given, expected, rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"site {names} of the guide is a Delta at a function of {sources} with the log_density "
                f"{float(given):.4g} for row {row}, and the change of variables gives {float(expected):.4g}; give "
                "dist.Delta(value, log_density=-log |det J|), or sample the site from a dist.TransformedDistribution"
            )


def _free_entries(site: Mapping[str, Any], entries: int) -> int:
    """How many numbers make up the entries of a datum under the support of its site, such as K - 1 of a simplex."""
    shape = site["fn"].event_shape
    try:
        free = biject_to(site["fn"].support).inverse_shape(shape).numel()
    except NotImplementedError:
        return entries
    return entries * free // max(shape.numel(), 1)


def _log_density_of(
    value: Tensor, drawn: Mapping[str, Tensor], nodes: Mapping[str, Any], layout: Layout, row: int
) -> Tensor:
    """Minus the log of the determinant of the derivative of a row's entries by its draws."""
    rows = []
    with torch.enable_grad():
        entries = value.unbind()
    for entry in entries:
        gradients = torch.autograd.grad(entry, [*drawn.values()], allow_unused=True, retain_graph=True)
        parts = []
        for (name, draw), gradient in zip(drawn.items(), gradients, strict=True):
            filled = torch.zeros_like(draw) if gradient is None else gradient
            parts.append(rows_first(filled, nodes[name], layout.plates)[row].flatten())
        rows.append(torch.cat(parts))
    return -torch.linalg.slogdet(torch.stack(rows).double())[1]


def _log_density(site: Any, layout: Layout, row: int) -> Tensor:
    """The log-density of a row at a Delta."""
    log_prob, dim = site["fn"].log_prob(site["value"]), row_dim(site, layout.plates)
    return (log_prob if dim is None else log_prob.movedim(dim, 0)[row]).sum()
