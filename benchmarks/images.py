"""Convolutional nets on 8-bit pictures: held-out bits per dimension, samples and reconstructions.

    PYROVAE_DATA=... python benchmarks/images.py fashion-mnist --epochs 50 --device cuda
    PYROVAE_DATA=... python benchmarks/images.py cifar10-subset --epochs 200 --device cuda

The script trains (or resumes) the pair `gaussian` with the discretised logistic likelihood. It evaluates it on the test
split and writes the figures into the run folder. The last line is the evaluation as JSON.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pyrovae.cli import main as pyrovae


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("fashion-mnist", "cifar10-subset", "frey-faces"))
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--latent-dim", type=int, default=64)
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    arguments = parser.parse_args()
    run = str(arguments.out / arguments.data)
    device = ["--device", arguments.device]
    if (Path(run) / "config.json").exists():
        status = pyrovae(["resume", run, *device])
    else:
        options = {
            "--data": arguments.data,
            "--out": run,
            "--net": "conv",
            "--channels": "64,128",
            "--hidden": "512",
            "--latent-dim": str(arguments.latent_dim),
            "--epochs": str(arguments.epochs),
            "--lr-schedule": "cosine",
            "--gradient-clip": "100",
            "--objective": "mean-field",
            "--patience": "30",
            "--seed": str(arguments.seed),
        }
        status = pyrovae(["train", "gaussian", *[word for pair in options.items() for word in pair], *device])
    for words in (["plot", run], ["evaluate", run, "--num-samples", str(arguments.num_samples), "--json"]):
        status = status or pyrovae([*words, *device])
    return status


if __name__ == "__main__":
    sys.exit(main())
