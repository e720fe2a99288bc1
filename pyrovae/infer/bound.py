"""The evidence lower bound of each datum, in its two parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.infer.densities import masked_log_prob, under_mask_of_model
from pyrovae.infer.density_checks import check_kinds
from pyrovae.infer.scoring import Scorer
from pyrovae.layout import Layout, OutsidePlateError, outside_plate
from pyrovae.programs import Traces
from pyrovae.sites import Site, is_local, is_point, latent_sites, masked_alike, refuse_subsamples, sample_sites


def bound_terms(traces: Traces, layout: Layout) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood and KL of every datum at the draws of a trace, each `[B]` in nats.

    Where the model marks latents for enumeration, its trace must be of `enumerated(model)`; both terms sum them out.
    Every site counts once, without scales. All observed sites of the model and its factors are in the first; latents
    outside the plate over the data, and what the guide observes, are in neither.

    Raises
    ------
    ValueError
        If an observed site stands outside the plate over the data, the guide draws the latents of all rows at once, a
        latent is continuous in one program and discrete in the other, or a plate draws some elements of a datum.
    """
    scorer = Scorer(layout)
    of_model, of_guide = sample_sites(traces.model), latent_sites(traces.guide)
    check_kinds(of_model, of_guide)
    refuse_subsamples([*of_model.values(), *of_guide.values()], layout.plates, "bound of the whole")
    summed = layout.enumerated

    def per_datum(value: Tensor, site: Mapping[str, Any]) -> Tensor:
        return scorer.per_datum(scale_and_mask(value, mask=site["mask"]), site)[0]

    nll: Any = 0.0
    for name, site in of_model.items():
        if not site["is_observed"] and name not in of_guide and name not in summed:
            raise ValueError(
                f"latent site {name!r} of the model is missing from the guide, so there is no bound at a draw; draw it "
                "in the guide, or mark it with infer={'enumerate': 'parallel'} if it has finitely many values"
            )
        if site["is_observed"]:
            if not is_local(site, layout.plates):
                raise OutsidePlateError(outside_plate(name, observed=True))
            if not summed:
                nll = nll - scorer.per_datum(masked_log_prob(site), site)[0]
    latent = [name for name in of_guide if name in of_model and name not in layout.shared]
    prior: Any = 0.0
    if summed:
        # log p(z) and log p(x, z), of which each sums the marked latents out.
        local = {n: s for n, s in of_model.items() if n not in layout.shared}
        prior = scorer.summed(traces.model, {n: s for n, s in local.items() if not s["is_observed"]})[0]
        nll = prior - scorer.summed(traces.model, local)[0]
    known = known_divergences(list(traces.guide.nodes), list(traces.model.nodes), latent)
    kl: Any = torch.zeros_like(nll) - prior
    for name, of_posterior in of_guide.items():
        if name in layout.joint:  # as in AutoDiagonalNormal
            raise OutsidePlateError(outside_plate(name, observed=False, in_model=False))
        if name in layout.shared or name in layout.beside:
            continue
        of_prior = of_model.get(name)
        q: Site = of_posterior if of_prior is None else under_mask_of_model(of_posterior, of_prior)
        exact = name in known and not summed and not is_point(q)
        if exact and of_prior is not None and masked_alike(q, of_prior):
            with suppress(NotImplementedError):
                kl = kl + per_datum(kl_divergence(q["fn"], of_prior["fn"]), q)
                continue
        kl = kl + scorer.per_datum(masked_log_prob(q), q)[0]
        if of_prior is not None and not summed:  # a site that the guide has alone has no prior
            kl = kl - scorer.per_datum(masked_log_prob(of_prior), of_prior)[0]
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
