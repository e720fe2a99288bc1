"""Tiny pairs of every kind that a user may write, shared by the tests."""

import functools

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyrovae import VAE
from pyrovae.guides import AmortizedGaussian
from pyrovae.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, NormalLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from pyrovae.priors import MixturePrior, StandardNormal, VampPrior

SHAPE = (1, 8, 8)

LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood,
    "normal": NormalLikelihood,
    "normal-learned": functools.partial(NormalLikelihood, scale="learned"),
    "normal-predicted": functools.partial(NormalLikelihood, scale="predicted"),
    "discretized-logistic": DiscretizedLogisticLikelihood,
}


def pictures(num: int, shape=SHAPE) -> torch.Tensor:
    """Binary pictures with something to learn: each is bright in its upper or its lower half."""
    top = (torch.arange(num) % 2).reshape(-1, 1, 1, 1).bool()
    upper = torch.arange(shape[1]).reshape(-1, 1) < shape[1] // 2
    return torch.where(top == upper, 0.9, 0.05).expand(num, *shape).bernoulli()


def library_pair(net="dense", prior="standard-normal", likelihood="bernoulli", shape=SHAPE, latent_dim=2) -> VAE:
    head = LIKELIHOODS[likelihood](shape)
    if net == "dense":
        encoder, decoder = DenseEncoder(shape, (16,)), DenseDecoder(latent_dim, head.raw_shape, (16,))
    else:
        encoder = ConvEncoder(shape, (3, 4), 16)
        decoder = ConvDecoder(latent_dim, head.raw_shape, (3, 4), 16)
    guide = AmortizedGaussian(encoder, latent_dim)
    priors = {
        "standard-normal": lambda: StandardNormal(latent_dim),
        "mixture": lambda: MixturePrior(latent_dim, 4),
        "vamp": lambda: VampPrior(guide.posterior, torch.rand(4, *shape)),
    }
    return VAE(GaussianVAE(priors[prior](), decoder, head), guide)


class LinearModel(PyroModule):
    """Probabilistic principal component analysis: x = W z + b + noise."""

    def __init__(self, data_dim: int, latent_dim: int):
        super().__init__()
        self.loadings = nn.Parameter(0.5 * torch.randn(data_dim, latent_dim))
        self.offset = nn.Parameter(torch.zeros(data_dim))
        self.noise = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)

    def forward(self, x):
        zero = self.offset.new_zeros(self.loadings.shape[1])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.loadings.T + self.offset, self.noise).to_event(1), obs=x)

    def evidence(self, x):
        """Log density of each row of `x` under the marginal, N(b, W W' + noise^2 I)."""
        covariance = self.loadings @ self.loadings.T + self.noise**2 * torch.eye(len(self.offset)).to(self.offset)
        return torch.distributions.MultivariateNormal(self.offset, covariance).log_prob(x)


class Fragile(LinearModel):
    """A model that can be told to go wrong."""

    broken = False

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = z @ self.loadings.T + self.offset + (torch.nan if self.broken else 0.0)
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)


class LinearGuide(PyroModule):
    def __init__(self, data_dim: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(data_dim, latent_dim)
        self.scale = PyroParam(torch.full((latent_dim,), 0.5), constraint=dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.mean(x), self.scale).to_event(1))


def linear_pair(data_dim=5, latent_dim=2) -> VAE:
    return VAE(LinearModel(data_dim, latent_dim), LinearGuide(data_dim, latent_dim))


def function_pair() -> VAE:
    """Functions that call nothing but pyro.sample; nothing to train."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = z.repeat_interleave(32, -1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x.flatten(1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.reshape(-1, 2, 32).sum(-1) / 33, 33**-0.5).to_event(1))

    return VAE(model, guide)


def param_pair() -> VAE:
    """Functions with `pyro.module` and `pyro.param`, a constraint included."""
    decoder, encoder = nn.Linear(2, 64), nn.Linear(64, 2)

    def model(x):
        pyro.module("decoder", decoder)
        noise = pyro.param("noise", x.new_tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), noise).to_event(1), obs=x.flatten(1))

    def guide(x):
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", x.new_full((2,), 0.6), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x.flatten(1)), scale).to_event(1))

    return VAE(model, guide)


class TutorialVAE(nn.Module):
    """A program in the form of Pyro's VAE tutorial: one module, two methods, modules registered inside."""

    def __init__(self, num_pixels: int = 64, z_dim: int = 2, hidden: int = 16):
        super().__init__()
        self.num_pixels, self.z_dim = num_pixels, z_dim
        self.encoder = nn.Sequential(nn.Linear(num_pixels, hidden), nn.Softplus(), nn.Linear(hidden, 2 * z_dim))
        self.decoder = nn.Sequential(nn.Linear(z_dim, hidden), nn.Softplus(), nn.Linear(hidden, num_pixels))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], self.z_dim)))
            z_scale = x.new_ones(torch.Size((x.shape[0], self.z_dim)))
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc_img = self.decoder(z).sigmoid()
            pyro.sample("obs", dist.Bernoulli(loc_img).to_event(1), obs=x.reshape(-1, self.num_pixels))
            return loc_img

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x.reshape(-1, self.num_pixels)).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, F.softplus(raw) + 1e-3).to_event(1))


def tutorial_pair() -> VAE:
    net = TutorialVAE()
    return VAE(net.model, net.guide)


def plain_module_pair() -> VAE:
    """Plain modules as programs, never handed to `pyro.module`: their traces show no parameter."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Linear(2, 64)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.flatten(1))

    class Guide(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(64, 2)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x.flatten(1)), 0.5).to_event(1))

    return VAE(Model(), Guide())


def user_linear_pair() -> VAE:
    return linear_pair(64, 2)


PAIRS = {
    "library": library_pair,
    "library-conv": functools.partial(library_pair, net="conv", prior="vamp"),
    "pyro-modules": user_linear_pair,
    "functions": function_pair,
    "param-functions": param_pair,
    "tutorial": tutorial_pair,
    "plain-modules": plain_module_pair,
}
"""Each takes pictures of shape `SHAPE`, some flat rows of 64 only."""

FLAT = ("pyro-modules",)


def data_for(kind: str, num: int) -> torch.Tensor:
    """Data that a pair of `PAIRS` takes."""
    return pictures(num).flatten(1) if kind in FLAT else pictures(num)


def weights_of(vae: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in vae.state_dict().items()}


def same_weights(first, second) -> bool:
    """Whether two dictionaries of weights are equal, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
