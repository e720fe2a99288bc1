"""Pairs for the table: guides of several kinds, latents of all data."""

from __future__ import annotations

import functools

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.easyguide import easy_guide
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroSample
from table_pairs import Pair, four, marginal, numbers, row, rows, simple, standard, sum_of
from torch import nn

MU = torch.tensor(0.3, dtype=torch.float64)


def shared(x):
    mu = pyro.sample("mu", standard())
    with rows(x):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def given_mu(x):
    return marginal(x - MU)


def global_latent(x=four, size=None):
    """A latent of all data, perhaps in a plate of its own whose size may agree with that of the data."""

    def model(x):
        if size is None:
            total = pyro.sample("mu", standard())
        else:
            with pyro.plate("parts", size):
                mu = pyro.sample("mu", standard())
            total = mu.sum(-1, keepdim=mu.dim() > 1)
        with rows(x):
            z = pyro.sample("z", dist.Normal(total, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        if size is None:
            total = pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.1)), 0.2))
        else:
            with pyro.plate("parts", size):
                mu = pyro.sample("mu", dist.Normal(pyro.param("m", torch.zeros(size)), 0.2))
            total = mu.sum(-1, keepdim=mu.dim() > 1)
        with rows(x):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * (x + total), 0.5**0.5))

    value = MU if size is None else MU.expand(size)
    return Pair(model, guide, x(), lambda x: marginal(x - value.sum()), condition={"mu": value})


one = functools.partial(numbers, 1)
row(global_latent, "global")
row(global_latent, "global, one row", one)
for size in (4, 1):
    row(global_latent, f"{size} globals of 4 rows", size=size)
    row(global_latent, f"{size} globals of one row", one, size=size)


def only_global():
    def model(x):
        mu = pyro.sample("mu", standard())
        with rows(x):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def guide(x):
        pyro.sample("mu", dist.Normal(pyro.param("m", torch.tensor(0.1)), 0.2))

    return Pair(model, guide, four(), lambda x: dist.Normal(MU, 1.0).log_prob(x), condition={"mu": MU})


row(only_global, "only a global")


class Decoder(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = PyroModule[nn.Linear](1, 3)
        self.net.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 1]).to_event(2))

    def forward(self, x):
        weight, bias = self.net.weight, self.net.bias
        with rows(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            mean = (weight @ z.unsqueeze(-1)).squeeze(-1) + bias
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


class Encoder(PyroModule):
    def __init__(self):
        super().__init__()
        self.net, self.weight = nn.Linear(3, 1), nn.Parameter(torch.randn(3, 1))

    def forward(self, x):
        pyro.sample("net.weight", dist.Normal(self.weight, 0.1).to_event(2))
        with rows(x):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


def bayesian_decoder():
    model = Decoder()
    condition = {"net.weight": torch.ones(3, 1)}
    return Pair(
        model, Encoder(), numbers(4, 3), lambda x: sum_of(x - model.net.bias.detach()), 0.6, condition=condition
    )


row(bayesian_decoder, "Bayesian decoder")


def automatic(kind, model=None, **options):
    model = simple(four).model if model is None else model
    fit = getattr(autoguide, kind)(model, **options)
    if model is shared:
        return Pair(model, fit, four(), condition={"mu": MU})
    return Pair(model, fit, four())


for kind, options in {
    "AutoNormal": {"init_scale": 0.6},
    "AutoDiagonalNormal": {},
    "AutoMultivariateNormal": {},
    "AutoLowRankMultivariateNormal": {"rank": 1},
    "AutoDelta": {},
    "AutoLaplaceApproximation": {},
}.items():
    row(automatic, kind, kind, **options)
    row(automatic, f"{kind} and a global", kind, shared, **options)


def easy():
    @easy_guide(shared)
    def guide(self, x):
        mean = pyro.param("m", torch.zeros(1))
        self.group(match="mu").sample("of mu", dist.Normal(mean, 0.1).to_event(1))
        with self.plate("data", len(x)):
            mean = pyro.param("a", torch.tensor(0.5)) * x[:, None]
            self.group(match="z").sample("of z", dist.Normal(mean, 0.5**0.5).to_event(1))

    return Pair(shared, guide, four(), given_mu, 0.6, condition={"mu": MU})


row(easy, "EasyGuide")
