"""Runs: a folder that describes itself, is written late and opened with care."""

import json
import math
import sys

import pytest
import torch
from pairs import same_weights, weights_of

from pyrovae.rng import begin
from pyrovae.runs import Run, pick_device
from pyrovae.storage import CheckpointError
from pyrovae.training import Callback

MODULE = """
import pyro, pyro.distributions as dist, torch
from torch import nn
from pyrovae import VAE

class Conditional(nn.Module):

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 4), nn.Linear(2 + 10, 64)

    def model(self, x, y):
        pyro.module("conditional", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            features = torch.cat([z.expand(len(x), 2), nn.functional.one_hot(y, 10)], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(features)).to_event(1), obs=x.flatten(1))

    def guide(self, x, y):
        loc, log_scale = self.encoder(x.flatten(1)).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

def make_vae():
    net = Conditional()
    return VAE(net.model, net.guide)
"""
DIGITS = {"name": "digits", "binarize": "static"}
TINY = {"hidden": (8,), "latent_dim": 2, "layer": "plain"}


def new_run(path, pair="gaussian", options=TINY, data=DIGITS, **training) -> Run:
    return Run.create(path, pair, options, data, {"epochs": 1, **training})


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "conditional_vae.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "conditional_vae:make_vae"
    sys.modules.pop("conditional_vae", None)


def test_round_trip(tmp_path):
    run = new_run(tmp_path / "run", lr=0.01)
    assert not (tmp_path / "run").exists(), "nothing is written before the training"
    history = run.train(progress=False)
    assert len(history.rows) == 1

    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["training"] == {"epochs": 1, "lr": 0.01}
    assert config["pair_options"] == {"hidden": [8], "latent_dim": 2, "layer": "plain"}
    assert config["spec"] == {
        "name": "digits",
        "shape": [1, 8, 8],
        "kind": "binary",
        "num_rows": 1200,
        "num_labelled": 1200,
        "num_classes": 10,
        "schema": None,
    }

    opened = Run.open(tmp_path / "run")
    assert opened.dataset().options == run.dataset().options
    first, again = run.load_vae(), opened.load_vae()
    assert same_weights(weights_of(first), weights_of(again))
    assert not again.training
    x = run.dataset().test.x
    assert float(again.log_likelihood(x, 5).mean()) > -64 * math.log(2), "trained weights, better than a coin"


def test_training_that_cannot_begin_leaves_no_run(tmp_path):
    """The folder must stay free for the next attempt."""
    run = new_run(tmp_path / "run", epochs=0)
    with pytest.raises(ValueError, match="epochs must be positive"):
        run.train(progress=False)
    run = new_run(tmp_path / "run", options={**TINY, "net": "conv", "channels": (1,)})
    with pytest.raises(ValueError, match="channels"):
        run.train(progress=False)
    assert not (tmp_path / "run").exists()


def test_there_is_a_state_as_soon_as_there_is_a_configuration(tmp_path):
    run = new_run(tmp_path / "run")
    found = []

    class Look(Callback):
        def on_start(self, progress):
            found.append((run.folder.config_path.exists(), run.folder.state_path.exists()))

    run.train(progress=False, callbacks=[Look()])
    assert found == [(True, True)]


def test_a_folder_holds_one_run(tmp_path):
    new_run(tmp_path).train(progress=False)
    with pytest.raises(
        CheckpointError, match=r"already holds a run; go on with it \(pyrovae resume .*\) or choose another"
    ):
        new_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pair": None}, "damaged: it lacks a str 'pair'"),
        ({"pair": 3}, "damaged: it lacks a str 'pair'"),
        ({"data": None}, "damaged: it lacks a dict 'data'"),
        ({"spec": None}, "damaged: it lacks a dict 'spec'"),
        ({"training": [1]}, "damaged: it lacks a dict 'training'"),
        ({"format_version": 2}, "format version 2, and this pyrovae reads up to 1"),
    ],
    ids=str,
)
def test_damaged_configuration(change, message, tmp_path):
    new_run(tmp_path).train(progress=False)
    path = tmp_path / "config.json"
    config = {**json.loads(path.read_text()), **change, "digest": None}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    with pytest.raises(CheckpointError, match=message):
        Run.open(tmp_path)


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="is no run folder"):
        Run.open(tmp_path)


class TestOwnPair:
    def test_with_labels(self, own_module, tmp_path):
        """A pair whose programs need labels is trained, opened and evaluated."""
        new_run("run", own_module, {}, lr=0.01).train(progress=False)
        with pytest.raises(CheckpointError, match=f"open it with --pair {own_module}"):
            Run.open("run")
        with pytest.raises(CheckpointError, match=f"a run of the pair {own_module}, not gaussian"):
            Run.open("run", "gaussian")
        figures = Run.open("run", own_module).evaluate(num_samples=5)
        assert figures["latent_dim"] == 2
        assert figures["log_likelihood"] > -64 * math.log(2)


class TestEvaluate:
    def test_splits(self, tmp_path):
        run = new_run(tmp_path)
        run.train(progress=False)
        sizes = {split: run.evaluate(split, num_samples=2)["num_rows"] for split in ("train", "validation", "test")}
        assert sizes == {"train": 1200, "validation": 300, "test": 297}

    def test_rows_are_drawn_with_their_labels(self, own_module, tmp_path):
        run = new_run("run", own_module, {})
        run.train(progress=False)
        begin(4)
        chosen = torch.randperm(297)[:40]
        rows = run.dataset().test
        expected = run.load_vae().reconstruct(rows.x[chosen], y=rows.y[chosen]) - rows.x[chosen]
        found = run.evaluate(num_samples=2, num_rows=40, seed=4)["reconstruction_error"]
        assert found == pytest.approx(float(expected.square().mean()), rel=1e-5)

    @pytest.mark.parametrize("num_rows", [0, -1])
    def test_rows_must_be_positive(self, num_rows, tmp_path):
        with pytest.raises(ValueError, match=f"num_rows must be at least 1, got {num_rows}"):
            new_run(tmp_path).evaluate(num_rows=num_rows)


def test_devices():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"device '{name}' cannot be used"):
            pick_device(name)
