"""What options of a pair need to have an effect, so that one without an effect is refused and not ignored."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrovae.data.dataset import DataSpec
    from pyrovae.vae import VAE

Met = Callable[[Mapping[str, Any], "DataSpec | None"], bool]
"""Tells from all options of a pair, and from the data where they are known, whether some options have an effect."""


@dataclass(frozen=True)
class Needs:
    """What some options of a pair need to have an effect.

    Give it to `register_pair`, so that a value of such an option which would change nothing is refused.

    Parameters
    ----------
    options : tuple of str
        The options.
    met : callable from (mapping of str to Any, DataSpec or None) to bool
        Whether they have an effect, from all options and the data. Without data it must not tell False by mistake.
    what : str
        What they are for, as it stands in "latent_dim is for ...".
    instead : str, default ""
        What to give to let them have an effect, as it stands in "leave it out, or give ...". "" where nothing does.

    Examples
    --------
    >>> sticks = Needs(("truncation",), when("latent", "sticks"), "sticks", "latent='sticks'")
    >>> refuse_idle([sticks], {"latent": "normal", "truncation": 9}, {"latent": "normal", "truncation": 50}, None)
    Traceback (most recent call last):
        ...
    ValueError: truncation is for sticks, got 9; leave it out, or give latent='sticks'
    """

    options: tuple[str, ...]
    met: Met
    what: str
    instead: str = ""


def when(option: str, *values: Any) -> Met:
    """A need that is met where an option has one of some values.

    >>> when("net", "conv")({"net": "dense"}, None)
    False
    """
    return lambda options, spec: options[option] in values


def idle(
    needs: Sequence[Needs], given: Mapping[str, Any], defaults: Mapping[str, Any], spec: DataSpec | None
) -> dict[str, Needs]:
    """Options that were given, differ from their defaults and have no effect, and what each of them would need.

    Parameters
    ----------
    needs : sequence of Needs
        The needs of the pair.
    given, defaults : mapping of str to Any
        Options that were given, and the defaults of all.
    spec : DataSpec, optional
        What is known of the data.

    Returns
    -------
    dict of str to Needs
        By the names of the options.
    """
    options = {**defaults, **given}
    found: dict[str, Needs] = {}
    for need in needs:
        names = [name for name in need.options if name in given and _plain(given[name]) != _plain(defaults.get(name))]
        if names and not need.met(options, spec):
            found |= {name: need for name in names if name not in found}
    return found


def refuse_idle(
    needs: Sequence[Needs], given: Mapping[str, Any], defaults: Mapping[str, Any], spec: DataSpec | None
) -> None:
    """Refuse options without effect; see `idle` for the parameters.

    Raises
    ------
    ValueError
        Naming the first of them, what it is for, and what to do.
    """
    for name, need in idle(needs, given, defaults, spec).items():
        way_out = f", or give {need.instead}" if need.instead else ""
        raise ValueError(f"{name} is for {need.what}, got {given[name]}; leave it out{way_out}")


def defaults_of(builder: Callable[..., Any]) -> dict[str, Any]:
    """The defaults of the arguments of a builder, by name."""
    parameters = inspect.signature(builder).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def refusing(builder: Callable[..., VAE], needs: Sequence[Needs]) -> Callable[..., VAE]:
    """The builder of a pair, which refuses options without effect before it begins."""
    signature, defaults = inspect.signature(builder), defaults_of(builder)

    @functools.wraps(builder)
    def checked(*args: Any, **options: Any) -> VAE:
        given = signature.bind(*args, **options).arguments
        refuse_idle(needs, given, defaults, given.get("spec"))
        return builder(*args, **options)

    return checked


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
