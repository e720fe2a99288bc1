"""The arguments of the verbs that train: `train`, `resume`, `grow` and `sweep`."""

from __future__ import annotations

import argparse

from pyrovae.cli.common_arguments import (
    add_allow_changed,
    add_device,
    add_options,
    add_overwrite,
    add_pair_option,
    add_run,
)
from pyrovae.cli.facts import PairFacts, facts
from pyrovae.cli.options import DATA, TABLES, TRAINING, flag
from pyrovae.cli.parsing import Parser
from pyrovae.cli.values import named_value, path, seed

_REPLACE = "replace the run that the folder holds, and leave other files beside the new one"


def train(verb: Parser, pair: PairFacts | None = None) -> None:
    """Add the arguments of `train`."""
    verb.set_defaults(builder=pair)
    verb.add_argument("pair", nargs="?", metavar="PAIR", help="a name from `pyrovae models`, or module:function")
    text = (
        "a .npy, .npz, .pt, .csv or .parquet file, a folder of pictures, a name from `pyrovae datasets`, or "
        "module:function"
    )
    verb.add_argument("--data", metavar="FILE_OR_NAME", help=text)
    text = "the run folder (default: runs/PAIR-NAME, with a number behind it if there is one)"
    verb.add_argument("--out", type=path, metavar="RUN", help=text)
    add_overwrite(verb, _REPLACE)
    _add_ways_to_train(verb)
    group = verb.add_argument_group("data")
    add_options(group, DATA, {})
    group.add_argument("--dequantize", action="store_true", default=None, help="spread 8-bit values over [0, 1]")
    text = "seed of splits, binarisation, kept labels and synthetic data (default: 0)"
    group.add_argument("--data-seed", type=seed, metavar="N", help=text)
    group = verb.add_argument_group("tables")
    add_options(group, TABLES, {})
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
    defaults = facts()["training"] | (pair.training if pair else {})
    if pair is not None and pair.counts_epochs:
        defaults["epochs"] = "by the number of rows"
    group = verb.add_argument_group("training")
    add_options(group, TRAINING, defaults)
    text = "leave out the last step of an epoch if its batch is a smaller one"
    group.add_argument("--drop-last", action="store_true", default=None, help=text)
    text = (
        "run compiled code: the same training in less time; recorded: without a compiler, saves less; auto: compiled "
        "in trainings of 10000 steps and more, recorded from 2000 on"
    )
    ways = ("auto", "recorded")
    group.add_argument(
        "--compile", nargs="?", const=True, default=None, choices=ways, metavar="|".join(ways), help=text
    )
    if pair is None:
        verb.add_argument_group("options of the pair", "shown by `pyrovae train PAIR --help` and `pyrovae models`")
        return
    group = verb.add_argument_group(f"options of the pair {pair.name}")
    for option in pair.options:
        try:
            add_pair_option(group, option, flag(option.name))
        except argparse.ArgumentError:  # a user's pair may have an option of the name of one of ours
            add_pair_option(group, option, flag(f"pair_{option.name}"))
    for option in pair.finishing:
        add_pair_option(group, option, flag(option.name))


def resume(verb: Parser) -> None:
    """Add the arguments of `resume`."""
    add_run(verb)
    verb.add_argument(
        "--data", metavar="MODULE:FUNCTION", help="the data again, for a run on data of your own function"
    )
    text = "train for so many epochs in all, from now on; a finished run goes on (default: as it was configured)"
    verb.add_argument("--epochs", type=int, metavar="N", help=text)
    text = "stop after so many epochs without a better validation loss, from now on (default: as it was configured)"
    verb.add_argument("--patience", type=int, metavar="N", help=text)
    add_allow_changed(verb)
    _add_ways_to_train(verb)


def grow(verb: Parser) -> None:
    """Add the arguments of `grow`."""
    verb.add_argument("run", type=path, metavar="RUN", help="a run folder of the pair stick-breaking")
    verb.add_argument("--sticks", type=int, metavar="N", default=10, help="sticks to add")
    text = "the new run folder (default: RUN with the number of sticks behind it)"
    verb.add_argument("--out", type=path, metavar="RUN", help=text)
    add_overwrite(verb, _REPLACE)
    _add_ways_to_train(verb)


def sweep(verb: Parser) -> None:
    """Add the arguments of `sweep`."""
    verb.add_argument("grid", nargs="?", type=path, metavar="GRID.json", help="the grid")
    text = "folder of the run folders; with --collect the .csv file (default: DIR/results.csv)"
    verb.add_argument("--out", type=path, metavar="DIR", help=text)
    text = "write options and figures of all points of this folder into one .csv file, and draw what they have"
    verb.add_argument("--collect", type=path, metavar="DIR", help=text)
    verb.add_argument("--jobs", type=int, metavar="N", default=1, help="points that are trained at once")
    text = "a backend of joblib: loky (processes), threading, multiprocessing, dask, ray (default: loky)"
    verb.add_argument("--backend", metavar="NAME", help=text)
    text = "argument of the backend, such as scheduler_host=tcp://... of dask; may be given several times"
    verb.add_argument("--backend-option", type=named_value, action="append", metavar="NAME=VALUE", help=text)
    verb.add_argument("--evaluate", action="store_true", help="evaluate every point on the test data afterwards")
    add_device(verb)
    add_overwrite(verb, "train points anew that are done, and replace their runs; with --collect replace the .csv file")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_ways_to_train(verb: Parser) -> None:
    verb.add_argument("--evaluate", action="store_true", help="evaluate on the test data afterwards")
    if not any(action.dest == "device" for action in verb._actions):
        add_device(verb)
    verb.add_argument("--tensorboard", action="store_true", help="also log to RUN/tensorboard")
    verb.add_argument("--quiet", action="store_true", help="no progress bar")
