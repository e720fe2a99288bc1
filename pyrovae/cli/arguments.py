"""The arguments of the command line: every verb with its options, those of a pair included."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pyrovae._version import __version__
from pyrovae.cli.missing import MODES, ratios
from pyrovae.cli.options import (
    DATA,
    TABLES,
    TRAINING,
    Options,
    condition,
    described,
    flag,
    named_value,
    pair_dest,
    seed,
    whole_numbers,
    words,
)
from pyrovae.data.patterns import PATTERNS
from pyrovae.pairs.registry import Option, Pair, find_pair, integers, is_own, pairs
from pyrovae.runs.posteriors import FIT_STEPS
from pyrovae.training import Trainer
from pyrovae.vae import OUTPUTS

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
    """The parser of the command line.

    Parameters
    ----------
    pair : Pair, optional
        A pair whose options `train` is to have.

    Returns
    -------
    argparse.ArgumentParser
        It raises ValueError for what it cannot parse.
    """
    parser = _Parser(
        prog="pyrovae",
        description="Train and use variational autoencoders written as a Pyro model and a Pyro guide.",
        epilog="To begin: pyrovae train gaussian --data digits --out runs/digits --evaluate\n"
        "Your own data: pyrovae train gaussian --data mine.npz\n\n"
        "Every verb has --help. Exit status: 0, 1 if points of a sweep failed, 2 for bad input, 130 after Ctrl-C.\n"
        "With PYROVAE_DEBUG=1 in the environment an error shows where it comes from.",
    )
    parser.add_argument("--version", action="version", version=f"pyrovae {__version__}", help="show the version")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    _add_train(verbs, pair)
    _add_resume(verbs)
    _add_grow(verbs)
    _add_sweep(verbs)
    _add_evaluate(verbs)
    _add_sample(verbs)
    _add_impute(verbs)
    _add_plot(verbs)
    _add_report(verbs)
    _add_schema(verbs)
    verb = _add_verb(verbs, "datasets", "list the data sets, and where they are")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
    verb = _add_verb(verbs, "models", "list the pairs of model and guide, with their options")
    verb.add_argument("--json", action="store_true", help="print one JSON list")
    return parser


def named_pair(words: Sequence[str]) -> Pair | None:
    """The pair that a new training names, whose options it then has; it may stand behind options that we do not know.

    Parameters
    ----------
    words : sequence of str
        The command line.

    Returns
    -------
    Pair or None
        None for other verbs, and where none is named.

    Raises
    ------
    ValueError
        For an unknown pair.
    """
    if list(words[:1]) != ["train"]:
        return None
    found, unknown = make_parser().parse_known_args([word for word in words if word not in ("-h", "--help")])
    if found.pair is None:
        return None
    known = {pair.name for pair in pairs()}
    candidates = (name for name in (found.pair, *unknown) if name.replace("_", "-") in known or is_own(name))
    return find_pair(next(candidates, found.pair))


def _add_verb(verbs: Any, name: str, text: str, more: str = "", **options: Any) -> _Parser:
    description = f"{text[0].upper()}{text[1:]}.{more and chr(10) + more}"
    verb = verbs.add_parser(name, help=text, description=description, **options)
    verb.set_defaults(prog=verb.prog)
    return verb


def _add_train(verbs: Any, pair: Pair | None) -> None:
    usage = "pyrovae train PAIR --data FILE_OR_NAME [options]"
    verb = _add_verb(verbs, "train", "train a pair of model and guide into a new run folder", usage=usage)
    verb.set_defaults(builder=pair)
    verb.add_argument("pair", nargs="?", metavar="PAIR", help="a name from `pyrovae models`, or module:function")
    text = (
        "a .npy, .npz, .pt, .csv or .parquet file, a folder of pictures, a name from `pyrovae datasets`, or "
        "module:function"
    )
    verb.add_argument("--data", metavar="FILE_OR_NAME", help=text)
    text = "the run folder (default: runs/PAIR-NAME, with a number behind it if there is one)"
    verb.add_argument("--out", type=Path, metavar="RUN", help=text)
    _add_overwrite(verb)
    _add_ways_to_train(verb)
    group = verb.add_argument_group("data")
    _add_options(group, DATA, {})
    group.add_argument("--dequantize", action="store_true", default=None, help="spread 8-bit values over [0, 1]")
    text = "seed of splits, binarisation, kept labels and synthetic data (default: 0)"
    group.add_argument("--data-seed", type=seed, metavar="N", help=text)
    group = verb.add_argument_group("tables")
    _add_options(group, TABLES, {})
    text = (
        "read a .parquet file in chunks, and train without holding it (default: with more than 10 million entries); "
        "--no-stream reads all of it"
    )
    group.add_argument("--stream", action=argparse.BooleanOptionalAction, default=None, help=text)
    text = "kind of a column, where another one is found; may be given several times"
    group.add_argument("--column-kind", type=named_value, action="append", metavar="NAME=KIND", help=text)
    if pair is not None and "likelihood" not in (option.name for option in pair.options):
        text = "likelihood of a column, or of all columns of a kind; may be given several times"
        group.add_argument("--likelihood", type=named_value, action="append", metavar="NAME=FAMILY", help=text)
    defaults = {f.name: f.default for f in dataclasses.fields(Trainer)} | dict(pair.training if pair else {})
    if pair is not None and pair.epochs is not None:
        defaults["epochs"] = "by the number of rows"
    group = verb.add_argument_group("training")
    _add_options(group, TRAINING, defaults)
    text = "leave out the last step of an epoch if its batch is a smaller one"
    group.add_argument("--drop-last", action="store_true", default=None, help=text)
    text = "run compiled code: the same training in less time, after a minute or so"
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
    for option in () if pair.finishing is None else pair.finishing.options:
        _add_pair_option(group, option, flag(option.name))


def _add_resume(verbs: Any) -> None:
    more = (
        "Use it after Ctrl-C, a crash or a kill. The run goes on as it was configured, and ends with\n"
        "the weights that it would have had without the interruption, bit for bit."
    )
    verb = _add_verb(verbs, "resume", "go on with a training from where it stopped", more)
    _add_run(verb)
    verb.add_argument(
        "--data", metavar="MODULE:FUNCTION", help="the data again, for a run on data of your own function"
    )
    text = "train for so many epochs in all, from now on; a finished run goes on (default: as it was configured)"
    verb.add_argument("--epochs", type=int, metavar="N", help=text)
    text = "stop after so many epochs without a better validation loss, from now on (default: as it was configured)"
    verb.add_argument("--patience", type=int, metavar="N", help=text)
    _add_allow_changed(verb)
    _add_ways_to_train(verb)


def _add_grow(verbs: Any) -> None:
    more = (
        "The new run begins with what the old one has learned, and is trained as that was. Use it for a\n"
        "run of the pair stick-breaking whose sticks are all in use. If the validation rows need no more\n"
        "of them, nothing is done."
    )
    verb = _add_verb(verbs, "grow", "add sticks to a finished run", more)
    verb.add_argument("run", type=Path, metavar="RUN", help="a run folder of the pair stick-breaking")
    verb.add_argument("--sticks", type=int, metavar="N", default=10, help="sticks to add")
    text = "the new run folder (default: RUN with the number of sticks behind it)"
    verb.add_argument("--out", type=Path, metavar="RUN", help=text)
    _add_overwrite(verb)
    _add_ways_to_train(verb)


def _add_overwrite(verb: _Parser) -> None:
    text = "replace the run that the folder holds, and leave other files beside the new one"
    verb.add_argument("--overwrite", action="store_true", help=text)


def _add_sweep(verbs: Any) -> None:
    more = (
        'The grid is a JSON object of options of `pyrovae train` by name, with "pair" and "data". A list\n'
        'stands for each of its values: {"pair": "gaussian", "data": "digits", "latent_dim": [2, 8],\n'
        '"lr": [0.001, 0.0001]}. The same command again goes on where it stopped.'
    )
    usage = "pyrovae sweep GRID.json --out DIR [options], or pyrovae sweep --collect DIR"
    verb = _add_verb(verbs, "sweep", "train every point of a grid of options", more, usage=usage)
    verb.add_argument("grid", nargs="?", type=Path, metavar="GRID.json", help="the grid")
    text = "folder of the run folders; with --collect the .csv file (default: DIR/results.csv)"
    verb.add_argument("--out", type=Path, metavar="DIR", help=text)
    text = "write options and figures of all points of this folder into one .csv file, and draw what they have"
    verb.add_argument("--collect", type=Path, metavar="DIR", help=text)
    verb.add_argument("--jobs", type=int, metavar="N", default=1, help="points that are trained at once")
    text = "a backend of joblib: loky (processes), threading, multiprocessing, dask, ray (default: loky)"
    verb.add_argument("--backend", metavar="NAME", help=text)
    text = "argument of the backend, such as scheduler_host=tcp://... of dask; may be given several times"
    verb.add_argument("--backend-option", type=named_value, action="append", metavar="NAME=VALUE", help=text)
    verb.add_argument("--evaluate", action="store_true", help="evaluate every point on the test data afterwards")
    _add_device(verb)
    verb.add_argument("--quiet", action="store_true", help="no progress bar")


def options_of_train(pair: Pair | None) -> dict[str, tuple[bool, bool]]:
    """The options of `train` by name, and whether they are switches, and switches that can be turned off.

    Parameters
    ----------
    pair : Pair, optional
        A pair whose options belong to them.

    Returns
    -------
    dict of str to (bool, bool)
        By the name with ``_`` between the words.
    """
    verbs = _Parser().add_subparsers(parser_class=_Parser)
    _add_train(verbs, pair)
    actions = verbs.choices["train"]._actions
    return {
        action.option_strings[-1 if len(action.option_strings[0]) < 3 else 0][2:].replace("-", "_"): (
            action.nargs == 0,
            isinstance(action, argparse.BooleanOptionalAction),
        )
        for action in actions
        if action.option_strings
    }


def _add_evaluate(verbs: Any) -> None:
    verb = _add_verb(verbs, "evaluate", "compute the held-out likelihood and other figures of a run")
    _add_run(verb)
    _add_condition(verb)
    _add_other_data(verb)
    verb.add_argument("--split", choices=("train", "validation", "test"), default="test", help="which rows")
    text = "importance samples per datum (default: 5000; 100 with --missing)"
    verb.add_argument("--num-samples", type=int, metavar="N", help=text)
    verb.add_argument("--num-rows", type=int, metavar="N", help="only so many rows, drawn by the seed (default: all)")
    text = "samples of all rows that are in memory at once"
    verb.add_argument("--chunk-size", type=int, metavar="N", default=8192, help=text)
    text = (
        "imputers that a run of a table is compared with, or none (default: mean-mode, hist-gradient-boosting, and for "
        "a small table knn, bayesian-ridge and extra-trees)"
    )
    verb.add_argument("--baselines", type=words, metavar="NAME,NAME,...", help=text)
    _add_fit_steps(verb)
    text = "measure what the family and the encoder of the guide cost, on 1000 rows, and draw it, instead of the above"
    verb.add_argument("--inference-gap", action="store_true", help=text)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of rows and samples")
    _add_missing(verb)
    text = "print one JSON object, with the keys that docs/command_line.md explains"
    verb.add_argument("--json", action="store_true", help=text)


def _add_missing(verb: _Parser) -> None:
    group = verb.add_argument_group("errors of missing entries")
    text = (
        "hide these shares of the entries of the rows, find them again, and write the errors to RUN/missing-...csv and "
        "into a figure, instead of the likelihood"
    )
    group.add_argument("--missing", type=ratios, metavar="FIRST:LAST:STEP", help=text)
    text = "hide entries at random, by --seed, or those of the files PREFIX_r.h5 beside the data PREFIX.h5"
    group.add_argument("--missing-mode", choices=MODES, default="random", help=text)
    text = "what is hidden as one (default: entries)"
    group.add_argument("--missing-pattern", choices=PATTERNS, help=text)
    text = "gradient steps that refine the answer of the encoder (default: none)"
    group.add_argument("--refine", type=int, metavar="STEPS", default=0, help=text)


def _add_sample(verbs: Any) -> None:
    verb = _add_verb(verbs, "sample", "draw data from the model of a run into a file")
    _add_run(verb)
    _add_condition(verb)
    text = (
        "a .png file (grid of pictures), a .csv file (a line for each) or an .npz file (array x, or one by site); for "
        "a run of a table a .csv, .csv.gz or .parquet file"
    )
    verb.add_argument("--out", type=Path, metavar="FILE", required=True, help=text)
    text = "for a run of a table: replace the file of --out if it exists"
    verb.add_argument("--overwrite", action="store_true", help=text)
    verb.add_argument("--num", type=int, metavar="N", default=64, help="how many")
    text = (
        "for a model with further arguments, such as covariates, or one that looks at its data: give it those of the "
        "first rows of this split"
    )
    verb.add_argument("--like", choices=("train", "validation", "test"), help=text)
    _add_other_data(verb)
    verb.add_argument("--output", choices=OUTPUTS, default="draw", help="draws of p(x|z), its means or its modes")
    text = "for a run of a table: value of a column, the others are drawn given it; may be given several times"
    verb.add_argument("--given", type=named_value, action="append", metavar="COLUMN=VALUE", help=text)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the draws")


def _add_impute(verbs: Any) -> None:
    more = (
        "Use it with a run of the pair tabular. Observed entries stay as they are, the missing ones are\n"
        "filled. The result depends on no other row of the table."
    )
    verb = _add_verb(verbs, "impute", "complete a table with missing entries", more)
    verb.add_argument("run", type=Path, metavar="RUN", help="a run folder of a table")
    _add_device(verb)
    text = "the table, a .csv, .csv.gz or .parquet file with the columns of the run"
    verb.add_argument("--input", type=Path, metavar="FILE", required=True, help=text)
    text = "the completed table, a .csv, .csv.gz or .parquet file"
    verb.add_argument("--out", type=Path, metavar="FILE", required=True, help=text)
    verb.add_argument("--overwrite", action="store_true", help="replace the file of --out if it exists")
    text = (
        "write so many completed tables, one below the other, numbered in a column `draw`; or a file each, if the name "
        "of --out has {draw} in it (default: the best one)"
    )
    verb.add_argument("--draws", type=int, metavar="N", help=text)
    text = "add columns NAME_low and NAME_high, between which the true value lies with this probability"
    verb.add_argument("--intervals", type=float, metavar="P", help=text)
    _add_fit_steps(verb)
    verb.add_argument("--seed", type=seed, metavar="N", help="seed of --draws (default: that of the run)")


def _add_schema(verbs: Any) -> None:
    more = "Use it before a training, to see which kinds to set by --column-kind."
    verb = _add_verb(verbs, "schema", "show what the columns of a table hold, and why", more)
    verb.add_argument("file", type=Path, metavar="FILE", help="a .csv, .csv.gz, .tsv or .parquet file")
    text = "what stands between the cells of a CSV file, or `tab` (default: found in the file)"
    verb.add_argument("--separator", metavar="SIGN", help=text)
    verb.add_argument("--json", action="store_true", help="print one JSON object")


def _add_plot(verbs: Any) -> None:
    verb = _add_verb(verbs, "plot", "draw the figures of a run into RUN/figures")
    _add_run(verb)
    _add_condition(verb)
    _add_other_data(verb)
    verb.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="file format")
    _add_fit_steps(verb)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the samples")


def _add_report(verbs: Any) -> None:
    more = (
        "The page shows what was run, the training, the figures that `evaluate` found, samples and latents.\n"
        "With several runs it compares them. It holds its pictures, and loads nothing."
    )
    verb = _add_verb(verbs, "report", "write one HTML page on a run, or one that compares several", more)
    _add_run(verb, nargs="+")
    _add_condition(verb)
    _add_other_data(verb)
    text = "the page (default: RUN/report.html, and report.html for several runs)"
    verb.add_argument("--out", type=Path, metavar="FILE", help=text)
    _add_fit_steps(verb)
    verb.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the samples")


def _add_condition(verb: _Parser) -> None:
    text = "value of a latent of all data, one number or several (default: the guide's); may be given several times"
    verb.add_argument("--condition", type=condition, action="append", metavar="SITE=N,N,...", help=text)


def _add_run(verb: _Parser, **several: Any) -> None:
    verb.add_argument("run", type=Path, metavar="RUN", help="a run folder", **several)
    verb.add_argument("--pair", metavar="MODULE:FUNCTION", help="the pair again, for a run of a pair of your own")
    _add_device(verb)


def _add_other_data(verb: _Parser) -> None:
    text = (
        "other data of the same shape and kind, prepared as those of the run were; all rows of a file without splits "
        "are test rows (default: the data that the run was trained on)"
    )
    verb.add_argument("--data", metavar="FILE_OR_NAME", help=text)
    _add_allow_changed(verb)


def _add_fit_steps(verb: _Parser) -> None:
    text = "for an auto-decoder: gradient steps that fit the posterior of a row first"
    verb.add_argument("--fit-steps", type=int, metavar="N", default=FIT_STEPS, help=text)


def _add_allow_changed(verb: _Parser) -> None:
    text = "go on although the data of the run are not those that it was trained on, in a file that changed, say"
    verb.add_argument("--allow-changed-data", action="store_true", help=text)


def _add_device(verb: _Parser) -> None:
    verb.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto: cuda where there is one")


def _add_ways_to_train(verb: _Parser) -> None:
    verb.add_argument("--evaluate", action="store_true", help="evaluate on the test data afterwards")
    if not any(action.dest == "device" for action in verb._actions):
        _add_device(verb)
    verb.add_argument("--tensorboard", action="store_true", help="also log to RUN/tensorboard")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")


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
        kind = whole_numbers if option.type is integers else option.type
        settings |= {"type": kind, "metavar": _PLACEHOLDERS[option.type]}
    else:
        settings |= {"type": option.type, "choices": option.choices, "metavar": "NAME" if long else None}
    group.add_argument(flag, **settings)


def _is_long(choices: Sequence[Any]) -> bool:
    """Whether choices are listed in the help of an option, since in its place they would take a line or more."""
    return sum(len(str(choice)) + 1 for choice in choices) > 60
