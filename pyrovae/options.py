"""Options and their values, in words. This module imports nothing heavy, so that the command line explains itself
before torch is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

GROUPS = ("model", "guide", "objective")
"""Names of the groups of parameters; the last one is what the objective itself learns."""
Rates = float | Mapping[str, float]


@dataclass(frozen=True)
class Option:
    """One option of a pair: a keyword argument of its builder.

    Parameters
    ----------
    name : str
        Name of the argument.
    type : callable
        Makes a value from a text.
    default : Any
        Value if the option is not given.
    help : str
        What the option is, for the command line.
    choices : tuple, optional
        All values that are allowed. None allows any of the type.
    required : bool, default False
        Whether the option has no default.
    """

    name: str
    type: Callable[[str], Any]
    default: Any
    help: str
    choices: tuple[Any, ...] | None = None
    required: bool = False


def integers(text: str) -> tuple[int, ...]:
    """Read whole numbers that are separated by commas.

    >>> integers("300,300")
    (300, 300)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"expected whole numbers separated by commas, got {text!r}") from None


def is_own(name: str) -> bool:
    """Tell whether a name has the form ``module:function``.

    >>> is_own("mymodule:make_vae"), is_own("gaussian"), is_own("warm-up:100")
    (True, False, False)
    """
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", name) is not None


def parse_rates(rates: str | Rates) -> float | dict[str, float]:
    """A learning rate for all parameters, or one for each group that is named.

    Parameters
    ----------
    rates : float, mapping of str to float, or str
        A rate; rates by group; or the text of either, ``"0.001"`` or ``"model=0.001,guide=0.0003"``.

    Returns
    -------
    float or dict of str to float
        The rates.

    Raises
    ------
    ValueError
        For a rate that is not positive, or an unknown group.

    Examples
    --------
    >>> parse_rates("3e-4"), parse_rates("model=1e-3,guide=3e-4")
    (0.0003, {'model': 0.001, 'guide': 0.0003})
    """
    named: dict[str, Any]
    if isinstance(rates, Mapping):
        named = dict(rates)
    elif isinstance(rates, str) and "=" in rates:
        named = dict(part.partition("=")[::2] for part in rates.split(","))
    else:
        return _positive(rates)
    check_groups("lr", named)
    return {name: _positive(value) for name, value in named.items()}


def parse_optimizer(optimizer: Any) -> Any:
    """An optimizer for all parameters, or one by group.

    Parameters
    ----------
    optimizer : str, mapping of str to str or class, or anything else
        A name; names or classes by group; the text of the latter, ``"model=adam,guide=sgd"``; or whatever else the
        Trainer takes, which comes back as it is.

    Returns
    -------
    str, dict or anything else
        The optimizer, with a mapping where there is one by group.

    Raises
    ------
    ValueError
        For an unknown group.

    Examples
    --------
    >>> parse_optimizer("adam"), parse_optimizer("model=adam,guide=sgd")
    ('adam', {'model': 'adam', 'guide': 'sgd'})
    """
    if isinstance(optimizer, str) and "=" in optimizer:
        optimizer = dict(part.partition("=")[::2] for part in optimizer.split(","))
    if not isinstance(optimizer, Mapping):
        return optimizer
    check_groups("optimizer", optimizer)
    return dict(optimizer)


def check_groups(what: str, named: Mapping[str, Any]) -> None:
    """Refuse unknown groups of parameters."""
    unknown = sorted(set(named) - set(GROUPS))
    if unknown:
        raise ValueError(f"{what} names the group {unknown[0]!r}; the groups are {', '.join(GROUPS)}")


def _positive(rate: Any) -> float:
    try:
        value = math.nan if isinstance(rate, bool) else float(rate)
    except (TypeError, ValueError):
        value = math.nan
    if not value > 0 or math.isinf(value):
        raise ValueError(
            f"lr must be positive, a number or GROUP=RATE for the groups {', '.join(GROUPS)}, got {rate!r}"
        )
    return value
