"""What several processes refuse, one after the other in the same processes. Run as a script, it is one of them."""

import json
import random
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, TraceGraph_ELBO
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler, TensorDataset

from pyrovae import VAE
from pyrovae.distributed import LostProcessError, in_parts, processes
from pyrovae.guides import PerDatum
from pyrovae.training import Trainer


class Linear(nn.Module):
    """A linear pair around a layer."""

    def __init__(self, layer=None, baseline=None):
        super().__init__()
        self.layer, self.baseline = layer or nn.Identity(), baseline or {}
        self.decoder, self.encoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            how = {"baseline": self.baseline} if self.baseline else {}
            pyro.sample("z", dist.Normal(self.encoder(self.layer(x)), 1.0).to_event(1), infer=how)


class Mean(nn.Module):
    """Takes off a running mean."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - self.mean


def by_row(x):
    loc = pyro.param("loc", torch.zeros(len(x), 2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


class Parts(IterableDataset):
    """Batches that come one after the other."""

    def __iter__(self):
        return iter(x().split(4))


class Twice(DataLoader):
    """A loader that gives each batch twice."""

    def __iter__(self):
        return (batch for batch in super().__iter__() for _ in (0, 1))


class Order(Sampler):
    """An order that the processes do not share."""

    def __iter__(self):
        order = list(range(20))
        random.Random(processes().rank).shuffle(order)
        return iter(order)

    def __len__(self):
        return 20


class Endless(Sampler):
    """An order that does not say how long it is."""

    def __iter__(self):
        return iter(range(20))


class Rolled(Dataset):
    """Rows that are made when they are read."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        return x()[place % 20]


class Factors(nn.Module):
    """A linear model, whose latents have a row of parameters each."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(2, 3)

    def forward(self, x, index=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.weights(z), 1.0).to_event(1), obs=x)


def of_rows():
    numbered = [{"x": row, "index": place} for place, row in enumerate(x())]
    try:
        vae = VAE(Factors(), PerDatum(20, 2, init="normal"))
        Trainer(epochs=1, progress=False).fit(vae, DataLoader(numbered, batch_size=4))
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def message(data=None, layer=None, guide=None, baseline=None, validation=None, **options):
    made = Linear(layer, baseline)
    size = {} if isinstance(data, DataLoader | IterableDataset) else {"batch_size": 8}
    how = {"epochs": 1, **size, "progress": False} | options
    try:
        Trainer(**how).fit(VAE(made.model, guide or made.guide), x() if data is None else data, validation)
    except (ValueError, LostProcessError) as error:
        return str(error)
    return "nothing was refused"


def x(rows=20):
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))


def all_of_them(out):
    rank = processes().rank
    wrong = x()
    wrong[3] = torch.nan
    found = {
        "layer": message(layer=nn.BatchNorm1d(3)),
        "buffer": message(layer=Mean()),
        "renyi": message(objective=RenyiELBO(num_particles=2)),
        "average": message(objective=TraceGraph_ELBO(), drop_last=True, baseline={"use_decaying_avg_baseline": True}),
        "place": message(guide=by_row, batch_size=20),
        "stream": message(Parts()),
        "loader of a stream": message(DataLoader(Parts(), batch_size=4)),
        "validation stream": message(validation=Parts()),
        "own loader": message(Twice(x(), batch_size=4)),
        "no batches": message(DataLoader(x(), batch_size=None)),
        "cut already": message(DataLoader(x(), 4, sampler=DistributedSampler(x(), 2, rank))),
        "no length": message(DataLoader(x(), 4, sampler=Endless())),
        "order": message(DataLoader(x(), 4, sampler=Order())),
        "small batches": message(DataLoader(x(), batch_size=1)),
        "few rows in a loader": message(DataLoader(x(1), batch_size=4)),
        "length": message(DataLoader(Rolled(20 + rank), batch_size=4)),
        "batches": message(DataLoader(Rolled(20), batch_size=4 + rank)),
        "data in a loader": message(DataLoader(TensorDataset(x() + rank), batch_size=4)),
        "validation in a loader": message(validation=DataLoader(x(5) + rank, batch_size=1)),
        "validation of one": message(validation=x(5) if rank else None),
        "batches of validation": message(validation=DataLoader(Rolled(6), batch_size=2 + rank)),
        "rows of a loader": of_rows(),
        "fine loader": message(DataLoader(x(), batch_size=4, shuffle=True), validation=DataLoader(x(1), batch_size=1)),
        "seedless": message(seed=None),
        "batch": message(batch_size=1),
        "rows": message(x(1)),
        "seed": message(seed=1 + rank),
        "rate": message(lr=0.1 * (1 + rank)),
        "data": message(x() + rank),
        "validation": message((x(), x(5) + rank)),
        "one": message(wrong if rank else x()),
        "fine": message(),
        "parts": torch.cat(in_parts(lambda part: part * 2, torch.arange(5))).tolist(),
        # the last one, since the processes part
        "bad row": message(DataLoader([*x(18), torch.full((3,), torch.nan), *x(1)], batch_size=8)),
    }
    Path(out, f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    all_of_them(sys.argv[1])
