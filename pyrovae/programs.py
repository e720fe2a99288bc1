"""What a Pyro program shows from outside: its arguments, its sites, its modules and its parameters."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.distributions.util import scale_and_mask
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Categorical

Program = Callable[..., Any]


class Sites(NamedTuple):
    """The sites of a pair: what the data is called, what the latents are called, and how deep the plates go."""

    observed: str
    latent: tuple[str, ...]
    max_plate_nesting: int
    shared: tuple[str, ...] = ()
    """Latents that belong to no datum, see `is_global`; not among `latent`."""
    classes: tuple[str, ...] = ()
    """Those of `latent` that are categorical in the model."""


def is_deterministic(site: Mapping[str, Any]) -> bool:
    """Whether a trace site was written by `pyro.deterministic`."""
    return bool(site["infer"].get("_deterministic"))


def objective_term(name: str, value: Tensor) -> None:
    """Add a term to the objective of the pair, in a guide: a factor that is no part of the density of the latents.

    Every ELBO adds `value`, differentiable in the guide. Log weights leave it out, those of this library's objectives
    aside, and no KL weight applies to it.

    Args:
        name: the name of its site.
        value: one number for each datum (and particle), in nats; call it inside the plate over the data.
    """
    # `pyro.factor` with a mark, and with the sign that a guide's factors have.
    unit = Unit(-value, has_rsample=True)
    pyro.sample(name, unit, obs=unit.sample(), infer={"is_auxiliary": True, "objective_term": True})


def is_objective_term(site: Mapping[str, Any]) -> bool:
    """Whether a trace site was written by `objective_term`."""
    return bool(site["infer"].get("objective_term"))


def is_global(site: Mapping[str, Any]) -> bool:
    """Whether a site is marked, by `infer={"is_global": True}`, as a latent of all data together, outside their plate.

    Such a site is left out of what is said of a single datum; there it has its posterior mean (`global_means`).
    """
    return bool(site["infer"].get("is_global"))


def global_means(guide: Program, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    """The mean of every site of the guide that is marked as global, by name; draws nothing from the caller's numbers.

    Raises:
        ValueError: for a site whose distribution has no mean of its own kind.
    """
    with torch.no_grad(), torch.random.fork_rng():
        sites = sample_sites(poutine.trace(guide).get_trace(*args, **kwargs))
    means = {}
    for name, site in sites.items():
        if is_global(site):
            if not site["fn"].has_rsample:
                raise ValueError(
                    f"global site {name!r} has no mean that it can take; give condition={{{name!r}: value}}"
                )
            means[name] = site["fn"].mean
    return means


def sample_sites(trace: Trace) -> dict[str, dict[str, Any]]:
    """The sample sites of a trace by name, without subsampling and deterministic ones."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site) and not is_deterministic(site)
    }


def plate_nesting(*traces: Trace) -> int:
    """The number of batch dimensions that the plates of the traces take."""
    dims = [
        frame.dim
        for trace in traces
        for site in sample_sites(trace).values()
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    ]
    return -min(dims) if dims else 0


def find_sites(model: Trace, guide: Trace, observed: str | None = None, latent: Iterable[str] | None = None) -> Sites:
    """Name the data and the latents of a pair from one trace of each.

    Args:
        model: a trace of the model, replayed against `guide`.
        guide: a trace of the guide.
        observed: the name of the data site; by default the only observed site.
        latent: the names of the latent sites; by default the sites of the guide, factors aside.

    Raises:
        ValueError: if the data site is ambiguous or missing, or a name is no site.
    """
    model_sites, guide_sites = sample_sites(model), sample_sites(guide)
    candidates = [name for name, site in model_sites.items() if site["is_observed"]]
    if observed is None:
        if len(candidates) != 1:
            found = f"observes {', '.join(map(repr, candidates))}" if candidates else "observes nothing"
            raise ValueError(f"the model {found}; say which site is the data with VAE(..., observed=NAME)")
        observed = candidates[0]
    elif observed not in model_sites:
        raise ValueError(f"observed={observed!r} is no site of the model; its sites are {sorted(model_sites)}")
    if latent is None:
        latent = tuple(n for n, site in guide_sites.items() if not site["is_observed"] and not is_global(site))
        if not latent:
            raise ValueError("the guide has no sample site, so there is no latent variable to infer")
    latent = tuple(latent)
    for name in latent:
        if name not in guide_sites:
            raise ValueError(f"latent={name!r} is no site of the guide; its sites are {sorted(guide_sites)}")
    shared = tuple(name for name, site in guide_sites.items() if is_global(site) and name not in latent)
    return Sites(observed, latent, plate_nesting(model, guide), shared, categorical_sites(model_sites, latent))


def categorical_sites(sites: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names whose trace site has a categorical distribution."""
    return tuple(name for name in names if name in sites and isinstance(sites[name]["fn"], Categorical))


def accepts(program: Program, argument: str) -> bool:
    """Whether a program takes an argument of this name (or any keyword)."""
    function = program.forward if isinstance(program, nn.Module) else program
    parameters = inspect.signature(function).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def runs_without_data(program: Program) -> bool:
    """Whether a program has the argument `size` of the library's signature (any keyword does not count)."""
    function = program.forward if isinstance(program, nn.Module) else program
    return "size" in inspect.signature(function).parameters


def keywords(*programs: Program, **data: Tensor | None) -> dict[str, Tensor]:
    """Those of `mask`, `y`, `index` that are given.

    Raises:
        TypeError: if one of the programs has no argument for one that is given.
    """
    given = {name: value for name, value in data.items() if value is not None}
    for name in given:
        for program in programs:
            if not accepts(program, name):
                raise TypeError(f"{name}= was given, but {describe(program)} takes no argument {name!r}")
    return given


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in which a module is in evaluation mode, so that a trial run leaves its running statistics alone."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def describe(program: Program) -> str:
    """A short name of a program for messages."""
    if isinstance(program, nn.Module):
        return type(program).__name__
    return getattr(program, "__qualname__", repr(program))


def owned_modules(program: Program) -> dict[str, nn.Module]:
    """The modules a program works with, by name.

    A module owns itself, a bound method belongs to its object, a function to the modules it names (its closure and
    the globals it refers to), `functools.partial` to those of its function and arguments.
    """
    if isinstance(program, nn.Module):
        return {"": program}
    if isinstance(program, functools.partial):
        found = owned_modules(program.func)
        values = [*program.args, *program.keywords.values()]
        return found | {f"argument{i}": v for i, v in enumerate(values) if isinstance(v, nn.Module)}
    if isinstance(program, types.MethodType):
        owner = program.__self__
        return {"": owner} if isinstance(owner, nn.Module) else _modules_of(vars(owner))
    if isinstance(program, types.FunctionType):
        variables = inspect.getclosurevars(program)
        return _modules_of({**variables.globals, **variables.nonlocals})
    return _modules_of(vars(program)) if hasattr(program, "__dict__") else {}


def is_function_of_modules(program: Program) -> bool:
    """Whether a program is a function, perhaps a partial one, whose modules no copy of it would replace."""
    if isinstance(program, functools.partial):
        return is_function_of_modules(program.func)
    return isinstance(program, types.FunctionType) and bool(owned_modules(program))


def _modules_of(namespace: Mapping[str, Any]) -> dict[str, nn.Module]:
    return {name: value for name, value in namespace.items() if isinstance(value, nn.Module)}


def module_parameters(program: Program) -> dict[str, nn.Parameter]:
    """The parameters of a program under the names they get in Pyro's parameter store."""
    if not isinstance(program, PyroModule):
        return {}
    names = {}
    for name, parameter in program.named_parameters():
        first, _, rest = name.partition(".")
        child = getattr(program, first)
        plain = isinstance(child, nn.Module) and not isinstance(child, PyroModule)
        names[f"{first}$$${rest}" if plain else name.removesuffix("_unconstrained")] = parameter
    return names


def check_names(model: Mapping[str, Tensor], guide: Mapping[str, Tensor]) -> None:
    """Refuse two different parameters of one name, of which Pyro would keep a single one.

    Raises:
        ValueError: naming the parameter.
    """
    for name in model.keys() & guide.keys():
        if model[name] is guide[name]:
            continue
        in_modules = isinstance(model[name], nn.Parameter) or isinstance(guide[name], nn.Parameter)
        if in_modules or model[name].shape != guide[name].shape:
            raise ValueError(
                f"model and guide both have a parameter {name!r}, and they are different tensors; Pyro's parameter "
                "store would keep one of the two and the other would stop training: rename one of the attributes"
            )


def find_non_finite(model: Program, guide: Program, *args: Any, **kwargs: Any) -> str:
    """Say in a phrase where a pair first goes wrong: a parameter, or a site and what is wrong there."""
    with torch.no_grad(), pyro.validation_enabled(False):
        for label, program in (("guide", guide), ("model", model)):
            for name, module in owned_modules(program).items():
                for parameter_name, parameter in module.named_parameters(prefix=name):
                    if not parameter.isfinite().all():
                        return f"parameter {parameter_name!r} of the {label}"
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        for label, trace in (("guide", guide_trace), ("model", model_trace)):
            for name, site in trace.nodes.items():
                if site["type"] == "param" and not site["value"].isfinite().all():
                    return f"parameter {name!r} of the {label}"
            for name, site in sample_sites(trace).items():
                # Not the values at once: what a mask hides may be anything.
                if not scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"]).sum().isfinite():
                    what = "log-probability" if site["value"].isfinite().all() else "value"
                    return f"site {name!r} of the {label}, whose {what} is not finite"
    return "no single site: the loss itself is not finite"


def with_param_site(program: Program, parameters: Iterable[nn.Parameter]) -> Program:
    """A program with one param site, since Pyro's objectives differentiate nothing where a pair has none.

    Plain `nn.Module`s that nobody hands to `pyro.module` make no such site.

    Args:
        program: a model or a guide.
        parameters: parameters of the pair, of which one that is trained gets the site.
    """
    anchor = next(parameter for parameter in parameters if parameter.requires_grad)

    def anchored(*args: Any, **kwargs: Any) -> Any:
        pyro.param("pyrovae.anchor", anchor)
        return program(*args, **kwargs)

    return anchored
