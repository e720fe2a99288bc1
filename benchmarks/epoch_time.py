"""Time of an epoch on MNIST beside a bare PyTorch loop of the same nets with fused Adam.

Both loops see the same minibatches, from tensors in memory. Their epochs alternate in one process, so that a busy
machine slows both. The figure is the ratio of the medians.

    PYROVAE_DATA=... python benchmarks/epoch_time.py --batch-size 128
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from pyrovae import VAE, data
from pyrovae.guides import AmortizedGaussian
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal
from pyrovae.training import Trainer


def make_vae(shape: torch.Size, hidden: int, latent_dim: int, layer: str) -> VAE:
    torch.manual_seed(0)
    likelihood = BernoulliLikelihood(shape)
    options = {"layer": layer}
    guide = AmortizedGaussian(DenseEncoder(shape, (hidden, hidden), **options), latent_dim)
    decoder = DenseDecoder(latent_dim, likelihood.raw_shape, (hidden, hidden), **options)
    return VAE(GaussianVAE(StandardNormal(latent_dim), decoder, likelihood), guide)


def bare_epoch(vae: VAE, x: torch.Tensor, batch_size: int, optimizer: torch.optim.Optimizer) -> None:
    """One epoch written by hand: the negative ELBO with the closed-form KL."""
    encoder, head, decoder = vae.guide.encoder, vae.guide.head, vae.model.decoder
    for index in torch.randperm(len(x)).split(batch_size):
        batch = x[index]
        loc, raw = head.linear(encoder(batch)).chunk(2, -1)
        scale = F.softplus(raw) + head.min_scale
        logits = decoder(loc + scale * torch.randn_like(scale))
        cross_entropy = F.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        kl = 0.5 * (loc.square() + scale.square() - 1).sum() - scale.log().sum()
        loss = (cross_entropy + kl) / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=300)
    parser.add_argument("--latent-dim", type=int, default=40)
    parser.add_argument("--layer", choices=("plain", "gated"), default="gated")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=50_000)
    arguments = parser.parse_args()
    x = data.load("binarized-mnist").train.x[: arguments.rows]
    ours, bare = (make_vae(x.shape[1:], arguments.hidden, arguments.latent_dim, arguments.layer) for _ in range(2))
    optimizer = torch.optim.Adam(bare.parameters(), lr=1e-3, fused=True)
    times: dict[str, list[float]] = {"mean-field": [], "elbo": [], "bare": []}
    for _ in range(arguments.epochs):
        for objective in ("mean-field", "elbo"):
            trainer = Trainer(objective=objective, epochs=1, batch_size=arguments.batch_size, progress=False)
            times[objective].append(timed(lambda trainer=trainer: trainer.fit(ours, x)))
        times["bare"].append(timed(lambda: bare_epoch(bare, x, arguments.batch_size, optimizer)))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {f"ratio_{name}": medians[name] / medians["bare"] for name in ("mean-field", "elbo")}
    print(json.dumps({**vars(arguments), "threads": torch.get_num_threads(), "seconds": medians, **ratios}))


if __name__ == "__main__":
    main()
