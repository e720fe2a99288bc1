"""The verbs of the command line: what each is, where its arguments are written, and what it does.

Both are imported only when the verb is used, so that help, the version and mistyped words take no time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from pyrovae._version import __version__
from pyrovae.cli.facts import PairFacts, facts_of, known_pairs
from pyrovae.cli.parsing import Parser
from pyrovae.options import is_own


class Verb(NamedTuple):
    """A verb of the command line."""

    text: str
    """What it does, for the list of verbs."""
    arguments: str
    """The function that adds its arguments to a parser, ``module:function`` below `pyrovae.cli`."""
    action: str
    """The function that does it, for parsed options; it may return an exit status."""
    more: str = ""
    """When to use it, for its own help."""
    usage: str | None = None
    """How it is called, where argparse does not say it well."""


VERBS = {
    "train": Verb(
        "train a pair of model and guide into a new run folder",
        "training_arguments:train",
        "training:train",
        usage="pyrovae train PAIR --data FILE_OR_NAME [options]",
    ),
    "resume": Verb(
        "go on with a training from where it stopped",
        "training_arguments:resume",
        "training:resume",
        "Use it after Ctrl-C, a crash or a kill. The run goes on as it was configured, and ends with\n"
        "the weights that it would have had without the interruption, bit for bit.",
    ),
    "grow": Verb(
        "add sticks to a finished run",
        "training_arguments:grow",
        "training:grow",
        "The new run begins with what the old one has learned, and is trained as that was. Use it for a\n"
        "run of the pair stick-breaking whose sticks are all in use. If the validation rows need no more\n"
        "of them, nothing is done.",
    ),
    "sweep": Verb(
        "train every point of a grid of options",
        "training_arguments:sweep",
        "sweeping:sweep",
        'The grid is a JSON object of options of `pyrovae train` by name, with "pair" and "data". A list\n'
        'stands for each of its values: {"pair": "gaussian", "data": "digits", "latent_dim": [2, 8],\n'
        '"lr": [0.001, 0.0001]}. The same command again goes on where it stopped.',
        "pyrovae sweep GRID.json --out DIR [options], or pyrovae sweep --collect DIR",
    ),
    "evaluate": Verb(
        "compute the held-out likelihood and other figures of a run", "using_arguments:evaluate", "using:evaluate"
    ),
    "sample": Verb("draw data from the model of a run into a file", "using_arguments:sample", "sampling:sample"),
    "encode": Verb(
        "write the latents of data under a run into a file",
        "using_arguments:encode",
        "encoding:encode",
        "A line for each row: the mean and the scale (standard deviation) of every latent under the guide,\n"
        "the mean weights of a stick, the probabilities of a class that the pair infers.",
    ),
    "impute": Verb(
        "complete a table with missing entries",
        "using_arguments:impute",
        "imputing:impute",
        "Use it with a run of the pair tabular. Observed entries stay as they are, the missing ones are\n"
        "filled. The result depends on no other row of the table.",
    ),
    "plot": Verb("draw the figures of a run", "using_arguments:plot", "using:plot"),
    "report": Verb(
        "write one HTML page on a run, or one that compares several",
        "using_arguments:report",
        "reporting:report",
        "The page shows what was run, the training, the figures that `evaluate` found, samples and latents.\n"
        "With several runs it compares them. It holds its pictures, and loads nothing.",
    ),
    "schema": Verb(
        "show what the columns of a table hold, and why",
        "listing_arguments:schema",
        "tables:schema",
        "Use it before a training, to see which kinds to set by --column-kind.",
    ),
    "datasets": Verb("list the data sets, and where they are", "listing_arguments:datasets", "listing:datasets"),
    "models": Verb(
        "list the pairs of model and guide, with their options", "listing_arguments:models", "listing:models"
    ),
}


def found(name: str) -> Callable[..., Any]:
    """A function below `pyrovae.cli`, written ``module:function``."""
    module, _, function = name.partition(":")
    action: Callable[..., Any] = getattr(import_module(f"pyrovae.cli.{module}"), function)
    return action


def make_parser(pair: PairFacts | None = None) -> argparse.ArgumentParser:
    """The parser of the command line.

    Parameters
    ----------
    pair : PairFacts, optional
        A pair whose options `train` is to have.

    Returns
    -------
    argparse.ArgumentParser
        It raises ValueError for what it cannot parse.
    """
    parser = Parser(
        prog="pyrovae",
        description="Train and use variational autoencoders written as a Pyro model and a Pyro guide.",
        epilog="To begin: pyrovae train gaussian --data digits --binarize dynamic --out runs/digits --evaluate\n"
        "Your own data: pyrovae train gaussian --data mine.npz\n\n"
        "Every verb has --help. Exit status: 0, 1 if points of a sweep failed, 2 for bad input, 130 after Ctrl-C.\n"
        "With PYROVAE_DEBUG=1 in the environment an error shows where it comes from.",
    )
    parser.add_argument("--version", action="version", version=f"pyrovae {__version__}", help="show the version")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)
    for name, verb in VERBS.items():
        description = f"{verb.text[0].upper()}{verb.text[1:]}.{verb.more and chr(10) + verb.more}"
        more: dict[str, Any] = {} if verb.usage is None else {"usage": verb.usage}
        fill = partial(_filled, verb, pair if name == "train" else None)
        made = verbs.add_parser(name, help=verb.text, description=description, fill=fill, **more)
        made.set_defaults(prog=made.prog)
    return parser


def _filled(verb: Verb, pair: PairFacts | None, parser: Parser) -> None:
    add = found(verb.arguments)
    if pair is None:
        add(parser)
    else:
        add(parser, pair)


def named_pair(words: Sequence[str]) -> PairFacts | None:
    """The pair that a new training names, whose options it then has; it may stand behind options that we do not know.

    Parameters
    ----------
    words : sequence of str
        The command line.

    Returns
    -------
    PairFacts or None
        None for other verbs, and where none is named.

    Raises
    ------
    ValueError
        For an unknown pair.
    """
    if list(words[:1]) != ["train"]:
        return None
    options, unknown = make_parser().parse_known_args([word for word in words if word not in ("-h", "--help")])
    if options.pair is None:
        return None
    candidates = (name for name in (options.pair, *unknown) if name.replace("_", "-") in known_pairs() or is_own(name))
    return pair_facts(next(candidates, options.pair))


def pair_facts(name: str) -> PairFacts:
    """What is known of a pair by its name, or of one of the user's own, which is imported.

    Raises
    ------
    ValueError
        As `find_pair`.
    """
    known = known_pairs().get(name.replace("_", "-"))
    if known is not None:
        return known
    if ":" not in name:
        listed = ", ".join(known_pairs())
        raise ValueError(f"unknown pair {name!r}; known are {listed}, or module:function for one of your own")
    from pyrovae.pairs.registry import find_pair

    return facts_of(find_pair(name))


def options_of_train(pair: PairFacts | None) -> dict[str, tuple[bool, bool]]:
    """The options of `train` by name, and whether they are switches, and switches that can be turned off.

    Parameters
    ----------
    pair : PairFacts, optional
        A pair whose options belong to them.

    Returns
    -------
    dict of str to (bool, bool)
        By the name with ``_`` between the words.
    """
    parser = Parser(fill=partial(_filled, VERBS["train"], pair)).filled()
    return {
        action.option_strings[-1 if len(action.option_strings[0]) < 3 else 0][2:].replace("-", "_"): (
            action.nargs == 0 or action.const is True,
            isinstance(action, argparse.BooleanOptionalAction),
        )
        for action in parser._actions
        if action.option_strings
    }
