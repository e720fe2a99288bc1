"""The options that mirror arguments of the Trainer and of `pyrovae.data.load`, and their types."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.data.dataset import KINDS, TABLE
from pyrovae.data.patterns import PATTERNS
from pyrovae.infer.objectives import objective_names
from pyrovae.pairs.registry import Option, integers
from pyrovae.training import LR_SCHEDULES, OPTIMIZERS, parse_rates
from pyrovae.training.optimizers import DEFAULT_LR, check_optimizer, parse_optimizer


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
    try:
        return parse_rates(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    try:
        found = parse_optimizer(text)
        check_optimizer(found, DEFAULT_LR, {})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return found


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
    try:
        return integers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def condition(text: str) -> tuple[str, Tensor]:
    """The value of a latent that belongs to all data.

    Parameters
    ----------
    text : str
        What was typed: ``SITE=NUMBER``, or several numbers with commas between them.

    Returns
    -------
    str and Tensor
        The name of the site, and a number or a vector.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither.

    Examples
    --------
    >>> condition("mu=0.5"), condition("w=1,2")
    (('mu', tensor(0.5000)), ('w', tensor([1., 2.])))
    """
    name, _, values = text.partition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        numbers = []
    if not name or not numbers or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"a condition is SITE=NUMBER or SITE=NUMBER,NUMBER,..., got {text!r}")
    return name, torch.tensor(numbers[0] if len(numbers) == 1 else numbers)


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


# Options by name: type, placeholder (None where the choices stand for it), help, choices.
Options = dict[str, tuple[Callable[[str], Any], str | None, str, Sequence[str] | None]]
TRAINING: Options = {
    "objective": (str, None, "what to optimise", objective_names()),
    "num_particles": (int, "N", "draws of the latents per datum", None),
    "epochs": (int, "N", "passes over the training data", None),
    "batch_size": (int, "N", "rows per step", None),
    "optimizer": (
        optimizer,
        "NAME",
        f"optimizer ({', '.join(OPTIMIZERS)}), or one per group: model=NAME,guide=NAME",
        None,
    ),
    "lr": (learning_rates, "RATE", "learning rate, or one per group: model=RATE,guide=RATE", None),
    "lr_schedule": (str, None, "learning rate over the epochs", LR_SCHEDULES),
    "gradient_clip": (float, "NORM", "clip the gradient to this norm (default: no clipping)", None),
    "kl_weight": (str, "WEIGHT", "weight of the KL: a number, warm-up:EPOCHS, decay or cyclic:EPOCHS", None),
    "refine_steps": (int, "N", "gradient steps that refine the guide's answer in each step (default: none)", None),
    "patience": (int, "N", "stop after so many epochs without progress (default: never)", None),
    "monitor": (str, "COLUMN", "the column of the metrics that tells the best epoch", None),
    "seed": (seed, "N", "seed of initial weights and training", None),
    "checkpoint_seconds": (float, "SECONDS", "least time between two checkpoints", None),
}
_SPLIT = "share (below 1) or number of rows to hold out"
DATA: Options = {
    "validation": (
        rows,
        "ROWS",
        f"validation rows: {_SPLIT} of the training rows, or a file of your own (default: 0.1 for your own data, and "
        "for a named set see `pyrovae datasets`; none for tables)",
        None,
    ),
    "test": (rows, "ROWS", f"test rows of your own data: {_SPLIT}, or a file (default: 0.1)", None),
    "kind": (str, None, "what the values of your own data are (default: found from the values)", (*KINDS, TABLE)),
    "label_column": (str, "NAME", "the column of your CSV file that holds the labels (default: none does)", None),
    "image_size": (int, "N", "crop and scale your pictures to N x N pixels (default: leave them)", None),
    "binarize": (str, None, "make grey pixels binary by draws, once or anew in each batch", ("static", "dynamic")),
    "scale": (str, None, "range of pixels, [0, 1] or [-1, 1] (default: unit)", ("unit", "symmetric")),
    "pca": (int, "N", "replace the data by so many principal components of the training rows", None),
    "labels": (float, "SHARE", "training rows that keep their label, a share or a number (default: all)", None),
    "missing": (float, "SHARE", "hide this share of training and validation rows, to train on incomplete data", None),
    "missing_pattern": (
        str,
        None,
        "what --missing hides as one: entries, points (landmarks, pixels), or a block (default: entries)",
        PATTERNS,
    ),
    "hide": (shares, "LOW:HIGH", "hide a share of each minibatch from the encoder, and score it all the same", None),
}
TABLES: Options = {
    "scaling": (
        str,
        None,
        "how numbers of a table are scaled (default: standardize)",
        ("standardize", "normalize", "none"),
    ),
    "missing_words": (words, "WORD,WORD,...", "further words that stand for a missing entry of a table", None),
}


def flag(name: str) -> str:
    """The option of a name.

    Examples
    --------
    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def pair_dest(option: Option) -> str:
    """The name under which the parser keeps the value of an option of the pair."""
    return f"pair_{option.name}"


def described(option: Option, *, with_choices: bool = True) -> str:
    """The help of an option of a pair, with its default.

    Parameters
    ----------
    option : Option
        The option.
    with_choices : bool, default True
        Whether to list its choices.

    Returns
    -------
    str
        One line.
    """
    value = option.default
    if isinstance(value, tuple):
        value = ",".join(map(str, value)) or "none"
    elif isinstance(value, float):
        value = f"{value:.4g}"
    default = "required" if option.required else None if value is None else f"default: {value}"
    if option.type is bool:
        default = f"default: {'yes' if value else 'no'}"
    choices = f": {', '.join(map(str, option.choices))}" if with_choices and option.choices else ""
    return f"{option.help}{choices}{f' ({default})' if default else ''}".strip()


def given(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given (are not None).

    Examples
    --------
    >>> given({"epochs": 3, "lr": None}, ["epochs", "lr"])
    {'epochs': 3}
    """
    return {name: options[name] for name in names if options.get(name) is not None}
