"""A deep Markov model: sequences of several lengths, a chain of latents, a guide that reads backwards."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.distributions.transforms import affine_autoregressive
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE

NOTES = 5


def melodies(num: int, length: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Binary sequences `x` `[num, length, 5]`, zero after their `lengths` `[num]`, in which notes go up by one."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (num,), generator=generator)
    lengths[0] = length
    notes = torch.randint(NOTES, (num, 1), generator=generator) + torch.arange(length)
    shown = torch.arange(length) < lengths.unsqueeze(-1)
    return {
        "x": F.one_hot(notes % NOTES, NOTES) * shown.unsqueeze(-1).to(torch.get_default_dtype()),
        "lengths": lengths,
    }


class Chain(PyroModule):
    """The next latent is drawn from a gated step of the last one; a step past the end of a sequence is masked."""

    def __init__(self, latent_dim: int = 2, hidden: int = 12):
        super().__init__()
        self.latent_dim = latent_dim
        self.gate = nn.Linear(latent_dim, latent_dim)
        self.proposal = nn.Sequential(nn.Linear(latent_dim, hidden), nn.Tanh(), nn.Linear(hidden, latent_dim))
        self.width = nn.Linear(latent_dim, latent_dim)
        self.emitter = nn.Sequential(nn.Linear(latent_dim, hidden), nn.Tanh(), nn.Linear(hidden, NOTES))
        self.first = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, x, lengths):
        with pyro.plate("data", len(lengths)):
            z = self.first.expand(len(lengths), self.latent_dim)
            for t in pyro.markov(range(1, x.shape[1] + 1)):
                with poutine.mask(mask=lengths >= t):
                    gate = self.gate(z).sigmoid()
                    loc, scale = gate * self.proposal(z) + (1 - gate) * z, F.softplus(self.width(z)) + 0.1
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))
                    notes = dist.Bernoulli(logits=self.emitter(z)).to_event(1)
                    pyro.sample(f"x_{t}", notes, obs=x[:, t - 1])


class Combiner(PyroModule):
    """Combines the last latent with what a recurrent net says of the rest of the sequence.

    Every latent goes through `num_flows` inverse autoregressive flows.
    """

    def __init__(self, latent_dim: int = 2, hidden: int = 12, num_flows: int = 0):
        super().__init__()
        self.rnn = nn.GRU(NOTES, hidden, batch_first=True)
        self.from_latent = nn.Linear(latent_dim, hidden)
        self.middle = nn.Linear(hidden, latent_dim)
        self.spread = nn.Linear(hidden, latent_dim)
        self.start = nn.Parameter(torch.zeros(latent_dim))
        self.flows = nn.ModuleList([affine_autoregressive(latent_dim, hidden_dims=[8]) for _ in range(num_flows)])

    def backwards(self, x, lengths):
        """The state of the recurrent net that has read a sequence from its end to each step."""
        steps = torch.arange(x.shape[1], device=x.device)
        order = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)[..., None]
        state, _ = self.rnn(x.gather(1, order.expand_as(x)))
        return state.gather(1, order.expand_as(state))

    def forward(self, x, lengths):
        state = self.backwards(x, lengths)
        with pyro.plate("data", len(lengths)):
            z = self.start.expand(len(lengths), -1)
            for t in pyro.markov(range(1, x.shape[1] + 1)):
                with poutine.mask(mask=lengths >= t):
                    both = (self.from_latent(z).tanh() + state[:, t - 1]) / 2
                    fn = dist.Normal(self.middle(both), F.softplus(self.spread(both)) + 0.1).to_event(1)
                    if self.flows:
                        fn = dist.TransformedDistribution(fn, list(self.flows))
                    z = pyro.sample(f"z_{t}", fn)


def make_vae(num_flows: int = 0) -> VAE:
    """A deep Markov model of `melodies`."""
    return VAE(Chain(), Combiner(num_flows=num_flows))


def make_data() -> dict[str, torch.Tensor]:
    """Rows by argument name, for the command line."""
    return melodies(30)
