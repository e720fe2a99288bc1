"""Latents of all data in an objective of weights per datum: drawn once a step, whatever the number of particles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.infer.points import reached
from pyrovae.layout import Layout
from pyrovae.programs import Program, trace, trial
from pyrovae.sites import PARTICLES, Site, is_point, latent_sites


class SharedTerms(NamedTuple):
    """What latents of all data add to a bound: one number each, scaled as their sites are."""

    log_p: Tensor
    log_q: Tensor
    log_score: Tensor | None
    """The part of log q, without scales, of draws that are not reparameterised; None if there is none."""

    def added_to(self, total: Tensor) -> Tensor:
        """The bound of all rows with these terms, and with the gradient of the score of their draws."""
        total = total + self.log_p - self.log_q
        if self.log_score is not None:
            score = total.detach() * self.log_score
            total = total + score - score.detach()
        return total


def shared_terms(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> SharedTerms:
    """The terms of sites outside the plate over the data."""
    log_p, log_q = (
        sum((_log_prob(site, site["scale"]) for site in sites.values()), torch.zeros((), device="cpu"))
        for sites in (model_sites, guide_sites)
    )
    scores = [_log_prob(site) for site in guide_sites.values() if not site["fn"].has_rsample]
    return SharedTerms(log_p, log_q, torch.stack(scores).sum() if scores else None)


def check_order(guide: Program, layout: Layout, args: tuple, kwargs: Mapping[str, Any]) -> None:
    """Refuse a guide that draws a latent of all data as a function of latents of single data.

    Particles of these would be drawn anew, and be none of those that it is a function of.

    Raises
    ------
    ValueError
        Naming both sites.
    """
    with trial(guide):
        first = trace(guide, args, kwargs)
        drawn, local = first.copy(), dict[str, Tensor]()
        for name, site in latent_sites(first).items():
            if name in layout.shared:
                before = [*local]
                if any(not local[other].is_floating_point() for other in before):
                    _refuse_order(name, before[0])
            elif not is_point(site):
                value = site["value"].detach().clone()
                local[name] = value.requires_grad_() if value.is_floating_point() else value
                message: Any = {**site, "value": local[name]}
                drawn.nodes[name] = message
        leaves = {name: value for name, value in local.items() if value.requires_grad}
        with torch.enable_grad():
            again = trace(poutine.replay(guide, trace=drawn), args, kwargs)
            for name, site in latent_sites(again).items():
                if name in layout.shared:
                    for other in reached(site["fn"].log_prob(site["value"].detach()), leaves):
                        _refuse_order(name, other)


def _refuse_order(name: str, local: str) -> None:
    raise ValueError(
        f"the guide draws {name!r}, a latent of all data, after {local!r}, of which it is or may be a function, and "
        f"several particles of {local!r} need it first; draw {name!r} before the plate over the data, or use "
        "num_particles=1"
    )


def drawn_once(
    model: Program, guide: Program, drawn: Trace, names: tuple[str, ...]
) -> tuple[Program, Program, dict[str, Any]]:
    """Both programs at the draws of some latents in a trace of the guide, and these sites of the guide.

    The guide no longer shows them, and the model does.
    """
    sites = {name: site for name, site in latent_sites(drawn).items() if name in names}
    kept = drawn.copy()
    for name, node in [*kept.nodes.items()]:
        if name not in sites and not site_is_subsample(node):  # draws of a plate's subsample are of its elements
            kept.remove_node(name)
    hidden = poutine.block(poutine.replay(guide, trace=kept), hide=[*sites])
    return poutine.replay(model, trace=kept), hidden, sites


def _log_prob(site: Site, scale: Any = 1.0) -> Tensor:
    """The scaled log-probability of a site; particles that a plate repeats it for count once."""
    value = scale_and_mask(site["fn"].log_prob(site["value"]), scale=scale, mask=site["mask"])
    for frame in site["cond_indep_stack"]:
        if frame.name == PARTICLES and value.dim() >= -frame.dim:
            value = value.mean(frame.dim, keepdim=True)
    return value.sum()
