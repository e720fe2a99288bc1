"""Sigmoid belief network 200-200-200 on statically binarised MNIST by several estimators.

The setting of Mnih and Rezende (2016), table 1, with the same number of steps for every estimator.

    PYROVAE_DATA=... python benchmarks/sbn.py train --objective vimco
    PYROVAE_DATA=... python benchmarks/sbn.py evaluate --objective vimco
    PYROVAE_DATA=... python benchmarks/sbn.py plot

Training resumes; `evaluate` prints the test bound with 1000 samples as one JSON line; `plot` draws the learning curves
of all runs found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from matplotlib.figure import Figure

from pyrovae.checkpoint import RunFolder
from pyrovae.cli import main as pyrovae
from pyrovae.plotting import save_figure


def curves(folder: Path) -> Figure:
    """Validation bounds by epoch, one line a run."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for run in sorted(path.parent for path in folder.glob("*/metrics.csv")):
        rows = RunFolder(run).read_metrics()
        axes.plot([row["epoch"] for row in rows], [row["validation_loss"] for row in rows], label=run.name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("minus the validation bound, 10 particles (nats)")
    axes.set_title("Sigmoid belief network 200-200-200, static MNIST")
    axes.set_ylim(top=120)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "evaluate", "plot"))
    parser.add_argument("--objective", default="vimco")
    parser.add_argument("--num-particles", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=75)
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/sbn"))
    arguments = parser.parse_args()
    if arguments.verb == "plot":
        save_figure(curves(arguments.out), arguments.out / "curves.png")
        print(arguments.out / "curves.png")
        return 0
    name = f"{arguments.objective}-k{arguments.num_particles}-lr{arguments.lr}-{arguments.epochs}"
    run, device = str(arguments.out / name), ["--device", arguments.device]
    quiet = ["--quiet"] if arguments.quiet else []
    if arguments.verb == "evaluate":
        return pyrovae(["evaluate", run, "--num-samples", "1000", "--json", *device])
    if (Path(run) / "config.json").exists():
        return pyrovae(["train", "--resume", run, *device, *quiet])
    options = {
        "--data": "binarized-mnist",
        "--out": run,
        "--sizes": "200,200,200",
        "--objective": arguments.objective,
        "--num-particles": str(arguments.num_particles),
        "--epochs": str(arguments.epochs),
        "--batch-size": str(arguments.batch_size),
        "--lr": arguments.lr,
        "--lr-schedule": "cosine",
    }
    return pyrovae(["train", "sbn", *[word for pair in options.items() for word in pair], *device, *quiet])


if __name__ == "__main__":
    sys.exit(main())
