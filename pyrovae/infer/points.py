"""Latents at single values: posterior means, and sites of a guide that have no density."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from pyrovae.programs import Program, trace, trial
from pyrovae.sites import is_point, latent_sites, nodes_of, sample_sites


class MeanMessenger(Messenger):
    """Give every latent site the mean of its distribution where that is a possible value, instead of a draw.

    Where there is no mean, as of a Cauchy distribution, it is the mode.

    Attributes
    ----------
    drawn : list of str
        The sites that were drawn all the same, as discrete ones are.
    behind : set of str
        The sites that came after one of these.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []
        self.behind: set[str] = set()

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if isinstance(msg["fn"], _Subsample):
            return
        if self.drawn:
            self.behind.add(msg["name"])
        if msg["is_observed"] or msg["done"]:
            return
        for kind in ("mean", "mode") if getattr(msg["fn"], "has_rsample", False) else ():
            with suppress(NotImplementedError, AttributeError):  # a transformed distribution, say, which is drawn
                value = getattr(msg["fn"], kind)
                if bool(value.isfinite().all()):
                    msg["value"], msg["done"] = value, True
                    return
        if msg["name"] not in self.drawn:
            self.drawn.append(msg["name"])


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
    again, leaves = points_of_draws(guide, guide_trace, names, args, kwargs, fixed)
    return names, {name: reached(nodes_of(again)[name]["value"], leaves) for name in points}


def points_of_draws(
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
