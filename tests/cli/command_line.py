"""The command line as a user meets it: tiny options, a user's own module, and how a command is refused."""

import importlib
import re
import sys
from pathlib import Path

from pyrovae.cli import main

TINY = ["--epochs", "2", "--hidden", "16", "--layer", "plain", "--latent-dim", "2", "--quiet"]
VERBS = (
    *("train", "resume", "grow", "sweep", "evaluate", "sample", "encode", "impute", "plot", "report", "schema"),
    *("datasets", "models"),
)
FIGURES = {
    "training_curves",
    "samples",
    "reconstructions",
    "interpolation",
    "latent_scatter",
    "latent_profile",
}
EVALUATION_KEYS = [  # as docs/command_line.md has them; scripts rely on the names
    *("run", "data", "split", "log_likelihood", "standard_error", "sampling_error", "num_samples", "num_rows"),
    *("bound", "kl", "reconstruction_error", "active_units", "latent_dim", "bits_per_dimension"),
    *("effective_sample_size", "standard_errors"),
    *("knn_error_3", "knn_error_5", "knn_error_10"),
]
MODULE = '''
import os, signal
from typing import Annotated, Literal

import pyro, pyro.distributions as dist, torch
from torch import nn
from pyrovae import VAE

class Net(nn.Module):
    def __init__(self, z_dim, hidden):
        super().__init__()
        self.z_dim, self.calls = z_dim, 0
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.Softplus(), nn.Linear(hidden, 2 * z_dim))
        self.decoder = nn.Sequential(nn.Linear(z_dim, hidden), nn.Softplus(), nn.Linear(hidden, 64), nn.Sigmoid())

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], self.z_dim), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(self.decoder(z)).to_event(1), obs=x.reshape(-1, 64))

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        self.calls += 1
        if str(self.calls) == os.environ.get("TEST_INTERRUPT_AT"):
            os.kill(os.getpid(), signal.SIGINT)
        loc, log_scale = self.encoder(x.reshape(-1, 64)).chunk(2, -1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))

def make_vae(
    z_dim: Annotated[int, "size of the latent, 100% of it"] = 3,
    hidden: int = 16,
    seed: int | None = None,
    size: Literal["small", "large"] = "small",
    callback=None,
):
    """A net as in Pyro's tutorial."""
    if seed is not None:
        torch.manual_seed(seed)
    net = Net(z_dim, hidden if size == "small" else 10 * hidden)
    return VAE(net.model, net.guide)

def needs(z_dim: int): return make_vae(z_dim)
def fails(): raise KeyError("nothing here")
def no_vae(): return None
def unreadable(size: "Unknown" = 3): return make_vae()
def another(): return make_vae()

def mismatch():
    net = Net(3, 16)
    net.encoder = nn.Linear(32, 6)
    return VAE(net.model, net.guide)
'''


def enter(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("mymodule", "broken", "lonely"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()


def error_of(words, capsys) -> str:
    """The one line that a refused command writes."""
    status = main(words)
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, ""), captured
    assert re.fullmatch(r"pyrovae: \S[^\n]*\n", captured.err), captured.err
    return captured.err


def files_in(folder):
    """When each file was last changed; None of folders, in which a lock may come and go."""
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in Path(folder).rglob("*")}
