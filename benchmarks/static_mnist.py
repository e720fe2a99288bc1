"""Held-out likelihood on statically binarised MNIST, the setting of Tomczak and Welling (2018), table 1.

Two gated layers of 300 in encoder and decoder, 40 latents; standard normal prior or VampPrior with 500 pseudo-inputs.

    PYROVAE_DATA=... python benchmarks/static_mnist.py train --prior standard-normal
    PYROVAE_DATA=... python benchmarks/static_mnist.py evaluate --prior standard-normal

Training resumes where it stopped; `evaluate` prints one JSON line with the importance-sampled test log-likelihood.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from pyrovae import VAE, data
from pyrovae.checkpoint import RunFolder, load_weights
from pyrovae.guides import AmortizedGaussian
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal, VampPrior
from pyrovae.training import Trainer

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
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--warm-up", type=float, default=30)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=10_000, help="test images to evaluate")
    parser.add_argument("--out", type=Path, default=Path("runs/static-mnist"))
    arguments = parser.parse_args()
    dataset = data.load("binarized-mnist")
    vae = make_vae(arguments.prior, dataset.train.x, arguments.seed, arguments.dropout).to(arguments.device)
    name = f"{arguments.prior}-{arguments.epochs}-{arguments.dropout}-seed{arguments.seed}"
    run = RunFolder(arguments.out / name)
    if arguments.verb == "train":
        trainer = Trainer(
            objective="mean-field" if arguments.prior == "standard-normal" else "elbo",
            epochs=arguments.epochs,
            lr=1e-3,
            lr_schedule="cosine",
            kl_weight=f"warm-up:{arguments.warm_up}",
            seed=arguments.seed,
        )
        history = trainer.fit(vae, dataset, run=run, resume=run.state_path.exists())
        print(history.reason, "best epoch", history.best_epoch, history.rows[-1])
        return
    information = load_weights(vae, run.weights_path)
    vae.eval()
    x = dataset.test.x[: arguments.rows].to(arguments.device)
    if arguments.rows < len(dataset.test.x):  # the rows of this file are grouped by digit
        x = dataset.test.x[torch.linspace(0, len(dataset.test.x) - 1, arguments.rows).long()].to(arguments.device)
    start = time.monotonic()
    torch.manual_seed(1)
    result = vae.log_likelihood(x, 5000, return_details=True)
    record = {
        "run": name,
        "epoch": information["epoch"],
        "test_log_likelihood": result.value.mean().item(),
        "standard_error_of_the_sampling": (result.standard_error.square().mean() / len(x)).sqrt().item(),
        "median_effective_sample_size": result.effective_sample_size.median().item(),
        "rows": len(x),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
