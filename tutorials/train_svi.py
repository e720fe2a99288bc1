"""Train a pair with plain `pyro.infer.SVI` instead of the Trainer.

The library's pairs are ordinary Pyro programs. This script trains one as one would with Pyro alone. `VAE` only
evaluates it at the end. Compare `01_first_vae.ipynb`, which does the same with the library's tools.

    python tutorials/train_svi.py --epochs 30 --loss TraceMeanField_ELBO
"""

from __future__ import annotations

import argparse

import pyro
import pyro.optim
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from tqdm import tqdm

from pyrovae import VAE, data
from pyrovae.guides import AmortizedGaussian
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal

LOSSES = {
    "Trace_ELBO": Trace_ELBO,
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "RenyiELBO": lambda: RenyiELBO(num_particles=5, vectorize_particles=True),
}


def main(args: argparse.Namespace) -> float:
    """Train, and return the test log-likelihood in nats."""
    pyro.set_rng_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = data.load("digits", binarize="dynamic").to(device)

    likelihood = BernoulliLikelihood(dataset.shape)
    model = GaussianVAE(
        StandardNormal(args.latent_dim), DenseDecoder(args.latent_dim, likelihood.raw_shape, (200,)), likelihood
    ).to(device)
    guide = AmortizedGaussian(DenseEncoder(dataset.shape, (200,)), args.latent_dim).to(device)

    # SVI keeps parameters in Pyro's global store; a scope of its own lets several trainings live in one process.
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, pyro.optim.Adam({"lr": args.lr}), LOSSES[args.loss]())
        for epoch in tqdm(range(args.epochs), unit="epoch"):
            loss = 0.0
            for index in torch.randperm(len(dataset.train.x), device=device).split(args.batch_size):
                loss += svi.step(dataset.transform(dataset.train.take(index)).x)
            if epoch == 0 or (epoch + 1) % 10 == 0:
                validation = svi.evaluate_loss(dataset.validation.x) / len(dataset.validation.x)
                tqdm.write(f"epoch {epoch + 1}: loss {loss / len(dataset.train.x):.2f}, validation {validation:.2f}")

    # A trained pair can still be handed to VAE, for everything that stock Pyro has no tool for.
    log_likelihood = VAE(model, guide).log_likelihood(dataset.test.x, num_samples=500).mean().item()
    print(f"test log-likelihood: {log_likelihood:.2f} nats per image")
    return log_likelihood


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", choices=LOSSES, default="Trace_ELBO")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
