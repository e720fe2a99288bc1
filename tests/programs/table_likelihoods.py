"""Pairs for the table: distributions of data and of latents."""

from __future__ import annotations

import functools
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms as tr
from table_pairs import as_numbers, counts, four, logs, mean_of, numbers, of_rows, posterior, row, simple, unit

three = functools.partial(numbers, 4, 3)
vectors = {
    "prior": lambda: dist.Normal(torch.zeros(3), 1.0).to_event(1),
    "proposal": mean_of(lambda m: dist.Normal(m, 1.0).to_event(1)),
    "exact": None,
}
near = mean_of(lambda m: dist.Normal(m, 1.0))
LIKELIHOODS: dict[str, dict[str, Any]] = {
    "normal": dict(x=four),
    "log-normal": dict(
        x=lambda: four().exp(),
        likelihood=lambda z: dist.LogNormal(z, 1.0),
        exact=logs,
        proposal=lambda x: posterior(x.log()),
    ),
    "transformed": dict(
        x=lambda: four().exp(),
        likelihood=lambda z: dist.TransformedDistribution(unit(z), [tr.ExpTransform()]),
        exact=logs,
        proposal=lambda x: posterior(x.log()),
    ),
    "student": dict(x=four, likelihood=lambda z: dist.StudentT(3.0, z, 1.0), exact=None),
    "cauchy": dict(
        x=four,
        prior=lambda: dist.Cauchy(0.0, 1.0),
        likelihood=lambda z: dist.Cauchy(z, 1.0),
        proposal=mean_of(lambda m: dist.Cauchy(m, 1.0)),
        exact=dist.Cauchy(0.0, 2.0).log_prob,
        atol=0.6,
    ),
    "bernoulli": dict(x=lambda: (four() > 0).double(), likelihood=lambda z: dist.Bernoulli(logits=z), exact=None),
    "categorical": dict(
        x=counts(0, 2, 1, 1),
        likelihood=lambda z: dist.Categorical(logits=z),
        **vectors
        | {
            "proposal": lambda x: dist.Normal(
                pyro.param("a", torch.tensor(0.5)) * as_numbers(x)[:, None].expand(-1, 3), 1.0
            ).to_event(1)
        },
    ),
    "one-hot": dict(x=lambda: torch.eye(3), likelihood=lambda z: dist.OneHotCategorical(logits=z), **vectors),
    "vector": dict(
        x=three,
        likelihood=lambda z: unit(z).to_event(1),
        **vectors | {"proposal": lambda x: posterior(x).to_event(1), "exact": of_rows},
    ),
    "poisson": dict(
        x=lambda: as_numbers(torch.tensor([0, 1, 3])),
        prior=lambda: dist.Gamma(2.0, 1.0),
        likelihood=dist.Poisson,
        proposal=lambda x: dist.Gamma(pyro.param("a", torch.tensor(2.0)) + x, 2.0),
        exact=lambda x: dist.GammaPoisson(2.0, 1.0).log_prob(x),
    ),
    "multinomial": dict(
        x=lambda: torch.tensor([[0.0, 1, 4], [2, 2, 1]]),
        prior=lambda: dist.Dirichlet(torch.ones(3)),
        likelihood=lambda z: dist.Multinomial(5, z),
        proposal=lambda x: dist.Dirichlet(pyro.param("a", torch.tensor(1.0)) + x),
        exact=lambda x: dist.DirichletMultinomial(torch.ones(3), torch.tensor(5.0)).log_prob(x),
    ),
    "mixture": dict(
        x=four,
        likelihood=lambda z: dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.4, 0.6])), dist.Normal(z.unsqueeze(-1) + torch.tensor([-1.0, 1.0]), 1.0)
        ),
        proposal=near,
        exact=None,
    ),
    "zero-inflated": dict(
        x=lambda: torch.tensor([0.0, 1, 3]),
        likelihood=lambda z: dist.ZeroInflatedPoisson(z.exp(), gate=torch.tensor(0.3)),
        exact=None,
    ),
    "masked": dict(x=four, likelihood=lambda z: unit(z).mask(True)),
    "relaxed": dict(
        x=four,
        prior=lambda: dist.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(0.3)),
        proposal=mean_of(lambda m: dist.RelaxedBernoulli(torch.tensor(0.5), logits=m)),
        exact=None,
    ),
    "straight through": dict(
        x=four,
        prior=lambda: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), torch.tensor(0.3)),
        proposal=mean_of(lambda m: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.5), logits=m)),
        exact=None,
    ),
    "von Mises": dict(
        x=four,
        prior=lambda: dist.VonMises(0.0, 1.0),
        likelihood=lambda z: unit(z.cos()),
        proposal=mean_of(lambda m: dist.VonMises(m, 2.0)),
        exact=None,
        path=False,
    ),
    "lkj": dict(
        x=lambda: numbers(4, 2),
        prior=lambda: dist.LKJCholesky(2, 1.0),
        likelihood=lambda z: dist.MultivariateNormal(torch.zeros(2), scale_tril=z),
        proposal=lambda x: dist.LKJCholesky(2, pyro.param("c", torch.tensor(1.5)).expand(len(x))),
        exact=None,
        path=False,
    ),
    "binary latent": dict(
        x=four,
        prior=lambda: dist.Bernoulli(0.3),
        proposal=mean_of(lambda m: dist.Bernoulli(logits=m)),
        exact=lambda x: torch.logaddexp(
            dist.Normal(0.0, 1.0).log_prob(x) + torch.tensor(0.7).log(),
            dist.Normal(1.0, 1.0).log_prob(x) + torch.tensor(0.3).log(),
        ),
        atol=0.2,
        path=False,
    ),
    "affine guide": dict(
        x=four,
        proposal=lambda x: dist.TransformedDistribution(
            dist.Normal(pyro.param("a", torch.tensor(0.2)) * x, 0.4), [tr.AffineTransform(0.1, 2.0)]
        ),
        atol=0.5,
    ),
    "point": dict(x=four, proposal=mean_of(dist.Delta)),
    "wrong support": dict(x=four, prior=lambda: dist.Uniform(0.0, 1.0), exact=None),
}
for name, options in LIKELIHOODS.items():
    row(simple, f"likelihood: {name}", **options)
