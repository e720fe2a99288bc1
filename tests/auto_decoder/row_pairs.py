"""Pairs with parameters of their own for each row, and a linear model whose posterior is known."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from pyrovae import VAE
from pyrovae.guides import AmortizedGaussian, PerDatum
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal

SHAPE = (1, 4, 4)


def pictures(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    top = (torch.arange(rows) % 2).reshape(-1, 1, 1, 1).bool()
    upper = torch.arange(4).reshape(-1, 1) < 2
    return torch.bernoulli(torch.where(top == upper, 0.9, 0.05).expand(rows, *SHAPE), generator=generator)


def decoder_model(latent_dim=2):
    torch.manual_seed(1)
    likelihood = BernoulliLikelihood(SHAPE)
    return GaussianVAE(StandardNormal(latent_dim), DenseDecoder(latent_dim, likelihood.raw_shape, (8,)), likelihood)


def row_pair(rows, latent_dim=2, **options):
    return VAE(decoder_model(latent_dim), PerDatum(rows, latent_dim, **options))


def amortised_pair(latent_dim=2):
    model = decoder_model(latent_dim)
    return VAE(model, AmortizedGaussian(DenseEncoder(SHAPE, (8,)), latent_dim))


class LinearModel(PyroModule):
    """x = W z + noise with orthogonal columns of W, so that the posterior of complete data has independent entries."""

    def __init__(self, noise=0.5):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        loadings = torch.linalg.qr(torch.randn(6, 2, generator=generator))[0] * torch.tensor([1.5, 0.7])
        self.loadings = torch.nn.Parameter(loadings)
        self.noise = noise

    def forward(self, x, mask=None, index=None):
        seen = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = z @ self.loadings.T
            pyro.sample("x", dist.Normal(loc, self.noise).mask(seen).to_event(1), obs=torch.where(seen, x, 0.0))

    @torch.no_grad()
    def posterior(self, x):
        """Mean ``[B, 2]`` and standard deviation ``[2]`` of the exact posterior, in double precision."""
        w = self.loadings.double()
        covariance = torch.linalg.inv(torch.eye(2, dtype=w.dtype) + w.T @ w / self.noise**2)
        return x.double() @ w @ covariance / self.noise**2, covariance.diagonal().sqrt()

    @torch.no_grad()
    def evidence(self, x, mask=None):
        """log p of the observed entries of each row."""
        w = self.loadings.double()
        covariance = w @ w.T + self.noise**2 * torch.eye(6, dtype=w.dtype)
        found = []
        for row, seen in zip(x.double(), torch.ones_like(x, dtype=torch.bool) if mask is None else mask, strict=True):
            part = covariance[seen][:, seen]
            normal = torch.distributions.MultivariateNormal(torch.zeros(len(part), dtype=w.dtype), part)
            found.append(normal.log_prob(row[seen]) if len(part) else torch.zeros((), dtype=w.dtype))
        return torch.stack(found)

    def data(self, rows):
        generator = torch.Generator().manual_seed(5)
        z = torch.randn(rows, 2, generator=generator)
        return (z @ self.loadings.T + self.noise * torch.randn(rows, 6, generator=generator)).detach()


class PoorGuide(PyroModule):
    """An encoder that has learned little."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 2)

    def forward(self, x, mask=None, index=None):
        seen = x if mask is None else torch.where(mask, x, 0.0)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.linear(seen), 0.8 * torch.ones(2)).to_event(1))
