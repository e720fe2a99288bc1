"""What several processes refuse, one after the other in the same processes. Run as a script, it is one of them."""

import json
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, TraceGraph_ELBO
from torch import nn
from torch.utils.data import DataLoader

from pyrovae import VAE
from pyrovae.distributed import in_parts, processes
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


def message(data=None, layer=None, guide=None, baseline=None, **options):
    made = Linear(layer, baseline)
    how = {"epochs": 1, "batch_size": 8, "progress": False} | options
    try:
        Trainer(**how).fit(VAE(made.model, guide or made.guide), x() if data is None else data)
    except ValueError as error:
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
        "stream": message(DataLoader(x(), batch_size=4)),
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
    }
    Path(out, f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    all_of_them(sys.argv[1])
