"""What a Pyro program shows from outside: its arguments, its modules and its parameters; and how a pair is traced."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.rng import forked
from pyrovae.sites import is_deterministic, is_factor, nodes_of, sample_sites

Program = Callable[..., Any]
_CLASH = re.compile(r"Multiple \w+ sites named '(?P<twice>.+)'|site (?P<other>\S+) must be sampled in trace")


class Traces(NamedTuple):
    """A trace of each program of a pair, the model's replayed against the guide's."""

    model: Trace
    guide: Trace


IN_A_PROGRAM = "raised while a program ran"
"""Note of an error that `trace` passes on."""


def trace(program: Program, args: tuple = (), kwargs: Mapping[str, Any] | None = None) -> Trace:
    """Run a program and return its trace.

    What a program raises comes without the shapes of all its sites, which Pyro writes below it.

    Raises
    ------
    ValueError
        If names of sites clash.
    """
    try:
        return poutine.trace(program).get_trace(*args, **(kwargs or {}))
    except (RuntimeError, ValueError) as error:
        clash = _CLASH.match(str(error)) if isinstance(error, RuntimeError) else None
        if clash is None:
            text, below, _ = str(error).partition("Trace Shapes:")
            if below:
                error.args = (text.rstrip(),)
                error.add_note(IN_A_PROGRAM)
            raise
        name = clash["twice"] or clash["other"]
        raise ValueError(
            f"site {name!r} of {describe(program)} shares its name with another site, a plate or a parameter; give "
            "each a name of its own, and make a plate that is opened twice only once, plate = pyro.plate(...)"
        ) from error


def trace_pair(
    model: Program,
    guide: Program,
    args: tuple = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    drawn: Trace | None = None,
) -> Traces:
    """Run the guide and, with its draws, the model.

    Every figure and every objective starts from here.

    Parameters
    ----------
    model, guide : callable
        The two programs.
    args, kwargs : tuple and mapping
        Arguments of both.
    drawn : Trace, optional
        A trace of the guide that there is already; otherwise the guide is run.
    """
    if drawn is None:
        drawn = trace(guide, args, kwargs)
    return Traces(trace(poutine.replay(model, trace=drawn), args, kwargs), drawn)


def conditioned(model: Program, guide: Program, condition: Mapping[str, Tensor] | None) -> tuple[Program, Program]:
    """The two programs with some latents fixed, whose densities are left out of the guide."""
    if not condition:
        return model, guide
    # The guide's other sites may depend on the fixed ones, so they get the value before they are hidden.
    fixed_guide = poutine.block(poutine.condition(guide, data=dict(condition)), hide=list(condition))
    return poutine.condition(model, data=dict(condition)), fixed_guide


class Unconditioned(Messenger):
    """Draw observed sites from their distributions, as `poutine.uncondition` does; what is no draw stays as it is.

    Pyro's own handler draws `pyro.deterministic` sites too, which a plate expands, and factors.

    Parameters
    ----------
    site : str, optional
        The only site to draw; None means all of them.
    """

    def __init__(self, site: str | None = None) -> None:
        super().__init__()
        self.site = site

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if self.site is not None and msg["name"] != self.site:
            return
        if msg["is_observed"] and not is_deterministic(msg) and not is_factor(msg):
            msg["infer"] = {**(msg["infer"] or {}), "was_observed": True, "obs": msg["value"]}
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def unconditioned(program: Program, site: str | None = None) -> Program:
    """A program that draws its data, or those of one site."""
    return Unconditioned(site)(program)


@contextmanager
def trial(*programs: Program) -> Iterator[None]:
    """A context for runs that must leave nothing behind.

    No gradients, none of the caller's random numbers, running statistics and parameter store as they were.
    """
    store = pyro.get_param_store()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(forked())
        for module in {id(m): m for program in programs for m in owned_modules(program).values()}.values():
            stack.enter_context(evaluating(module))
        stack.enter_context(store.scope(store.get_state()))
        yield


def _signature(program: Program) -> Mapping[str, inspect.Parameter]:
    """The parameters of a program, behind the handlers and decorators that it is wrapped in."""
    function = program.forward if isinstance(program, nn.Module) else program
    if isinstance(function, functools.partial) and (handled := _wrapped(function)) is not None:
        return _signature(handled)  # Python reads no signature of a plate as a decorator
    parameters = inspect.signature(function).parameters
    inner = _wrapped(function)
    if inner is not None and all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return _signature(inner)
    return parameters


def _wrapped(function: Any) -> Program | None:
    """The program that a handler of Pyro or a decorator has around it, if it is one."""
    if isinstance(function, functools.partial):
        handled = len(function.args) > 1 and isinstance(function.args[0], Messenger)
        return function.args[1] if handled else None
    if isinstance(function, types.FunctionType):
        inside = [v for v in inspect.getclosurevars(function).nonlocals.values() if _is_program(v)]
        return inside[0] if len(inside) == 1 else None
    return None


def _is_program(value: Any) -> bool:
    return isinstance(value, types.FunctionType | types.MethodType | functools.partial)


def accepts(program: Program, argument: str) -> bool:
    """Whether a program names an argument; that it takes any keyword does not count."""
    parameter = _signature(program).get(argument)
    return parameter is not None and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


def argument_names(program: Program, *, positional: bool = False) -> list[str]:
    """The arguments that a program names, in their order; perhaps those alone that can be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = kinds if positional else (*kinds, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in _signature(program).items() if parameter.kind in taken]


def required_arguments(program: Program) -> list[str]:
    """The named arguments that a program cannot be called without."""
    parameters = _signature(program)
    return [name for name in argument_names(program) if parameters[name].default is inspect.Parameter.empty]


def takes_any_keyword(program: Program) -> bool:
    """Whether a program has an argument such as `**options`."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in _signature(program).values())


def runs_without_data(program: Program) -> bool:
    """Whether a program has the argument `size` of the library's signature (any keyword does not count)."""
    return accepts(program, "size")


def keywords(*programs: Program, **data: Tensor | None) -> dict[str, Tensor]:
    """Those of `mask`, `y`, `index` that are given.

    Raises
    ------
    TypeError
        If one of the programs has no argument for one that is given, or needs another one beside the data. Any keyword
        of a program will do here, because the caller named it.
    """
    given = {name: value for name, value in data.items() if value is not None}
    for name in given:
        for program in programs:
            if not accepts(program, name) and not takes_any_keyword(program):
                raise TypeError(f"{name}= was given, but {describe(program)} takes no argument {name!r}")
    for program in programs:
        missing = [name for name in required_arguments(program)[1:] if name not in given]
        if missing:
            note = " (numbers of training rows; held-out rows have none)" if missing[0] == "index" else ""
            raise TypeError(f"{describe(program)} needs the argument {missing[0]!r}; give {missing[0]}={note}")
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
    the globals it refers to), `functools.partial` to those of its function and arguments. Handlers, decorators,
    lambdas and functions of the same file are looked through.
    """
    if isinstance(program, nn.Module):
        return {"": program}
    found: dict[str, nn.Module] = {}
    _collect(program, found, set())
    return found


def _collect(program: Program, found: dict[str, nn.Module], seen: set[int]) -> None:
    """Add the modules of a program, and of the programs it refers to."""
    if id(program) in seen:
        return
    seen.add(id(program))
    for name, value in _references(program).items():
        if isinstance(value, nn.Module):
            if not any(value is module for module in found.values()):
                found[name if name not in found else f"{name}_{len(found)}"] = value
        elif _is_program(value):
            _collect(value, found, seen)


def _references(program: Program) -> dict[str, Any]:
    """What a program refers to, by name: modules, other programs, and anything else."""
    if isinstance(program, functools.partial):
        values = [*program.args, *program.keywords.values()]
        owned = {f"argument{i}": v for i, v in enumerate(v for v in values if isinstance(v, nn.Module))}
        others = {f"program{i}": v for i, v in enumerate([program.func, *values]) if not isinstance(v, nn.Module)}
        return others | owned
    if isinstance(program, types.MethodType):
        owner = program.__self__
        return {"": owner} if isinstance(owner, nn.Module) else dict(vars(owner))
    if isinstance(program, types.FunctionType):
        variables = inspect.getclosurevars(program)
        # Functions of other files are a library's.
        named = {n: v for n, v in variables.globals.items() if getattr(v, "__module__", None) == program.__module__}
        modules = {n: v for n, v in variables.globals.items() if isinstance(v, nn.Module)}
        return {**modules, **named, **variables.nonlocals}
    return dict(vars(program)) if hasattr(program, "__dict__") else {}


def is_function_of_modules(program: Program) -> bool:
    """Whether a program is a function, perhaps a wrapped one, whose modules no copy of it would replace."""
    if isinstance(program, functools.partial):
        inside = [program.func, *program.args, *program.keywords.values()]
        return any(is_function_of_modules(value) for value in inside if _is_program(value))
    return isinstance(program, types.FunctionType) and bool(owned_modules(program))


def module_parameters(program: Program) -> dict[str, nn.Parameter]:
    """The parameters of a program under the names they get in Pyro's parameter store."""
    if not isinstance(program, PyroModule):
        return {}
    names = {}
    prefix = f"{program._pyro_name}." if program._pyro_name else ""  # of a part of another PyroModule
    for name, parameter in program.named_parameters():
        first, _, rest = name.partition(".")
        child = getattr(program, first)
        plain = isinstance(child, nn.Module) and not isinstance(child, PyroModule)
        names[prefix + (f"{first}$$${rest}" if plain else name.removesuffix("_unconstrained"))] = parameter
    return names


def check_names(model: Mapping[str, Tensor], guide: Mapping[str, Tensor]) -> None:
    """Refuse two different parameters of one name, of which Pyro would keep a single one.

    Raises
    ------
    ValueError
        Naming the parameter.
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
        traces = trace_pair(model, guide, args, kwargs)
        for label, found in (("guide", traces.guide), ("model", traces.model)):
            for name, site in nodes_of(found).items():
                if site["type"] == "param" and not site["value"].isfinite().all():
                    return f"parameter {name!r} of the {label}"
            for name, site in sample_sites(found).items():
                # Not the values at once: what a mask hides may be anything.
                if not scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"]).sum().isfinite():
                    what = "log-probability" if site["value"].isfinite().all() else "value"
                    return f"site {name!r} of the {label}, whose {what} is not finite"
    return "no single site: the loss itself is not finite"


def with_param_site(program: Program, parameters: Iterable[nn.Parameter]) -> Program:
    """A program with one param site, since Pyro's objectives differentiate nothing where a pair has none.

    Plain `nn.Module`s that nobody hands to `pyro.module` make no such site.

    Parameters
    ----------
    program : callable
        A model or a guide.
    parameters : iterable of nn.Parameter
        Parameters of the pair, of which one that is trained gets the site.
    """
    anchor = next(parameter for parameter in parameters if parameter.requires_grad)

    def anchored(*args: Any, **kwargs: Any) -> Any:
        pyro.param("pyrovae.anchor", anchor)
        return program(*args, **kwargs)

    return anchored


class _Unshown:
    """A module as a program whose parameters no handler sees."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return nn.Module.__call__(self.module, *args, **kwargs)  # without the context in which they become sites


def without_param_sites(program: Program) -> Program:
    """A program without the param sites that Pyro makes of a module's parameters, if it is a module of this library.

    Another program may count on them, with a handler for instance that makes random variables of parameters.
    """
    if not isinstance(program, PyroModule) or type(program).__module__.partition(".")[0] != "pyrovae":
        return program
    if program._pyro_params or program._pyro_samples:
        return program
    return program if sum(isinstance(part, PyroModule) for part in program.modules()) > 1 else _Unshown(program)
