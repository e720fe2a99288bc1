"""Held-out likelihood on statically binarised MNIST, the setting of Tomczak and Welling (2018), table 1.

Encoder and decoder have two gated layers of 300 each, with 40 latents. The prior is standard normal, or a VampPrior
with 500 pseudo-inputs.

    PYROVAE_DATA=... python benchmarks/static_mnist.py train --prior standard-normal
    PYROVAE_DATA=... python benchmarks/static_mnist.py evaluate --prior standard-normal

Training resumes where it stopped. `evaluate` prints one JSON line with the importance-sampled test log-likelihood.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from held_out import likelihood_record, train

from pyrovae import VAE, data
from pyrovae.guides import AmortizedGaussian
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal, VampPrior
from pyrovae.storage import load_weights
from pyrovae.training import RunFolder

LATENT_DIM, HIDDEN, PSEUDO_INPUTS = 40, (300, 300), 500


def make_vae(prior: str, training: torch.Tensor, seed: int, dropout: float) -> VAE:
    torch.manual_seed(seed)
    shape = training.shape[1:]
    likelihood = BernoulliLikelihood(shape)
    guide = AmortizedGaussian(DenseEncoder(shape, HIDDEN, layer="gated", dropout=dropout), LATENT_DIM)
    if prior == "vamp":
        chosen = torch.randperm(len(training))[:PSEUDO_INPUTS]
        module = VampPrior(guide.posterior, training[chosen])
    else:
        module = StandardNormal(LATENT_DIM)
    decoder = DenseDecoder(LATENT_DIM, likelihood.raw_shape, HIDDEN, layer="gated", dropout=dropout)
    return VAE(GaussianVAE(module, decoder, likelihood), guide)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "evaluate"))
    parser.add_argument("--prior", choices=("standard-normal", "vamp"), default="standard-normal")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--warm-up", type=float, default=20)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--objective", default="iwae")
    parser.add_argument("--num-particles", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--split", choices=("validation", "test"), default="test", help="what to evaluate")
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=10_000, help="images to evaluate")
    parser.add_argument("--out", type=Path, default=Path("runs/static-mnist"))
    arguments = parser.parse_args()
    dataset = data.load("binarized-mnist")
    vae = make_vae(arguments.prior, dataset.train.x, arguments.seed, arguments.dropout).to(arguments.device)
    varied = ("prior", "objective", "num_particles", "epochs", "batch_size", "lr", "warm_up", "dropout", "seed")
    name = "-".join(str(getattr(arguments, option)) for option in varied)
    run = RunFolder(arguments.out / name)
    if arguments.verb == "train":
        settings = {name: getattr(arguments, name) for name in ("objective", "num_particles")}
        train(vae, dataset, run, arguments, kl_weight=f"warm-up:{arguments.warm_up}", **settings)
        return
    information = load_weights(vae, run.weights_path)
    vae.eval()
    rows = dataset.splits()[arguments.split].x
    record = {
        "run": name,
        "epoch": information["epoch"],
        "split": arguments.split,
        **likelihood_record(vae, rows, arguments.rows, arguments.num_samples, arguments.device),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
