"""Sigmoid belief network 200-200-200 on statically binarised MNIST by several estimators.

Model, data and estimators are those of Mnih and Rezende (2016), table 1. They trained for four million steps; here are
far fewer, equally many for every estimator. Therefore every training starts from the same pretrained weights, those of
a stack of restricted Boltzmann machines (Hinton, Osindero and Teh, 2006). scikit-learn trains it in two minutes.
`--pretraining-epochs 0` starts from random weights.

    PYROVAE_DATA=... python benchmarks/sbn.py train --objective vimco
    PYROVAE_DATA=... python benchmarks/sbn.py evaluate --objective vimco
    PYROVAE_DATA=... python benchmarks/sbn.py plot

Training resumes where it stopped. `evaluate` prints the test bound with 1000 samples as one JSON line. `plot` draws the
learning curves of all runs that it finds. Steps are compiled, which needs a C++ compiler; `--no-compile` needs none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from held_out import likelihood_record, train
from matplotlib.figure import Figure
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from pyrovae import VAE, data
from pyrovae.data import Dataset
from pyrovae.pairs import find_pair
from pyrovae.plotting import save_figure
from pyrovae.storage import load_weights, save_weights
from pyrovae.training import RunFolder

SIZES, BATCH = (200, 200, 200), 100
VARIED = ("objective", "num_particles", "pretraining_epochs", "epochs", "batch_size", "lr", "seed")


def make_vae(dataset: Dataset, options: argparse.Namespace) -> VAE:
    """The registered pair, with random or pretrained weights; the latter are kept beside the runs."""
    torch.manual_seed(options.seed)
    vae = find_pair("sbn").build(dataset, sizes=SIZES)
    if options.pretraining_epochs:
        path = options.out / f"pretrained-{options.pretraining_epochs}-{options.seed}.safetensors"
        if not path.exists():
            start = time.monotonic()
            pretrain(vae, dataset.train.x, options.pretraining_epochs, options.seed)
            save_weights(vae, path, seconds=round(time.monotonic() - start, 1))
        print("pretrained in", load_weights(vae, path)["seconds"], "seconds")
    return vae


def pretrain(vae: VAE, x: Tensor, epochs: int, seed: int) -> None:
    """Set the weights of model and guide to those of a stack of restricted Boltzmann machines.

    Each machine has the draws of the one below as its data, and half of its epochs. Its weights go into the guide's net
    from below and into the model's from above, which for the machine alone are its exact conditionals.
    """
    model, guide = vae.model, vae.guide
    below, random = x.flatten(1).numpy(), np.random.RandomState(seed)
    for layer, size in enumerate(SIZES):
        machine = BernoulliRBM(size, batch_size=BATCH, random_state=random)
        rounds = epochs if layer == 0 else max(1, epochs // 2)
        for epoch in range(rounds):
            machine.learning_rate = 0.1 * (1 - epoch / rounds)
            for rows in np.array_split(random.permutation(len(below)), len(below) // BATCH):
                machine.partial_fit(below[rows])
        up = guide.upward[layer].layers[-1]
        down = (model.decoder.net if layer == 0 else model.downward[layer - 1]).layers[-1]
        weights, above, visible = (
            torch.from_numpy(np.asarray(array, dtype=np.float32))
            for array in (machine.components_, machine.intercept_hidden_, machine.intercept_visible_)
        )
        active = machine.transform(below)
        with torch.no_grad():
            up.weight.copy_(weights)
            up.bias.copy_(above + (weights @ guide.encoder.centre.flatten() if layer == 0 else 0))
            down.weight.copy_(weights.T)
            down.bias.copy_(visible)
            model.top_logits.copy_(torch.from_numpy(active.mean(0)).clamp(0.01, 0.99).logit())
        below = (random.random_sample(active.shape) < active).astype(np.float32)


def curves(folder: Path) -> Figure:
    """Validation bounds by epoch, one line per run."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for run in sorted(path.parent for path in folder.glob("*/metrics.csv")):
        rows = RunFolder(run).read_metrics()
        axes.plot([row["epoch"] for row in rows], [row["validation_loss"] for row in rows], label=run.name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("minus the validation bound (nats)")
    axes.set_title("Sigmoid belief network 200-200-200, static MNIST")
    axes.set_ylim(top=115)
    axes.grid(alpha=0.3)
    axes.legend(title="estimator, particles, pretraining, epochs, batch, rate, seed", fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "evaluate", "plot"))
    parser.add_argument("--objective", default="vimco")
    parser.add_argument("--num-particles", type=int, default=10)
    parser.add_argument("--pretraining-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=45)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what to evaluate")
    parser.add_argument("--rows", type=int, default=10_000, help="images to evaluate")
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/sbn"))
    options = parser.parse_args()
    if options.verb == "plot":
        save_figure(curves(options.out), options.out / "curves.png")
        print(options.out / "curves.png")
        return
    dataset = data.load("binarized-mnist")
    name = "-".join(str(getattr(options, option)) for option in VARIED)
    run = RunFolder(options.out / name)
    if options.verb == "train":
        settings = {name: getattr(options, name) for name in ("objective", "num_particles", "compile")}
        train(make_vae(dataset, options).to(options.device), dataset, run, options, **settings)
        return
    vae = find_pair("sbn").build(dataset, sizes=SIZES).to(options.device)
    information = load_weights(vae, run.weights_path)
    vae.eval()
    rows = dataset.splits()[options.split].x
    record = {
        "run": name,
        "epoch": information["epoch"],
        "split": options.split,
        "training_seconds": run.read_metrics()[-1]["seconds"],
        **likelihood_record(vae, rows, options.rows, options.num_samples, options.device),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
