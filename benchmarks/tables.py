"""Imputers side by side on incomplete tables: the baselines of `pyrovae.estimators.baselines` and `VAEImputer`.

    PYROVAE_DATA=... python benchmarks/tables.py hivae --data breast letter --percent 20 50 --method mean-mode
    PYROVAE_DATA=... python benchmarks/tables.py vaem --data boston energy --method hist-gradient-boosting vae
    python benchmarks/tables.py breast-mcar --method bayesian-ridge extra-trees vae:trees=true
    python benchmarks/tables.py breast-mnar --method mean-mode bayesian-ridge
    python benchmarks/tables.py forest-imputation --data iris wine --method vae miceforest
    python benchmarks/tables.py forest-generation --method vae transformer real
    PYROVAE_DATA=... python benchmarks/tables.py pooled-means
    python benchmarks/tables.py pooled-normal --method vae complete-rows
    python benchmarks/tables.py show

Protocols and figures are described in table_tasks.py, those of several imputations and new rows in row_tasks.py. A
method "vae" is `VAEImputer`; arguments of it follow a colon, as JSON: `vae:trees=true,epochs=20`. Every finished cell
is one line of the file of results, and is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from row_tasks import LOADERS, ROW_METHODS, measure_rows, row_cells
from table_tasks import VAEM_NOMINAL, Cell, Task, breast_cells, hivae_cells, make_task, vaem_cells

from pyrovae.data.columns import NUMBERS
from pyrovae.data.hivae import PERCENTS, TABLES
from pyrovae.estimators.baselines import BASELINES, impute_with
from pyrovae.metrics.imputation import interval_coverage

MOST_INTERVALS = 5000
"""Rows up to which the coverage of 90 % intervals is measured."""
DEFAULT_METHODS = ("mean-mode", "hist-gradient-boosting")


class Answer(NamedTuple):
    """Filled rows, and the ends of 90 % intervals where a method has them."""

    filled: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def vae(
    train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], levels: np.ndarray, seed: int, **options: Any
) -> Answer:
    """Fill `rows` by a `VAEImputer` that was fitted on `train`.

    Both hold numbers, levels as codes, and NaN. `levels` is the number of levels of each column, 1 for numbers. The
    imputer is only told of those that occur.
    """
    from pyrovae.estimators import VAEImputer

    names = [f"x{number}" for number in range(train.shape[1])]
    known = {}
    for name, kind, column in zip(names, kinds, train.T, strict=True):
        seen = column[~np.isnan(column)]
        if np.unique(seen).size > 2:  # else there is nothing to say; and HI-VAE calls columns with zeros positive
            known[name] = "real" if kind == "positive" and seen.min() <= 0 else kind
    imputer = VAEImputer(random_state=seed, kinds=known, **options).fit(pd.DataFrame(train, columns=names))
    frame = pd.DataFrame(rows, columns=names)
    filled = imputer.transform(frame).to_numpy(dtype=float)
    if len(rows) > MOST_INTERVALS:
        return Answer(filled)
    return Answer(filled, *(end.to_numpy(dtype=float) for end in imputer.intervals(frame)))


def parse_method(method: str, protocol: str = "") -> tuple[str, dict[str, Any]]:
    """The name and the arguments in ``name:argument=value,...`` of a method of a protocol."""
    name, _, rest = method.partition(":")
    options = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    known = ROW_METHODS.get(protocol, ("vae", *BASELINES))
    if name not in known or (options and name not in ("vae", "transformer")):
        raise SystemExit(f"unknown method {method!r}; known are {', '.join(known)}, and arguments of vae, transformer")
    return name, options


def answer(method: str, task: Task, seed: int) -> Answer:
    name, options = parse_method(method)
    if name == "vae":
        return vae(task.train, task.rows, task.kinds, task.num_levels, seed, **options)
    return Answer(impute_with(name, task.train, task.rows, task.kinds, seed))


def measure(cell: Cell, method: str) -> dict[str, Any]:
    """Run one method on one task: the line of the file of results."""
    start = time.monotonic()
    if cell.protocol in ROW_METHODS:
        figures = measure_rows(cell, *parse_method(method, cell.protocol))
        seconds = round(time.monotonic() - start, 2)
        return {**cell._asdict(), "method": method, "figures": figures, "seconds": seconds}
    task = make_task(cell)
    start = time.monotonic()
    filled, low, high = answer(method, task, cell.seed)
    seconds = round(time.monotonic() - start, 2)
    figures = task.score(filled)
    if low is not None and high is not None:
        asked = task.hidden & np.isin(task.kinds, NUMBERS) & ~np.isnan(low)  # a number of two values has no interval
        if asked.any():
            figures["coverage"] = interval_coverage(low, high, task.truth, asked)
    figures = {name: value for name, value in figures.items() if np.isfinite(value)}  # NaN: there is no such column
    return {**cell._asdict(), "method": method, "figures": figures, "seconds": seconds}


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished cells. A last line that broke off is no cell."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def run(cells: Iterable[Cell], methods: Sequence[str], path: Path) -> None:
    """Measure the cells that are not in the file yet, and add each when it is finished."""
    cells = list(cells)
    for protocol in {cell.protocol for cell in cells}:
        for method in methods:
            parse_method(method, protocol)  # a wrong name is refused before anything runs
    done = {_key(record) for record in read_results(path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        file.seek(0)
        if not (text := file.read()).endswith("\n") and text:
            file.write("\n")
        for cell in cells:
            for method in methods:
                if (*cell, method) in done:
                    continue
                record = measure(cell, method)
                file.write(json.dumps(record) + "\n")
                file.flush()
                print(json.dumps(record), flush=True)


def show(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The tables: figures averaged over seeds, and the paired difference from the best baseline."""
    rows: dict[tuple[str, str, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in {_key(record): record for record in records}.values():
        rows[record["protocol"], record["data"], record["percent"]][record["method"]].append(record)
    for (protocol, data, percent), methods in sorted(rows.items()):
        yield f"\n{protocol}: {data}, {percent} % hidden"
        first = {method: _by_seed(found) for method, found in methods.items()}
        baselines = [method for method in methods if method in BASELINES]
        best = min(baselines, key=lambda method: np.mean(list(first[method].values())), default=None)
        for method, found in methods.items():
            means = {name: np.mean([record["figures"][name] for record in found]) for name in found[0]["figures"]}
            figures = [f"{name} {mean:.4f}" for name, mean in means.items()]
            if len(found) > 1:
                figures[0] += f" (sd {np.std(list(first[method].values()), ddof=1):.4f})"
            seconds = np.mean([record["seconds"] for record in found])
            line = f"  {method:24} {'  '.join(figures)}  [{len(found)} x {seconds:.1f} s]"
            yield line + _difference(first[method], first[best], best) if best not in (None, method) else line


def _difference(first: dict[int, float], best: dict[int, float], name: str) -> str:
    both = [first[seed] - best[seed] for seed in first if seed in best]
    if not both:
        return ""
    error = f" +- {np.std(both, ddof=1) / len(both) ** 0.5:.4f}" if len(both) > 1 else ""
    return f"  {np.mean(both):+.4f}{error} against {name}"


def _by_seed(found: Sequence[dict[str, Any]]) -> dict[int, float]:
    return {record["seed"]: next(iter(record["figures"].values())) for record in found}


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return (*(record[name] for name in Cell._fields), record["method"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, default=Path("runs/tables/results.jsonl"), help="the file of results")
    measured = argparse.ArgumentParser(add_help=False)
    measured.add_argument("--method", nargs="+", default=DEFAULT_METHODS, help=f"vae, {', '.join(BASELINES)}")
    measured.add_argument("--seed", type=int, nargs="+", help="seeds (default: those of the protocol)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    hivae = verbs.add_parser("hivae", parents=[shared, measured], help="tables and masks of HI-VAE")
    hivae.add_argument("--data", nargs="+", choices=TABLES, default=TABLES)
    hivae.add_argument("--percent", type=int, nargs="+", choices=PERCENTS, default=(20, 50))
    vaem = verbs.add_parser("vaem", parents=[shared, measured], help="tables of VAEM")
    vaem.add_argument("--data", nargs="+", choices=tuple(VAEM_NOMINAL), default=tuple(VAEM_NOMINAL))
    verbs.add_parser("breast-mcar", parents=[shared, measured], help="breast cancer, hidden at random")
    verbs.add_parser("breast-mnar", parents=[shared, measured], help="breast cancer, large values hidden")
    for protocol in ROW_METHODS:
        text = f"see row_tasks.py; methods {', '.join(ROW_METHODS[protocol])}"
        verb = verbs.add_parser(protocol, parents=[shared, measured], help=text)
        if protocol.startswith("forest"):
            verb.add_argument("--data", nargs="+", choices=tuple(LOADERS))
        verb.set_defaults(method=("vae",))
    verbs.add_parser("show", parents=[shared], help="print the tables")
    arguments = parser.parse_args()
    if arguments.verb == "show":
        print("\n".join(show(read_results(arguments.out))))
        return
    if arguments.verb == "hivae":
        cells = hivae_cells(arguments.data, arguments.percent, arguments.seed)
    elif arguments.verb == "vaem":
        cells = vaem_cells(arguments.data, arguments.seed)
    elif arguments.verb in ROW_METHODS:
        cells = row_cells(arguments.verb, getattr(arguments, "data", None), arguments.seed)
    else:
        cells = breast_cells(arguments.verb, arguments.seed)
    run(cells, arguments.method, arguments.out)


if __name__ == "__main__":
    main()
