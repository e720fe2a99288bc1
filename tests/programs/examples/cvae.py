"""A conditional VAE: the lower half of a digit given its upper half."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from sklearn.datasets import load_digits
from torch import nn

from pyrovae import VAE


def halves(num: int, start: int = 0) -> dict[str, torch.Tensor]:
    """Lower halves `x` `[num, 32]`, binary, and upper halves `c` `[num, 32]`."""
    images = torch.tensor(load_digits().data[start : start + num], dtype=torch.get_default_dtype()) / 16
    return {"x": (images[:, 32:] > 0.5).to(images.dtype), "c": images[:, :32]}


class Completion(PyroModule):
    def __init__(self, latent_dim: int = 2, hidden: int = 16):
        super().__init__()
        self.prior = nn.Sequential(nn.Linear(32, hidden), nn.Tanh(), nn.Linear(hidden, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim + 32, hidden), nn.Tanh(), nn.Linear(hidden, 32))

    def forward(self, x, c):
        with pyro.plate("data", len(c)):
            z = pyro.sample("z", dist.Normal(self.prior(c), 1.0).to_event(1))
            given = torch.cat([z, c.expand(*z.shape[:-1], -1)], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(given)).to_event(1), obs=x)


class Recognition(PyroModule):
    def __init__(self, latent_dim: int = 2, hidden: int = 16):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent_dim))

    def forward(self, x, c):
        loc, raw = self.encoder(torch.cat([x, c], -1)).chunk(2, -1)
        with pyro.plate("data", len(c)):
            pyro.sample("z", dist.Normal(loc, F.softplus(raw) + 0.1).to_event(1))


def make_vae() -> VAE:
    """A VAE of lower halves of digits given the upper ones."""
    return VAE(Completion(), Recognition(), example=halves(2))


def make_data() -> dict[str, torch.Tensor]:
    """Rows by argument name, for the command line."""
    return halves(30)
