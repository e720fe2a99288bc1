"""What `speed.py` trains: for each family rows, the pair of this library, and its loss as a user of torch writes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS, PIXELS, HIDDEN, LATENT = 8192, 784, 200, 50
PARTICLES, WEIGHTS, CONCENTRATION = 10, 50, 5.0
NUMBERS, BITS, CHOICES, LEVELS = 40, 30, 30, 4
LAYERS = (256, 256)


def pictures(pixels: int = PIXELS) -> Tensor:
    """Random pictures of zeros and ones."""
    own = torch.Generator().manual_seed(0)
    return torch.bernoulli(torch.rand(ROWS, pixels, generator=own), generator=own)


def table() -> Tensor:
    """A table of 100 columns: numbers, bits and choices among four levels."""
    own = torch.Generator().manual_seed(0)
    numbers = torch.randn(ROWS, NUMBERS, generator=own)
    bits = torch.randint(2, (ROWS, BITS), generator=own)
    return torch.cat([numbers, bits, torch.randint(LEVELS, (ROWS, CHOICES), generator=own)], 1)


def _dense(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, above in pairwise(sizes):
        layers += [nn.Linear(below, above), activation()]
    return nn.Sequential(*layers[:-1])


def gaussian(pixels: int = PIXELS, hidden: int = HIDDEN, latent: int = LATENT) -> Any:
    """A Gaussian VAE of pictures."""
    from pyrovae import VAE
    from pyrovae.guides import AmortizedGaussian
    from pyrovae.likelihoods import BernoulliLikelihood
    from pyrovae.models import GaussianVAE
    from pyrovae.nn import DenseDecoder, DenseEncoder
    from pyrovae.priors import StandardNormal

    likelihood = BernoulliLikelihood((pixels,))
    model = GaussianVAE(StandardNormal(latent), DenseDecoder(latent, likelihood.raw_shape, (hidden,)), likelihood)
    return VAE(model, AmortizedGaussian(DenseEncoder((pixels,), (hidden,)), latent))


class Gaussian(nn.Module):
    """Its loss, summed over the rows."""

    def __init__(self, pixels: int = PIXELS, hidden: int = HIDDEN, latent: int = LATENT) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU())
        self.loc, self.scale = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = _dense(latent, hidden, pixels)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of some rows."""
        hidden = self.encoder(x)
        loc, log_scale = self.loc(hidden), self.scale(hidden)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        return F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") + _divergence(loc, log_scale)


def _divergence(loc: Tensor, log_scale: Tensor) -> Tensor:
    return 0.5 * (loc.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()


def sbn() -> Any:
    """A sigmoid belief network of two layers."""
    from pyrovae.data.dataset import DataSpec
    from pyrovae.pairs import find_pair

    return find_pair("sbn").builder(DataSpec("bits", (PIXELS,), "binary", num_rows=ROWS), sizes=(HIDDEN, HIDDEN))


class BeliefNetwork(nn.Module):
    """Its loss by VIMCO, summed over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.higher = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.top = nn.Parameter(torch.zeros(HIDDEN))
        self.lower, self.decoder = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of some rows, with the gradient of VIMCO."""

        def score(logits: Tensor, bits: Tensor) -> Tensor:
            logits, bits = torch.broadcast_tensors(logits, bits)
            return -F.binary_cross_entropy_with_logits(logits, bits, reduction="none").sum(-1)

        logits = self.up(x)
        z1 = torch.bernoulli(logits.sigmoid().detach().expand(PARTICLES, *logits.shape))
        above = self.higher(z1)
        z2 = torch.bernoulli(above.sigmoid().detach())
        log_q = score(logits, z1) + score(above, z2)
        log_p = score(self.top, z2) + score(self.lower(z2), z1) + score(self.decoder(z1), x)
        weight = log_p - log_q
        bound = weight.logsumexp(0) - math.log(PARTICLES)
        with torch.no_grad():
            others = (weight.sum(0) - weight) / (PARTICLES - 1)
            replaced = torch.where(torch.eye(PARTICLES, dtype=torch.bool)[:, :, None], others, weight)
            signal = bound - (replaced.logsumexp(1) - math.log(PARTICLES))
        surrogate = (signal * log_q).sum()
        return -bound.sum() - (surrogate - surrogate.detach())


def sticks() -> Any:
    """A stick-breaking VAE."""
    from pyrovae.data.dataset import DataSpec
    from pyrovae.pairs import find_pair

    spec = DataSpec("bits", (PIXELS,), "binary", num_rows=ROWS)
    options = {"truncation": WEIGHTS, "concentration": CONCENTRATION, "hidden": (HIDDEN,)}
    return find_pair("stick-breaking").builder(spec, **options)


class Sticks(nn.Module):
    """Its loss, summed over the rows: Kumaraswamy fractions, whose divergence from a Beta is a series of ten terms."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU())
        self.a, self.b = nn.Linear(HIDDEN, WEIGHTS - 1), nn.Linear(HIDDEN, WEIGHTS - 1)
        self.decoder = _dense(WEIGHTS, HIDDEN, PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of some rows."""
        hidden = self.encoder(x)
        a, b = F.softplus(self.a(hidden)) + 0.01, F.softplus(self.b(hidden)) + 0.01
        u = torch.rand_like(a).clamp(1e-6, 1 - 1e-6)
        v = (1 - u ** (1 / b)) ** (1 / a)
        rest = torch.cumprod(1 - v, -1)
        weights = torch.cat([v[:, :1], v[:, 1:] * rest[:, :-1], rest[:, -1:]], -1)
        gain = 3 * math.sqrt(WEIGHTS * (1 + CONCENTRATION))
        error = F.binary_cross_entropy_with_logits(self.decoder(gain * weights), x, reduction="sum")
        series = sum(
            (1 / (m + a * b)) * torch.exp(torch.lgamma(m / a) + torch.lgamma(b) - torch.lgamma(m / a + b))
            for m in range(1, 11)
        )
        kl = (a - 1) / a * (-0.5772156649 - torch.digamma(b) - 1 / b) + a.log() + b.log() - (b - 1) / b
        kl = kl - math.log(CONCENTRATION) + (CONCENTRATION - 1) * b * series
        return error + kl.sum()


def table_spec() -> Any:
    """What the pair needs to know of the table."""
    from pyrovae.data.dataset import TABLE, DataSpec
    from pyrovae.likelihoods.tables import ColumnFamilies

    families = ("normal",) * NUMBERS + ("bernoulli",) * BITS + ("categorical",) * CHOICES
    levels = (0,) * NUMBERS + (2,) * BITS + (LEVELS,) * CHOICES
    schema = {"columns": ColumnFamilies(families, levels).to_dict()}
    return DataSpec("table", (len(families),), TABLE, ROWS, schema=schema)


def tabular() -> Any:
    """A VAE of a table."""
    from pyrovae.pairs import find_pair

    return find_pair("tabular").builder(table_spec(), latent_dim=LATENT, hidden=LAYERS)


class Table(nn.Module):
    """Its loss, summed over the rows, for a table without gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_dense(NUMBERS + 2 * BITS + LEVELS * CHOICES, *LAYERS), nn.ReLU())
        self.loc, self.scale = nn.Linear(LAYERS[-1], LATENT), nn.Linear(LAYERS[-1], LATENT)
        self.decoder = _dense(LATENT, *LAYERS, 2 * NUMBERS + BITS + LEVELS * CHOICES)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of some rows."""
        numbers, bits, choices = x.split([NUMBERS, BITS, CHOICES], 1)
        one_hot = [F.one_hot(bits.long(), 2).flatten(1), F.one_hot(choices.long(), LEVELS).flatten(1)]
        hidden = self.encoder(torch.cat([numbers, *one_hot], 1))
        loc, log_scale = self.loc(hidden), self.scale(hidden)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        mean, spread, logits, levels = self.decoder(z).split([NUMBERS, NUMBERS, BITS, LEVELS * CHOICES], 1)
        spread = F.softplus(spread) + 0.02
        error = 0.5 * ((numbers - mean) / spread).square() + spread.log() + 0.5 * math.log(2 * math.pi)
        error = error.sum() + F.binary_cross_entropy_with_logits(logits, bits, reduction="sum")
        chosen = levels.unflatten(1, (CHOICES, LEVELS)).flatten(0, 1)
        error = error + F.cross_entropy(chosen, choices.long().flatten(), reduction="sum")
        return error + _divergence(loc, log_scale)


class Family(NamedTuple):
    """What is trained."""

    data: Callable[[], Tensor]
    pair: Callable[[], Any]
    by_hand: Callable[[], nn.Module]
    objective: str


FAMILIES = {
    "gaussian": Family(pictures, gaussian, Gaussian, "elbo"),
    "tiny": Family(partial(pictures, 4), partial(gaussian, 4, 4, 2), partial(Gaussian, 4, 4, 2), "elbo"),
    "sbn": Family(pictures, sbn, BeliefNetwork, "vimco"),
    "stick-breaking": Family(pictures, sticks, Sticks, "mean-field"),
    "table": Family(table, tabular, Table, "mean-field"),
}
