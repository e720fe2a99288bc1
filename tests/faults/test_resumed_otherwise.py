"""A resumed training does what is asked of it: the same, something new, or a line that says why not."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import linear_pair

from pyrovae.cli import main
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError
from pyrovae.training import RunFolder, Trainer

QUICK = {"epochs": 3, "batch_size": 16, "progress": False}
TRAIN = ["train", "gaussian", "--data", "mine.npy", "--hidden", "4", "--latent-dim", "2", "--epochs", "2", "--quiet"]


def rows(number=0):
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(number))


@pytest.fixture
def folder(tmp_path):
    def train(**options):
        torch.manual_seed(0)
        Trainer(**{**QUICK, **options}).fit(linear_pair(), rows(), run=tmp_path / "run")
        return RunFolder(tmp_path / "run")

    return train


def resumed(folder, data=None, allow_changed_data=False, **options):
    trainer = Trainer(**{**QUICK, **options})
    data = rows() if data is None else data
    return trainer.fit(linear_pair(), data, run=folder, resume=True, allow_changed_data=allow_changed_data)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({}, {"seed": 1}),
        ({}, {"objective": "iwae"}),
        ({"objective": "iwae"}, {"objective": "iwae", "num_particles": 3}),
        ({}, {"optimizer_options": {"betas": (0.5, 0.9)}}),
        ({}, {"lr_schedule": "cosine"}),
        ({}, {"monitor": "kl_weight"}),
    ],
    ids=str,
)
def test_refused(first, again, folder):
    run = folder(**first)
    before = {path: path.read_bytes() for path in run.path.rglob("*.*")}
    with pytest.raises(CheckpointError, match=rf"the training of .* has {list(again)[-1]}="):
        resumed(run, **{**first, **again, "epochs": 5})
    assert {path: path.read_bytes() for path in run.path.rglob("*.*")} == before


def test_another_learning_rate_is_followed_and_with_a_schedule_refused(folder):
    run = folder(lr=1e-3)
    history = resumed(run, lr=1e-5, epochs=4)
    assert [row["lr"] for row in history.rows] == [1e-3, 1e-3, 1e-3, 1e-5]
    assert resumed(run, lr={"model": 1e-4}, epochs=5).rows[-1]["lr_model"] == 1e-4
    Trainer(**QUICK, lr_schedule="cosine").fit(linear_pair(), rows(), run=run, overwrite=True)
    with pytest.raises(CheckpointError, match=r"has lr=0.001, and lr=1e-05 was given: its schedule began at the other"):
        resumed(run, lr=1e-5, epochs=4, lr_schedule="cosine")


def test_fewer_epochs_than_were_done(folder):
    with pytest.raises(CheckpointError, match="has done 3 epochs, and epochs=2 was given"):
        resumed(folder(), epochs=2)


def test_a_cosine_goes_on_as_the_longer_one(folder):
    """Rates behind the old end are those of a cosine over all epochs, which falls to the end."""
    run = folder(lr_schedule="cosine", epochs=4)
    rates = [row["lr"] for row in resumed(run, epochs=8, lr_schedule="cosine").rows]
    expected = [1e-3 * (1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)]
    assert rates[4:] == pytest.approx(expected[4:], rel=1e-6)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))


def test_steps_are_thirds_of_the_longer_training(folder):
    run = folder(lr_schedule="step", epochs=3)
    rates = [row["lr"] for row in resumed(run, epochs=9, lr_schedule="step").rows]
    assert rates[3:] == pytest.approx([1e-4] * 3 + [1e-5] * 3)


def test_other_rows(folder):
    run = folder()
    changed = rows()
    changed[39, 4] += 1e-3
    with pytest.raises(CheckpointError, match=r"the training rows are not those that .* began with"):
        resumed(run, changed, epochs=4)
    assert len(resumed(run, changed, allow_changed_data=True, epochs=4).rows) == 4


class TestCommandLine:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        self.write(0)
        assert main([*TRAIN, "--lr-schedule", "cosine", "--out", "run"]) == 0
        return tmp_path

    @staticmethod
    def write(seed):
        np.save("mine.npy", np.random.RandomState(seed).normal(size=(60, 5)).astype(np.float32))

    @staticmethod
    def error_of(words, capsys):
        capsys.readouterr()
        assert main(words) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pyrovae:")]
        assert len(lines) == 1
        return lines[0]

    def test_more_epochs(self, here, capsys):
        assert main(["resume", "run", "--epochs", "5", "--quiet"]) == 0
        assert "all 5 epochs done" in capsys.readouterr().out
        assert Run.open("run").config["training"]["epochs"] == 5
        assert len(RunFolder("run").read_metrics()) == 5
        assert main(["resume", "run", "--quiet"]) == 0
        assert "all 5 epochs done" in capsys.readouterr().out
        assert "has done 5 epochs, and epochs=3 was given" in self.error_of(["resume", "run", "--epochs", "3"], capsys)
        assert Run.open("run").config["training"]["epochs"] == 5

    @pytest.mark.parametrize(
        "words", [["resume", "--epochs", "4", "--quiet"], ["evaluate", "--num-samples", "2"], ["plot"]]
    )
    def test_a_file_that_changed(self, words, here, capsys):
        self.write(1)
        verb, *options = words
        line = self.error_of([verb, "run", *options], capsys)
        assert "train, validation and test rows of mine.npy are not those that run was trained on" in line
        assert "--allow-changed-data" in line
        assert main([verb, "run", *options, "--allow-changed-data"]) == 0

    def test_other_data_on_purpose(self, here, capsys):
        np.save("other.npy", np.random.RandomState(5).normal(size=(30, 5)).astype(np.float32))
        assert main(["evaluate", "run", "--data", "other.npy", "--num-samples", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["num_rows"] == 30

    def test_principal_components_may_be_rounded_in_another_way(self, here):
        from pyrovae.data import Rows
        from pyrovae.data.fingerprints import fingerprint, is_same

        x = torch.randn(500, 10)
        noisy = x * (1 + 1e-7 * torch.randn(500, 10))
        other = x.clone()
        other[17, 3] += 0.1
        prints = [fingerprint(Rows(values), computed=True) for values in (x, noisy, other)]
        assert is_same(prints[0], prints[1])
        assert not is_same(prints[0], prints[2])
        assert not is_same(fingerprint(Rows(x)), fingerprint(Rows(noisy)))
        assert Path("run").exists()
