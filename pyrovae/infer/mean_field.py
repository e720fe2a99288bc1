"""The ELBO with divergences in closed form, refused where it would be wrong."""

from __future__ import annotations

from typing import Any

from pyro.infer import TraceMeanField_ELBO
from pyro.poutine import Trace

from pyrovae.infer.bound import known_divergences
from pyrovae.programs import Program
from pyrovae.sites import data_sites, latent_sites


class MeanField(TraceMeanField_ELBO):
    """Pyro's `TraceMeanField_ELBO`, which uses analytic divergences, for the pairs that it is right for.

    It needs reparameterised draws, no observed sites of the model in the guide, and latents that the guide draws in an
    order in which the model's distribution of each depends on none that the guide draws from it.

    Raises
    ------
    ValueError
        When run on another pair, naming the site.
    """

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict[str, Any]) -> tuple[Trace, Trace]:
        # That of `Trace_ELBO`: Pyro's own check of the order warns of pairs that are right.
        of_model, of_guide = super(TraceMeanField_ELBO, self)._get_trace(model, guide, args, kwargs)
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
            if name not in known:
                raise ValueError(
                    f"the model draws site {name!r} after latents that the guide draws after it, so that their "
                    "divergence has no closed form, and objective='mean-field' would be wrong; use 'elbo' or 'iwae'"
                )
        return of_model, of_guide
