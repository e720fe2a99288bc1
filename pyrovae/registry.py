"""Pairs by name, with options that a command line can show."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyrovae.vae import VAE

Builder = Callable[..., VAE]


@dataclass(frozen=True)
class Option:
    """One option of a pair: a keyword argument of its builder."""

    name: str
    type: Callable[[str], Any]
    default: Any
    help: str
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Pair:
    """A way to make a VAE, known by name.

    Args:
        name: a registered name, or `module:function` for a user's own.
        summary: one line.
        builder: makes the VAE; takes the data set as argument `dataset` if it has one, and options as keywords.
        training: arguments of the Trainer that suit this pair, where they differ from its defaults.
        own: whether this is a user's own pair.
    """

    name: str
    summary: str
    builder: Builder
    training: Mapping[str, Any] = field(default_factory=dict)
    own: bool = False

    @property
    def options(self) -> list[Option]:
        """The builder's keyword arguments with a default that fits on a command line."""
        hints = typing.get_type_hints(self.builder, include_extras=True)
        found = []
        for parameter in inspect.signature(self.builder).parameters.values():
            if parameter.name != "dataset" and parameter.kind is not parameter.VAR_KEYWORD:
                option = _option(parameter, hints.get(parameter.name))
                if option is not None:
                    found.append(option)
        return found

    def build(self, dataset: Any, **options: Any) -> VAE:
        """Make the VAE for a data set.

        Raises:
            ValueError: for an option that the pair does not have.
            TypeError: if the builder returns no VAE.
        """
        parameters = inspect.signature(self.builder).parameters
        for name in options:
            if name not in parameters:
                known = ", ".join(option.name for option in self.options) or "none"
                raise ValueError(f"pair {self.name!r} has no option {name!r}; it has {known}")
        arguments = {"dataset": dataset} if "dataset" in parameters else {}
        vae = self.builder(**arguments, **options)
        if not isinstance(vae, VAE):
            raise TypeError(f"{self.name} must return a pyrovae.VAE, got {type(vae).__name__}")
        return vae


_PAIRS: dict[str, Pair] = {}


def register_pair(name: str, *, summary: str, **training: Any) -> Callable[[Builder], Builder]:
    """Enter a builder as a pair; keywords are arguments of the Trainer that suit it."""

    def enter(builder: Builder) -> Builder:
        _PAIRS[name] = Pair(name, summary, builder, training)
        return builder

    return enter


def pairs() -> list[Pair]:
    """All registered pairs by name."""
    import pyrovae.pairs  # noqa: F401  its modules register themselves

    return [_PAIRS[name] for name in sorted(_PAIRS)]


def find_pair(name: str) -> Pair:
    """A pair by its registered name, or a user's own by `module:function`, imported from the working directory.

    Raises:
        ValueError: listing the known names, or saying why the function cannot be had.
    """
    if ":" in name:
        return _own_pair(name)
    known = {pair.name: pair for pair in pairs()}
    try:
        return known[name.replace("_", "-")]
    except KeyError:
        raise ValueError(
            f"unknown pair {name!r}; known are {', '.join(known)}, or module:function for one of your own"
        ) from None


def _own_pair(name: str) -> Pair:
    module_name, _, function_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise ValueError(f"{module_name} needs the module {error.name!r}, which is not installed") from None
        raise ValueError(f"there is no module {module_name!r} in the working directory or installed") from None
    builder = getattr(module, function_name, None)
    if not callable(builder):
        raise ValueError(f"module {module_name!r} has no function {function_name!r}")
    return Pair(name, (inspect.getdoc(builder) or "").partition("\n")[0], builder, own=True)


def _option(parameter: inspect.Parameter, hint: Any) -> Option | None:
    text = ""
    if typing.get_origin(hint) is typing.Annotated:
        hint, text = typing.get_args(hint)[:2]
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    choices: tuple[str, ...] | None = None
    if typing.get_origin(hint) is typing.Literal:
        choices, hint = typing.get_args(hint), str
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if hint is None:
        hint = str if default is None else type(default)
    elif typing.get_origin(hint) is tuple:
        hint = tuple
    elif arguments:
        hint = arguments[0]
    kinds = {int: int, float: float, str: str, bool: bool, tuple: integers}
    if hint not in kinds:
        return None
    return Option(parameter.name, kinds[hint], default, text, choices)


def integers(text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas.

    >>> integers("300,300")
    (300, 300)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"expected whole numbers separated by commas, got {text!r}") from None
