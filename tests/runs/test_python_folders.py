"""Folders that `Trainer.fit(run=)` writes open on the command line, and arrays of any library train like tensors."""

import json
import logging
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from pairs import linear_pair

from pyrovae import VAE, data
from pyrovae.cli import main
from pyrovae.data.arrays import tensor_of
from pyrovae.data.dataset import Rows
from pyrovae.pairs import find_pair, registry
from pyrovae.runs import Run
from pyrovae.training import Trainer, WarmUp

OPTIONS = {"epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", binarize="static")


@pytest.fixture
def folder(tmp_path):
    """The folder of a gaussian pair that was trained in Python."""
    x = data.load("digits", binarize="static")
    vae = find_pair("gaussian").build(x, hidden=(8,), latent_dim=2)
    Trainer(**OPTIONS, lr=0.01, kl_weight=WarmUp(3)).fit(vae, x, run=tmp_path / "run")
    return tmp_path / "run"


def said(words, capsys):
    """What a command prints; it succeeds."""
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def refused(words, capsys):
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_every_verb_opens_it(folder, tmp_path, capsys):
    found = json.loads(said(["evaluate", folder, "--num-samples", 5, "--json"], capsys))
    vae, test = Run.open(folder).load_vae(), Run.open(folder).dataset().test
    torch.manual_seed(0)
    assert found["log_likelihood"] == pytest.approx(float(vae.log_likelihood(test.x, 5).mean()), rel=0.05)
    said(["sample", folder, "--num", 4, "--out", tmp_path / "s.png"], capsys)
    said(["encode", folder, "--out", tmp_path / "z.csv"], capsys)
    said(["plot", folder, "--out", tmp_path / "figures"], capsys)
    config = json.loads((folder / "config.json").read_text())
    assert config["training"] == {"lr": 0.01, "kl_weight": "warm-up:3:0:1", "epochs": 2}
    assert "all 3 epochs done" in said(["resume", folder, "--epochs", 3, "--quiet"], capsys)


def test_it_resumes_as_python_does(folder, tmp_path, digits, capsys):
    """The same three epochs, once from the command line and once in Python."""
    vae = find_pair("gaussian").build(digits, hidden=(8,), latent_dim=2)
    with torch.no_grad():
        for parameter, value in zip(vae.parameters(), Run.open(folder).load_vae().parameters(), strict=True):
            parameter.copy_(value)
    said(["resume", folder, "--epochs", 3, "--quiet"], capsys)
    by_command = Run.open(folder).folder.read_metrics()
    first = find_pair("gaussian").build(digits, hidden=(8,), latent_dim=2)
    torch.manual_seed(0)
    options = {**OPTIONS, "lr": 0.01, "kl_weight": WarmUp(3)}
    Trainer(**options).fit(first, digits, run=tmp_path / "other")
    Trainer(**options | {"epochs": 3}).fit(first, digits, run=tmp_path / "other", resume=True)
    assert len(by_command) == len(Run.open(tmp_path / "other").folder.read_metrics()) == 3
    assert json.loads((tmp_path / "other" / "config.json").read_text())["training"]["epochs"] == 3


def test_rows_that_no_name_gives_again(tmp_path, capsys):
    x = np.random.default_rng(0).random((60, 6)) < 0.5
    vae = find_pair("gaussian").build(x.astype(float), hidden=(8,), latent_dim=2)
    Trainer(**OPTIONS).fit(vae, x.astype(float), run=str(tmp_path / "run"))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    assert "give them again, by --data" in refused(["evaluate", tmp_path / "run"], capsys)
    again = ["--data", tmp_path / "x.npy"]
    assert json.loads(said(["evaluate", tmp_path / "run", *again, "--json"], capsys))["num_rows"] == 60
    said(["encode", tmp_path / "run", *again, "--out", tmp_path / "z.csv"], capsys)


def test_a_pair_of_ones_own(tmp_path, capsys):
    Trainer(**OPTIONS).fit(linear_pair(), torch.randn(40, 5), run=tmp_path / "run")
    assert "pair of your own; open it with --pair" in refused(["evaluate", tmp_path / "run"], capsys)
    assert isinstance(VAE.load(tmp_path / "run", linear_pair()), VAE)


def test_options_that_no_file_holds(digits, tmp_path, capsys):
    vae = find_pair("gaussian").build(digits, hidden=(8,), latent_dim=2)
    Trainer(**OPTIONS, optimizer=torch.optim.RMSprop).fit(vae, digits, run=tmp_path / "run")
    assert "with optimizer that no file holds" in refused(["resume", tmp_path / "run", "--epochs", 3], capsys)
    said(["evaluate", tmp_path / "run", "--num-samples", 2], capsys)


def test_a_stream_says_what_is_missing(tmp_path, capsys):
    loader = torch.utils.data.DataLoader(torch.randn(40, 5), batch_size=8)
    Trainer(**OPTIONS).fit(linear_pair(), loader, run=tmp_path / "run")
    assert "VAE.save(folder, data=...)" in refused(["evaluate", tmp_path / "run"], capsys)


@pytest.mark.parametrize("make", [np.asarray, pd.DataFrame, lambda x: torch.from_numpy(x), lambda x: x[::-1][::-1]])
def test_arrays_train_like_tensors(make):
    x = np.random.default_rng(0).normal(size=(40, 5))
    losses = []
    for given in (torch.from_numpy(x).float(), make(x)):
        torch.manual_seed(0)
        losses.append(Trainer(**OPTIONS).fit(linear_pair(), given).rows[-1]["loss"])
    assert losses[0] == losses[1]


def test_missing_entries_of_a_frame(caplog):
    table = pd.DataFrame(np.random.default_rng(0).random((40, 4)))
    table.iloc[3, 1] = np.nan
    with caplog.at_level(logging.INFO, "pyrovae"):
        vae = find_pair("gaussian").build(table, hidden=(8,), latent_dim=2)
    assert "taken as unit" in caplog.text
    assert np.isfinite(Trainer(**OPTIONS).fit(vae, table).rows[-1]["loss"])


def test_labels_of_numpy():
    x, y = np.random.default_rng(0).random((40, 6)), np.arange(40) % 3
    vae = find_pair("semi-supervised").build(Rows(torch.tensor(x).float(), torch.tensor(y)), hidden=(8,), latent_dim=2)
    assert np.isfinite(Trainer(**OPTIONS, objective="enum").fit(vae, {"x": x, "y": y}).rows[-1]["loss"])


def test_a_double_pair_gets_doubles():
    x = np.random.default_rng(0).normal(size=(40, 5))
    vae = linear_pair().double()
    assert np.isfinite(Trainer(**OPTIONS).fit(vae, x).rows[-1]["loss"])
    with pytest.raises(ValueError, match="blur"):
        Trainer(**OPTIONS).fit(linear_pair(), x + 1e8)
    assert Trainer(**OPTIONS).fit(vae, x + 1e8).rows


@pytest.mark.parametrize(
    ("value", "message"),
    [("text", "built for a Dataset"), (np.zeros(3), "must be rows"), (torch.zeros(3, 2, dtype=torch.uint8), "bytes")],
)
def test_what_build_refuses(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        find_pair("gaussian").build(value)


def test_what_rounding_keeps():
    x = np.array([[0.1, 1e6], [0.2, 1e6 + 500]])
    assert tensor_of(x, dtype=torch.float32).dtype == torch.float32
    assert tensor_of(torch.arange(3)).dtype == torch.int64
    assert tensor_of(np.arange(3) > 1).dtype == torch.bool


REGISTERED = """
from pyrovae.pairs import gaussian, register_pair


@register_pair("tiny-of-test", summary="two latents")
def tiny(spec, rows=None, *, hidden: int = 4):
    return gaussian(spec, rows, latent_dim=2, hidden=(hidden,))


def other(spec, rows=None):
    return gaussian(spec, rows, latent_dim=2, hidden=(4,))
"""


def test_a_run_of_a_registered_pair_is_opened_by_the_module_that_registers_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(registry, "_PAIRS", dict(registry._PAIRS))
    (tmp_path / "registering.py").write_text(REGISTERED)
    digits = data.load("digits", binarize="static")
    find_pair("registering:tiny")  # which imports it
    find_pair("tiny-of-test").build(digits, hidden=3).save("run", data=digits)
    del registry._PAIRS["tiny-of-test"]
    sys.modules.pop("registering")
    assert main(["sample", "run", "--out", "x.csv", "--num", "2"]) == 2
    assert "the pair tiny-of-test, which is not registered; import the module" in capsys.readouterr().err
    assert main(["sample", "run", "--out", "x.csv", "--num", "2", "--pair", "registering:other"]) == 2
    assert "is a run of the pair tiny-of-test, not registering:other" in capsys.readouterr().err
    assert main(["sample", "run", "--out", "x.csv", "--num", "2", "--pair", "registering:tiny"]) == 0
    sys.modules.pop("registering")
