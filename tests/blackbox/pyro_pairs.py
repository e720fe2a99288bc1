"""Small Pyro pairs, float64: bits (the twins of the tiny networks), normal latents in two layers, and mixed ones."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from tiny_networks import DATA, TinyModel, TinyNetwork
from torch import nn

from pyrovae import VAE


class Program(PyroModule):
    def __init__(self, **values):
        super().__init__()
        for name, value in values.items():
            setattr(self, name, nn.Parameter(torch.as_tensor(value, dtype=torch.float64).clone()))


class BitsModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Bernoulli(logits=self.prior[0]))
            z2 = pyro.sample("z2", dist.Bernoulli(logits=self.prior[1:]).to_event(1))
            logits = torch.cat([z1.unsqueeze(-1), z2], -1) @ self.weight
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class BitsGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Bernoulli(logits=x @ self.first))
            logits = x @ self.second + z1.unsqueeze(-1) * self.link
            pyro.sample("z2", dist.Bernoulli(logits=logits).to_event(1))


class NormalModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(self.prior, 1.0))
            z1 = pyro.sample("z1", dist.Normal(self.loading * z2, 1.0))
            pyro.sample("x", dist.Normal(z1.unsqueeze(-1) * self.weight, 1.0).to_event(1), obs=x)


class NormalGuide(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x @ self.slope, self.log_scale.exp()))
            pyro.sample("z2", dist.Normal(self.gain * z1, 1.0))


class MixedModel(Program):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(logits=self.prior))
            z = pyro.sample("z", dist.Normal(self.jump * b, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) * self.weight, 1.0).to_event(1), obs=x)


class MixedGuide(Program):
    """A normal draw, on which the bit depends."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x @ self.slope, self.log_scale.exp()))
            pyro.sample("b", dist.Bernoulli(logits=self.level + self.gain * z))


def _bits():
    network, model = TinyNetwork(), TinyModel()
    return BitsModel(prior=model.prior, weight=model.weight), BitsGuide(
        first=network.first, second=network.second, link=network.link
    )


PAIRS = {
    "bits": _bits,
    "normal": lambda: (
        NormalModel(prior=0.3, loading=0.8, weight=[1.1, -0.6]),
        NormalGuide(slope=[0.4, -0.2], log_scale=-0.3, gain=0.7),
    ),
    "mixed": lambda: (
        MixedModel(prior=0.4, jump=0.9, weight=[0.8, -0.5]),
        MixedGuide(slope=[0.4, -0.2], log_scale=-0.2, level=-0.3, gain=0.6),
    ),
}


def make_pair(name, rows):
    """A pair and data of two entries."""
    x = DATA.double().repeat(rows // 4, 1)
    return VAE(*PAIRS[name](), example=x), x
