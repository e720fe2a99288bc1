"""The options that mirror arguments of the Trainer and of `pyrovae.data.load`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyrovae.cli.facts import facts
from pyrovae.cli.values import learning_rates, optimizer, rows, seed, shares, words
from pyrovae.options import Option

# Options by name: type, placeholder (None where the choices stand for it), help, choices.
Options = dict[str, tuple[Callable[[str], Any], str | None, str, Sequence[str] | None]]
TRAINING: Options = {
    "objective": (str, None, "what to optimise", facts()["objectives"]),
    "num_particles": (int, "N", "draws of the latents per datum", None),
    "epochs": (int, "N", "passes over the training data", None),
    "batch_size": (int, "N", "rows per step", None),
    "optimizer": (
        optimizer,
        "NAME",
        f"optimizer ({', '.join(facts()['optimizers'])}), or one per group: model=NAME,guide=NAME",
        None,
    ),
    "lr": (learning_rates, "RATE", "learning rate, or one per group: model=RATE,guide=RATE", None),
    "lr_schedule": (str, None, "learning rate over the epochs", facts()["lr_schedules"]),
    "gradient_clip": (float, "NORM", "clip the gradient to this norm (default: no clipping)", None),
    "kl_weight": (str, "WEIGHT", "weight of the KL: a number, warm-up:EPOCHS, decay or cyclic:EPOCHS", None),
    "refine_steps": (int, "N", "gradient steps that refine the guide's answer in each step", None),
    "patience": (int, "N", "stop after so many epochs without progress (default: never)", None),
    "monitor": (str, "COLUMN", "the column of the metrics that tells the best epoch", None),
    "seed": (seed, "N", "seed of initial weights and training", None),
    "checkpoint_seconds": (float, "SECONDS", "least time between two checkpoints", None),
}
CHUNK_SIZE = 8192
"""Samples of all rows that `evaluate` holds at once."""
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
    "kind": (str, None, "what the values of your own data are (default: found from the values)", facts()["kinds"]),
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
        facts()["patterns"],
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
