"""The ELBO with divergences in closed form, refused where it would be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro.infer import TraceMeanField_ELBO
from pyro.poutine import Trace
from torch.distributions import kl_divergence

from pyrovae.infer.bound import known_divergences
from pyrovae.programs import Program
from pyrovae.sites import data_sites, latent_sites, nodes_of


class MeanField(TraceMeanField_ELBO):
    """Pyro's `TraceMeanField_ELBO`, which uses analytic divergences, for the pairs that it is right for.

    It needs reparameterised draws and no observed sites of the model in the guide. Where the model draws a latent after
    others that the guide draws after it, their divergence must have no closed form, so that it is sampled.

    Raises
    ------
    ValueError
        When run on another pair, naming the site.
    """

    _checked: tuple[tuple[str, ...], tuple[str, ...]] | None = None  # sites of the pair last found to be right

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict[str, Any]) -> tuple[Trace, Trace]:
        # That of `Trace_ELBO`: Pyro's own check of the order warns of pairs that are right.
        of_model, of_guide = super(TraceMeanField_ELBO, self)._get_trace(model, guide, args, kwargs)
        shown = (tuple(of_guide.nodes), tuple(of_model.nodes))
        if shown == self._checked:
            return of_model, of_guide
        for name in data_sites(of_guide):
            if name in of_model:
                raise ValueError(
                    f"the guide observes site {name!r}, which objective='mean-field' of Pyro leaves out; use 'elbo', "
                    "or give the term in the guide with sites.objective_term"
                )
        drawn = latent_sites(of_guide)
        for name, site in drawn.items():
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"site {name!r} of the guide has no reparameterised draws, which objective='mean-field' needs; use "
                    "'elbo', 'vimco', or 'enum' for classes"
                )
        names = [name for name in drawn if name in of_model]
        known = known_divergences(list(of_guide.nodes), list(of_model.nodes), names)
        for name in names:
            if name not in known and _in_closed_form(drawn[name], nodes_of(of_model)[name]):
                raise ValueError(
                    f"the model draws site {name!r} after latents that the guide draws after it, so that the closed "
                    "form which objective='mean-field' takes of their divergence would be wrong; use 'elbo' or 'iwae', "
                    "or a distribution without a closed form in the guide, such as DependentNormal"
                )
        self._checked = shown
        return of_model, of_guide


def _in_closed_form(of_guide: Mapping[str, Any], of_model: Mapping[str, Any]) -> bool:
    """Whether torch has the divergence of two sites in closed form."""
    try:
        kl_divergence(of_guide["fn"], of_model["fn"])
    except NotImplementedError:
        return False
    return True
