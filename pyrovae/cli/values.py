"""The types of values on the command line, which say what is wrong with a text."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyrovae.cli.facts import facts
from pyrovae.options import integers, parse_optimizer, parse_rates

T = TypeVar("T")

MODES = ("random", "fixed")
"""How `evaluate --missing` hides entries."""


def seed(text: str) -> int:
    """A seed that torch and NumPy take.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    int
        The seed.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is negative or too large.

    Examples
    --------
    >>> seed("3")
    3
    """
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to 2**32 - 1, got {text}")
    return value


def path(text: str) -> Path:
    """A file or a folder.

    Raises
    ------
    argparse.ArgumentTypeError
        If nothing is named, as by a variable of the shell that is not set; the working directory is ``.``.
    """
    if not text:
        raise argparse.ArgumentTypeError("names no file or folder; the folder you are in is .")
    return Path(text)


def file_of_samples(text: str) -> Path:
    """A file that `sample` writes, told by its ending before anything is imported.

    Raises
    ------
    argparse.ArgumentTypeError
        If its ending is none that is known.
    """
    found = path(text)
    if not text.lower().endswith((".png", ".csv", ".npz", ".csv.gz", ".parquet")):
        raise argparse.ArgumentTypeError(f"must end in .png, .csv or .npz (tables: also .csv.gz, .parquet), got {text}")
    return found


def rows(text: str) -> int | float | str:
    """Rows of a split: a number of them, a share, or otherwise a file.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    int, float or str
        An `int` for a whole number, a `float` for another number, otherwise the text.

    Examples
    --------
    >>> rows("500"), rows("0.1"), rows("valid.npy")
    (500, 0.1, 'valid.npy')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def learning_rates(text: str) -> float | dict[str, float]:
    """One learning rate, or one for each group of parameters.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    float or dict of str to float
        The rate, or the rates by the names of the groups.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither, or names a group twice.

    Examples
    --------
    >>> learning_rates("model=0.001,guide=0.0003")
    {'model': 0.001, 'guide': 0.0003}
    """
    _named_once("lr", text)
    return _parsed(parse_rates, text)


def optimizer(text: str) -> str | dict[str, str]:
    """One optimizer, or one for each group of parameters.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    str or dict of str to str
        The name, or the names by group.

    Raises
    ------
    argparse.ArgumentTypeError
        If a name or a group is unknown, or a group stands there twice.

    Examples
    --------
    >>> optimizer("model=adam,guide=sgd")
    {'model': 'adam', 'guide': 'sgd'}
    """
    _named_once("optimizer", text)
    found: str | dict[str, str] = _parsed(parse_optimizer, text)
    known = facts()["optimizers"]
    for name in found.values() if isinstance(found, dict) else [found]:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown optimizer {name!r}; known are {', '.join(known)}")
    return found


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:  # whose message argparse would leave out
        raise argparse.ArgumentTypeError(str(error)) from None


def _named_once(what: str, text: str) -> None:
    names = [part.partition("=")[0] for part in text.split(",") if "=" in part]
    for name in names:
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"{what} names the group {name!r} twice")


def whole_numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else. argparse would name a function of this program instead.

    Examples
    --------
    >>> whole_numbers("300,300")
    (300, 300)
    """
    return _parsed(integers, text)


def condition(text: str) -> tuple[str, tuple[float, ...]]:
    """The value of a latent that belongs to all data.

    Parameters
    ----------
    text : str
        What was typed: ``SITE=NUMBER``, or several numbers with commas between them.

    Returns
    -------
    str and tuple of float
        The name of the site, and the numbers.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither.

    Examples
    --------
    >>> condition("mu=0.5"), condition("w=1,2")
    (('mu', (0.5,)), ('w', (1.0, 2.0)))
    """
    name, _, values = text.partition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if not name or not numbers or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"a condition is SITE=NUMBER or SITE=NUMBER,NUMBER,..., got {text!r}")
    return name, tuple(numbers)


def named_value(text: str) -> tuple[str, str]:
    """A name and a value with ``=`` between them; the name may hold that sign.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else.

    Examples
    --------
    >>> named_value("age=count"), named_value("a=b=3")
    (('age', 'count'), ('a=b', '3'))
    """
    name, sign, value = text.rpartition("=")
    if not sign or not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def words(text: str) -> tuple[str, ...]:
    """Words with commas between them; "none" for none.

    Examples
    --------
    >>> words("mean-mode,knn"), words("none")
    (('mean-mode', 'knn'), ())
    """
    return () if text == "none" else tuple(text.split(","))


def shares(text: str) -> tuple[float, float]:
    """The lowest and the highest of shares, or one for both.

    Parameters
    ----------
    text : str
        What was typed: ``LOW:HIGH``, or a number.

    Returns
    -------
    tuple of float
        Both.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither.

    Examples
    --------
    >>> shares("0:0.9"), shares("0.5")
    ((0.0, 0.9), (0.5, 0.5))
    """
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LOW:HIGH, got {text!r}") from None
    if not 0 <= found[0] <= found[1] <= 1:
        raise argparse.ArgumentTypeError(f"expected LOW:HIGH within 0 and 1, got {text!r}")
    return found


def ratios(text: str) -> tuple[float, ...]:
    """Shares of missing entries: ``FIRST:LAST:STEP``, or numbers with commas between them.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither, or a share is not between 0 and 1.

    Examples
    --------
    >>> ratios("0.1:0.5:0.2"), ratios("0.5")
    ((0.1, 0.3, 0.5), (0.5,))
    """
    try:
        parts = [float(part) for part in text.split(":" if ":" in text else ",")]
    except ValueError:
        parts = []
    if ":" in text and len(parts) == 3 and parts[2] > 0 and parts[0] <= parts[1]:
        count = (math.floor((parts[1] - parts[0]) / parts[2] + 1e-9)) + 1
        parts = [round(parts[0] + number * parts[2], 10) for number in range(count)]
    elif ":" in text:
        parts = []
    if not parts or not all(0 < part < 1 for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected shares between 0 and 1 as FIRST:LAST:STEP, such as 0.1:0.9:0.1, or SHARE,SHARE,..., got {text!r}"
        )
    return tuple(dict.fromkeys(parts))
