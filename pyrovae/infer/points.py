"""Latents at single values: posterior means, and sites of a guide that have no density."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.layout import Layout
from pyrovae.programs import Program, trace, trial
from pyrovae.sites import is_local, is_point, latent_sites, nodes_of


class MeanMessenger(Messenger):
    """Give every latent site the mean of its distribution where that is a possible value, instead of a draw."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["is_observed"] and not msg["done"] and getattr(msg["fn"], "has_rsample", False):
            with suppress(NotImplementedError):  # a transformed distribution, say, has no mean and is drawn
                msg["value"] = msg["fn"].mean
                msg["done"] = True


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
    guide: Program, layout: Layout, args: tuple, kwargs: Mapping[str, Any], fixed: Collection[str] = ()
) -> None:
    """Refuse a guide with a latent of a datum that is no draw, because it has no importance weights.

    A `Delta` at a function of another draw of the datum is let through: its density is that of the draw, corrected by
    its `log_density`, as Pyro's AutoGuides and EasyGuides write it.

    Raises
    ------
    ValueError
        Naming the site.
    """
    with trial(guide):
        first = trace(guide, args, kwargs)
        sites = {n: s for n, s in latent_sites(first).items() if n not in fixed and is_local(s, layout.plates)}
        points = [name for name, site in sites.items() if is_point(site)]
        if not points:
            return
        draws = first.copy()
        leaves = {}
        for name, site in latent_sites(first).items():
            if is_point(site):
                draws.remove_node(name)
            elif name in sites and site["value"].is_floating_point():
                leaves[name] = site["value"].detach().clone().requires_grad_()
                message: Any = {**site, "value": leaves[name]}
                draws.nodes[name] = message
        with torch.enable_grad():
            again = trace(poutine.replay(guide, trace=draws), args, kwargs)
            for name in points:
                value = nodes_of(again)[name]["value"]
                reached: tuple = (None,)
                if leaves and value.requires_grad:
                    reached = torch.autograd.grad(value.sum(), [*leaves.values()], allow_unused=True, retain_graph=True)
                if all(gradient is None for gradient in reached):
                    raise ValueError(
                        f"site {name!r} of the guide is a Delta that is no function of another draw of the datum, so "
                        "it has no importance weights and there is no log-likelihood; draw it from a distribution with "
                        "a density, or compare training losses"
                    )
