"""Pairs by name, with options that a command line can show."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any

from pyrovae.data.arrays import described
from pyrovae.data.dataset import Dataset, DataSpec, Rows
from pyrovae.options import Option, integers, is_own
from pyrovae.pairs.needs import Needs, defaults_of, idle, refuse_idle, refusing
from pyrovae.plain import plain
from pyrovae.vae import VAE, MadeBy

if TYPE_CHECKING:
    from pyrovae.pairs.finishing import Finishing

Builder = Callable[..., VAE]


@dataclass(frozen=True)
class Pair:
    """A way to make a VAE, known by name.

    Get one from `find_pair`, and make the VAE with `build`.

    Parameters
    ----------
    name : str
        A registered name, or ``module:function`` for one of the user's own.
    summary : str
        One line on what it is.
    builder : callable
        Makes the VAE. It gets the `DataSpec` as argument `spec` and the training rows as `rows`, if it has these
        arguments, and options as keywords.
    training : mapping of str to Any, default {}
        Arguments of the Trainer that suit this pair, where they differ from the defaults.
    own : bool, default False
        Whether this is one of the user's own.
    data_kind : str, optional
        The kind of data that the pair is for. Files are read as data of this kind, where nothing else is asked for.
    epochs : callable from (int, int) to int, optional
        The number of epochs that suits a number of training rows and a batch size. None suits a fixed number.
    finishing : Finishing, optional
        What follows the training of a run.
    needs : sequence of Needs, default ()
        What options need to have an effect.

    Examples
    --------
    >>> find_pair("gaussian").options[0].name
    'latent_dim'
    """

    name: str
    summary: str
    builder: Builder
    training: Mapping[str, Any] = field(default_factory=dict)
    own: bool = False
    data_kind: str | None = None
    epochs: Callable[[int, int], int] | None = None
    finishing: Finishing | None = None
    needs: Sequence[Needs] = ()

    @property
    def options(self) -> list[Option]:
        """The arguments of the builder that fit on a command line: numbers, texts, switches and lists of integers.

        Raises
        ------
        ValueError
            The annotations of the builder cannot be read.
        """
        try:
            signature = inspect.signature(self.builder, eval_str=True)
        except Exception as error:  # annotations are expressions, which may raise anything
            raise ValueError(f"the arguments of {self.name} cannot be read: {_in_words(error)}") from error
        found = (
            _option(p)
            for p in signature.parameters.values()
            if p.name not in ("spec", "rows") and p.kind in _BY_KEYWORD
        )
        return [option for option in found if option is not None]

    @property
    def all_options(self) -> list[Option]:
        """These options, and those of what follows the training of a run."""
        return [*self.options, *(() if self.finishing is None else self.finishing.options)]

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that have no effect whatever the data are, before the data are read.

        Raises
        ------
        ValueError
            An option differs from its default and has no effect.
        """
        refuse_idle(self.needs, plain(dict(options)), defaults_of(self.builder), None)

    def without_idle(self, options: Mapping[str, Any], spec: DataSpec) -> dict[str, Any]:
        """Options without those that have no effect, which earlier versions took and made nothing of.

        Parameters
        ----------
        options : mapping of str to Any
            Options of a run that is there.
        spec : DataSpec
            What its data are.

        Returns
        -------
        dict of str to Any
            Those of them that `build` takes.
        """
        without = idle(self.needs, options, defaults_of(self.builder), spec) if self.needs else {}
        return {name: value for name, value in options.items() if name not in without}

    def build(self, data: Any, **options: Any) -> VAE:
        """Make the VAE for data of some kind.

        Parameters
        ----------
        data : Dataset, DataSpec, Rows, Tensor, ndarray or DataFrame
            The data, or what a builder needs to know of them. A `Dataset` also gives its training rows, for initial
            values. A `DataSpec` is enough for a VAE whose weights are read from a file next. Of rows alone the kind is
            found from the values, and told in the log; `Rows` may have labels.
        **options
            Options of the pair, see `options`.

        Returns
        -------
        VAE
            The VAE. It knows how it was made (`VAE.made_by`), so that `VAE.save` can write it down.

        Raises
        ------
        ValueError
            The pair does not have such an option, one that was given would have no effect, or a builder of the user's
            own fails.
        TypeError
            The builder does not return a VAE, or an option of a pair of this library has a value of another type.
        """
        parameters = inspect.signature(self.builder).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in options:
            if name not in parameters and not open_ended:
                known = ", ".join(option.name for option in self.options) or "none"
                raise ValueError(f"pair {self.name!r} has no option {name!r}; it has {known}")
        options = plain(options)
        ours = inspect.unwrap(self.builder).__module__.startswith("pyrovae.")  # others may take more than a hint says
        for option in self.options if ours else ():
            _check_type(option, options.get(option.name))
        # A builder that asks for neither is called without data, too.
        spec, rows = _known_of(data) if data is not None or parameters.keys() & {"spec", "rows"} else (None, None)
        arguments = {name: value for name, value in (("spec", spec), ("rows", rows)) if name in parameters}
        try:
            vae = self.builder(**arguments, **options)
        except Exception as error:
            if not self.own:
                raise
            raise ValueError(f"{self.name} failed: {_in_words(error)}") from error
        if not isinstance(vae, VAE):
            raise TypeError(f"{self.name} must return a pyrovae.VAE, got {type(vae).__name__}")
        if spec is not None:
            vae.made_by = MadeBy(self.name, dict(options), spec)
        return vae


def _check_type(option: Option, value: Any) -> None:
    """Refuse a value of another type than an option has; texts are told by the builders.

    Raises
    ------
    TypeError
        Naming the option, and what it takes.
    """
    if value is None or option.type is str:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if option.type is bool:
        fits, wanted = isinstance(value, bool), "True or False"
    elif option.type is int:
        fits, wanted = whole, "a whole number"
    elif option.type is float:
        fits, wanted = whole or isinstance(value, float), "a number"
    else:
        fits = isinstance(value, Iterable) and all(isinstance(size, Integral) for size in value)
        wanted = "whole numbers, such as (100,)"
    if not fits:
        raise TypeError(f"{option.name} must be {wanted}, got {value!r}")


def _known_of(data: Any) -> tuple[DataSpec | None, Rows | None]:
    if isinstance(data, Dataset):
        return data.spec, data.train
    return (data, None) if isinstance(data, DataSpec) else described(data)


_PAIRS: dict[str, Pair] = {}
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def register_pair(
    name: str,
    *,
    summary: str,
    data_kind: str | None = None,
    epochs: Callable[[int, int], int] | None = None,
    finishing: Finishing | None = None,
    needs: Sequence[Needs] = (),
    **training: Any,
) -> Callable[[Builder], Builder]:
    """Register a builder as a pair, as a decorator.

    Use it to give a pair of your own a name, in a module that is imported before the name is used.

    Parameters
    ----------
    name : str
        Name of the pair.
    summary : str
        One line on what it is.
    data_kind, epochs, finishing, needs
        See `Pair`.
    **training
        Arguments of the Trainer that suit it.

    Returns
    -------
    callable
        A decorator that registers a builder and returns it; with `needs` one that refuses options without effect first.
    """

    def enter(builder: Builder) -> Builder:
        if needs:
            builder = refusing(builder, needs)
        more: dict[str, Any] = {"data_kind": data_kind, "epochs": epochs, "finishing": finishing, "needs": needs}
        _PAIRS[name] = Pair(name, summary, builder, training, **more)
        return builder

    return enter


def pairs() -> list[Pair]:
    """Return all registered pairs, in the order of their names."""
    return [_PAIRS[name] for name in sorted(_PAIRS)]


def find_pair(name: str) -> Pair:
    """Find a pair by its registered name, or import one of the user's own.

    Parameters
    ----------
    name : str
        A registered name, or ``module:function``. The module may be in the working directory or installed.

    Returns
    -------
    Pair
        The pair.

    Raises
    ------
    ValueError
        The name is unknown, with a list of the known ones; or the function cannot be imported, with the reason.

    Examples
    --------
    >>> find_pair("stick-breaking").training
    {'objective': 'mean-field'}
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
    builder = find_function(name, "pair")
    return Pair(name, (inspect.getdoc(builder) or "").partition("\n")[0], builder, own=True)


def find_function(name: str, what: str) -> Callable[..., Any]:
    """Import a function of the user's own.

    Parameters
    ----------
    name : str
        ``module:function``.
    what : str
        What the function makes, for the message.

    Raises
    ------
    ValueError
        The name has another form, or the function cannot be imported, with the reason.
    """
    if not is_own(name):
        raise ValueError(
            f"{name!r} is no {what}; one of your own is written module:function, such as mymodule:make_vae"
        )
    module_name, _, function_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"there is no module {module_name!r} in the working directory or installed") from None
        raise ValueError(f"{module_name} needs the module {error.name!r}, which is not installed") from None
    except Exception as error:
        raise ValueError(f"module {module_name!r} cannot be imported: {_in_words(error)}") from error
    builder = getattr(module, function_name, None)
    if not callable(builder):
        own = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
        known = ", ".join(n for n in own if not n.startswith("_")) or "none"
        raise ValueError(f"module {module_name!r} has no function {function_name!r}; it has {known}")
    return builder


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _option(parameter: inspect.Parameter) -> Option | None:
    """The option for an argument of a builder, None if its values cannot be written as one word."""
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    hint, text, choices = parameter.annotation, "", None
    if hint is parameter.empty:
        hint = type(default)
    if typing.get_origin(hint) is typing.Annotated:
        hint, text = typing.get_args(hint)[:2]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        hint = type(choices[0])
    if typing.get_origin(hint) is tuple and set(typing.get_args(hint)) <= {int, ...}:
        hint = tuple
    kinds: dict[Any, Callable[[str], Any]] = {int: int, float: float, str: str, bool: bool, tuple: integers}
    return Option(parameter.name, kinds[hint], default, str(text), choices, required) if hint in kinds else None
