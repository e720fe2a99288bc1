"""What a trace of a Pyro program shows: its sites, its plates, and which of the plates is over the rows of the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions import Delta, Unit
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import Categorical

Site = Mapping[str, Any]
PARTICLES = "num_particles_vectorized"
"""The name of the plate over particles, which is Pyro's own."""


class Sites(NamedTuple):
    """The sites of a pair: what the data is called, what the latents are called, and how deep the plates go."""

    observed: str
    """The data site: the one that was chosen, or the first."""
    latent: tuple[str, ...]
    """Latents of each datum, in the order of the guide."""
    max_plate_nesting: int
    shared: tuple[str, ...] = ()
    """Latents that belong to no datum, because they stand outside the plate over the data; not among `latent`."""
    classes: tuple[str, ...] = ()
    """Those of `latent` that are categorical in the model."""
    all_observed: tuple[str, ...] = ()
    """All data sites of the first run, factors aside."""
    plates: frozenset[str] = frozenset()
    """The names of the plate over the data in model and guide; empty for programs without plates."""


class Layout(NamedTuple):
    """How a pair's traces are laid out, see `find_layout`."""

    plates: frozenset[str]
    """The names of the plates over the data; empty where the programs have none and the rows are in dimension -1."""
    rows: int | None
    """Rows of the data, where known."""
    max_plate_nesting: int
    shared: tuple[str, ...]
    """Latents outside the plate over the data."""


class OutsidePlateError(ValueError):
    """A site has no number per datum."""


def outside_plate(name: str, *, observed: bool) -> str:
    """What is wrong with a site outside the plate over the data, and what to do."""
    if observed:
        kind, advice = "observed", "put it into the plate"
    else:
        kind, advice = "latent", f"fix it with condition={{{name!r}: value}}, or train with an ELBO of Pyro"
    return f"{kind} site {name!r} lies outside the plate over the data, so it has no weight per datum; {advice}"


def is_deterministic(site: Site) -> bool:
    """Whether a trace site was written by `pyro.deterministic`."""
    return bool(site["infer"].get("_deterministic"))


def objective_term(name: str, value: Tensor) -> None:
    """Add a term to the objective of the pair, in a guide: a factor that is no part of the density of the latents.

    Every ELBO adds `value`, differentiable in the guide, and so do this library's objectives. Held-out figures leave
    it out, as they do every observed site of a guide, and no KL weight applies to it.

    Parameters
    ----------
    name : str
        The name of its site.
    value : Tensor
        One number for each datum (and particle), in nats; call it inside the plate over the data.
    """
    # `pyro.factor` with the sign that a guide's factors have.
    unit = Unit(-value, has_rsample=True)
    pyro.sample(name, unit, obs=unit.sample(), infer={"is_auxiliary": True})


def is_global(site: Site) -> bool:
    """Whether a site is marked, by `infer={"is_global": True}`, as a latent of all data together.

    Held-out figures of a marked site stand at its posterior mean; those of another latent outside the plate over the
    data ask for a value.
    """
    return bool(site["infer"].get("is_global"))


def is_factor(site: Site) -> bool:
    """Whether a site was written by `pyro.factor`: it has a log-probability and no value."""
    return isinstance(_base(site["fn"]), Unit)


def is_auxiliary(site: Site) -> bool:
    """Whether a site of a guide is marked as one that the model does not have."""
    return bool(site["infer"].get("is_auxiliary"))


def is_point(site: Site) -> bool:
    """Whether all probability of a site is on one value."""
    return isinstance(_base(site["fn"]), Delta)


def _base(fn: Any) -> Any:
    while hasattr(fn, "base_dist") and not isinstance(fn, Delta | Unit):
        fn = fn.base_dist
    return fn


def sample_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The sample sites of a trace by name, without subsampling and deterministic ones."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and not is_deterministic(site)
    }


def latent_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The sample sites of a trace that are not observed."""
    return {name: site for name, site in sample_sites(trace).items() if not site["is_observed"]}


def data_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The observed sites of a trace, factors aside."""
    return {name: s for name, s in sample_sites(trace).items() if s["is_observed"] and not is_factor(s)}


def categorical_sites(sites: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names whose trace site has a categorical distribution."""
    return tuple(name for name in names if name in sites and isinstance(sites[name]["fn"], Categorical))


def rows_of(args: tuple, kwargs: Mapping[str, Any]) -> int | None:
    """The number of rows of the data: the length of the first tensor among the arguments."""
    first = args[0] if args else kwargs.get("x")
    return first.shape[0] if isinstance(first, Tensor) and first.dim() else None


# -- plates -----------------------------------------------------------------------------------------------------------


def frames_of(site: Site) -> list[Any]:
    """The plates that a site stands in, that over the particles aside."""
    return [frame for frame in site["cond_indep_stack"] if frame.name != PARTICLES]


def plate_nesting(*traces: Trace) -> int:
    """The number of batch dimensions that the plates of the traces take."""
    dims = [f.dim for t in traces for s in sample_sites(t).values() for f in s["cond_indep_stack"] if f.vectorized]
    return -min(dims) if dims else 0


def data_frame(site: Site, plates: Collection[str]) -> Any | None:
    """The plate over the data that a site stands in, or None.

    Raises
    ------
    ValueError
        If it stands in two of them.
    """
    found = [frame for frame in site["cond_indep_stack"] if frame.name in plates]
    if len(found) > 1:
        names = " and ".join(repr(frame.name) for frame in found)
        raise ValueError(f"site {site['name']!r} stands in two plates over the rows of the data, {names}")
    return found[0] if found else None


def row_dim(site: Site, plates: Collection[str]) -> int | None:
    """The batch dimension of a site that is over the data, or None for a site outside their plate."""
    if plates:
        frame = data_frame(site, plates)
        return None if frame is None else frame.dim
    return -1 if site["fn"].batch_shape and not frames_of(site) else None


def is_local(site: Site, plates: Collection[str]) -> bool:
    """Whether a site belongs to single data: it stands in their plate, or is a row each in a program without plates."""
    if is_global(site):
        return False
    return (data_frame(site, plates) is not None) if plates else row_dim(site, plates) is not None


def rows_first(value: Tensor, site: Site, plates: Collection[str]) -> Tensor:
    """A value of a site with the rows of the data as its first dimension."""
    dim = row_dim(site, plates)
    return value if dim is None else value.movedim(dim - site["fn"].event_dim, 0)


def find_layout(
    model: Trace,
    guide: Trace,
    rows: int | None,
    probe: Callable[[], tuple[Trace, Trace, int]] | None = None,
) -> Layout:
    """Find the plates over the data, and what stands outside of them, from one trace of each program.

    A plate over the data is one whose size is the number of rows, and follows it. Where several plates have that size,
    the programs are run once more with another number of rows.

    Parameters
    ----------
    model, guide : Trace
        A trace of each program, the model's replayed against the guide's.
    rows : int or None
        Rows of the data, where known.
    probe : callable, optional
        Runs both programs on another number of rows; returns the traces and that number.

    Raises
    ------
    ValueError
        If the plate over the data remains ambiguous, or the rows of a program without plates are.
    """
    model_sites, guide_sites = sample_sites(model), sample_sites(guide)
    everything = [*model_sites.values(), *guide_sites.values()]
    plates = _data_plates(model_sites, guide_sites, rows, probe)
    if not plates:
        for site in everything:
            shape = tuple(site["fn"].batch_shape)
            if not frames_of(site) and (len(shape) > 1 or (shape and rows is not None and shape[-1] != rows)):
                raise ValueError(
                    f"site {site['name']!r} has the batch shape {shape} in a program without a plate over the "
                    "rows of the data; put the rows into pyro.plate, and the other dimensions into .to_event"
                )
    shared = [
        name
        for name, site in {**guide_sites, **model_sites}.items()
        if not site["is_observed"] and not is_local(site, plates)
    ]
    return Layout(plates, rows, plate_nesting(model, guide), tuple(shared))


def _data_plates(
    model_sites: Mapping[str, Site], guide_sites: Mapping[str, Site], rows: int | None, probe: Any
) -> frozenset[str]:
    observed = [site for site in model_sites.values() if site["is_observed"]]
    of_model, of_guide = _frames(model_sites.values()), _frames(guide_sites.values())
    if rows is None:
        around = set.intersection(*({f.name for f in frames_of(site)} for site in observed)) if observed else set()
        if len(around) > 1:
            raise ValueError(
                f"the first argument is no tensor, so the plate over the data may be any of {sorted(around)}; "
                "give the data as the first argument"
            )
        return frozenset(around)
    suspects = {name for name, frame in {**of_guide, **of_model}.items() if rows in (frame.size, frame.full_size)}
    if not suspects:
        # A plate of a size of its own: the only one around all observed sites, if there is one.
        around = [{f.name for f in frames_of(site)} for site in observed]
        shared = set.intersection(*around) if around else set()
        if len(shared) > 1:
            raise ValueError(
                f"none of the plates {sorted(shared)} has the size of the data, {rows} rows, so it is unknown which "
                "one is over them; take the size of that plate from the data, len(x)"
            )
        return frozenset(shared)
    certain = all(len(suspects & of_program.keys()) <= 1 for of_program in (of_model, of_guide))
    if certain and suspects & of_model.keys() and _agree(suspects, of_model, of_guide):
        return frozenset(suspects)
    try:
        traces = probe()
    except Exception:  # a program written for one number of rows
        traces = None
    if traces is not None:
        frames = _frames([*sample_sites(traces[0]).values(), *sample_sites(traces[1]).values()])
        following = {n for n in suspects if n in frames and traces[2] in (frames[n].size, frames[n].full_size)}
        if following:
            for site in [*model_sites.values(), *guide_sites.values()]:
                data_frame(site, following)  # refuses two of them around one site
            return frozenset(following)
    # Programs that know their sizes: the data plate is the one that holds all that stands in any of them.
    sites = [*model_sites.values(), *guide_sites.values()]
    inside = [{f.name for f in frames_of(site)} & suspects for site in sites]
    holding = set.intersection(*(names for names in inside if names))
    if len(holding) != 1:
        raise ValueError(
            f"the plates {sorted(suspects)} all have the size {rows} of the data, and nothing tells which one is over "
            "their rows; take the size of that plate from the data, len(x)"
        )
    return frozenset(holding)


def _agree(suspects: set[str], of_model: Mapping[str, Any], of_guide: Mapping[str, Any]) -> bool:
    """Whether the plate over the data of the guide, if it has another name, stands where that of the model does."""
    dims = {frames[name].dim for frames in (of_model, of_guide) for name in suspects & frames.keys()}
    return len(suspects) == 1 or len(dims) == 1


def _frames(sites: Iterable[Site]) -> dict[str, Any]:
    return {frame.name: frame for site in sites for frame in frames_of(site)}


def check_shapes(*traces: Trace) -> None:
    """Pyro's own check that every batch dimension of a site stands in a plate, as stock SVI makes it at first.

    Programs without any plates are let through, see `find_layout`.

    Raises
    ------
    ValueError
        As of Pyro, naming the site and the shapes.
    """
    sites = [site for trace in traces for site in sample_sites(trace).values()]
    if not any(frame.vectorized for site in sites for frame in site["cond_indep_stack"]):
        return
    for site in sites:
        value, event_dim = site["value"], site["fn"].event_dim
        shape = value.shape[: value.dim() - event_dim] if isinstance(value, Tensor) else torch.Size()
        try:
            shape = torch.broadcast_shapes(site["fn"].batch_shape, shape)
        except RuntimeError:
            raise ValueError(
                f"site {site['name']!r} has a value of shape {tuple(value.shape)}, which does not fit its "
                f"distribution of batch shape {tuple(site['fn'].batch_shape)} and event shape "
                f"{tuple(site['fn'].event_shape)}"
            ) from None
        check_site_shape({**site, "log_prob": torch.empty(()).expand(shape)}, float("inf"))


def find_sites(
    model: Trace,
    guide: Trace,
    layout: Layout,
    observed: str | None = None,
    latent: Iterable[str] | None = None,
) -> Sites:
    """Name the data and the latents of a pair from one trace of each.

    Parameters
    ----------
    model, guide : Trace
        A trace of each program, the model's replayed against the guide's.
    layout : Layout
        What `find_layout` says of them.
    observed : str, optional
        The name of the data site; by default the first observed site.
    latent : iterable of str, optional
        The names of the latent sites; by default those of the guide that the model has too.

    Raises
    ------
    ValueError
        If the data site is missing, or a name is no site.
    """
    model_sites, guide_sites = sample_sites(model), sample_sites(guide)
    candidates = tuple(data_sites(model))
    if observed is None:
        if not candidates:
            raise ValueError("the model observes nothing; say which site is the data with VAE(..., observed=NAME)")
        observed = candidates[0]
    elif observed not in model_sites:
        raise ValueError(f"observed={observed!r} is no site of the model; its sites are {sorted(model_sites)}")
    if latent is None:
        drawn = latent_sites(guide)
        latent = tuple(n for n, s in drawn.items() if n not in layout.shared and not (is_auxiliary(s) and n not in model))
        if not drawn:
            raise ValueError("the guide has no sample site, so there is no latent variable to infer")
    latent = tuple(latent)
    for name in latent:
        if name not in guide_sites:
            raise ValueError(f"latent={name!r} is no site of the guide; its sites are {sorted(guide_sites)}")
    shared = tuple(n for n in layout.shared if n not in latent and n in guide_sites and n in model_sites)
    classes = categorical_sites(model_sites, latent)
    return Sites(observed, latent, layout.max_plate_nesting, shared, classes, candidates or (observed,), layout.plates)
