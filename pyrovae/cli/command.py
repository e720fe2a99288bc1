"""The command line: `pyrovae VERB`."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence

from pyrovae import data
from pyrovae.cli import imputing, listing, reporting, sweeping, tables, training, using
from pyrovae.cli.arguments import make_parser, named_pair
from pyrovae.storage import CheckpointError

BAD_INPUT, INTERRUPTED = 2, 130
_VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "train": training.train,
    "resume": training.resume,
    "grow": training.grow,
    "sweep": sweeping.sweep,
    "evaluate": using.evaluate,
    "sample": using.sample,
    "impute": imputing.impute,
    "plot": using.plot,
    "report": reporting.report,
    "schema": tables.schema,
    "datasets": listing.datasets,
    "models": listing.models,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words behind `pyrovae`. None takes those of the process.

    Returns
    -------
    int
        The exit status: 0, 1 if points of a sweep failed, 2 for bad input, 130 after Ctrl-C.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pyrovae").setLevel(logging.INFO)
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        options, unknown = make_parser(named_pair(words)).parse_known_args(words)
        if unknown:
            raise ValueError(f"unknown arguments: {' '.join(unknown)} (see {options.prog} --help)")
        with warnings.catch_warnings():
            training.silence_pyro()
            return _VERBS[options.verb](options) or 0
    except KeyboardInterrupt as interrupt:
        print(f"pyrovae: {interrupt}" if str(interrupt) else "pyrovae: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CheckpointError, data.DataError, RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
        # torch raises RuntimeError where a user's pair does not fit the data, and where memory runs out.
        if os.environ.get("PYROVAE_DEBUG"):
            raise
        print(f"pyrovae: {_in_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    # Pyro adds tensors and the shapes of all sites.
    text = re.split(r":?\s+tensor\(|\s*Trace Shapes:", str(error), maxsplit=1)[0]
    more = "" if text == str(error) else " (PYROVAE_DEBUG=1 shows more)"
    return " ".join(text.split()) + more or type(error).__name__
