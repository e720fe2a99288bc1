"""Latents that the model sums out: sites marked for enumeration that the guide does not draw."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from opt_einsum import shared_intermediates
from pyro import poutine
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.layout import Layout
from pyrovae.programs import Program
from pyrovae.sites import PARTICLES, Site


def enumerated(model: Program, layout: Layout, max_plate_nesting: int | None = None) -> Program:
    """A model that takes all values of its marked latents at once, in dimensions left of plates and particles.

    Parameters
    ----------
    model : callable
        The model.
    layout : Layout
        Which of its latents are meant.
    max_plate_nesting : int, optional
        Depth of the plates, if it is to be larger than that of `layout`.

    Raises
    ------
    ValueError
        If the model has no plate over the data.
    """
    names = layout.enumerated
    if not names:
        return model
    if not layout.plates:
        raise ValueError(
            f"latent site {names[0]!r} of the model is marked for enumeration, and there is no plate over the data; "
            "put the rows into pyro.plate"
        )
    depth = max(layout.max_plate_nesting, max_plate_nesting or 0, 1)

    def mark(site: Site) -> Any:
        return {"enumerate": "parallel" if site["name"] in names else None, "num_samples": None}

    return poutine.enum(poutine.infer_config(model, mark), first_available_dim=-depth - 2)


def summed_log_prob(
    trace: Trace,
    sites: Mapping[str, Site],
    log_prob: Callable[[Site], Tensor],
    layout: Layout,
    size: int | None,
    num_particles: int | None,
) -> Tensor:
    """The log-probability of sites with the enumerated ones summed out, `[K, B]`.

    Sums and products are those of `TraceEnum_ELBO`, by Pyro's own contraction.

    Parameters
    ----------
    trace : Trace
        A trace of an enumerated model.
    sites : mapping
        Those of its sites that count.
    log_prob : callable
        From a site to its log-probability, with all its batch dimensions.
    layout : Layout
        Which plate is over the data.
    size : int
        Rows B of that plate.
    num_particles : int or None
        The size K of a plate over particles, if there is one.
    """
    trace.symbolize_dims()
    names = {PARTICLES: num_particles or 1} | dict.fromkeys(layout.plates, size)
    tree: OrderedDict[frozenset, list[Tensor]] = OrderedDict()
    sum_dims, kept = set(), {}
    for site in sites.values():
        frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.size > 1]
        symbols = {frame.name: trace.plate_to_symbol[frame.name] for frame in frames}
        kept.update({name: symbol for name, symbol in symbols.items() if name in names})
        if "_enumerate_symbol" in site["infer"]:
            # Unmasked: the probabilities of a value sum to 1 also where a mask hides what depends on it.
            value = site["fn"].log_prob(site["value"])
            sum_dims.add(site["infer"]["_enumerate_symbol"])
        else:
            value = log_prob(site)
        shape = list(value.shape)
        for frame in frames:  # what does not vary within a plate counts for all of it
            shape = [1] * (-frame.dim - len(shape)) + shape
            shape[frame.dim] = frame.size
        ordinal = frozenset(symbols.values())
        tree.setdefault(ordinal, []).append(packed.pack(value.expand(shape), site["infer"]["_dim_to_symbol"]))
    with shared_intermediates() as cache:
        result = contract_to_tensor(tree, sum_dims, target_ordinal=frozenset(kept.values()), cache=cache)
    # Particles first, then rows; a dimension of size 1 has no symbol.
    order = sorted(kept, key=lambda name: name != PARTICLES)
    result = result.permute([result._pyro_dims.index(kept[name]) for name in order])
    if PARTICLES not in kept:
        result = result.unsqueeze(0)
    return result.reshape(-1, size)
