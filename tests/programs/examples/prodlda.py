"""ProdLDA: word counts of documents as products of experts of topics."""

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE

WORDS, TOPICS = 12, 3


def documents(num: int, seed: int = 0) -> torch.Tensor:
    """Counts `[num, 12]` of documents of 5 to 25 words, each about one of three topics."""
    generator = torch.Generator().manual_seed(seed)
    weights = (torch.randint(TOPICS, (num, 1), generator=generator) == torch.arange(WORDS) % TOPICS) + 0.1
    words = torch.multinomial(weights, 25, replacement=True, generator=generator)
    kept = torch.arange(25) < torch.randint(5, 26, (num, 1), generator=generator)
    return (F.one_hot(words, WORDS) * kept.unsqueeze(-1)).sum(1).to(torch.get_default_dtype())


class Documents(PyroModule):
    """Words of topics; `words` is the largest number of words, by default that of the longest of the documents."""

    def __init__(self, words: int | None = None, dropout: float = 0.2, normalize: bool = True):
        super().__init__()
        self.words = words
        self.drop = nn.Dropout(dropout)
        self.topics = nn.Linear(TOPICS, WORDS, bias=False)
        self.norm = nn.BatchNorm1d(WORDS, affine=False) if normalize else nn.Identity()

    def forward(self, x):
        total = int(x.sum(-1).max()) if self.words is None else self.words
        with pyro.plate("documents", len(x)):
            logits = pyro.sample("topics", dist.Normal(x.new_zeros(TOPICS), 1.0).to_event(1))
            shares = self.drop(logits.softmax(-1))
            words = self.norm(self.topics(shares)).softmax(-1)
            pyro.sample("words", dist.Multinomial(total, words), obs=x)


class Reader(PyroModule):
    def __init__(self, hidden: int = 16, dropout: float = 0.2, normalize: bool = True):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WORDS, hidden), nn.Softplus(), nn.Dropout(dropout))
        self.loc, self.scale = nn.Linear(hidden, TOPICS), nn.Linear(hidden, TOPICS)
        self.norm = nn.BatchNorm1d(TOPICS, affine=False) if normalize else nn.Identity()

    def forward(self, x):
        hidden = self.net(x)
        loc, scale = self.norm(self.loc(hidden)), (0.5 * self.scale(hidden)).exp()
        with pyro.plate("documents", len(x)):
            pyro.sample("topics", dist.Normal(loc, scale).to_event(1))


def make_vae(words: int = 0, dropout: float = 0.2, normalize: bool = True) -> VAE:
    """ProdLDA for `documents`; with `words` 0 the number of words is that of the longest document."""
    return VAE(Documents(words or None, dropout, normalize), Reader(dropout=dropout, normalize=normalize))
