"""Densities of single sites, under their masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.sites import Site, masked_alike, masks_of, name_of


def masked_log_prob(site: Site) -> Tensor:
    """The log-probability of a site under its masks, without scales.

    Raises
    ------
    ValueError
        If the value is outside of the support or of another shape, or the draw went through a transform that has no
        inverse, and is not the one that it just drew.
    """
    try:
        value = site["fn"].log_prob(site["value"])
    except ValueError as error:
        try:
            torch.broadcast_shapes(site["value"].shape, site["fn"].shape())
        except RuntimeError:
            raise ValueError(
                f"site {site['name']!r} has values of shape {tuple(site['value'].shape)}, and its distribution is of "
                f"shape {tuple(site['fn'].shape())}; take the size of plates from the data, len(x), and give a guide "
                "with a value for each row, as AutoNormal is, the rows that it was trained on"
            ) from error
        value, support = site["value"], getattr(site["fn"], "support", None)
        if value.is_floating_point() and bool(value.isnan().any()):
            raise ValueError(
                f"site {site['name']!r} has NaN; put a number there, such as 0, also where a mask hides it"
            ) from error
        raise ValueError(
            f"site {site['name']!r} has values outside of the support {support}. Expected values that its "
            f"{name_of(site['fn'])} distribution takes: let the other program draw such ones, or give such data"
        ) from error
    except (KeyError, NotImplementedError) as error:
        raise ValueError(
            f"site {site['name']!r} has a transform without an inverse, so that draws of another run cannot be scored; "
            "use an objective that runs the guide once (elbo, iwae, vimco, renyi), or a flow with an inverse"
        ) from error
    return scale_and_mask(value, mask=site["mask"])


def under_one_mask(model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> dict[str, Any]:
    """The guide's sites of what `obs_mask=` makes a latent, each under the model's mask.

    Raises
    ------
    ValueError
        If a latent is masked otherwise in the model than in the guide, so that its density has no counterpart.
    """
    changed = {}
    for name, site in guide_sites.items():
        of_model = model_sites.get(name)
        if of_model is None or site["is_observed"] or masked_alike(site, of_model):
            continue
        if not name.endswith("_unobserved") or masks_of(site):
            raise ValueError(
                f"latent site {name!r} is under one mask in the model and another one in the guide, so that it has no "
                "importance weight; mask it alike in both"
            )
        changed[name] = under_mask_of_model(site, of_model)
    return changed


def under_mask_of_model(site: Site, of_model: Site) -> Site:
    """A site of the guide that `obs_mask=` asks for, masked as in the model.

    Of the entries that are observed model and figure know nothing, whatever the guide draws there.
    """
    if not site["name"].endswith("_unobserved") or masks_of(site):
        return site
    return {**site, "mask": of_model["mask"]}
