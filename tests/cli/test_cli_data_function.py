"""The command line on data that a function of the user's own makes."""

import importlib
import json
import re

import numpy as np
import pytest
from command_line import error_of

from pyrovae import VAE
from pyrovae.cli import main
from pyrovae.rng import begin

PAIR = """
import os, signal
import pyro, pyro.distributions as dist, torch
from torch import nn
from torch.utils.data import DataLoader
from pyrovae import VAE
from pyrovae.data.dataset import Dataset, Rows

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 5)

    def forward(self, x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            c = c.expand(*z.shape[:-1], 1)
            pyro.sample("x", dist.Normal(self.net(torch.cat([z, c], -1)), 1.0).to_event(1), obs=x)

class Guide(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 2)
        self.calls = 0

    def forward(self, x, c):
        self.calls += self.training
        if str(self.calls) == os.environ.get("TEST_INTERRUPT_AT"):
            os.kill(os.getpid(), signal.SIGINT)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(torch.cat([x, c], -1)), 0.7).to_event(1))

def make_vae():
    return VAE(Model(), Guide())

def rows(num, seed):
    generator = torch.Generator().manual_seed(seed)
    return Rows(torch.randn(num, 5, generator=generator), more={"c": torch.randn(num, 1, generator=generator)})

def make_data():
    return Dataset("mine", rows(40, 1), rows(20, 2), rows(20, 3), "real")

def as_dict():
    made = rows(40, 1)
    return {"x": made.x, "c": made.more["c"]}

def stream():
    return DataLoader(torch.zeros(4, 5))

def broken():
    raise OSError("no such drive")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "covariates.py").write_text(PAIR)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(importlib.sys.modules, "covariates", raising=False)
    yield tmp_path
    importlib.sys.modules.pop("covariates", None)


TRAIN = ["train", "covariates:make_vae", "--epochs", "3", "--batch-size", "16", "--quiet", "--data"]
AGAIN = ["--pair", "covariates:make_vae", "--data", "covariates:make_data"]


def test_every_verb(here, capsys, monkeypatch):
    monkeypatch.setenv("TEST_INTERRUPT_AT", "5")
    assert main([*TRAIN, "covariates:make_data"]) == 130
    assert "--pair covariates:make_vae --data covariates:make_data" in capsys.readouterr().err
    run = "runs/covariates.make_vae-covariates.make_data"
    monkeypatch.delenv("TEST_INTERRUPT_AT")
    assert "give it again, --data covariates:make_data" in error_of(["resume", run, *AGAIN[:2]], capsys)
    assert main(["resume", run, *AGAIN, "--quiet"]) == 0
    assert json.loads((here / run / "config.json").read_text())["data"] == {"function": "covariates:make_data"}
    capsys.readouterr()
    assert main(["evaluate", run, *AGAIN, "--num-samples", "50", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_rows"] == 20
    assert "give it again, --data covariates:make_data" in error_of(["evaluate", run, *AGAIN[:2]], capsys)
    sample = ["sample", run, *AGAIN[:2], "--out", "a.csv"]
    assert "Model needs the argument 'c'; give --like test" in error_of(sample, capsys)
    like = [*sample, *AGAIN[2:], "--like", "test", "--num"]
    assert "--num 64 is more than the 20 test rows of --like" in error_of([*like, "64"], capsys)
    assert main([*like, "20", "--output", "mean"]) == 0
    capsys.readouterr()
    module = importlib.import_module("covariates")
    vae, test = VAE.load(run, module.make_vae()), module.make_data().test
    vae.prepare(test.x, **test.fields())
    begin(0)
    expected = vae.sample(20, "mean", data=test.x, c=test.more["c"])
    np.testing.assert_allclose(np.loadtxt("a.csv", delimiter=",", skiprows=1), expected.numpy(), rtol=1e-5)
    assert "--data is for a run on data of a function" in error_of(["resume", run, *AGAIN[:2], "--data", "x"], capsys)


def test_a_dict_of_training_rows(here, capsys):
    assert main([*TRAIN, "covariates:as_dict", "--drop-last"]) == 0
    assert "best epoch" in capsys.readouterr().out
    config = json.loads((here / "runs/covariates.make_vae-covariates.as_dict/config.json").read_text())
    assert config["training"]["drop_last"] is True


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("covariates:stream", "covariates:stream returns a stream, of which a run could say nothing; return a Dataset"),
        ("covariates:broken", "covariates:broken failed: OSError: no such drive"),
        ("covariates:make_vae", "covariates:make_vae must return a Dataset, a tensor, .* got VAE"),
        ("covariates:nothing", "module 'covariates' has no function 'nothing'"),
    ],
)
def test_what_is_refused(here, capsys, name, message):
    assert re.search(message, error_of([*TRAIN, name], capsys))
    assert "--kind is for data that pyrovae reads" in error_of(
        [*TRAIN, "covariates:make_data", "--kind", "real"], capsys
    )
