"""Files of run folders and of a saved imputer with bits flipped, bytes changed or cut off, and what opening them says.

    python benchmarks/damaged_runs.py --count 200

There is a run of each family, two with trees, one of them with two nets, and an imputer of a table. Weights, metrics,
the state and what follows a training are read again after each damage: as before, or one line of refusal. Prints the
counts.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import kill_cases
import kills
import pandas as pd
import torch

from pyrovae.data import DataError
from pyrovae.estimators import VAEImputer
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError, load_tensors

CASES = {
    *("gaussian/elbo", "auto-decoder/mean-field", "categorical/vimco", "hierarchical/elbo", "landmarks/mean-field"),
    *("sbn/vimco", "semi-supervised/enum", "stick-breaking/mean-field", "two-nets-and-trees", "trees"),
}
IMPUTER = "imputer"


def make(folder: Path) -> None:
    """Write the runs and the imputer, each in a process of its own."""

    def imputer() -> int:
        table = pd.read_csv(kill_cases.TABLE)
        VAEImputer(n_components=2, hidden=(6,), epochs=2, random_state=0).fit(table).save(folder / IMPUTER)
        return 0

    actions = [(c.name, partial(kills.train, c, folder / c.name.replace("/", "-"))) for c in kill_cases.plain_cases()]
    for name, action in [*((n, a) for n, a in actions if n in CASES), (IMPUTER, imputer)]:
        child = kills.Child(action, folder / "said")
        if not child.wait(kills.LIMIT) or child.status:
            raise SystemExit(f"{name} cannot be made: {child.text()}")


def look(folder: Path) -> Any:
    """What a folder says."""
    if folder.name.startswith(IMPUTER):
        completed = VAEImputer.load(folder).transform(pd.read_csv(kill_cases.TABLE).head(8))
        return pd.DataFrame(completed).astype(str).to_numpy().tolist()
    run = Run.open(folder)
    weights = {name: value.numpy().tobytes() for name, value in run.load_vae().state_dict().items()}
    tensors, information = load_tensors(run.folder.state_path)
    if run.pair.finishing is not None:
        run.load_finished()
    state = {name: value.numpy().tobytes() for name, value in tensors.items()}
    return weights, state, repr(information), repr(run.folder.read_metrics())


def damaged(content: bytes, dice: random.Random) -> bytes:
    """The content with a bit flipped, bytes changed, or its end cut off."""
    changed = bytearray(content)
    kind = dice.randrange(4) if changed else 3
    if kind < 2:
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    elif kind == 2:
        place = dice.randrange(len(changed))
        changed[place : place + 8] = dice.randbytes(8)
    else:
        del changed[dice.randrange(len(changed) + 1) :]
    return bytes(changed)


def main() -> None:
    """Damage files, and count what comes of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    dice, found = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        folder = Path(place)
        kill_cases.write_files(folder)
        make(folder)
        runs = sorted(path for path in folder.iterdir() if path.is_dir())
        expected = {run: look(run) for run in runs}
        for number in range(options.count):
            run = runs[number % len(runs)]
            copy = run.with_name(f"{run.name}-damaged")
            shutil.copytree(run, copy)
            path = dice.choice(sorted(path for path in copy.rglob("*") if path.is_file() and path.name != ".lock"))
            path.write_bytes(damaged(path.read_bytes(), dice))
            try:
                kind = "as before" if look(copy) == expected[run] else "silent changes"
            except (CheckpointError, DataError, ValueError) as error:
                kind = "more lines" if "\n" in str(error) else "one line"
            except Exception as error:
                kind = "tracebacks"
                print(type(error).__name__, error, file=sys.stderr)
            found[kind] += 1
            if kind in ("silent changes", "tracebacks", "more lines"):
                print(kind, path.relative_to(folder), file=sys.stderr)
            shutil.rmtree(copy)
        os.chdir("/")
    print(dict(found))


if __name__ == "__main__":
    main()
