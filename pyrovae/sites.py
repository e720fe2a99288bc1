"""What a trace of a Pyro program shows: its sites, and the roles they play."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, ExpandedDistribution, MaskedDistribution, Unit
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import Categorical, OneHotCategorical

Site = Mapping[str, Any]
PARTICLES = "num_particles_vectorized"
"""The name of the plate over particles, which is Pyro's own."""


def nodes_of(trace: Trace) -> Mapping[str, Any]:
    """The nodes of a finished trace by name, which have their values, as Pyro's types of them do not say."""
    return trace.nodes


def is_deterministic(site: Site) -> bool:
    """Whether a trace site was written by `pyro.deterministic`, or as such by a reparameterizer of Pyro."""
    if site["infer"].get("_deterministic"):
        return True
    return bool(site["is_observed"]) and is_point(site) and any(mask is False for mask in masks_of(site))


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


def name_of(fn: Any) -> str:
    """The name of the kind of a distribution, whatever it is expanded, masked or declared independent by."""
    return type(within(fn)).__name__


def within(fn: Any) -> Any:
    """A distribution without what expands, masks or declares it independent."""
    while isinstance(fn, torch.distributions.Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def masks_of(site: Site) -> list[Any]:
    """The masks of a site, of its handlers and of its distribution, those aside that hide nothing."""
    found, fn = [site["mask"]], site["fn"]
    while fn is not None:
        found.append(getattr(fn, "_mask", None))
        fn = getattr(fn, "base_dist", None)
    return [mask for mask in found if mask is not None and mask is not True]


def masked_alike(first: Site, second: Site) -> bool:
    """Whether two sites are masked alike."""
    ours, theirs = masks_of(first), masks_of(second)
    return len(ours) == len(theirs) and all(map(_same_mask, ours, theirs))


def _same_mask(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return bool((first == second).all())
    return first is second


def sample_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The sample sites of a trace by name, without subsampling and deterministic ones."""
    return {
        name: site
        for name, site in nodes_of(trace).items()
        if site["type"] == "sample" and not site_is_subsample(site) and not is_deterministic(site)
    }


def latent_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The sample sites of a trace that are not observed."""
    return {name: site for name, site in sample_sites(trace).items() if not site["is_observed"]}


def data_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The observed sites of a trace, factors aside."""
    return {name: s for name, s in sample_sites(trace).items() if s["is_observed"] and not is_factor(s)}


def categorical_sites(sites: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names whose trace site has a categorical distribution, over numbers or one-hot vectors."""
    kinds = Categorical | OneHotCategorical
    return tuple(name for name in names if name in sites and isinstance(sites[name]["fn"], kinds))


def rows_of(args: tuple, kwargs: Mapping[str, Any]) -> int | None:
    """The number of rows of the data: the length of the first tensor among the arguments."""
    first = args[0] if args else kwargs.get("x")
    return first.shape[0] if isinstance(first, Tensor) and first.dim() else None


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


def check_rows(sites: Iterable[Site], plates: Collection[str], rows: int, *, exactly: bool = False) -> None:
    """Refuse sites of a plate over the data that has something else than the rows that are asked for.

    A plate of a size of its own, where `x` does not have the rows first, is let through unless `exactly` is given.

    Raises
    ------
    ValueError
        Naming the plate.
    """
    for site in sites:
        frame = data_frame(site, plates)
        if frame is None:
            continue
        if not frame.vectorized:
            raise ValueError(
                f"the plate {frame.name!r} over the data is sequential, so that site {site['name']!r} is of a single "
                "row; write the plate as a with statement, or train with an ELBO of Pyro alone"
            )
        if frame.size != rows and frame.size < frame.full_size:
            raise ValueError(
                f"the plate {frame.name!r} draws {frame.size} of {frame.full_size} rows by itself, so there is "
                f"nothing for each of the {rows} rows of x; train such a pair, and write one that takes all rows "
                "to encode and reconstruct"
            )
        if exactly and frame.size != rows:
            raise ValueError(
                f"the plate {frame.name!r} over the data holds {frame.size} rows, and {rows} are asked for; take the "
                "size of that plate from the data, len(x), or give the rows that a guide with a value for each one, as "
                "AutoNormal is, was trained on"
            )


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


def refuse_subsamples(sites: Iterable[Site], plates: Collection[str], what: str, way_out: str = "") -> None:
    """Refuse sites of which a plate draws some elements of a datum, where the whole datum counts.

    Parameters
    ----------
    sites : iterable of mapping
        Sites of traces.
    plates : collection of str
        The plates over the data, which may draw rows.
    what : str
        What there is none of, for the message.
    way_out : str, default ""
        What else to do than give all elements, for the message.

    Raises
    ------
    ValueError
        Naming the plate.
    """
    for site in sites:
        for frame in frames_of(site):
            if frame.full_size != frame.size and frame.name not in plates:
                raise ValueError(
                    f"the plate {frame.name!r} around site {site['name']!r} draws {frame.size} of {frame.full_size} "
                    f"elements of a datum, so there is no {what}; give all of them{way_out}"
                )


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
        message: Any = {**site, "log_prob": torch.empty(()).expand(shape)}
        try:
            check_site_shape(message, sys.maxsize)
        except ValueError as error:
            frames = {frame.dim: frame.size for frame in frames_of(site) if frame.vectorized}
            expected = [frames.get(dim, 1) for dim in range(min(frames, default=0), 0)]
            raise ValueError(
                f'at site "{site["name"]}", invalid log_prob shape: expected {expected} by its plates, '
                f"actual {list(shape)}; put the other dimensions into .to_event() or a pyro.plate"
            ) from error
