"""Tiny trained runs to report on."""

import shutil

import pytest
import torch

from pyrovae.runs import Run

TINY = {"epochs": 2, "batch_size": 300}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Two runs on digits, "plain" and "wide", evaluated; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    for name, latent_dim in (("plain", 2), ("wide", 4)):
        training = TINY | {"kl_weight": "warm-up:1", "seed": latent_dim}
        data = {"name": "digits", "binarize": "static"}
        run = Run.create(folder / name, "gaussian", {"latent_dim": latent_dim, "hidden": (8,)}, data, training)
        run.train(progress=False)
        run.evaluate(num_samples=3, num_rows=60, seed=5, keep=True)
    return folder


@pytest.fixture
def runs(made, tmp_path, monkeypatch):
    """A working directory with copies of them."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
