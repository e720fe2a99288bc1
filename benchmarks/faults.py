"""Flipped bits, mutated files and odd command lines, by the hundreds: what a user loses, or is told wrongly.

    python benchmarks/faults.py flips --count 300       # a bit of a file of a run, and what evaluate says then
    python benchmarks/faults.py mutations --count 5000  # damaged data files of every format
    python benchmarks/faults.py words --count 500       # command lines, valid and mutated, see command_lines.py

Kills have a script of their own, `kills.py`. Each prints a line of JSON with its counts. Everything is drawn from
--seed. A training, an evaluation or a command is one process, forked from this one, so that a crash is seen as one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pyrovae.cli.command import main as command_line

SMALL = ["--hidden", "8", "--quiet"]
DIGITS = [
    "--data",
    "digits",
    "--binarize",
    "static",
    "--batch-size",
    "256",
    "--epochs",
    "3",
    "--checkpoint-seconds",
    "0",
]
CASES = {
    "gaussian": ["gaussian", *DIGITS, *SMALL, "--latent-dim", "2", "--lr-schedule", "cosine"],
    "gaussian-dreg": ["gaussian", *DIGITS, *SMALL, "--objective", "iwae-dreg", "--num-particles", "3"],
    "gaussian-sgd": ["gaussian", *DIGITS, *SMALL, "--optimizer", "sgd", "--kl-weight", "warm-up:2"],
    "hierarchical": ["hierarchical", *DIGITS, "--hidden", "8", "--quiet", "--latent-dims", "4,2"],
    "stick-breaking": ["stick-breaking", *DIGITS, *SMALL, "--truncation", "5"],
    "semi-supervised": ["semi-supervised", *DIGITS, *SMALL, "--labels", "100", "--objective", "enum"],
    "sbn-vimco": ["sbn", *DIGITS, "--quiet", "--objective", "vimco", "--num-particles", "3"],
    "sbn-nvil": ["sbn", *DIGITS, "--quiet", "--objective", "nvil"],
    "categorical": ["categorical", *DIGITS, *SMALL],
    "auto-decoder": ["auto-decoder", *DIGITS, *SMALL],
    "tabular": ["tabular", "--data", "iris", "--epochs", "20", *SMALL],
}


def forked(action: Callable[[], Any], wait: float) -> tuple[int, str]:
    """Run an action in a process of its own, and kill it after some seconds.

    Returns 0, 1 after a traceback, or minus the number of a signal; and what it said.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        said, status = io.StringIO(), 1
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action()
                status = 0
        except BaseException as error:
            said.write(f"\nTRACEBACK {type(error).__name__}: {error}")
        os.write(write, said.getvalue().encode()[-60_000:])
        os._exit(status)
    os.close(write)
    end, ended, status = time.monotonic() + wait, 0, 0
    while not ended and time.monotonic() < end:
        time.sleep(0.005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(status), text


def run(words: list[str]) -> int:
    """A command line; its exit status is written down."""
    print(f"\nSTATUS {command_line(words)}")
    return 0


def flips(count: int, seed: int, only: str | None) -> Counter[str]:
    """Flip a bit of a file of a run, and compare what evaluate and the metrics say."""
    from pyrovae.storage import CheckpointError
    from pyrovae.training import RunFolder

    generator, found = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        whole, changed = Path(folder, "whole"), Path(folder, "run")
        forked(lambda: run(["train", *CASES[only or "gaussian"], "--out", str(whole)]), 600)

        def look() -> int:
            run(["evaluate", str(changed), "--num-samples", "3", "--num-rows", "20", "--baselines", "none", "--json"])
            try:
                print(RunFolder(changed).read_metrics())
            except CheckpointError as error:
                print(f"pyrovae: {error}")
            return 0

        shutil.copytree(whole, changed)
        expected = figures(forked(look, 120)[1])
        files = [path for path in sorted(whole.rglob("*")) if path.is_file()]
        for _ in tqdm(range(count), desc="flips", unit="flip"):
            shutil.rmtree(changed)
            shutil.copytree(whole, changed)
            path = changed / generator.choice(files).relative_to(whole)
            content = bytearray(path.read_bytes())
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            path.write_bytes(content)
            status, said = forked(look, 120)
            errors = [line for line in said.splitlines() if line.startswith("pyrovae: ")]
            kind = "tracebacks" if status else None
            kind = kind or ("one line" if errors else "same" if figures(said) == expected else "silent changes")
            found[kind] += 1
            if kind in ("tracebacks", "silent changes"):
                print(path.relative_to(changed), said[-500:], file=sys.stderr)
    return found


def figures(said: str) -> list[str]:
    """The lines of a result, whatever the log says beside them."""
    return [line for line in said.splitlines() if line.startswith(("{", "["))]


def mutations(count: int, seed: int, only: str | None) -> Counter[str]:
    """Damage data files of every format: they are read, or refused in one line."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))
    from test_mutated_files import READERS, mutated

    generator, found, said = random.Random(seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in tqdm(range(count), desc="mutations", unit="file"):
            name = list(READERS)[number % len(READERS)]
            make, read = READERS[name]
            path = Path(folder, name)
            path.write_bytes(mutated(make(), generator))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path)
                found["read"] += 1
            except Exception as error:
                good = type(error).__name__ in ("DataError", "ValueError") and "\n" not in str(error)
                found["one line" if good else "tracebacks"] += 1
                said += [] if good else [f"{name}: {type(error).__name__}: {error}"]
    print("\n".join(said[:20]), file=sys.stderr)
    return found


def words(count: int, seed: int, only: str | None) -> Counter[str]:
    """Valid and mutated command lines of all verbs and families: right, or one line with status 2."""
    import command_lines

    generator, found = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        command_lines.prepare(lambda line: forked(partial(run, line), 600))
        from pyrovae.data import load

        load("iris")
        import sklearn.datasets

        sklearn.datasets.load_iris(as_frame=True).frame.to_csv("iris.csv", index=False)
        for number in tqdm(range(count), desc="command lines", unit="line"):
            line = command_lines.line(generator, number)
            status, said = forked(partial(exiting, line), 120)
            kind = command_lines.judged(line, status, said)
            found[kind] += 1
            if kind not in ("right", "one line"):
                print(f"\n{kind} {line} {said[-600:]}", file=sys.stderr, flush=True)
    return found


def exiting(line: list[str]) -> int:
    """A command line that may leave, as --help does."""
    try:
        return run(line)
    except SystemExit as stop:
        print(f"\nSTATUS {stop.code}")
        return 0


def main() -> None:
    """Run a campaign, and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=("flips", "mutations", "words"))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=CASES, help="one training alone, for flips")
    options = parser.parse_args()
    for name in ("pandas", "sklearn.datasets", "sklearn.model_selection", "pyrovae.estimators", "pyrovae.plotting"):
        importlib.import_module(name)  # once, and not in every process
    found = globals()[options.campaign](options.count, options.seed, options.case)
    print(json.dumps({"campaign": options.campaign, "seed": options.seed, "case": options.case, **found}))


if __name__ == "__main__":
    main()
