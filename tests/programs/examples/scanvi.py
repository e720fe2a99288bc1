"""scANVI: counts of genes in cells, of which some have a known type."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyrovae import VAE

GENES, TYPES = 10, 3


def cells(num: int, seed: int = 0, known: float = 0.5) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Counts `x` `[num, 10]` with types `y` `[num]`, -1 where unknown; and the true types."""
    generator = torch.Generator().manual_seed(seed)
    types = torch.randint(TYPES, (num,), generator=generator)
    depth = 10 + 30 * torch.rand(num, 1, generator=generator)
    profile = torch.where(torch.arange(GENES) % TYPES == types[:, None], 3.0, 0.2)
    profile = profile / profile.sum(-1, keepdim=True)
    x = torch.poisson(depth * profile, generator=generator).to(torch.get_default_dtype())
    x[:, 0] += 1  # no cell is empty
    seen = torch.rand(num, generator=generator) < known
    return {"x": x, "y": torch.where(seen, types, -1)}, types


def net(inputs: int, outputs: int, hidden: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, outputs))


def as_parts(y, rows):
    """Which types are known, and all as one-hot vectors."""
    y = torch.full((rows,), -1) if y is None else y
    return y >= 0, torch.eye(TYPES)[y.clamp(min=0)]


def joined(*parts):
    """Parts side by side, of which some have more dimensions on the left (particles, enumerated types)."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, -1) for part in parts], -1)


def spread(raw):
    return F.softplus(raw) + 0.1


class Cells(PyroModule):
    """Type and remainder give a state, the state gives shares of genes, the cell's library size their counts."""

    def __init__(self, latent_dim: int = 2):
        super().__init__()
        self.latent_dim = latent_dim
        self.state = net(latent_dim + TYPES, 2 * latent_dim)
        self.genes = net(latent_dim, 2 * GENES)
        self.dispersion = PyroParam(5 * torch.ones(GENES), constraints.positive)

    def forward(self, x, y=None):
        known, label = as_parts(y, len(x))
        library = x.sum(-1, keepdim=True)
        with pyro.plate("cells", len(x)):
            z1 = pyro.sample("z1", dist.Normal(x.new_zeros(self.latent_dim), 1.0).to_event(1))
            prior = dist.OneHotCategorical(logits=x.new_zeros(TYPES))
            y = pyro.sample("y", prior, obs=label, obs_mask=known)
            loc, raw = self.state(joined(z1, y)).chunk(2, -1)
            z2 = pyro.sample("z2", dist.Normal(loc, spread(raw)).to_event(1))
            shares, gate = self.genes(z2).chunk(2, -1)
            rate = library * shares.softmax(-1)
            logits = (rate + 1e-6).log() - (self.dispersion + 1e-6).log()
            counts = dist.ZeroInflatedNegativeBinomial(self.dispersion, logits=logits, gate_logits=gate - 3)
            pyro.sample("x", counts.to_event(1), obs=x)


class Annotation(PyroModule):
    """The state from the counts, the type from the state, the remainder from both; known types teach the classifier."""

    def __init__(self, latent_dim: int = 2, weight: float = 5.0):
        super().__init__()
        self.weight = weight
        self.encoder = net(GENES, 2 * latent_dim)
        self.classifier = net(latent_dim, TYPES)
        self.remainder = net(latent_dim + TYPES, 2 * latent_dim)

    def forward(self, x, y=None):
        known, label = as_parts(y, len(x))
        loc, raw = self.encoder(x.log1p()).chunk(2, -1)
        with pyro.plate("cells", len(x)):
            z2 = pyro.sample("z2", dist.Normal(loc, spread(raw)).to_event(1))
            kind = dist.OneHotCategorical(logits=self.classifier(z2))
            with poutine.mask(mask=~known):
                drawn = pyro.sample("y_unobserved", kind, infer={"enumerate": "parallel"})
            score = torch.where(known, kind.log_prob(label), x.new_zeros(()))
            pyro.factor("classification", -self.weight * score, has_rsample=False)
            y = torch.where(known[:, None], label, drawn)
            loc, raw = self.remainder(joined(z2, y)).chunk(2, -1)
            pyro.sample("z1", dist.Normal(loc, spread(raw)).to_event(1))


def make_vae() -> VAE:
    """scANVI for `cells`."""
    return VAE(Cells(), Annotation())
