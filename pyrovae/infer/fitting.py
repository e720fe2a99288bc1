"""Posteriors of given rows as a new VAE: started somewhere, refined by gradient, kept where they are better."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints
from tqdm.auto import tqdm

from pyrovae import programs
from pyrovae.data.rows import cut, refuse_lists, to_device
from pyrovae.infer.likelihood import check_counts
from pyrovae.infer.refining import Refinement, RowBounds, better_of, held_fixed, refine
from pyrovae.masks import check_entries
from pyrovae.rng import seeded
from pyrovae.sites import frames_of, nodes_of, row_dim
from pyrovae.support import refuse_outside

if TYPE_CHECKING:
    from pyrovae.guides import RowGuide
    from pyrovae.vae import VAE

STARTS = ("guide", "zeros", "prior", "normal", "train")
_DISCRETE_PARTICLES = 8


def fit_posterior(
    vae: VAE,
    x: Tensor,
    *,
    how: Refinement,
    start: str | None,
    family: str | None,
    scale: str | None,
    log_var: float | None,
    batch_size: int,
    seed: int,
    progress: bool,
    data: Mapping[str, Any],
) -> VAE:
    """Fit the posterior of every row; see `VAE.fit_posterior`."""
    from pyrovae.vae import VAE

    _check(vae, x, start, batch_size, data)
    x, given = x.to(vae.device), {n: to_device(v, vae.device) for n, v in data.items() if v is not None}
    with seeded(seed), programs.evaluating(vae):
        guide, values = _started(vae, x, given, start, family, scale, log_var, batch_size)
        new = VAE(vae.model, guide, observed=vae.chosen_site, latent=vae._latent)
        _share_parameters(vae, new, x, given)
        new.train(vae.training)
        refuse_outside(new, x, given)
        with programs.evaluating(new), new.scope(), held_fixed(new.parameters()), pyro.validation_enabled(False):
            bounds = _bounds(new, x, given)
            if not all(site_reparameterised(fn) for fn in guide.row_sites.distributions(values[:1]).values()):
                how = replace(how, num_particles=max(how.num_particles, _DISCRETE_PARTICLES))
            rows_of_parts = range(0, len(x), batch_size)
            refuse_lists(given, len(x), batch_size)
            bar = tqdm(
                total=how.steps * len(x), desc="fitting posteriors", unit="row step", delay=2, disable=not progress
            )
            with bar:
                for begin in rows_of_parts:
                    part = slice(begin, begin + batch_size)
                    values[part] = _fitted(bounds, values[part], x[part], cut(given, part, len(x)), how, bar)
        with torch.no_grad():
            guide.table.values.copy_(values)
    return new


def _fitted(bounds: RowBounds, start: Tensor, x: Tensor, data: Mapping[str, Any], how: Refinement, bar: Any) -> Tensor:
    done = 0

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        bar.update(rows)

    prior = prior_rows(bounds, start, x, data)
    refined = refine(bounds, start, x, data, how, tell).rows
    bar.update(how.steps * len(x) - done)
    best = better_of(bounds, start, refined, x, data, how)
    return best if prior is None else torch.where(nothing_seen(x, data).unsqueeze(1), prior, best)


def nothing_seen(x: Tensor, data: Mapping[str, Any]) -> Tensor:
    """Which rows have no observed entry, ``[B]``."""
    mask = data.get("mask")
    if not isinstance(mask, Tensor) or mask.shape != x.shape:
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    return ~mask.reshape(len(x), -1).any(1)


@torch.no_grad()
def prior_rows(bounds: RowBounds, rows: Tensor, x: Tensor, data: Mapping[str, Any]) -> Tensor | None:
    """Parameters at which the guide of rows is the prior; None where there is no such row, or it cannot be that.

    It cannot where the family is another one, where the prior of a latent depends on draws of other latents, and where
    something else is observed of such a row that says something of its latents.
    """
    empty = nothing_seen(x, data).nonzero()[:, 0]
    if not len(empty):
        return None
    found = []
    for _ in range(2):
        traces = programs.trace_pair(bounds.model, bounds.sites.program(rows), (x,), data)
        raws = [site.raw_of(nodes_of(traces.model)[site.name]["fn"], len(x)) for site in bounds.sites]
        if any(raw is None for raw in raws):
            return None
        found.append(torch.cat(raws, 1))
    prior = found[0]
    if not torch.equal(prior[empty], found[1][empty]):
        return None
    few, part = x[empty], cut(dict(data), empty, len(x))
    # At weight 0 of the KL, what is left is the likelihood.
    explained = [bounds.log_weights(prior[empty] + shift, few, part, 4, 0.0).log_weight for shift in (0.0, 0.5)]
    low, high = torch.cat(explained).aminmax(dim=0)
    return prior if bool((high - low <= 1e-5 * (1 + high.abs())).all()) else None


def site_reparameterised(fn: Any) -> bool:
    """Whether draws of a distribution are reparameterised."""
    return bool(fn.has_rsample)


def _bounds(vae: VAE, x: Tensor, given: Mapping[str, Any]) -> RowBounds:
    few = slice(min(2, len(x)))
    vectorize = vae.vectorizes(x[few], **cut(given, few, len(x)))
    return RowBounds(vae.model, vae.guide.row_sites, vae.layout, vectorize=vectorize)


def _check(vae: VAE, x: Tensor, start: str | None, batch_size: int, data: Mapping[str, Any]) -> None:
    if start is not None and start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    check_counts(batch_size=batch_size)
    if not len(x):
        raise ValueError(f"x must hold at least one row, got shape {tuple(x.shape)}")
    check_entries(x, data.get("mask"))


def _started(
    vae: VAE,
    x: Tensor,
    given: dict[str, Any],
    start: str | None,
    family: str | None,
    scale: str | None,
    log_var: float | None,
    batch_size: int,
) -> tuple[RowGuide, Tensor]:
    """A guide of rows for these data, and its parameters to start from."""
    from pyrovae.guides.per_datum import RowGuide, from_moments
    from pyrovae.guides.row_sites import raw_parameters

    trained = vae.guide if isinstance(vae.guide, RowGuide) else None
    if start is None:
        start = "guide" if trained is None else "zeros"
    own_family = family is None and scale is None and log_var is None
    if start == "train" and (trained is None or not own_family):
        raise ValueError(
            "start='train' draws from the moments of the training rows, of a guide PerDatum and of its own family; "
            "choose another start"
        )
    few = slice(min(2, len(x)))
    if start == "guide":
        if trained is not None:
            raise ValueError(
                "start='guide' refines the answer of an amortised guide, and this one has none; leave it out"
            )
        if not own_family:
            raise ValueError("start='guide' keeps the family of the guide; leave out family, scale and log_var")
        sites = guide_sites(vae, x[few], cut(given, few, len(x)))
        parts = []
        for begin in range(0, len(x), batch_size):
            part = slice(begin, begin + batch_size)
            with torch.no_grad():
                posterior = vae.posterior(x[part], **cut(given, part, len(x)))
            parts.append(torch.cat([raw_parameters(site, posterior[site.name]) for site in sites], 1))
        values = torch.cat(parts)
    else:
        if trained is not None and own_family:
            sites = [copy.deepcopy(site) for site in trained.row_sites]
        else:
            sites = prior_sites(vae, x[few], cut(given, few, len(x)), family, scale, log_var)
        if start == "train" and trained is not None:
            values = from_moments(trained, len(x))
        else:
            like = next((p for p in vae.parameters() if p.is_floating_point()), torch.empty(0))
            values = _first_rows(sites, len(x), start, log_var).to(device=x.device, dtype=like.dtype)
    guide = RowGuide(sites, values.clone()).to(x.device)
    guide.remember(x, given.get("mask"), **{n: v for n, v in given.items() if n not in ("mask", "index")})
    return guide, values


def _first_rows(sites: list[Any], rows: int, start: str, log_var: float | None) -> Tensor:
    row = torch.cat([site.initial(0.0 if log_var is None else log_var) for site in sites])
    values = row.repeat(rows, 1)
    return values + torch.randn_like(values) if start == "normal" else values


def guide_sites(vae: VAE, x: Tensor, data: Mapping[str, Any]) -> list[Any]:
    """The sites of the local latents as an amortised guide draws them, with the families of their distributions.

    Raises
    ------
    ValueError
        For a latent whose distribution depends on draws of another one, and for one without such a family.
    """
    from pyrovae.guides.row_sites import FamilyError, site_of

    vae.prepare(x, **data)
    _refuse_shared(vae)
    with torch.no_grad():
        first, second = (vae._guide_trace(x, data) for _ in range(2))
        traces = vae._traces(x, data)
    found = []
    for name in vae.latents_of(first):
        site, again = nodes_of(first)[name], nodes_of(second)[name]
        fn = vae._distribution(first, name, x, data)
        try:
            made = site_of(name, fn, _row_dim(vae, name, site), _plates(vae, site), _support(traces.model, name))
        except FamilyError as error:
            raise FamilyError(f"{error}; {_other_start(vae, traces)}") from None
        if not _same_distribution(made, site["fn"], again["fn"]):
            raise ValueError(
                f"the guide's distribution of site {name!r} depends on draws of other latents, so there is no answer "
                f"of the guide to start from; {_other_start(vae, traces)}"
            )
        found.append(made)
    return found


def _other_start(vae: VAE, traces: programs.Traces) -> str:
    """What to do where a guide has no answer to start from."""
    try:
        for name in vae.latents_of(traces.guide):
            _family_for(name, nodes_of(traces.model)[name]["fn"])
    except ValueError:
        return "nor can it be fitted from the prior, because no family suits all of its latents"
    return "fit it from the prior, fit_posterior(x, start='prior')"


def _same_distribution(site: Any, first: Any, second: Any) -> bool:
    from pyrovae.guides.row_sites import raw_parameters

    if site.is_point and not torch.equal(first.mean, second.mean):
        return False
    try:
        return torch.equal(raw_parameters(site, first), raw_parameters(site, second))
    except (AttributeError, RuntimeError):
        return True  # an AutoGuide's, seen through its auxiliary draw


def prior_sites(
    vae: VAE, x: Tensor, data: Mapping[str, Any], family: str | None, scale: str | None, log_var: float | None
) -> list[Any]:
    """Sites for the local latents of a model: of a family by name, or of the one that suits their support."""
    from pyrovae.guides.per_datum import RowGuide
    from pyrovae.guides.row_sites import named_site

    if isinstance(vae.guide, RowGuide):
        index = torch.zeros(len(x), dtype=torch.long, device=x.device)
        with torch.no_grad(), vae.guide.table.picking(index):
            data = {name: value for name, value in data.items() if name != "index"}
            vae.prepare(x, **data)
            traces = vae._traces(x, data)
    else:
        vae.prepare(x, **data)
        with torch.no_grad():
            traces = vae._traces(x, data)
    _refuse_shared(vae)
    found = []
    for name in vae.latents_of(traces.guide):
        site = nodes_of(traces.model)[name]
        chosen = _family_for(name, site["fn"]) if family is None else family
        dims = site["fn"].event_dim
        shape = site["value"].shape[site["value"].dim() - dims :]
        if _row_dim(vae, name, site) != -1 or len(site["fn"].batch_shape) > 1:
            raise ValueError(
                f"site {name!r} stands in further plates, so that no family by name suits it; refine the answer of a "
                "guide, fit_posterior(x, start='guide')"
            )
        # The prior is where a learned scale starts.
        learned = scale == "learned" or (scale is None and log_var is None)
        has_scale = chosen in ("normal", "logit-normal")
        chosen_scale = "learned" if learned and has_scale else scale
        start = (0.0 if learned else -3.0) if log_var is None else log_var
        made = named_site(name, shape, chosen, chosen_scale, start, _plates(vae, site))
        draws = made.distribution(made.initial(start).repeat(64, 1)).sample()
        if not bool(site["fn"].support.check(draws).all()):
            raise ValueError(
                f"the family {chosen} has values outside of the support of site {name!r}, which is "
                f"{site['fn'].support}; leave family= out, or choose another"
            )
        found.append(made)
    return found


def _family_for(name: str, fn: Any) -> str:
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    kinds: dict[Any, str] = {constraints.boolean: "bernoulli", constraints.one_hot: "categorical"}
    kinds |= {constraints.real: "normal", constraints.real_vector: "normal"}
    if support in kinds:
        return kinds[support]
    if (getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)) == (0, 1):
        return "kumaraswamy"
    raise ValueError(
        f"no family of fit_posterior suits the support {support} of site {name!r}, so it cannot be fitted from the "
        "prior"
    )


def _support(model: Any, name: str) -> Any:
    node = nodes_of(model).get(name)
    return None if node is None else node["fn"].support


def _plates(vae: VAE, site: Any) -> list[Any]:
    from pyrovae.guides.row_sites import PlateOver

    frames = [frame for frame in frames_of(site) if frame.vectorized]
    return [PlateOver(f.name, f.dim, None if f.name in vae.sites.plates else f.size) for f in frames]


def _row_dim(vae: VAE, name: str, site: Any) -> int:
    dim = row_dim(site, vae.sites.plates)
    if dim is None:
        raise ValueError(f"latent site {name!r} belongs to no single row, so it has no posterior for each")
    return dim


def _refuse_shared(vae: VAE) -> None:
    if vae.sites.shared:
        raise ValueError(
            f"the latents {vae.sites.shared} belong to all data together, and posteriors of rows are fitted given "
            "them; fit_posterior takes pairs whose latents are all of single rows"
        )


def _share_parameters(vae: VAE, new: VAE, x: Tensor, given: Mapping[str, Any]) -> None:
    """Prepare the new pair, and give its model the very parameters of param sites that the old one has."""
    few = slice(min(2, len(x)))
    vae_params = {name: vae.param_sites[key] for key, name in vae._site_names.items()}
    new.prepare(x[few], **cut(dict(given), few, len(x)))
    for key, name in list(new._site_names.items()):
        if name in vae_params:
            new.param_sites[key] = vae_params[name]
