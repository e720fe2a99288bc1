"""The arguments of the command line: every verb with its options, those of a pair included."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pyrovae._version import __version__
from pyrovae.infer.objectives import objective_names
from pyrovae.pairs.registry import Option, Pair, find_pair, integers, is_own, pairs
from pyrovae.training import LR_SCHEDULES, OPTIMIZERS, Trainer, parse_rates
from pyrovae.vae import OUTPUTS


def seed(text: str) -> int:
    """A seed that torch and NumPy take.

    >>> seed("3")
    3
    """
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to 2**32 - 1, got {text}")
    return value


def learning_rates(text: str) -> float | dict[str, float]:
    """One learning rate, or one for each group.

    >>> learning_rates("model=0.001,guide=0.0003")
    {'model': 0.001, 'guide': 0.0003}
    """
    try:
        return parse_rates(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# Options by name: type, placeholder (None where the choices stand for it), help, choices.
Options = dict[str, tuple[Callable[[str], Any], str | None, str, Sequence[str] | None]]
TRAINING: Options = {
    "objective": (str, None, "what to optimise", objective_names()),
    "num_particles": (int, "N", "draws of the latents a datum", None),
    "epochs": (int, "N", "passes over the training data", None),
    "batch_size": (int, "N", "rows a step", None),
    "optimizer": (str, None, "optimizer", tuple(OPTIMIZERS)),
    "lr": (learning_rates, "RATE", "learning rate, or one per group: model=RATE,guide=RATE", None),
    "lr_schedule": (str, None, "learning rate over the epochs", LR_SCHEDULES),
    "gradient_clip": (float, "NORM", "clip the gradient to this norm (default: no clipping)", None),
    "kl_weight": (str, "WEIGHT", "weight of the KL: a number, warm-up:EPOCHS, decay or cyclic:EPOCHS", None),
    "patience": (int, "N", "stop after so many epochs without progress (default: never)", None),
    "monitor": (str, "COLUMN", "the column of the metrics that tells the best epoch", None),
    "seed": (seed, "N", "seed of initial weights and training", None),
    "checkpoint_seconds": (float, "SECONDS", "least time between two checkpoints", None),
}
DATA: Options = {
    "binarize": (str, None, "make grey pixels binary by draws, once or anew in each batch", ("static", "dynamic")),
    "scale": (str, None, "range of pixels, [0, 1] or [-1, 1] (default: unit)", ("unit", "symmetric")),
    "pca": (int, "N", "principal components of the training rows to put in the place of the data", None),
    "validation_size": (int, "N", "rows held out of the training set (default: see `pyrovae datasets`)", None),
    "labels": (float, "SHARE", "training rows that keep their label, a share or a number (default: all)", None),
}

_PLACEHOLDERS: dict[Any, str] = {int: "N", float: "X", str: "TEXT", integers: "N,N,..."}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and which takes no abbreviations."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "formatter_class": _HelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and paragraphs as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(110, shutil.get_terminal_size().columns - 2))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = super()._get_help_string(action)
        return action.help if action.default is None or action.default is False else shown


def make_parser(pair: Pair | None = None) -> argparse.ArgumentParser:
    """The parser; `train` has the options of `pair`."""
    parser = _Parser(
        prog="pyrovae",
        description="Train and use variational autoencoders written as a Pyro model and a Pyro guide.",
        epilog="To begin: pyrovae train gaussian --data digits --out runs/digits --evaluate\n\n"
        "Every verb has --help. Exit status: 0, 2 for bad input, 130 after Ctrl-C.\n"
        "With PYROVAE_DEBUG=1 in the environment an error shows where it comes from.",
    )
    parser.add_argument("--version", action="version", version=f"pyrovae {__version__}", help="show the version")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    _add_train(verbs, pair)

    verb = _add_verb(verbs, "evaluate", "held-out likelihood and other figures of a run")
    _add_run(verb)
    verb.add_argument("--split", choices=("train", "validation", "test"), default="test", help="which rows")
    verb.add_argument("--num-samples", type=int, metavar="N", default=5000, help="importance samples a datum")
    verb.add_argument("--num-rows", type=int, metavar="N", help="only so many rows, drawn by the seed (default: all)")
    text = "samples of all rows that are in memory at once"
    verb.add_argument("--chunk-size", type=int, metavar="N", default=8192, help=text)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of rows and samples")
    verb.add_argument(
        "--json", action="store_true", help="print one JSON object, with the keys that README.md explains"
    )

    verb = _add_verb(verbs, "sample", "draw data from a run's model into a file")
    _add_run(verb)
    text = "a .png file (grid of pictures), a .csv file (a line each) or an .npz file (array x)"
    verb.add_argument("--out", type=Path, metavar="FILE", required=True, help=text)
    verb.add_argument("--num", type=int, metavar="N", default=64, help="how many")
    verb.add_argument("--output", choices=OUTPUTS, default="draw", help="draws of p(x|z), its means or its modes")
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the draws")

    verb = _add_verb(verbs, "plot", "draw the figures of a run into RUN/figures")
    _add_run(verb)
    verb.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="file format")
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the samples")

    verb = _add_verb(verbs, "datasets", "list the data sets and where they are")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
    verb = _add_verb(verbs, "models", "list the pairs of model and guide with their options")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


def _add_verb(verbs: Any, name: str, text: str, **options: Any) -> _Parser:
    verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", **options)
    verb.set_defaults(prog=verb.prog)
    return verb


def _add_run(verb: _Parser) -> None:
    verb.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    verb.add_argument("--pair", metavar="MODULE:FUNCTION", help="the pair again, for a run of a pair of your own")
    _add_device(verb)


def _add_device(verb: _Parser) -> None:
    verb.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto: cuda where there is one")


def _add_train(verbs: Any, pair: Pair | None) -> None:
    usage = "\n       ".join(
        f"pyrovae train {words} [options]" for words in ("PAIR --data NAME", "--resume RUN", "--grow RUN")
    )
    verb = _add_verb(verbs, "train", "train a pair into a run folder, or resume a run", usage=usage)
    verb.set_defaults(builder=pair)
    verb.add_argument("pair", nargs="?", metavar="PAIR", help="a name from `pyrovae models`, or module:function")
    verb.add_argument("--data", metavar="NAME", help="a name from `pyrovae datasets`")
    verb.add_argument("--out", type=Path, metavar="RUN", help="the run folder (default: runs/PAIR-NAME)")
    verb.add_argument("--evaluate", action="store_true", help="evaluate on the test data afterwards")
    _add_device(verb)
    verb.add_argument("--tensorboard", action="store_true", help="also log to RUN/tensorboard")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")
    group = verb.add_argument_group("going on with a run, as it was configured")
    group.add_argument("--resume", type=Path, metavar="RUN", help="the run, after an interrupt, a crash or a kill")
    group.add_argument("--pair", dest="own_pair", metavar="MODULE:FUNCTION", help="its pair again, if it is your own")
    group = verb.add_argument_group("more sticks for a finished run, where its validation rows need them")
    text = "a run of the pair stick-breaking; the new one begins with what it has learned"
    group.add_argument("--grow", type=Path, metavar="RUN", help=text)
    group.add_argument("--sticks", type=int, metavar="N", help="weights to add (default: 10)")
    group = verb.add_argument_group("data")
    _add_options(group, DATA, {})
    text = "spread 8-bit pixels over intervals by uniform noise"
    group.add_argument("--dequantize", action="store_true", default=None, help=text)
    text = "seed of random splits and of draws that are made once (default: 0)"
    group.add_argument("--data-seed", type=seed, metavar="N", help=text)
    defaults = {f.name: f.default for f in dataclasses.fields(Trainer)} | dict(pair.training if pair else {})
    group = verb.add_argument_group("training")
    _add_options(group, TRAINING, defaults)
    text = "run compiled code, for objectives of this library: the same training in less time, after a minute or so"
    group.add_argument("--compile", action="store_true", default=None, help=text)
    if pair is None:
        verb.add_argument_group("options of the pair", "shown by `pyrovae train PAIR --help` and `pyrovae models`")
        return
    group = verb.add_argument_group(f"options of the pair {pair.name}")
    for option in pair.options:
        try:
            _add_pair_option(group, option, flag(option.name))
        except argparse.ArgumentError:  # a user's pair may have an option of the name of one of ours
            _add_pair_option(group, option, flag(f"pair_{option.name}"))


def _add_options(group: Any, options: Options, defaults: Mapping[str, Any]) -> None:
    for name, (kind, placeholder, text, choices) in options.items():
        shown = f" (default: {defaults[name]})" if defaults.get(name) is not None else ""
        if choices is not None and _is_long(choices):
            placeholder, text = "NAME", f"{text}: {', '.join(choices)}"
        group.add_argument(flag(name), type=kind, metavar=placeholder, choices=choices, help=text + shown)


def _add_pair_option(group: Any, option: Option, flag: str) -> None:
    long = option.choices is not None and _is_long(option.choices)
    text = described(option, with_choices=long).replace("%", "%%")
    settings: dict[str, Any] = {"dest": pair_dest(option), "help": text, "required": option.required}
    if option.type is bool:
        settings |= {"action": argparse.BooleanOptionalAction, "default": None}
    elif option.choices is None:
        settings |= {"type": option.type, "metavar": _PLACEHOLDERS[option.type]}
    else:
        settings |= {"type": option.type, "choices": option.choices, "metavar": "NAME" if long else None}
    group.add_argument(flag, **settings)


def _is_long(choices: Sequence[Any]) -> bool:
    """Whether choices are listed in the help of an option, since in its place they would take a line or more."""
    return sum(len(str(choice)) + 1 for choice in choices) > 60


def named_pair(words: Sequence[str]) -> Pair | None:
    """The pair that a new training names, whose options it then has; it may stand behind options that we do not know.

    Raises:
        ValueError: for an unknown pair.
    """
    if list(words[:1]) != ["train"]:
        return None
    found, unknown = make_parser().parse_known_args([word for word in words if word not in ("-h", "--help")])
    if found.pair is None or found.resume is not None or found.grow is not None:
        return None
    known = {pair.name for pair in pairs()}
    candidates = (name for name in (found.pair, *unknown) if name.replace("_", "-") in known or is_own(name))
    return find_pair(next(candidates, found.pair))


def flag(name: str) -> str:
    """The option of a name, such as `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def pair_dest(option: Option) -> str:
    """The name of the parsed value of an option of the pair."""
    return f"pair_{option.name}"


def described(option: Option, *, with_choices: bool = True) -> str:
    """The help of an option, with its choices and its default."""
    value = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    default = "required" if option.required else None if value is None else f"default: {value}"
    if option.type is bool:
        default = f"default: {'yes' if value else 'no'}"
    choices = f": {', '.join(map(str, option.choices))}" if with_choices and option.choices else ""
    return f"{option.help}{choices}{f' ({default})' if default else ''}".strip()


def given(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were given (are not None)."""
    return {name: options[name] for name in names if options.get(name) is not None}
