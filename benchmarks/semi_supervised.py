"""Semi-supervised MNIST, the protocol of Nalisnick and Smyth (2017), table 2: test error with few labels.

There are 45 000 training, 5 000 validation and 10 000 test rows, grey pixels as Bernoulli targets, one hidden layer of
500, 50 latents or sticks, and 10, 5 or 1 % of the labels, equally many of every class. `--data mnist-rotated` has every
picture of MNIST upright and turned, in 70 000, 10 000 and 20 000 rows. The pictures are turned here. They are not the
file of the paper.

    PYROVAE_DATA=... python benchmarks/semi_supervised.py train --latent stick-breaking --labels 0.01 --device cuda
    PYROVAE_DATA=... python benchmarks/semi_supervised.py evaluate --latent stick-breaking --labels 0.01

Training resumes where it stopped. `evaluate` prints one JSON line. `--labels 600` is the setting of M2 (Kingma et al.,
2014). `--net conv --dropout 0.5` is a better architecture than that of the paper.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from held_out import train

from pyrovae import VAE, data, programs
from pyrovae.data import Dataset, Rows
from pyrovae.metrics import classification_error
from pyrovae.pairs import find_pair
from pyrovae.storage import load_weights
from pyrovae.training import RunFolder

ROWS, VALIDATION = 45_000, 5_000
VARIED = (
    "latent",
    "labels",
    "net",
    "hidden",
    "layer",
    "dropout",
    "noise",
    "shift",
    "classification_weight",
    "repeat",
    "epochs",
    "batch_size",
    "lr",
    "seed",
)


def make_dataset(name: str, labels: float, seed: int, rows: int | None, repeat: int) -> Dataset:
    """Pictures with few labels; labelled rows stand in the training data `repeat` times."""
    held_out = {"mnist": 60_000 - ROWS, "mnist-rotated": None}[name]
    whole = data.load(name, validation=held_out, labels=labels, seed=seed)
    x, y = whole.train.x, whole.train.y
    if rows is not None:  # all labelled rows, and only some of the others
        order = torch.argsort((y < 0).int(), stable=True)[:rows]
        x, y = x[order], y[order]
    known = (y >= 0).nonzero().squeeze(1).repeat(max(0, repeat - 1))
    train_rows = Rows(torch.cat([x, x[known]]), torch.cat([y, y[known]]))
    kept = VALIDATION if name == "mnist" else None
    validation = whole.validation.take(slice(kept))
    return Dataset(name, train_rows, validation, whole.test, whole.kind)


def make_vae(arguments: argparse.Namespace, dataset: Dataset) -> VAE:
    """The registered pair."""
    torch.manual_seed(arguments.seed)
    options = ("latent", "net", "layer", "dropout", "noise", "shift", "classification_weight")
    chosen = {name: getattr(arguments, name) for name in options}
    hidden = tuple(int(size) for size in arguments.hidden.split(","))
    return find_pair("semi-supervised").build(dataset, hidden=hidden, **chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "evaluate"))
    parser.add_argument("--data", choices=("mnist", "mnist-rotated"), default="mnist")
    parser.add_argument("--latent", choices=("gaussian", "stick-breaking"), default="stick-breaking")
    parser.add_argument("--labels", type=float, default=0.01, help="share of labels, or their number")
    parser.add_argument("--net", choices=("dense", "conv"), default="dense")
    parser.add_argument("--hidden", default="500")
    parser.add_argument("--layer", choices=("plain", "gated", "residual"), default="plain")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--shift", type=int, default=0, help="pixels that the classifier's training input is moved by")
    parser.add_argument("--classification-weight", type=float, default=1.0)
    parser.add_argument("--repeat", type=int, default=1, help="times that a labelled row stands in an epoch")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rows", type=int, help="training rows, for a quick look (default: all)")
    parser.add_argument("--num-samples", type=int, default=100)
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what to evaluate")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/semi-supervised"))
    arguments = parser.parse_args()
    dataset = make_dataset(arguments.data, arguments.labels, arguments.seed, arguments.rows, arguments.repeat)
    vae = make_vae(arguments, dataset).to(arguments.device)
    name = "-".join(str(getattr(arguments, option)) for option in VARIED)
    name += "" if arguments.rows is None else f"-{arguments.rows}"
    name += "" if arguments.data == "mnist" else f"-{arguments.data}"
    run = RunFolder(arguments.out / name)
    if arguments.verb == "train":
        train(vae, dataset, run, arguments, objective="enum")
        return
    split = dataset.splits()[arguments.split]
    vae.prepare(split.x[:2].to(arguments.device))
    information = load_weights(vae, run.weights_path)
    start = time.monotonic()
    torch.manual_seed(1)
    with programs.evaluating(vae):
        likelihood = vae.log_likelihood(split.x.to(arguments.device), arguments.num_samples)
    record = {
        "run": name,
        "epoch": information["epoch"],
        "split": arguments.split,
        "labels": int((dataset.train.y >= 0).sum()) // arguments.repeat,
        "classification_error": classification_error(vae, split),
        "validation_error": classification_error(vae, dataset.validation),
        "log_likelihood": likelihood.mean().item(),
        "num_samples": arguments.num_samples,
        "rows": len(split.x),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
