"""Latents at single values: posterior means, and sites of a guide that have no density."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.programs import Program, trace, trace_pair, trial
from pyrovae.sites import is_local, is_point, latent_sites, nodes_of, row_dim, rows_first, sample_sites

if TYPE_CHECKING:
    from pyrovae.layout import Layout


MOST_ENTRIES = 1000
"""The largest number of entries of a datum's latents whose change of variables is compared."""
ROWS_COMPARED = 8
"""Rows for which it is."""


class MeanMessenger(Messenger):
    """Give every latent site the mean of its distribution where that is a possible value, instead of a draw.

    Where there is no mean, as of a Cauchy distribution, it is the mode.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or msg["done"] or not getattr(msg["fn"], "has_rsample", False):
            return
        for kind in ("mean", "mode"):
            with suppress(NotImplementedError, AttributeError):  # a transformed distribution, say, which is drawn
                value = getattr(msg["fn"], kind)
                if bool(value.isfinite().all()):
                    msg["value"], msg["done"] = value, True
                    return


def global_means(
    guide: Program, names: Iterable[str], args: tuple = (), kwargs: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The guide's means of sites by name; draws nothing from the caller's random numbers.

    Raises
    ------
    ValueError
        For a site whose distribution has no mean of its own kind.
    """
    with trial(guide), MeanMessenger():
        sites = latent_sites(trace(guide, args, kwargs))
    means = {}
    for name in names:
        if not _has_mean(sites[name]):
            raise ValueError(f"global site {name!r} has no mean that it can take; give condition={{{name!r}: value}}")
        means[name] = sites[name]["value"]
    return means


def _has_mean(site: Mapping[str, Any]) -> bool:
    if not site["fn"].has_rsample:
        return False
    try:
        return bool(site["fn"].mean.isfinite().all())
    except NotImplementedError:
        return False


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
    """Refuse a guide with a latent of a datum that is no draw, because it has no importance weights.

    A `Delta` at a function of a draw of the datum that the model does not have is let through where its density is that
    of the draw, corrected by its `log_density`, as Pyro's AutoGuides and EasyGuides write it. With `points_allowed`
    points are let through too, for training.

    Raises
    ------
    ValueError
        Naming the site that is no draw, or whose `log_density` is not what the change of variables asks for.
    """
    with trial(guide):
        first = trace(guide, args, kwargs)
        sites = {n: s for n, s in latent_sites(first).items() if n not in fixed and is_local(s, layout.plates)}
        points = [name for name, site in sites.items() if is_point(site)]
        if not points:
            return
        in_model = sample_sites(trace_pair(model, guide, args, kwargs).model)
        again, leaves = _points_of_draws(guide, first, [name for name in sites if name not in in_model], args, kwargs)
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


def draws_of_points(
    guide: Program,
    model_trace: Trace,
    guide_trace: Trace,
    args: tuple,
    kwargs: Mapping[str, Any],
    fixed: Collection[str] = (),
) -> tuple[list[str], dict[str, set[str]]]:
    """Draws of the guide that the model does not have, and for each `Delta` those that it is a function of.

    A `Delta` at a function of a draw has that draw's density. Those that are `fixed` stay as they are.
    """
    latents, in_model = latent_sites(guide_trace), sample_sites(model_trace)
    names = [name for name, site in latents.items() if name not in in_model and not is_point(site)]
    points = [name for name, site in latents.items() if is_point(site) and name not in fixed]
    if not names or not points:
        return names, {}
    again, leaves = _points_of_draws(guide, guide_trace, names, args, kwargs, fixed)
    return names, {name: reached(nodes_of(again)[name]["value"], leaves) for name in points}


def _points_of_draws(
    guide: Program,
    first: Trace,
    names: Collection[str],
    args: tuple,
    kwargs: Mapping[str, Any],
    fixed: Collection[str] = (),
) -> tuple[Trace, dict[str, Tensor]]:
    """A trace of the guide whose Deltas are functions of the draws of another one; and these draws, as leaves."""
    draws, leaves = first.copy(), dict[str, Tensor]()
    for name, site in latent_sites(first).items():
        if is_point(site):
            if name not in fixed:
                draws.remove_node(name)
        elif name in names and site["value"].is_floating_point():
            leaves[name] = site["value"].detach().clone().requires_grad_()
            message: Any = {**site, "value": leaves[name]}
            draws.nodes[name] = message
    with torch.enable_grad():
        return trace(poutine.replay(guide, trace=draws), args, kwargs), leaves


def reached(value: Tensor, leaves: Mapping[str, Tensor]) -> set[str]:
    """The names of the leaves that a value is a function of."""
    if not leaves or not value.requires_grad:
        return set()
    with torch.enable_grad():
        total = value.sum()
    gradients = torch.autograd.grad(total, [*leaves.values()], allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
