"""Objectives by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample

from pyrovae.infer.iwae import IWAE, Renyi
from pyrovae.infer.mean_field import MeanField
from pyrovae.infer.nvil import NVIL
from pyrovae.infer.vimco import VIMCO
from pyrovae.infer.wake_sleep import ReweightedWakeSleep, WakeSleep
from pyrovae.sites import is_auxiliary, latent_sites, nodes_of

_OBJECTIVES: dict[str, Callable[..., ELBO]] = {}


def register_objective(name: str, factory: Callable[..., ELBO]) -> None:
    """Make an objective known by name; `factory` takes the keywords of `pyro.infer.ELBO` and its own."""
    _OBJECTIVES[name] = factory


def objective_names() -> list[str]:
    """The names that `make_objective` knows."""
    return sorted(_OBJECTIVES)


def make_objective(name: str, *, num_particles: int | None = None, **options: Any) -> ELBO:
    """An objective from its name.

    Parameters
    ----------
    name : str
        "elbo" (`Trace_ELBO`: reparameterised and score function), "mean-field" (analytic KL where torch has it, see
        `MeanField`), "graph", "enum" (sums out the sites of the guide that are marked
        `infer={"enumerate": "parallel"}`), "iwae", "iwae-stl", "iwae-dreg", "renyi", "vimco", "nvil", "rws",
        "wake-wake", "wake-sleep" and whatever else is registered.
    num_particles : int, optional
        Draws of the latents per datum; None is the objective's own default.
    **options : Any
        Further arguments of the objective, such as `alpha` of "renyi".

    Raises
    ------
    ValueError
        For an unknown name, or options that the objective does not take.

    Examples
    --------
    >>> type(make_objective("mean-field")).__name__
    'MeanField'
    """
    try:
        factory = _OBJECTIVES[name.replace("_", "-")]
    except KeyError:
        raise ValueError(f"unknown objective {name!r}; known are {', '.join(objective_names())}") from None
    if num_particles is not None:
        options["num_particles"] = num_particles
    try:
        return factory(**options)
    except TypeError as error:
        raise ValueError(f"objective {name!r}: {error}") from None


def check_pyro_objective(objective: ELBO, model: Trace, guide: Trace) -> None:
    """Refuse a pair that an objective of Pyro cannot take, from a trace of each program.

    Raises
    ------
    ValueError
        Naming the site, and an objective that takes the pair.
    """
    if not isinstance(objective, Trace_ELBO | TraceGraph_ELBO | TraceMeanField_ELBO):
        return
    name = type(objective).__name__
    of_model, of_guide = latent_sites(model), latent_sites(guide)
    mean_field, scored = (
        isinstance(objective, TraceMeanField_ELBO),
        not all(s["fn"].has_rsample for s in of_guide.values()),
    )
    for site in of_model.values():
        if site["name"] in of_guide:
            continue
        if site["infer"].get("enumerate") == "parallel":
            raise ValueError(
                f"{name} does not sum latent site {site['name']!r} of the model out, which is marked for enumeration; "
                "use objective='enum', or one with importance weights such as 'iwae'"
            )
        if mean_field or scored or isinstance(objective, TraceGraph_ELBO):
            raise ValueError(f"latent site {site['name']!r} of the model is missing from the guide; draw it there too")
    if not mean_field:
        return
    for site in nodes_of(guide).values():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if site["name"] not in model and not is_auxiliary(site):
            problem = "is no site of the model"
        elif site["name"] in model and site["is_observed"]:
            problem = "is observed there and would be left out"
        elif not site["fn"].has_rsample:
            raise ValueError(
                f"All distributions in the guide must be fully reparameterized for {name}, and site {site['name']!r} "
                "of the guide, which has no reparameterised draws, is not; use objective='elbo'"
            )
        else:
            continue
        raise ValueError(
            f"{name} does not take site {site['name']!r} of the guide, which {problem}; use objective='elbo'"
        )


def _vectorized(factory: Callable[..., ELBO]) -> Callable[..., ELBO]:
    """Pyro's own objectives loop over particles unless told otherwise."""

    def make(*, num_particles: int = 1, **options: Any) -> ELBO:
        options.setdefault("vectorize_particles", num_particles > 1)
        return factory(num_particles=num_particles, **options)

    return make


_pyros: dict[str, Callable[..., ELBO]] = {
    "elbo": Trace_ELBO,
    "mean-field": MeanField,
    "graph": TraceGraph_ELBO,
    "enum": TraceEnum_ELBO,
}
for _name, _factory in _pyros.items():
    register_objective(_name, _vectorized(_factory))

_own: dict[str, Callable[..., ELBO]] = {
    "iwae": IWAE,
    "iwae-stl": partial(IWAE, gradient="stl"),
    "iwae-dreg": partial(IWAE, gradient="dreg"),
    "renyi": Renyi,
    "vimco": VIMCO,
    "nvil": partial(NVIL, baseline="input"),
    "rws": ReweightedWakeSleep,
    "wake-wake": partial(ReweightedWakeSleep, wake_phi=1.0, sleep_phi=0.0),
    "wake-sleep": WakeSleep,
}
for _name, _factory in _own.items():
    register_objective(_name, _factory)
