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

from pyrovae.programs import Program, trace, trace_pair, trial
from pyrovae.sites import is_local, is_point, latent_sites, nodes_of, row_dim, rows_first, sample_sites

if TYPE_CHECKING:
    from pyrovae.layout import Layout


MOST_ENTRIES = 1000
"""The largest number of entries of a datum's latents whose change of variables is compared."""


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
) -> None:
    """Refuse a guide with a latent of a datum that is no draw, because it has no importance weights.

    A `Delta` at a function of a draw of the datum that the model does not have is let through where its density is that
    of the draw, corrected by its `log_density`, as Pyro's AutoGuides and EasyGuides write it.

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
        for name in points:
            if not _reached(nodes_of(again)[name]["value"], leaves):
                raise ValueError(
                    f"site {name!r} of the guide is a Delta that is no function of a draw of the datum beside the "
                    "latents, so it has no importance weights and there is no log-likelihood; draw it from a "
                    "distribution with a density, or compare training losses"
                )
        _check_log_density(again, points, leaves, layout)


def _check_log_density(again: Trace, points: Collection[str], leaves: Mapping[str, Tensor], layout: Layout) -> None:
    """Compare the `log_density` of Deltas at functions of draws with the change of variables, for the first datum.

    Nothing is compared where draws and latents have different numbers of entries, as with a point on a simplex.
    """
    nodes = nodes_of(again)
    reaching = {name: _reached(nodes[name]["value"], leaves) for name in points}
    drawn = {name: leaves[name] for name in sorted(set().union(*reaching.values()))}

    def first(value: Tensor, site: Any) -> Tensor:
        return rows_first(value, site, layout.plates)[0].flatten()

    with torch.enable_grad():
        value = torch.cat([first(nodes[name]["value"], nodes[name]) for name in points])
        numbers = torch.cat([first(draw, nodes[name]) for name, draw in drawn.items()])
        if len(value) != len(numbers) or len(value) > MOST_ENTRIES:
            return
        rows = []
        for entry in value:
            gradients = torch.autograd.grad(entry, [*drawn.values()], allow_unused=True, retain_graph=True)
            filled = (
                torch.zeros_like(draw) if gradient is None else gradient
                for draw, gradient in zip(drawn.values(), gradients, strict=True)
            )
            rows.append(torch.cat([first(g, nodes[name]) for name, g in zip(drawn, filled, strict=True)]))
    expected = -torch.linalg.slogdet(torch.stack(rows).double())[1]
    given = torch.stack([_log_density(nodes[name], layout).double() for name in points]).sum()
    if not torch.isclose(given, expected, rtol=1e-3, atol=1e-3):
        names = " and ".join(map(repr, points))
        raise ValueError(
            f"site {names} of the guide is a Delta at a function of {' and '.join(map(repr, drawn))} with the "
            f"log_density {float(given):.4g} for the first datum, and the change of variables gives "
            f"{float(expected):.4g}; give dist.Delta(value, log_density=-log |det J|), or sample the site from a "
            "dist.TransformedDistribution"
        )


def _log_density(site: Any, layout: Layout) -> Tensor:
    """The log-density of the first datum at a Delta."""
    log_prob, dim = site["fn"].log_prob(site["value"]), row_dim(site, layout.plates)
    return (log_prob if dim is None else log_prob.movedim(dim, 0)[0]).sum()


def draws_beside(
    guide: Program, model_trace: Trace, guide_trace: Trace, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[str, ...]:
    """Draws of the guide that the model does not have and that no `Delta` of the guide is a function of.

    Given such draws the importance weights of the others are right, and their own density has no counterpart, so that
    held-out figures leave it out. A `Delta` at a function of a draw has that draw's density.
    """
    latents, in_model = latent_sites(guide_trace), sample_sites(model_trace)
    names = [name for name, site in latents.items() if name not in in_model and not is_point(site)]
    points = [name for name, site in latents.items() if is_point(site)]
    if not names or not points:
        return tuple(names)
    again, leaves = _points_of_draws(guide, guide_trace, names, args, kwargs)
    counted: set[str] = set()
    for name in points:
        counted |= _reached(nodes_of(again)[name]["value"], leaves)
    return tuple(name for name in names if name not in counted)


def _points_of_draws(
    guide: Program, first: Trace, names: Collection[str], args: tuple, kwargs: Mapping[str, Any]
) -> tuple[Trace, dict[str, Tensor]]:
    """A trace of the guide whose Deltas are functions of the draws of another one; and these draws, as leaves."""
    draws, leaves = first.copy(), dict[str, Tensor]()
    for name, site in latent_sites(first).items():
        if is_point(site):
            draws.remove_node(name)
        elif name in names and site["value"].is_floating_point():
            leaves[name] = site["value"].detach().clone().requires_grad_()
            message: Any = {**site, "value": leaves[name]}
            draws.nodes[name] = message
    with torch.enable_grad():
        return trace(poutine.replay(guide, trace=draws), args, kwargs), leaves


def _reached(value: Tensor, leaves: Mapping[str, Tensor]) -> set[str]:
    """The names of the leaves that a value is a function of."""
    if not leaves or not value.requires_grad:
        return set()
    with torch.enable_grad():
        total = value.sum()
    gradients = torch.autograd.grad(total, [*leaves.values()], allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
