"""Pairs with latents of every kind, the objectives that apply to each, and their values with fixed draws."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import nn

from pyrovae.guides import AmortizedGaussian, BernoulliLayers
from pyrovae.infer import IWAE, NVIL, VIMCO, Renyi, ReweightedWakeSleep, WakeSleep
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE, SigmoidBeliefNetwork
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal

PIXELS, K = 6, 4
LATENTS = ("b", "z", "z1", "z2")


def belief_network():
    model = SigmoidBeliefNetwork((3, 2), BernoulliLikelihood((PIXELS,)))
    return model.double(), BernoulliLayers((PIXELS,), (3, 2)).double()


def gaussian():
    likelihood = BernoulliLikelihood((PIXELS,))
    model = GaussianVAE(StandardNormal(2), DenseDecoder(2, likelihood.raw_shape, (4,)), likelihood)
    return model.double(), AmortizedGaussian(DenseEncoder((PIXELS,), (4,)), 2).double()


class MixedModel(PyroModule):
    """A binary and a normal latent; `size` is that of a data set of which the data are a subsample."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.prior = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.net = nn.Linear(2, PIXELS).double()

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            b = pyro.sample("b", dist.Bernoulli(logits=self.prior))
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=self.net(torch.stack([b, z], -1))).to_event(1), obs=x)


class MixedGuide(PyroModule):
    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.net_of_b, self.net_of_z = nn.Linear(PIXELS, 1).double(), nn.Linear(PIXELS, 1).double()
        self.shift = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            b = pyro.sample("b", dist.Bernoulli(logits=self.net_of_b(x).squeeze(-1)))
            pyro.sample("z", dist.Normal(self.net_of_z(x).squeeze(-1) + self.shift * b, 0.7))


def mixed(size=None):
    return MixedModel(size), MixedGuide(size)


GENERAL = {
    "iwae": lambda **o: IWAE(K, **o),
    "renyi": lambda **o: Renyi(0.5, K, **o),
    "vimco": lambda **o: VIMCO(K, **o),
    "vimco-arithmetic": lambda **o: VIMCO(K, control_variate="arithmetic", **o),
    "nvil": lambda **o: NVIL(K, **o),
    "nvil-input": lambda **o: NVIL(K, baseline="input", **o),
    "wake-wake": lambda **o: ReweightedWakeSleep(K, wake_phi=1.0, sleep_phi=0.0, **o),
    "rws": lambda **o: ReweightedWakeSleep(K, **o),
    "wake-sleep": lambda **o: WakeSleep(K, **o),
}
PATHWISE = {
    "stl": lambda **o: IWAE(K, gradient="stl", **o),
    "dreg": lambda **o: IWAE(K, gradient="dreg", **o),
}
APPLIES = [
    *((pair, name) for pair in ("belief-network", "gaussian", "mixed") for name in GENERAL),
    *(("gaussian", name) for name in PATHWISE),
]
PAIRS = {"belief-network": belief_network, "gaussian": gaussian, "mixed": mixed}
every = pytest.mark.parametrize(("pair", "objective"), APPLIES)


def make(objective, **options):
    return {**GENERAL, **PATHWISE}[objective](**options)


def data(rows=8):
    return torch.rand(rows, PIXELS, dtype=torch.float64).round()


class FixedNoise(Messenger):
    """Draws made from noise that belongs to a particle and a datum, so that a datum's draws do not move."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def _pyro_sample(self, msg):
        if msg["name"] not in LATENTS:
            return
        noise = torch.rand(K, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(len(msg["name"])))
        noise = noise[:, self.rows]
        noise = noise[..., : msg["fn"].event_shape[0]] if msg["fn"].event_shape else noise[..., 0]
        base = getattr(msg["fn"], "base_dist", msg["fn"])
        reparameterised = msg["fn"].has_rsample
        msg["value"] = base.icdf(noise) if reparameterised else (noise < base.mean).to(noise.dtype)
        msg["done"] = True


def bounds(objective, pair, x, rows, **given):
    """The bound of each datum, whose draws are those of the row numbers `rows`; gradients are added up."""
    model, guide = pair
    objective.max_plate_nesting, objective.vectorize_particles = 1, True
    with torch.random.fork_rng():
        at_work = objective._pair(model, guide, (x,), given)
        at_work.guide = FixedNoise(rows)(guide)
        found = objective.bound(at_work)
        found.sum().backward()
    return found.detach()


def gradients(pair):
    found = {}
    for program in pair:
        for name, parameter in program.named_parameters():
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            parameter.grad = None
    return found
