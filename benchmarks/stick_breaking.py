"""Held-out likelihood and nearest neighbours of stick-breaking VAEs on MNIST, as in Nalisnick and Smyth (2017).

Grey pixels are Bernoulli targets. There are 45 000, 5 000 and 10 000 rows after a shuffle of all 70 000, one hidden
layer of 500, truncation 50 with concentration 5 or 50 Gaussian latents, batches of 100, and 100 importance samples.

    PYROVAE_DATA=... python benchmarks/stick_breaking.py train --latent kumaraswamy
    PYROVAE_DATA=... python benchmarks/stick_breaking.py evaluate --latent kumaraswamy

`--latent` is kumaraswamy, logit-normal, gamma, beta or gaussian. Training resumes where it stopped, with a cosine
learning rate over all epochs. `evaluate` prints one JSON line. Nearest neighbours are found among the training rows by
Euclidean distance: of one draw of the latents per row, as in the paper, and of their means. The latents are the weights
of the stick. For their means there is also the Hellinger distance, between square roots of weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from held_out import train
from torch import Tensor

from pyrovae import VAE, data, programs
from pyrovae.data import Dataset, Rows
from pyrovae.metrics import knn_error
from pyrovae.pairs import find_pair
from pyrovae.pairs.registry import integers
from pyrovae.storage import load_weights
from pyrovae.training import RunFolder

SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}
VARIED = ("latent", "objective", "num_particles", "hidden", "layer", "epochs", "lr", "warm_up", "rows", "seed")


def make_dataset(rows: int) -> Dataset:
    """MNIST in the splits of the paper, or only so many of the training rows."""
    whole = data.load("mnist", seed=0)
    parts = whole.splits().values()
    x, y = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y"))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1234))
    pieces = order[: sum(SIZES.values())].split(list(SIZES.values()))
    train, validation, test = (Rows(x[piece], y[piece]) for piece in pieces)
    return Dataset("mnist", Rows(train.x[:rows], train.y[:rows]), validation, test, whole.kind)


def make_vae(options: argparse.Namespace, dataset: Dataset) -> VAE:
    """The pair, by its registered builder."""
    nets = {"hidden": options.hidden, "layer": options.layer, "likelihood": "bernoulli"}
    torch.manual_seed(options.seed)
    if options.latent == "gaussian":
        return find_pair("gaussian").build(dataset, latent_dim=50, **nets)
    return find_pair("stick-breaking").build(
        dataset, truncation=50, concentration=5.0, posterior=options.latent, **nets
    )


@torch.no_grad()
def latents(vae: VAE, x: Tensor, draw: bool) -> Tensor:
    """What the decoder sees of the latents of every row: at one draw of them, or in the mean over 20 draws."""
    parts = []
    for batch in x.split(1000):
        posterior = vae.encode(batch.to(vae.device))
        parts.append(vae.model.prior.features(posterior.sample((1 if draw else 20,))).mean(0).cpu())
    return torch.cat(parts)


def evaluate(vae: VAE, dataset: Dataset, options: argparse.Namespace) -> dict[str, object]:
    """The figures of the paper on the test rows."""
    start = time.monotonic()
    torch.manual_seed(1)
    test = dataset.splits()[options.split]
    x = test.x[: options.test_rows].to(vae.device)
    y = test.y[: options.test_rows]
    with programs.evaluating(vae):
        result = vae.log_likelihood(x, options.num_samples, return_details=True)
        train = dataset.train
        drawn, means = ([latents(vae, part, draw) for part in (train.x, x)] for draw in (True, False))
        errors = {
            "knn_error_draws": knn_error(drawn[0], train.y, drawn[1], y),
            "knn_error_means": knn_error(means[0], train.y, means[1], y),
        }
        if options.latent != "gaussian":
            errors["knn_error_hellinger"] = knn_error(means[0].sqrt(), train.y, means[1].sqrt(), y)
    return {
        "negative_log_likelihood": -result.value.mean().item(),
        "standard_error_of_the_sampling": (result.standard_error.square().mean() / len(x)).sqrt().item(),
        "median_effective_sample_size": result.effective_sample_size.median().item(),
        "num_samples": options.num_samples,
        "rows": len(x),
        **errors,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    """Train or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "evaluate"))
    choices = ("kumaraswamy", "logit-normal", "gamma", "beta", "gaussian")
    parser.add_argument("--latent", choices=choices, default="kumaraswamy")
    parser.add_argument("--objective", default="mean-field")
    parser.add_argument("--num-particles", type=int, default=1)
    parser.add_argument("--hidden", type=integers, default=(500,))
    parser.add_argument("--layer", choices=("plain", "gated", "residual"), default="plain")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=float, default=0, help="epochs over which the weight of the KL rises to 1")
    parser.add_argument("--rows", type=int, default=SIZES["train"], help="training rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what to evaluate")
    parser.add_argument("--test-rows", type=int, default=SIZES["test"], help="rows to evaluate")
    parser.add_argument("--num-samples", type=int, default=100)
    parser.add_argument("--compile", action="store_true", help="compiled steps, for objectives of this library")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/stick-breaking"))
    options = parser.parse_args()
    dataset = make_dataset(options.rows)
    vae = make_vae(options, dataset).to(options.device)
    words = (getattr(options, name) for name in VARIED)
    name = "-".join("x".join(map(str, word)) if isinstance(word, tuple) else str(word) for word in words)
    run = RunFolder(options.out / name)
    if options.verb == "train":
        settings = {name: getattr(options, name) for name in ("objective", "num_particles", "compile")}
        warm_up = f"warm-up:{options.warm_up}" if options.warm_up else 1.0
        train(vae, dataset, run, options, kl_weight=warm_up, **settings)
        return
    information = load_weights(vae, run.weights_path)
    vae.eval()
    print(json.dumps({"run": name, "epoch": information["epoch"], **evaluate(vae, dataset, options)}))


if __name__ == "__main__":
    main()
