"""Arguments that several verbs have."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from pyrovae.cli.facts import facts
from pyrovae.cli.options import Options, described, flag, pair_dest
from pyrovae.cli.parsing import Parser
from pyrovae.cli.values import condition, path, whole_numbers
from pyrovae.options import Option, integers

_PLACEHOLDERS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", integers: "N,N,..."}


def add_overwrite(verb: Parser, text: str = "replace the file of --out if it exists") -> None:
    """Add --overwrite."""
    verb.add_argument("--overwrite", action="store_true", help=text)


def add_condition(verb: Parser) -> None:
    """Add --condition."""
    text = "value of a latent of all data, one number or several (default: the guide's); may be given several times"
    verb.add_argument("--condition", type=condition, action="append", metavar="SITE=N,N,...", help=text)


def add_run(verb: Parser, **several: Any) -> None:
    """Add the run folder, or `several`, the pair of a run of one's own, and the device."""
    verb.add_argument("run", type=path, metavar="RUN", help="a run folder", **several)
    verb.add_argument("--pair", metavar="MODULE:FUNCTION", help="the pair again, for a run of a pair of your own")
    add_device(verb)


def add_other_data(verb: Parser, *names: str) -> None:
    """Add --data, also under other names, and --allow-changed-data."""
    text = (
        "other data of the same shape and kind, prepared as those of the run were; all rows of a file without splits "
        "are test rows (default: the data that the run was trained on)"
    )
    verb.add_argument("--data", *names, metavar="FILE_OR_NAME", help=text)
    add_allow_changed(verb)


def add_fit_steps(verb: Parser) -> None:
    """Add --fit-steps."""
    text = "for an auto-decoder: gradient steps that fit the posterior of a row first"
    verb.add_argument("--fit-steps", type=int, metavar="N", default=facts()["fit_steps"], help=text)


def add_allow_changed(verb: Parser) -> None:
    """Add --allow-changed-data."""
    text = "go on although the data of the run are not those that it was trained on, in a file that changed, say"
    verb.add_argument("--allow-changed-data", action="store_true", help=text)


def add_device(verb: Parser) -> None:
    """Add --device."""
    verb.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto: cuda where there is one")


def add_options(group: Any, options: Options, defaults: Mapping[str, Any]) -> None:
    """Add options of a table of them, with their defaults in the help."""
    for name, (kind, placeholder, text, choices) in options.items():
        shown = f" (default: {defaults[name]})" if defaults.get(name) is not None else ""
        if choices is not None and _is_long(choices):
            placeholder, text = "NAME", f"{text}: {', '.join(choices)}"
        group.add_argument(flag(name), type=kind, metavar=placeholder, choices=choices, help=text + shown)


def add_pair_option(group: Any, option: Option, flag: str) -> None:
    """Add an option of a pair."""
    long = option.choices is not None and _is_long(option.choices)
    text = described(option, with_choices=long).replace("%", "%%")
    settings: dict[str, Any] = {"dest": pair_dest(option), "help": text, "required": option.required}
    if option.type is bool:
        settings |= {"action": argparse.BooleanOptionalAction, "default": None}
    elif option.choices is None:
        kind = whole_numbers if option.type is integers else option.type
        settings |= {"type": kind, "metavar": _PLACEHOLDERS[option.type]}
    else:
        settings |= {"type": option.type, "choices": option.choices, "metavar": "NAME" if long else None}
    group.add_argument(flag, **settings)


def _is_long(choices: Sequence[Any]) -> bool:
    """Whether choices are listed in the help of an option, since in its place they would take a line or more."""
    return sum(len(str(choice)) + 1 for choice in choices) > 60
