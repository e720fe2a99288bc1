"""Whether the densities of guide and model are of the same values, so that their ratio is a weight."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import Delta, Empirical, ZeroInflatedDistribution
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.data.rows import cut, slices
from pyrovae.infer.points import points_of_draws, reached
from pyrovae.infer.reach import check_reach
from pyrovae.layout import Layout
from pyrovae.programs import Program, conditioned, trace_pair, trial
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
    within,
)

if TYPE_CHECKING:
    from pyrovae.prepared import PreparedPair

MOST_ENTRIES = 1000
"""The largest number of entries of a datum's latents whose change of variables is compared."""
ROWS_COMPARED = 8
"""Rows for which it is."""


def check_densities(
    model: Program,
    guide: Program,
    layout: Layout,
    args: tuple,
    kwargs: Mapping[str, Any],
    *,
    points_allowed: bool = False,
) -> bool:
    """Refuse a guide without importance weights: a latent of a datum that is no draw, or one over other values.

    A `Delta` at a function of a draw of the datum that the model does not have is let through where its density is that
    of the draw, corrected by its `log_density`, as Pyro's AutoGuides and EasyGuides write it. With `points_allowed`
    points are let through too, for training, and a guide that cannot draw some values of the model, whose bound is one.
    What is given is to be fixed in both programs.

    Returns
    -------
    bool
        Whether the ranges of latents may be others for other rows, so that `check_reach` is to look at these, too.

    Raises
    ------
    ValueError
        Naming the site that is no draw, whose `log_density` is not what the change of variables asks for, or whose
        values are others in the guide than in the model.
    """
    with trial(model, guide):
        traces = trace_pair(model, guide, args, kwargs)
        first, in_model = traces.guide, sample_sites(traces.model)
        check_kinds(in_model, latent_sites(first))
        vary = not points_allowed and check_reach(model, guide, layout, args, kwargs, traces=traces)
        sites = {n: s for n, s in latent_sites(first).items() if is_local(s, layout.plates)}
        points = [name for name, site in sites.items() if is_point(site)]
        if not points:
            return vary
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
    return vary


def check_all_rows(
    vae: PreparedPair,
    x: Tensor,
    given: Mapping[str, Any],
    condition: Mapping[str, Tensor],
    chunk_size: int,
    vary: bool | None,
) -> bool:
    """Check the densities of a pair: with some rows once, and with all rows where ranges are those of the rows.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    x, given, condition : Tensor and mappings
        Rows, further arguments of the programs, and values of latents.
    chunk_size : int
        Rows at a time.
    vary : bool or None
        What the last call returned; None before the first one.

    Returns
    -------
    bool
        Whether the ranges of latents are those of the rows.
    """
    few = vae.takes_few(x, given)

    def part(rows: slice) -> tuple[Program, Program, tuple[Tensor], dict[str, Any]]:
        fixed = {name: vae.cut_latent(name, value, rows, len(x)) for name, value in condition.items()}
        model, guide = conditioned(vae.model, vae.guide, fixed)
        return model, guide, (x[rows],), cut(given, rows, len(x))

    if vary is None:
        model, guide, args, kwargs = part(slice(min(ROWS_COMPARED, chunk_size) if few else None))
        vary = check_densities(model, guide, vae.layout, args, kwargs)
    for rows in slices(len(x), chunk_size if few else len(x)) if vary else ():
        model, guide, args, kwargs = part(rows)
        with trial(vae.model, vae.guide):
            check_reach(model, guide, vae.layout, args, kwargs, first_row=rows.start)
    return vary


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

    Points of the guide, which are no draws, are left alone.
    """
    for name, q in of_guide.items():
        p = of_model.get(name)
        if p is None or p["is_observed"] or q["is_observed"] or is_point(q):
            continue
        theirs, ours = _kind(q), _kind(p)
        if theirs is not None and ours is not None and theirs != ours:
            of_guide_is = f"{theirs} in the guide ({name_of(q['fn'])})"
            return f"site {name!r} is {of_guide_is} and {ours} in the model ({name_of(p['fn'])})"
    return ""


def _kind(site: Site) -> str | None:
    """What a distribution gives its values: "discrete" is probabilities; None if that is not known."""
    fn = within(site["fn"])
    if isinstance(fn, Delta):
        return "of a single value"
    if isinstance(fn, Empirical):
        return "discrete"
    try:
        discrete = bool(fn.support.is_discrete)
    except (NotImplementedError, AttributeError):
        return None
    if isinstance(fn, ZeroInflatedDistribution) and not discrete:
        return "continuous but for 0"
    return "discrete" if discrete else "continuous"


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
