"""The evidence lower bound of each datum, in its two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout, OutsidePlateError, outside_plate
from pyrovae.programs import Traces
from pyrovae.sites import is_local, is_point, latent_sites, sample_sites


def bound_terms(traces: Traces, layout: Layout) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood and KL of every datum at the draws of a trace, each `[B]` in nats.

    Every site counts once, without scales. All observed sites of the model and its factors are in the first; latents
    outside the plate over the data, and what the guide observes, are in neither.

    Raises
    ------
    ValueError
        If an observed site stands outside the plate over the data.
    """
    scorer = Scorer(layout)
    of_model, of_guide = sample_sites(traces.model), latent_sites(traces.guide)

    def per_datum(value: Tensor, site: Mapping[str, Any]) -> Tensor:
        return scorer.per_datum(scale_and_mask(value, mask=site["mask"]), site)[0]

    nll: Any = 0.0
    for name, site in of_model.items():
        if not site["is_observed"] and name not in of_guide:
            raise ValueError(
                f"latent site {name!r} of the model is missing from the guide, so there is no bound at a draw; draw it "
                "in the guide, or train with objective='enum' if it is marked for enumeration"
            )
        if site["is_observed"]:
            if not is_local(site, layout.plates):
                raise OutsidePlateError(outside_plate(name, observed=True))
            nll = nll - per_datum(site["fn"].log_prob(site["value"]), site)
    latent = [name for name in of_guide if name in of_model]
    known = known_divergences(list(traces.guide.nodes), list(traces.model.nodes), latent)
    kl: Any = 0.0
    for name, site in of_guide.items():
        if name in layout.shared:
            continue
        of_prior = of_model.get(name)
        exact = of_prior is not None and name in known and not is_point(site)
        if exact and of_prior is not None and _same_mask(site["mask"], of_prior["mask"]):
            with suppress(NotImplementedError):
                kl = kl + per_datum(kl_divergence(site["fn"], of_prior["fn"]), site)
                continue
        kl = kl + per_datum(site["fn"].log_prob(site["value"]), site)
        if of_prior is not None:  # a site that the guide has alone has no prior
            kl = kl - per_datum(of_prior["fn"].log_prob(site["value"]), of_prior)
    return nll, kl


def known_divergences(guide: Sequence[str], model: Sequence[str], latent: Sequence[str]) -> set[str]:
    """The latents whose divergence may be taken in closed form, from the order of the sites in both programs.

    In the closed form the model's distribution is given. It is not where it may depend on a latent that the model draws
    first and the guide later, and so perhaps from this one, as in layers that the guide infers from the data upwards.
    """
    return {
        name
        for name in latent
        if not set(guide[guide.index(name) + 1 :]) & set(model[: model.index(name)]) & set(latent)
    }


def _same_mask(first: Any, second: Any) -> bool:
    """Whether a latent is masked alike in guide and model."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool((first == second).all())
    return first is second
