"""The command line: `pyrovae VERB`."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from threading import current_thread, main_thread

from pyrovae.cli.arguments import VERBS, found, make_parser, named_pair
from pyrovae.distributed import ALONE, processes

BAD_INPUT, INTERRUPTED = 2, 130

_SHARED = ("train", "resume", "evaluate", "encode", "impute")
"""Verbs whose work several processes share."""


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
    ranks, options = ALONE, None
    try:
        ranks = processes()
        words = list(sys.argv[1:] if arguments is None else arguments)
        with nullcontext() if ranks.first else _in_silence():
            options, unknown = make_parser(named_pair(words)).parse_known_args(words)
        if unknown:
            raise ValueError(f"unknown arguments: {' '.join(unknown)} (see {options.prog} --help)")
        if ranks.several and options.verb not in _SHARED:
            raise ValueError(f"{options.verb} is the work of one process, and {ranks.size} were started")
        with warnings.catch_warnings():
            silence_pyro()
            with _importing(alone=arguments is None):
                action = found(VERBS[options.verb].action)
            if ranks.first:
                return action(options) or 0
            logging.getLogger("pyrovae").setLevel(logging.ERROR)
            warnings.simplefilter("ignore")
            options.quiet = True
            with redirect_stdout(io.StringIO()):
                return action(options) or 0
    except KeyboardInterrupt as interrupt:
        if ranks.first:
            print(f"pyrovae: {interrupt}" if str(interrupt) else "pyrovae: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if os.environ.get("PYROVAE_DEBUG") or not _is_told(error):
            raise
        told = _in_one_line(error) if options is None else _by_flags(_in_one_line(error), vars(options))
        ranks.last_word(told, lambda line: print(f"pyrovae: {line}", file=sys.stderr, flush=True))
        return BAD_INPUT
    return 0


@contextmanager
def _importing(*, alone: bool) -> Iterator[None]:
    """A context of imports in which Ctrl-C raises nothing, since compiled modules abort the process on an exception.

    It ends a process that is `alone` at once, which has nothing to lose yet, and elsewhere waits for the imports.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return
    seen: list[int] = []

    def interrupted(number: int, frame: object) -> None:
        seen.append(number)
        if alone:
            print("pyrovae: interrupted", file=sys.stderr, flush=True)
            os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if seen:
        raise KeyboardInterrupt


@contextmanager
def _in_silence() -> Iterator[None]:
    """A context in which nothing is printed, since another process prints the same."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _is_told(error: Exception) -> bool:
    """Whether the message of an error says what is wrong with the input."""
    # torch raises RuntimeError where a user's pair does not fit the data, and where memory runs out.
    if isinstance(error, RuntimeError | ValueError | TypeError | OSError | ImportError):
        return True
    from pyrovae.data import DataError  # not above: help and mistyped words need none of it
    from pyrovae.storage import CheckpointError

    return isinstance(error, CheckpointError | DataError)


def silence_pyro() -> None:
    """Leave out Pyro's warnings of what raises an error all the same, or makes none."""
    warnings.filterwarnings("ignore", "TraceMeanField_ELBO only")
    warnings.filterwarnings("ignore", "TraceEnum_ELBO found no")  # it is then the same as Trace_ELBO
    warnings.filterwarnings("ignore", "Encountered")  # of losses that the Trainer stops at anyway


def _by_flags(line: str, options: Mapping[str, object]) -> str:
    """A line that begins with the name of an argument in Python, with the flag that was typed in its place.

    >>> _by_flags("label_column is for .csv files", {"label_column": "y"})
    '--label-column is for .csv files'
    """
    found = re.match(r"(\w+)(?= (of \S+ )?(is for|is not for|must) )", line)
    name = "" if found is None else found[1]
    values = [value for dest in (name, f"pair_{name}") if (value := options.get(dest)) is not None]
    named = found is not None and (found[3] != "must" or any(str(value) in line for value in values))
    return f"--{name.replace('_', '-')}{line[len(name) :]}" if values and named else line


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    # Pyro adds tensors and the shapes of all sites.
    text = re.split(r":?\s+tensor\(|\s*Trace Shapes:", str(error), maxsplit=1)[0]
    more = "" if text == str(error) else " (PYROVAE_DEBUG=1 shows more)"
    return " ".join(text.split()) + more or type(error).__name__
