"""Pairs and trainings that several processes share, and what starts them. Run as a script, it is one of the processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyrovae import VAE
from pyrovae.distributed import processes
from pyrovae.guides import PerDatum
from pyrovae.training import Trainer

TIME = 240
STEPS = {"enum": 10, "delta": 10, "clipped": 10}


class Mixture(nn.Module):
    """A model of two clusters whose guide, a net, is summed out: nothing is drawn."""

    def __init__(self):
        super().__init__()
        self.means = nn.Parameter(torch.tensor([[-1.0, 0.0, 0.5], [1.0, 0.5, -0.5]]))
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def model(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.3, 0.7], dtype=x.dtype)))
            pyro.sample("x", dist.Normal(self.means[y], 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=self.net(x)), infer={"enumerate": "parallel"})


class Factors(nn.Module):
    """A linear model, whose latents have a row of parameters each."""

    def __init__(self, prior=None):
        super().__init__()
        self.weights = nn.Linear(2, 3)

    def forward(self, x, index=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.weights(z), 1.0).to_event(1), obs=x)


def data(rows=41):
    return torch.randn(rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pair(name, rows=41):
    torch.set_default_dtype(torch.float32)
    if name == "enum":
        made = Mixture().double()
        return VAE(made.model, made.guide)
    return VAE(Factors(), PerDatum(rows, 2, scale="none", init="normal")).double()


def train(name, folder=None, **options):
    """A training of 50 steps and more of a pair in which nothing is drawn; the last batch of an epoch has one row."""
    torch.manual_seed(3 + processes().rank)  # the weights of the first process count
    vae = pair(name)
    how = {"epochs": STEPS[name], "batch_size": 8, "lr": 0.02, "progress": False, "seed": 5} | options
    how |= {"objective": "enum"} if name == "enum" else {}
    how |= {"gradient_clip": 0.05} if name == "clipped" else {}
    history = Trainer(**how).fit(vae, (data(), data(7)) if name == "enum" else data(), run=folder)
    return vae, history


def report(names, out):
    found = {}
    for name in names:
        vae, history = train(name)
        values = {n: p.detach().tolist() for n, p in vae.named_parameters()}
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
        found[name] = {"parameters": values, "history": rows, "best": history.best_epoch}
    Path(out, f"{processes().rank}.json").write_text(json.dumps(found))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(**more):
    """The environment of a process that finds this module and is the only one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC")}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more}


def start(size, command):
    """Start processes as a launcher does; their output by rank when they have ended, with the exit status."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        return [(process.communicate(timeout=TIME)[0], process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](*json.loads(sys.argv[2]))
