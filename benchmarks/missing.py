"""Missing entries: an auto-decoder (VAD), VAEs with an encoder, and VAEs whose answer is refined by gradient.

    PYROVAE_DATA=... python benchmarks/missing.py run --data mnist fashion-mnist synthetic
    PYROVAE_DATA=... python benchmarks/missing.py run --data mnist-20k --trained-missing 0.3 0.5 0.7 0.9
    PYROVAE_DATA=... python benchmarks/missing.py gap
    PYROVAE_DATA=... python benchmarks/missing.py tables
    python benchmarks/missing.py show

Data and trainings are described in missing_tasks.py. Methods are "vad", "zero" (the encoder takes missing entries for
zeros), "masked" (the encoder gets the mask and is trained under random masking), "semi" ("zero", trained with refined
answers), the same with "-half" behind it (KL weight one half), and those with an encoder with ``+STEPS``, refined by so
many gradient steps. Errors are squared errors on test rows, over all entries against the complete rows (observed ones
as reconstructed) and over the missing ones. Every finished cell is one line of the file of results, and is not run
again; trainings are run folders beside it, and go on where they stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from missing_tasks import DATA, METHODS, Training, dataset, impute_table, open_run, table_task, train

from pyrovae.data.patterns import random_mask
from pyrovae.metrics import missing_errors
from pyrovae.metrics.gaps import inference_gap, mean_bound

RATIOS = tuple(number / 10 for number in range(1, 10))
ALL_METHODS = ("vad", "zero", "zero+20", "masked", "masked+20")
TABLE_METHODS = ("mean-mode", "imputer", "vad", "guide", "guide+20")
FIT_STEPS = 200


def read_results(path: Path) -> list[dict[str, Any]]:
    """The finished cells. A last line that broke off is no cell."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


class Results:
    """The file of results: which cells are there, and one more line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done = {key(record) for record in read_results(path)}

    def __contains__(self, cell: Mapping[str, Any]) -> bool:
        return key(cell) in self.done

    def add(self, cell: Mapping[str, Any], figures: Mapping[str, Any], seconds: float) -> None:
        """Write a finished cell."""
        record = {**cell, "figures": dict(figures), "seconds": round(seconds, 1)}
        with self.path.open("a+") as file:
            file.seek(0)
            if not (text := file.read()).endswith("\n") and text:
                file.write("\n")
            file.write(json.dumps(record) + "\n")
        self.done.add(key(cell))
        print(json.dumps(record), flush=True)


def key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted((name, value) for name, value in cell.items() if name not in ("figures", "seconds")))


def run(options: argparse.Namespace) -> None:
    """Errors against the share of missing entries."""
    results = Results(options.out)
    for data in options.data:
        for trained in options.trained_missing:
            for seed in options.seed:
                for name in METHODS:
                    methods = [method for method in options.method if method.partition("+")[0] == name]
                    # Trained on incomplete data, a run is tested at the share that it was trained with.
                    ratios = options.ratio if not trained else [trained]
                    cells = [
                        {"task": "missing", "data": data, "trained_missing": trained, "seed": seed}
                        | {"method": method, "ratio": ratio, "rows": options.rows}
                        for method in methods
                        for ratio in ratios
                    ]
                    cells = [cell for cell in cells if cell not in results]
                    if cells:
                        measure(Training(data, trained, name, seed), cells, options, results)


def measure(training: Training, cells: Sequence[dict[str, Any]], options: argparse.Namespace, results: Results) -> None:
    """Train what the cells need, and measure them."""
    train(training, options.out.parent, progress=not options.quiet)
    data = dataset(training)
    vae = open_run(training, options.out.parent, data).load_vae()
    rows = data.test.take(slice(options.rows))
    for cell in cells:
        start = time.process_time()
        generator = torch.Generator().manual_seed(1000 * training.seed + round(100 * cell["ratio"]))
        mask = random_mask(data.shape, len(rows), cell["ratio"], generator=generator)
        refine = int(cell["method"].partition("+")[2] or 0)
        (found,) = missing_errors(
            vae,
            rows,
            {cell["ratio"]: mask},
            train=data.train.take(slice(5000)),
            refine=refine,
            steps=FIT_STEPS,
            progress=None,
        )
        results.add(cell, found._asdict(), time.process_time() - start)


def gap(options: argparse.Namespace) -> None:
    """How much of the amortisation gap is closed by some steps, on complete test images of MNIST.

    The whole gap is that to the posterior after 500 steps.
    """
    results = Results(options.out)
    for seed in options.seed:
        cell = {"task": "gap", "data": "mnist", "seed": seed, "steps": options.steps, "rows": options.rows}
        if cell in results:
            continue
        training = Training("mnist", 0, "zero", seed)
        train(training, options.out.parent, progress=not options.quiet)
        data = dataset(training)
        vae, x = open_run(training, options.out.parent, data).load_vae(), data.test.x[: options.rows]
        start = time.process_time()
        bound = mean_bound(vae.fit_posterior(x, steps=options.steps, progress=False), x)
        seconds = time.process_time() - start
        whole = inference_gap(vae, x, num_samples=options.num_samples, progress=False)
        gained = bound - whole.amortised
        figures = {
            **whole.means(),
            f"bound_after_{options.steps}": float(bound.double().mean()),
            "closed": float(gained.sum() / whole.amortisation.sum()),
            "rows_that_fell": float((gained < 0).double().mean()),
            "largest_fall": float(-gained.min().clamp(max=0)),
        }
        results.add(cell, figures, seconds)


def tables(options: argparse.Namespace) -> None:
    """Energy and bank: the decoder of tables without encoder, and with a refined one, beside VAEImputer."""
    results = Results(options.out)
    for data in options.data:
        for seed in options.seed:
            for method in options.method:
                cell = {"task": "tables", "data": data, "seed": seed, "method": method, "rows": options.rows}
                if cell in results:
                    continue
                start = time.process_time()
                task = table_task(data, seed, options.rows)
                figures = task.score(impute_table(method, task, seed))
                figures = {name: float(value) for name, value in figures.items() if np.isfinite(value)}
                results.add(cell, figures, time.process_time() - start)


def show(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The tables: errors averaged over seeds, the best method of each share with a star."""
    groups: dict[tuple[Any, ...], dict[tuple[str, float], list[Mapping[str, Any]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    others = []
    for record in records:
        if record["task"] != "missing":
            others.append(record)
            continue
        trained = record["trained_missing"]
        name = f"{record['data']}, trained on {'data with holes' if trained else 'complete data'}"
        groups[name, record["rows"]][record["method"], record["ratio"]].append(record)
    for (name, rows), cells in sorted(groups.items()):
        ratios = sorted({ratio for _, ratio in cells})
        for counted in ("error_missing", "error_all"):
            yield f"\n{name}, {rows} test rows: {counted.replace('_', ' ')}"
            yield "| method | " + " | ".join(f"{ratio:g}" for ratio in ratios) + " |"
            yield "|---" * (len(ratios) + 1) + "|"
            means = {cell: np.mean([r["figures"][counted] for r in found]) for cell, found in cells.items()}
            best = {r: min(value for (_, ratio), value in means.items() if ratio == r) for r in ratios}
            for method in dict.fromkeys(method for method, _ in cells):
                shown = []
                for ratio in ratios:
                    value = means.get((method, ratio))
                    star = "**" if value == best[ratio] else ""
                    shown.append("" if value is None else f"{star}{value:.5f}{star}")
                yield f"| {method} | " + " | ".join(shown) + " |"
            if counted == "error_missing":
                of_mean = {ratio: found[0]["figures"]["error_of_mean"] for (_, ratio), found in cells.items()}
                yield "| mean of the training rows | " + " | ".join(f"{of_mean[ratio]:.5f}" for ratio in ratios) + " |"
    for record in others:
        figures = "  ".join(f"{name} {value:.4f}" for name, value in record["figures"].items())
        rest = "  ".join(f"{n}={v}" for n, v in record.items() if n not in ("figures", "seconds"))
        yield f"{rest}: {figures}  [{record['seconds']} s]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, default=Path("runs/missing/results.jsonl"), help="the file of results")
    measured = argparse.ArgumentParser(add_help=False, parents=[shared])
    measured.add_argument("--seed", type=int, nargs="+", default=[0])
    measured.add_argument("--rows", type=int, default=1000, help="test rows")
    measured.add_argument("--quiet", action="store_true", help="no progress bars")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", parents=[measured], help="errors against the share of missing entries")
    verb.add_argument("--data", nargs="+", choices=DATA, default=["mnist"])
    verb.add_argument("--trained-missing", type=float, nargs="+", default=[0.0])
    verb.add_argument("--method", nargs="+", default=ALL_METHODS, metavar="METHOD")
    verb.add_argument("--ratio", type=float, nargs="+", default=RATIOS)
    verb = verbs.add_parser("gap", parents=[measured], help="how much of the amortisation gap refinement closes")
    verb.add_argument("--steps", type=int, default=20)
    verb.add_argument("--num-samples", type=int, default=1000)
    verb = verbs.add_parser("tables", parents=[measured], help="energy and bank; --rows is the most rows to fit on")
    verb.add_argument("--data", nargs="+", default=["energy", "bank"])
    verb.add_argument("--method", nargs="+", choices=TABLE_METHODS, default=TABLE_METHODS)
    verbs.add_parser("show", parents=[shared], help="print the tables")
    options = parser.parse_args()
    if options.verb == "show":
        print("\n".join(show(read_results(options.out))))
        return
    for method in getattr(options, "method", ()) if options.verb == "run" else ():
        name, _, steps = method.partition("+")
        if name not in METHODS or (steps and (name.startswith("vad") or not steps.isdigit())):
            raise SystemExit(f"unknown method {method!r}; known are {', '.join(METHODS)}, but for vad with +STEPS, too")
    {"run": run, "gap": gap, "tables": tables}[options.verb](options)


if __name__ == "__main__":
    main()
