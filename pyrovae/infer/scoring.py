"""From a trace of each program to log weights, one number per particle and per datum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.infer.densities import masked_log_prob, under_one_mask
from pyrovae.infer.enumeration import summed_log_prob
from pyrovae.infer.kl_weight import KL_WEIGHT
from pyrovae.infer.shared import SharedTerms, shared_terms
from pyrovae.layout import Layout, OutsidePlateError, outside_plate
from pyrovae.programs import Program
from pyrovae.sites import (
    Site,
    data_frame,
    frames_of,
    is_local,
    refuse_subsamples,
    sample_sites,
)

DATA_SHARE = "data_share"
"""Key of `site["infer"]`: what `MinibatchScale` multiplied a site inside the plate over the data by."""


class LogWeights(NamedTuple):
    """Log densities of a pair, each `[K, B]`: particles times batch, in nats."""

    log_p: Tensor
    """log p(x, z_k) under the model."""
    log_q: Tensor
    """log q(z_k | x) under the guide."""
    log_score: Tensor
    """The part of `log_q` from sites without reparameterised draws, which carries the score function."""
    draws: dict[str, Tensor] | None = None
    """The draws of every latent site by name, each `[K, B, ...event]`, if they were asked for."""

    @property
    def log_weight(self) -> Tensor:
        """The log weight, `log p(x, z_k) - log q(z_k | x)`."""
        return self.log_p - self.log_q

    @staticmethod
    def joined(parts: Sequence[LogWeights]) -> LogWeights:
        """The log weights of several groups of particles as one."""
        log_p, log_q, log_score = (torch.cat(each) for each in zip(*(part[:3] for part in parts), strict=True))
        drawn = [part.draws for part in parts if part.draws is not None]
        if not drawn:
            return LogWeights(log_p, log_q, log_score)
        return LogWeights(log_p, log_q, log_score, {name: torch.cat([d[name] for d in drawn]) for name in drawn[0]})


Score = Callable[..., LogWeights]
Run = Callable[[Program, Program, Score], LogWeights]


class Scorer:
    """Reads log weights off a trace of the model and a trace of the guide.

    Parameters
    ----------
    layout : Layout
        Which plate is over the data.
    weighted : bool
        For an objective: every site counts by the scale that its handlers give it, relative to what they give all of
        them, and observed sites and factors of the guide enter `log_p` as in an ELBO of Pyro. Otherwise every site
        counts once, and these sites do not.
    fixed : collection of str
        Names of latent sites that are left out.
    draws : bool
        Return the draws too.
    several : bool
        For an objective of several particles, in which it matters what stands outside of the logarithm.
    apart : bool
        Keep latents outside the plate over the data apart, in `shared`; otherwise they are refused.
    drawn_once : mapping, optional
        Sites of the guide outside that plate that were drawn before, once for all particles, by name.

    Attributes
    ----------
    shared : SharedTerms or None
        What these sites add to a bound, of the last traces read.
    scale : float or Tensor
        What is common to all sites of the last traces read: the scale of a subsampling plate, or a weight of the rows.
    data_dim : int
        The dimension of the plate over the data.
    log_q : Tensor
        log q without any weights, `[K, B]`, of the last traces read.
    latent_weight : float or Tensor
        The weight, relative to `scale`, of the guide's site without reparameterised draws, the last of several.
    """

    log_q: Tensor  # not before a call

    def __init__(
        self,
        layout: Layout,
        *,
        weighted: bool = False,
        fixed: Collection[str] = (),
        draws: bool = False,
        several: bool = False,
        apart: bool = False,
        drawn_once: Mapping[str, Any] | None = None,
    ) -> None:
        self.layout, self.weighted, self.fixed, self.draws, self.several = layout, weighted, fixed, draws, several
        self.apart, self.drawn_once = apart, dict(drawn_once or {})
        self.shared: SharedTerms | None = None
        self.scale: Any = 1.0
        self.data_dim = -1
        self.latent_weight: Any = 1.0
        self._common = False

    def __call__(self, model_trace: Trace, guide_trace: Trace, particles: tuple[int, int] | None = None) -> LogWeights:
        """Log weights `[K, B]`; `particles` is dimension and size of the plate over particles, if there is one."""
        guide_sites, model_sites = sample_sites(guide_trace), sample_sites(model_trace)
        if self.fixed:
            for name in self.fixed:
                if name not in model_sites:
                    raise ValueError(f"condition={{{name!r}: ...}} is no site of the model, which has {[*model_sites]}")
            guide_sites, model_sites = _without(guide_sites, self.fixed), _without(model_sites, self.fixed)
        if self.apart and self.layout.shared:
            guide_sites = self.drawn_once | guide_sites
            outside = [_named(sites, self.layout.shared) for sites in (model_sites, guide_sites)]
            self.shared = shared_terms(*outside)
            self._refuse_missing(outside[0], outside[1])
            guide_sites, model_sites = _without(guide_sites, outside[1]), _without(model_sites, outside[0])
        if not self.weighted:
            # Whatever a guide draws for all data beside the latents, the weights of a datum are right given it.
            plates, not_rows = self.layout.plates, self.layout.beside
            guide_sites = {
                n: s for n, s in guide_sites.items() if n in model_sites or (is_local(s, plates) and n not in not_rows)
            }
            guide_sites |= under_one_mask(model_sites, guide_sites)
        size = self._read_plate(model_sites, guide_sites)

        def log_prob(site: Site, weight: Any = 1.0) -> Tensor:
            value = masked_log_prob(site)
            if isinstance(weight, Tensor) and weight.dim():
                value, weight = value * weight, 1.0  # one weight for each row
            value = self.per_datum(value, site, particles, size)
            return value if isinstance(weight, float) and weight == 1 else value * weight

        if self.layout.enumerated:
            log_p = self._summed(model_trace, model_sites, size, particles)
        else:
            log_p = reduce(add, (log_prob(site, self.weight(site)) for site in model_sites.values()))
        log_q = log_score = self.log_q = torch.zeros_like(log_p)
        in_guide: list[Site] = []
        beside = torch.zeros((), device="cpu")
        for name, site in guide_sites.items():
            if site["is_observed"]:
                in_guide.append(site)
                continue
            value, weight = log_prob(site), self.weight(site)
            plain = isinstance(weight, float) and weight == 1
            if not plain and isinstance(weight, Tensor) and weight.dim():
                weighted = log_prob(site, weight)
            else:
                weighted = value if plain else value * weight
            log_q, self.log_q = log_q + weighted, self.log_q + value
            if name not in model_sites:
                beside = beside + weighted
            if not site["fn"].has_rsample:
                log_score = log_score + value
                self.latent_weight = weight
        if self.weighted and in_guide:
            # What `Trace_ELBO` makes of it: minus its log-probability; where it is not reparameterised, with the
            # gradient of a score that is weighted by the log weight of the latents.
            signal = (log_p - log_q + beside).detach()
            for term in in_guide:
                value = log_prob(term, self.weight(term))
                if not term["fn"].has_rsample:
                    score = signal * log_prob(term)
                    value = value.detach() - score + score.detach()
                log_p = log_p - value
        return LogWeights(log_p, log_q, log_score, self._draws(guide_sites, particles) if self.draws else None)

    def per_datum(
        self, value: Tensor, site: Site, particles: tuple[int, int] | None = None, size: int | None = None
    ) -> Tensor:
        """Sum a log-probability of a site over every batch dimension but particles and data: `[K, B]`."""
        frame = data_frame(site, self.layout.plates)
        dim = -1 if frame is None else frame.dim
        kept = (dim,) if particles is None else (particles[0], dim)
        depth = -min(kept)
        if value.dim() < depth:
            value = value.reshape((1,) * (depth - value.dim()) + value.shape)
        others = [d for d in range(-value.dim(), 0) if d not in kept]
        if others:
            value = value.sum(others)
        if particles is None:
            value = value.unsqueeze(0)
        count = 1 if particles is None else particles[1]
        return value.expand(count, value.shape[1] if size is None else size)

    def _read_plate(self, model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> int | None:
        """Find scale, dimension and size of the plate over the data in new traces; check that all sites are in it."""
        plates = self.layout.plates
        self._refuse_missing(model_sites, guide_sites)
        observed = [site for site in model_sites.values() if site["is_observed"]]
        if not observed:
            raise ValueError("the model observes nothing, so it has no log weight")
        counted = [*model_sites.values(), *(s for s in guide_sites.values() if self.weighted or not s["is_observed"])]
        for site in counted:
            if not is_local(site, plates):
                name = site["name"]
                raise OutsidePlateError(outside_plate(name, observed=site["is_observed"], in_model=name in model_sites))
        frame = data_frame(observed[0], plates)
        if frame is None:
            share, size, self.data_dim = 1.0, observed[0]["fn"].batch_shape[-1], -1
        else:
            if not frame.vectorized:
                raise OutsidePlateError(
                    f"the plate {frame.name!r} over the data is sequential, so that no site has its rows in a "
                    "dimension; write it as a with statement, or train with an ELBO of Pyro"
                )
            share, size, self.data_dim = frame.full_size / frame.size, frame.size, frame.dim
            share *= observed[0]["infer"].get(DATA_SHARE, 1.0)
        if not self.weighted:
            refuse_subsamples(counted, plates, "log-likelihood of the whole")
        elif self.several:  # the scale of such a plate would stand within the logarithm
            refuse_subsamples(counted, plates, "bound of several particles", ", or train with objective='elbo'")
        self._find_scale(counted, share, size)
        return size

    def _refuse_missing(self, model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site]) -> None:
        for name, site in model_sites.items():
            if not site["is_observed"] and name not in guide_sites and name not in self.layout.enumerated:
                hint = "; obs_mask= makes it, so draw it in the guide too" if name.endswith("_unobserved") else ""
                raise ValueError(
                    f"latent site {name!r} of the model is missing from the guide; condition= can fix it{hint}"
                )

    def _find_scale(self, sites: Sequence[Site], share: float, size: int) -> None:
        """Take what all sites have in common out of their scales."""
        scales = [_without_kl_weight(site) for site in sites]
        first = scales[0]
        if isinstance(first, Tensor) and first.dim():
            row_weights = first.numel() == size and first.dim() >= -self.data_dim and first.shape[self.data_dim] == size
            self._common = row_weights and all(
                isinstance(scale, Tensor) and torch.equal(scale, first) for scale in scales[1:]
            )
            if row_weights and not self._common and self.several:
                self._refuse_weights(sites, scales)
        else:
            self._common = all(_is_number(scale, first) for scale in scales)
        if self._common and isinstance(first, Tensor) and first.dim():
            first = first.reshape(-1)
        self.scale = first if self._common else share

    def _refuse_weights(self, sites: Sequence[Site], scales: Sequence[Any]) -> None:
        """Refuse weights of the rows that some site has a multiple of, where the two cannot be told apart."""
        first = scales[0]
        if not all(isinstance(scale, Tensor) and scale.shape == first.shape for scale in scales):
            return  # a weight of some of the sites alone belongs to these, inside the logarithm
        for site, scale in zip(sites, scales, strict=True):
            ratio = scale / first
            if not torch.equal(scale, first) and torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio)):
                raise ValueError(
                    f"site {site['name']!r} has a scale of its own beside the weights of the rows, and an objective of "
                    "several particles cannot tell which of the two stands outside of its logarithm; weigh the rows "
                    "alone, or use num_particles=1 or objective='elbo'"
                )

    def _summed(
        self, trace: Trace, sites: Mapping[str, Site], size: int | None, particles: tuple[int, int] | None
    ) -> Tensor:
        """Log p with the enumerated latents summed out."""
        for name, site in sites.items():
            weight = self.weight(site)
            if not isinstance(weight, float) or weight != 1:
                raise ValueError(
                    f"site {name!r} has a weight of its own, and latents {self.layout.enumerated} of the model are "
                    "summed out; weigh all sites alike, or use objective='enum'"
                )

        return self.summed(trace, sites, size, particles)

    def summed(
        self,
        trace: Trace,
        sites: Mapping[str, Site],
        size: int | None = None,
        particles: tuple[int, int] | None = None,
    ) -> Tensor:
        """The log-probability of sites of an enumerated model without weights, the marked latents summed out."""
        if size is None:
            frames = (data_frame(site, self.layout.plates) for site in sites.values())
            size = next(frame.size for frame in frames if frame is not None)
        count = None if particles is None else particles[1]
        return summed_log_prob(trace, sites, masked_log_prob, self.layout, size, count)

    def weight(self, site: Site) -> Any:
        """The weight of a site relative to what all sites have in common."""
        if not self.weighted:
            return 1.0
        if self._common:
            return site["infer"][KL_WEIGHT][0] if KL_WEIGHT in site["infer"] else 1.0
        scale = site["scale"]
        return scale if isinstance(self.scale, float) and self.scale == 1 else scale / self.scale

    def _draws(self, guide_sites: Mapping[str, Site], particles: tuple[int, int] | None) -> dict[str, Tensor]:
        """The draws of the guide, particles and rows first."""
        found = {}
        for name, site in guide_sites.items():
            if site["is_observed"]:
                continue
            value, event_dim = site["value"], site["fn"].event_dim
            frame = data_frame(site, self.layout.plates)
            dim = -1 if frame is None else frame.dim
            first = [dim] if particles is None else [particles[0], dim]
            first += sorted(f.dim for f in frames_of(site) if f.dim != dim)
            batch = max(-min(first), value.dim() - event_dim)
            value = value.reshape((1,) * (batch + event_dim - value.dim()) + value.shape)
            if particles is not None:
                value = value.expand(*(particles[1] if d == batch + particles[0] else -1 for d in range(value.dim())))
            rest = [d for d in range(-batch, 0) if d not in first]  # of size 1: the site stands in no plate there
            value = value.permute([batch + d for d in first + rest] + list(range(batch, batch + event_dim)))
            value = value.reshape(value.shape[: len(first)] + value.shape[batch:])
            found[name] = value.unsqueeze(0) if particles is None else value
        return found


def _is_number(scale: Any, known: Any) -> bool:
    """Whether a scale is the same number as another one, which may be a tensor without dimensions."""
    if not isinstance(scale, Tensor) and not isinstance(known, Tensor):
        return bool(scale == known)
    one, other = torch.as_tensor(scale), torch.as_tensor(known)
    if one.dim() or other.dim():
        return False
    with torch._C.DisableTorchFunction():  # a recording may ask for it: it is compared with the programs
        return bool(one.tolist() == other.tolist())


def _without_kl_weight(site: Site) -> Any:
    """The scale of a site without the KL weight, where no other handler came after it."""
    _, before, after = site["infer"].get(KL_WEIGHT, (None, None, None))
    return before if after is not None and site["scale"] is after else site["scale"]


def _without(sites: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: site for name, site in sites.items() if name not in names}


def _named(sites: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: site for name, site in sites.items() if name in names and not site["is_observed"]}
