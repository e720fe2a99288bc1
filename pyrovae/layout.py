"""How a pair is laid out: the plate over the data, the data sites, the latents of a datum and those of all data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from pyro.util import check_model_guide_match
from torch import Tensor

from pyrovae.data.rows import holds_rows
from pyrovae.infer.points import draws_of_points
from pyrovae.programs import Program, Traces, trace, trace_pair, trial
from pyrovae.sites import (
    Site,
    categorical_sites,
    check_shapes,
    data_frame,
    data_sites,
    frames_of,
    is_auxiliary,
    is_local,
    is_point,
    latent_sites,
    nodes_of,
    plate_nesting,
    rows_of,
    sample_sites,
)


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
    enumerated: tuple[str, ...] = ()
    """Latents that the model marks for enumeration and the guide does not draw."""
    beside: tuple[str, ...] = ()
    """Draws of the guide that the model does not have and that no latent is a function of.

    Given them the importance weights of the others are right, and their own density has no counterpart, so that
    held-out figures leave it out.
    """
    alone: tuple[str, ...] = ()
    """Those of them whose density makes a loss no bound for certain."""
    joint: tuple[str, ...] = ()
    """Draws of the guide alone, outside the plate over the data, that points of rows are functions of by themselves.

    Not by way of a latent of all data, which is given.
    """


class OutsidePlateError(ValueError):
    """A site has no number per datum."""


def outside_plate(name: str, *, observed: bool, in_model: bool = True) -> str:
    """What is wrong with a site outside the plate over the data, and what to do."""
    if observed:
        kind, advice = "observed", "put it into the plate"
    elif not in_model:
        kind, advice = "latent", "the guide alone draws it; train with 'elbo', 'iwae' or 'vimco'"
    else:
        kind, advice = "latent", f"fix it with condition={{{name!r}: value}}, or train with 'elbo', 'iwae' or 'vimco'"
    return f"{kind} site {name!r} lies outside the plate over the data, so it has no weight per datum; {advice}"


def look_at(
    model: Program,
    guide: Program,
    args: tuple,
    kwargs: Mapping[str, Any],
    traces: Traces | None = None,
) -> Layout:
    """Check a pair on its first data, and find its plate over the data.

    Parameters
    ----------
    model, guide : callable
        The two programs.
    args, kwargs : tuple and mapping
        Arguments of both, the data first.
    traces : Traces, optional
        Traces on these arguments, where there are some.

    Raises
    ------
    ValueError
        If a batch dimension stands in no plate (a forgotten `to_event`), the guide calls a latent otherwise, or
        the plate over the data is ambiguous.
    """
    rows = rows_of(args, kwargs)

    def probe(rows: int) -> tuple[Trace, Trace, int]:
        """Both programs on one row less, or on two rows in place of one."""
        other = rows - 1 or 2

        def cut(value: Any) -> Any:
            if not holds_rows(value, rows):
                return value
            return value[:other] if other < rows else torch.cat([value, value])

        changed = tuple(map(cut, args)), {name: cut(value) for name, value in kwargs.items()}
        return *trace_pair(model, guide, *changed), other

    with trial(model, guide):
        if traces is None:
            traces = trace_pair(model, guide, args, kwargs)
        check_shapes(*traces)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pyro warns of need not be wrong here
            check_model_guide_match(*traces)  # refuses latents of another shape in the guide
        _check_subsamples(model, traces.guide, args, kwargs)
        layout = find_layout(*traces, rows, None if rows is None else partial(probe, rows))
        own, of_points = draws_of_points(guide, *traces, args, kwargs)
        beside = tuple(name for name in own if not any(name in draws for draws in of_points.values()))
        # Whether a point is a function of a draw that has no gradient cannot be seen.
        points = any(is_point(site) for site in latent_sites(traces.guide).values())
        drawn = nodes_of(traces.guide)
        alone = tuple(name for name in beside if drawn[name]["value"].is_floating_point() or not points)
        _check_names(*traces, alone)
        joint: list[str] = []
        if shared := [name for name in own if name in layout.shared and name not in beside]:
            fixed = [name for name in of_points if not is_local(drawn[name], layout.plates)]
            _, of_rows = draws_of_points(guide, *traces, args, kwargs, fixed)
            joint = [name for name in shared if any(name in draws for draws in of_rows.values())]
        return layout._replace(beside=beside, alone=alone, joint=tuple(joint))


def _check_names(model: Trace, guide: Trace, alone: Sequence[str]) -> None:
    """Refuse a latent of the guide under another name than the model's, as after a slip of the pen.

    The model would draw its own latent from the prior, and the loss would be no bound. `alone` are draws of the guide
    that no latent is a function of.

    Raises
    ------
    ValueError
        Naming both.
    """
    missing = [
        name
        for name, site in latent_sites(model).items()
        if name not in guide.nodes
        and site["infer"].get("enumerate") not in ("parallel", "sequential")
        and not name.endswith("_unobserved")  # of obs_mask
    ]
    unmarked = [name for name in alone if not is_auxiliary(nodes_of(guide)[name])]
    if missing and unmarked:
        raise ValueError(
            f"site {unmarked[0]!r} of the guide is no site of the model, and latent site {missing[0]!r} of the model "
            "is missing from the guide; give both one name, or mark a draw of the guide alone with "
            "infer={'is_auxiliary': True}"
        )


class _GivenSubsamples(Messenger):
    """Record the subsamples that a program gives its plates itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) and isinstance(msg["value"], Tensor):
            self.found[msg["name"]] = msg["value"]


def _check_subsamples(model: Program, guide: Trace, args: tuple, kwargs: Mapping[str, Any]) -> None:
    """Refuse a plate that takes other rows in the guide than in the model, which would silently get the guide's.

    Raises
    ------
    ValueError
        Naming the plate.
    """
    plates = {name: node["value"] for name, node in nodes_of(guide).items() if site_is_subsample(node)}
    given = _GivenSubsamples()
    trace(poutine.replay(given(model), trace=guide), args, kwargs)
    for name, value in given.found.items():
        theirs = plates.get(name)
        if isinstance(theirs, Tensor) and value is not theirs and not torch.equal(value, theirs):
            raise ValueError(
                f"the plate {name!r} takes another subsample in the model than in the guide, and Pyro would give the "
                "model that of the guide; give both plates the same subsample="
            )


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
    for name, site in guide_sites.items():
        in_guide, in_model = (data_frame(s, plates) for s in (site, model_sites.get(name, site)))
        if in_guide is not None and in_model is not None and in_guide.dim != in_model.dim:
            raise ValueError(
                f"site {name!r} has its rows in dimension {in_model.dim} in the model and in {in_guide.dim} in the "
                "guide; give both plates over the data the same dim="
            )
    shared = [
        name
        for name, site in {**guide_sites, **model_sites}.items()
        if not site["is_observed"] and not is_local(site, plates)
    ]
    enumerated = tuple(
        name
        for name, site in model_sites.items()
        if not site["is_observed"]
        and name not in guide_sites
        and site["infer"].get("enumerate") == "parallel"
        and getattr(site["fn"], "has_enumerate_support", False)
    )
    shared = [name for name in shared if name not in enumerated]
    return Layout(plates, rows, plate_nesting(model, guide), tuple(shared), enumerated)


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
        around_each = [{f.name for f in frames_of(site)} for site in observed]
        shared: set[str] = set.intersection(*around_each) if around_each else set()
        if len(shared) > 1:
            raise ValueError(
                f"none of the plates {sorted(shared)} has the size of the data, {rows} rows, so it is unknown which "
                "one is over them; take the size of that plate from the data, len(x)"
            )
        return frozenset(shared)
    certain = all(len(suspects & of_program.keys()) <= 1 for of_program in (of_model, of_guide))
    around_data = any(f.name in suspects for site in observed for f in frames_of(site))
    if certain and around_data and _agree(suspects, of_model, of_guide):
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
        latent = tuple(
            n for n, s in drawn.items() if n not in layout.shared and not (is_auxiliary(s) and n not in model)
        )
        if not drawn:
            raise ValueError("the guide has no sample site, so there is no latent variable to infer")
    latent = tuple(latent)
    for name in latent:
        if name not in guide_sites:
            raise ValueError(f"latent={name!r} is no site of the guide; its sites are {sorted(guide_sites)}")
    shared = tuple(n for n in layout.shared if n not in latent and n in guide_sites and n in model_sites)
    classes = categorical_sites(model_sites, latent)
    return Sites(observed, latent, layout.max_plate_nesting, shared, classes, candidates or (observed,), layout.plates)
