"""CEVAE: covariates, a treatment and an outcome that a hidden confounder drives."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE

COVARIATES = 4


def patients(num: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Covariates `x` `[num, 4]`, treatments `t` `[num]` of 0 and 1, outcomes `y` `[num]`."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.bernoulli(torch.full((num, 1), 0.5), generator=generator)
    x = z + 0.5 * torch.randn(num, COVARIATES, generator=generator)
    t = torch.bernoulli(0.25 + 0.5 * z[:, 0], generator=generator)
    y = torch.randn(num, generator=generator) * 0.3 + z[:, 0] + 2 * t
    return {"x": x, "t": t, "y": y}


def net(inputs: int, outputs: int, hidden: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def normal(raw):
    loc, scale = raw.chunk(2, -1)
    return dist.Normal(loc, F.softplus(scale) + 0.1)


def by_treatment(t, untreated, treated):
    """The output of one of two nets."""
    return torch.where(t[..., None] == 1, treated, untreated)


class Confounded(PyroModule):
    def __init__(self, latent_dim: int = 2):
        super().__init__()
        self.latent_dim = latent_dim
        self.covariates = net(latent_dim, 2 * COVARIATES)
        self.treatment = net(latent_dim, 1)
        self.outcome0, self.outcome1 = net(latent_dim, 2), net(latent_dim, 2)

    def forward(self, x, t=None, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            pyro.sample("x", normal(self.covariates(z)).to_event(1), obs=x)
            t = pyro.sample("t", dist.Bernoulli(logits=self.treatment(z).squeeze(-1)), obs=t)
            outcome = normal(by_treatment(t, self.outcome0(z), self.outcome1(z)))
            loc, scale = outcome.loc.squeeze(-1), outcome.scale.squeeze(-1)
            return pyro.sample("y", dist.Normal(loc, scale), obs=y)


class Treated(PyroModule):
    """Treatment and outcome are observed here too, so that the guide learns to predict them for new patients."""

    def __init__(self, latent_dim: int = 2):
        super().__init__()
        self.propensity = net(COVARIATES, 1)
        self.untreated, self.treated = net(COVARIATES, 2), net(COVARIATES, 2)
        self.hidden0, self.hidden1 = net(COVARIATES + 1, 2 * latent_dim), net(COVARIATES + 1, 2 * latent_dim)

    def forward(self, x, t=None, y=None):
        with pyro.plate("data", len(x)):
            chance = dist.Bernoulli(logits=self.propensity(x).squeeze(-1))
            t = pyro.sample("t", chance, obs=t, infer={"is_auxiliary": True})
            outcome = normal(by_treatment(t, self.untreated(x), self.treated(x)))
            outcome = dist.Normal(outcome.loc.squeeze(-1), outcome.scale.squeeze(-1))
            y = pyro.sample("y", outcome, obs=y, infer={"is_auxiliary": True})
            seen = torch.cat([y[..., None], x.expand(*y.shape, -1)], -1)
            pyro.sample("z", normal(by_treatment(t, self.hidden0(seen), self.hidden1(seen))).to_event(1))


def make_vae() -> VAE:
    """CEVAE for `patients`."""
    return VAE(Confounded(), Treated())


def make_data() -> dict[str, torch.Tensor]:
    """Rows by argument name, for the command line."""
    return patients(30)
