"""Missing entries of rows, from draws of the guide that are weighted by how well they explain what is observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Independent

from pyrovae import programs
from pyrovae.data.rows import cut, refuse_lists, slices
from pyrovae.decoding import only_site
from pyrovae.distributions import OrderedLogits
from pyrovae.distributions.columns import Columns
from pyrovae.infer.density_checks import check_all_rows
from pyrovae.infer.enumeration import enumerated
from pyrovae.infer.likelihood import check_counts
from pyrovae.infer.particles import over_particles, particle_dim
from pyrovae.infer.scoring import LogWeights, Score, Scorer
from pyrovae.likelihoods.tables import level_probs
from pyrovae.masks import check_entries, fill_missing
from pyrovae.sites import data_frame, is_point, latent_sites, name_of, nodes_of
from pyrovae.support import refuse_outside

if TYPE_CHECKING:
    from pyrovae.vae import VAE


_AROUND = Independent | MaskedDistribution | ExpandedDistribution


@torch.no_grad()
def impute(
    vae: VAE, x: Tensor, mask: Tensor, num_samples: int, num_draws: int | None, chunk_size: int, data: Mapping[str, Any]
) -> Tensor:
    """Complete rows; see `VAE.impute`."""
    check_counts(
        num_samples=num_samples, chunk_size=chunk_size, **({} if num_draws is None else {"num_draws": num_draws})
    )
    if mask is None:
        raise TypeError("mask must be a tensor, True where an entry is observed, got None")
    check_entries(x, mask)
    known = _as_floats(x, mask)
    vae.prepare(x[:2], **cut({**data, "mask": mask}, slice(2), len(x)))
    if vae.chosen_site is None and len(sites := vae.sites.all_observed) > 1:
        raise ValueError(
            f"impute completes one data site, and the pair has {sorted(sites)}; observe x in one site and name that, "
            "VAE(..., observed=NAME)"
        )
    given = programs.keywords(vae.model, vae.guide, mask=mask, **data)
    with vae.telling_of_data(x, given):
        refuse_outside(vae, x, given)
        vectorize = num_samples > 1 and vae.vectorizes(x[:2], **cut(given, slice(2), len(x)))
    means: list[Tensor] = []
    chosen: list[_Chosen] = []
    refuse_lists(given, len(x), max(1, chunk_size // num_samples))
    with vae.scope(), vae.telling_of_data(x, given):
        for part in slices(len(x), max(1, chunk_size // num_samples)):
            some = _Completion(vae, x[part], cut(given, part, len(x)), num_samples, vectorize)
            if not part.start and not some.is_point:
                check_all_rows(vae, x, given, vae._with_marked_means({}), chunk_size, None)
            if num_draws is None:
                means.append(some.means())
            else:
                chosen.append(some.choose(num_draws))
        values = torch.cat(means) if num_draws is None else _draws(vae, x, given, chosen, num_draws, chunk_size)
    if values.shape[-x.dim() :] != x.shape:
        shape = tuple(values.shape[1 if num_draws is None else 2 :])
        raise ValueError(
            f"impute completes x, and the data site {vae.sites.observed!r} holds rows of shape {shape} where x has "
            f"{tuple(x.shape[1:])}; observe x in one site"
        )
    return fill_missing(known.expand(values.shape), mask.expand(values.shape), values.to(known.dtype))


def _as_floats(x: Tensor, mask: Tensor) -> Tensor:
    """Rows that hold means, too, which are no whole numbers.

    Raises
    ------
    ValueError
        If an observed number is too large for that.
    """
    if x.is_floating_point():
        return x
    floats = x.to(torch.get_default_dtype())
    if not torch.equal(floats.to(x.dtype)[mask], x[mask]):
        raise ValueError(
            f"x holds whole numbers that {floats.dtype} cannot hold, and completed rows hold means; give x.double()"
        )
    return floats


def _draws(
    vae: VAE, x: Tensor, data: Mapping[str, Any], chosen: Sequence[_Chosen], count: int, chunk_size: int
) -> Tensor:
    """Entries drawn from p(x|z) at latents of each row, ``[M, N, ...]``.

    Many rows go through at once, if they have the same latents: a draw has one for each, not as many as were weighed to
    choose it.
    """
    fixed = vae._with_marked_means({})
    model = programs.unconditioned(programs.conditioned(vae.model, vae.guide, {})[0], vae.chosen_site)
    parts = []
    for latents, rows in _joined(chosen):
        places = {name: _place(vae, name) for name in latents}
        for inner in slices(rows.stop - rows.start, chunk_size):
            part = slice(rows.start + inner.start, rows.start + inner.stop)
            some = cut(data, part, len(x))
            draws = []
            for number in range(count):
                known = {name: value[number, inner].movedim(0, places[name]) for name, value in latents.items()}
                trace = programs.trace(poutine.condition(model, data=fixed | known), (x[part],), some)
                for name in (*fixed, *known):
                    trace.remove_node(name)  # which is given, and no data
                draws.append(only_site(vae._decoding.values(trace, "draw")))
            parts.append(torch.stack(draws))
    return torch.cat(parts, 1)


def _joined(chosen: Sequence[_Chosen]) -> Iterator[tuple[dict[str, Tensor], slice]]:
    """The latents of neighbouring rows that have the same ones, and which rows these are."""
    start = 0
    for _, some in groupby(chosen, lambda one: {name: value.shape[2:] for name, value in one.latents.items()}):
        held = list(some)
        latents = {name: torch.cat([one.latents[name] for one in held], 1) for name in held[0].latents}
        stop = start + sum(one.rows for one in held)
        yield latents, slice(start, stop)
        start = stop


def _place(vae: VAE, name: str) -> int:
    """The dimension of the rows in the values of a latent."""
    dim = vae.row_dims[name]
    return 0 if dim is None else dim - vae._event_dims[name]


class _Chosen(NamedTuple):
    """Latents of some rows, chosen by the weights."""

    latents: dict[str, Tensor]
    """By site ``[M, B, ...]``."""
    rows: int


class _Completion:
    """Some rows, draws of their latents, and what each draw counts."""

    def __init__(self, vae: VAE, x: Tensor, data: Mapping[str, Any], count: int, vectorize: bool) -> None:
        self.vae, self.x, self.data = vae, x, data
        fixed = vae._with_marked_means({})
        self.programs = programs.conditioned(vae.model, vae.guide, fixed)
        model = enumerated(self.programs[0], vae.layout)
        first = programs.trace(self.programs[1], (x,), data)
        local = {name: nodes_of(first)[name] for name in vae.latents_of(first)}
        self.is_point = bool(local) and all(is_point(site) for site in local.values())
        if self.is_point:
            count = 1
        self.nesting = vae.layout.max_plate_nesting if vectorize and count > 1 else None
        self.found: list[programs.Traces] = []
        alone = programs.trace(self.programs[0], (x,), data)
        _refuse_alone(alone, first, fixed)
        _refuse_coupled(vae, nodes_of(alone)[vae.sites.observed]["fn"], data["mask"])

        def run(model: programs.Program, guide: programs.Program, score: Score) -> LogWeights:
            traces = programs.trace_pair(model, guide, (x,), data)
            self.found.append(traces)
            return score(*traces)

        scorer = Scorer(vae.layout, fixed=fixed)
        self.vectorized = self.nesting is not None
        weights = over_particles(run, model, self.programs[1], count, self.nesting, scorer).log_weight
        found = weights.softmax(0)
        # An entry so far off that no draw explains it says nothing of the others.
        self.weights = torch.where(found.isnan(), 1 / count, found)

    def means(self) -> Tensor:
        """The weighted mean of p(x|z) over the draws, ``[B, ...]``; of levels of tables the most probable one."""
        name = self.vae.sites.observed
        columns = _columns(nodes_of(self.found[0].model)[name]["fn"])
        if columns is not None:
            return self._levels_and_numbers(name)
        values = torch.cat([self._by_particle(traces, name, self._mean(traces, name)) for traces in self.found])
        weights = self.weights.reshape(self.weights.shape + (1,) * (values.dim() - 2))
        return self.vae._decoding.as_data(name, (weights * values).sum(0))

    def choose(self, count: int) -> _Chosen:
        """Some of the draws of the latents of each row."""
        choice = torch.multinomial(self.weights.T, count, replacement=True).T
        rows = torch.arange(len(self.x), device=choice.device)
        chosen: dict[str, Tensor] = {}
        for name in latent_sites(self.found[0].guide):
            if name in self.vae.row_dims:
                values = [self._by_particle(t, name, nodes_of(t.guide)[name]["value"]) for t in self.found]
                chosen[name] = torch.cat(values)[choice, rows]
        return _Chosen(chosen, len(self.x))

    def _mean(self, traces: programs.Traces, name: str) -> Tensor:
        fn = nodes_of(traces.model)[name]["fn"]
        try:
            return fn.mean
        except NotImplementedError:
            raise NotImplementedError(
                f"the distribution of site {name!r} has no mean to impute by; take draws, impute(..., num_draws=M)"
            ) from None

    def _by_particle(self, traces: programs.Traces, name: str, value: Tensor) -> Tensor:
        """A value of a site with particles and rows first, ``[K, B, ...]``."""
        site = nodes_of(traces.guide if name in nodes_of(traces.guide) else traces.model)[name]
        event_dim, frame = site["fn"].event_dim, data_frame(site, self.vae.layout.plates)
        dim = (-1 if frame is None else frame.dim) - event_dim
        rows = len(self.x)
        if not self.vectorized:
            return value.movedim(dim, 0).unsqueeze(0)
        particles = particle_dim(self.nesting or 0) - event_dim
        count = len(self.weights)
        if value.dim() < -particles:
            value = value.reshape((1,) * (-particles - value.dim()) + value.shape)
        shape = [count if d == particles else rows if d == dim else value.shape[d] for d in range(-value.dim(), 0)]
        return value.expand(shape).movedim((particles, dim), (0, 1))

    def _levels_and_numbers(self, name: str) -> Tensor:
        """Means of numbers, medians of ordered levels and modes of others, ``[B, D]``."""
        weights = self.weights
        parts = [_columns(nodes_of(traces.model)[name]["fn"]) for traces in self.found]

        def over(values: list[Tensor]) -> Tensor:
            joined = torch.cat([v if self.vectorized else v.unsqueeze(0) for v in values])
            return (weights.reshape(weights.shape + (1,) * (joined.dim() - 2)) * joined).sum(0)

        place = {id(group[1]): number for number, group in enumerate(parts[0].groups)}  # type: ignore[union-attr]

        def point(fn: Any, columns: Tensor) -> Tensor:
            fns = [part.groups[place[id(fn)]][1] for part in parts if part is not None]
            if level_probs(fn) is None:
                return over([one.mean for one in fns])
            probs = over([level_probs(one) for one in fns])  # type: ignore[misc]
            level = (probs.cumsum(-1) < 0.5).sum(-1) if isinstance(fn, OrderedLogits) else probs.argmax(-1)
            return level.to(weights.dtype)

        return parts[0].joined(point)  # type: ignore[union-attr]


def _refuse_alone(of_model: programs.Trace, of_guide: programs.Trace, fixed: Mapping[str, Any]) -> None:
    """Refuse a latent of which the guide says nothing: it would be drawn as if nothing was observed."""
    for name in latent_sites(of_model):
        if name not in latent_sites(of_guide) and name not in fixed:
            raise ValueError(
                f"latent site {name!r} is drawn by the model alone, so that what is observed tells nothing of it; draw "
                "it in the guide, too"
            )


def _refuse_coupled(vae: VAE, fn: Any, mask: Tensor) -> None:
    """Refuse entries that depend on each other given the latents: their mean would ignore those that are observed."""
    name = vae.sites.observed
    while _columns(fn) is None and (isinstance(fn, _AROUND) or _is_of_entries(fn)):
        fn = fn.base_dist
    if _columns(fn) is not None or not fn.event_dim:
        return
    event = mask.flatten(1) if name in vae.flat_sites else mask.flatten(-fn.event_dim)
    if bool((event.any(-1) & ~event.all(-1)).any()):
        raise ValueError(
            f"the entries of site {name!r} depend on each other given the latents ({name_of(fn)}), and impute takes "
            "them for independent; hide whole data alone, or make what they share a latent"
        )


def _is_of_entries(fn: Any) -> bool:
    """Whether a distribution is made by transforms of single entries."""
    ends = [end for one in getattr(fn, "transforms", ()) for end in (one.domain, one.codomain)]
    return bool(ends) and not any(end.event_dim for end in ends)


def _columns(fn: Any) -> Columns | None:
    while not isinstance(fn, Columns) and hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn if isinstance(fn, Columns) else None
