"""Defaults of `VAEImputer`, compared on validation entries: observed entries that are hidden on top of the masks.

    PYROVAE_DATA=... python benchmarks/table_choices.py --data breast-cancer boston energy \
      --method vae:trees=false,num_nets=1 vae:trees=false vae
    PYROVAE_DATA=... python benchmarks/table_choices.py --data boston bank avocado energy --rows 4000 \
      --method vae:trees=false,num_nets=1,parameterization=natural vae:trees=false,num_nets=1
    python benchmarks/table_choices.py --show

Nothing of the test entries of `tables.py` is looked at: of the rows that its tasks give to be fitted on, a tenth of the
observed entries is hidden too, and scored by the figure of the task. Mask 1 of breast cancer, seed 0 of the other
tables. A difference is told with its standard error over the validation entries, not over seeds. Every finished cell is
one line of the file of results, and is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from table_tasks import VAEM_NOMINAL, Cell, Task, make_task
from tables import parse_method, read_results, vae

from pyrovae.data.hivae import TABLES
from pyrovae.metrics.imputation import hivae_error, mse, vaem_rmse

SHARE = 0.1
"""Share of the observed entries that is hidden on top of the mask."""
CELLS = {
    "breast-cancer": Cell("breast-mcar", "breast-cancer", 50, 1),
    **{name: Cell("vaem", name, 50, 0) for name in VAEM_NOMINAL},
    **{f"hivae-{name}": Cell("hivae", name, 50, 0) for name in TABLES},
}


def validation_task(cell: Cell, most_rows: int) -> Task:
    """The rows that a task gives to be fitted on, with validation entries hidden, and their truth."""
    task = make_task(cell)
    generator = np.random.default_rng(cell.seed + 77)
    train = task.train
    if len(train) > most_rows:
        train = train[np.sort(generator.permutation(len(train))[:most_rows])]
    hidden = ~np.isnan(train) & (generator.uniform(size=train.shape) < SHARE)
    shown, truth = np.where(hidden, np.nan, train), np.nan_to_num(train)

    def score(filled: np.ndarray) -> dict[str, float]:
        if cell.protocol == "hivae":
            return hivae_error(truth, filled, hidden, task.kinds, task.num_levels)._asdict()
        if cell.protocol == "vaem":
            return vaem_rmse(truth, filled, hidden, task.kinds, ranges=np.ones(len(task.kinds)))._asdict()
        return {"mse": mse(truth, filled, hidden)}

    return Task(shown, shown, task.kinds, task.num_levels, truth, hidden, score)


def entry_errors(task: Task, filled: np.ndarray) -> np.ndarray:
    """Errors of the validation entries, so that columns count alike: squared, over the variance; 0 or 1 for levels."""
    levels = task.num_levels > 1
    variance = np.array([np.var(column[mask]) for column, mask in zip(task.truth.T, task.hidden.T, strict=True)])
    wrong = (filled != task.truth).astype(float)
    errors = np.where(levels, wrong, (filled - task.truth) ** 2 / np.maximum(variance, 1e-12))
    return errors[task.hidden]


def measure(name: str, method: str, rows: int, seed: int) -> dict[str, Any]:
    """Run one method on the validation entries of one table: the line of the file of results."""
    task = validation_task(CELLS[name], rows)
    start = time.monotonic()
    _, options = parse_method(method)
    filled = vae(task.train, task.rows, task.kinds, task.num_levels, seed, **options).filled
    seconds = round(time.monotonic() - start, 1)
    figures = {key: value for key, value in task.score(filled).items() if np.isfinite(value)}
    errors = np.round(entry_errors(task, filled), 5).tolist()
    found = {"data": name, "rows": rows, "seed": seed, "method": method, "figures": figures, "seconds": seconds}
    return {**found, "errors": errors}


def show(records: list[dict[str, Any]]) -> Iterator[str]:
    """The figures of each table, and the mean difference of the entries' errors from the first method."""
    for data, rows, seed in sorted({(each["data"], each["rows"], each["seed"]) for each in records}):
        yield f"\n{data}, at most {rows} rows, seed {seed}"
        found = [each for each in records if (each["data"], each["rows"], each["seed"]) == (data, rows, seed)]
        first = np.array(found[0]["errors"])
        for each in found:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in each["figures"].items())
            apart = np.array(each["errors"]) - first
            error = apart.std(ddof=1) / len(apart) ** 0.5
            line = f"  {each['method']:60} {figures}  [{each['seconds']} s]"
            yield line if each is found[0] else f"{line}  {apart.mean():+.4f} +- {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(CELLS), default=("breast-cancer", "boston", "energy"))
    parser.add_argument(
        "--method", nargs="+", default=("vae",), help="vae with arguments of VAEImputer, as in tables.py"
    )
    parser.add_argument("--rows", type=int, default=5000, help="rows of larger tables that are taken")
    parser.add_argument("--seed", type=int, nargs="+", default=(0,), help="seeds of the imputer")
    parser.add_argument("--out", type=Path, default=Path("runs/tables/choices.jsonl"), help="the file of results")
    parser.add_argument("--show", action="store_true", help="print the figures")
    arguments = parser.parse_args()
    records = read_results(arguments.out)
    if arguments.show:
        print("\n".join(show(records)))
        return
    for method in arguments.method:
        if parse_method(method)[0] != "vae":
            raise SystemExit(f"{method!r} is no vae with arguments")
    done = {(each["data"], each["rows"], each["seed"], each["method"]) for each in records}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a") as file:
        for name in arguments.data:
            for seed in arguments.seed:
                for method in arguments.method:
                    if (name, arguments.rows, seed, method) not in done:
                        record = measure(name, method, arguments.rows, seed)
                        file.write(json.dumps(record) + "\n")
                        file.flush()
                        print({key: value for key, value in record.items() if key != "errors"}, flush=True)


if __name__ == "__main__":
    main()
