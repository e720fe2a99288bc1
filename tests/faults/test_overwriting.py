"""Nothing finished is overwritten unless that is asked for, and what failed at once is in nobody's way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pairs import linear_pair

from pyrovae.cli import main
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError
from pyrovae.training import Callback, Trainer

TRAIN = ["train", "gaussian", "--data", "mine.npy", "--hidden", "4", "--latent-dim", "2", "--epochs", "1", "--quiet"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", np.random.RandomState(0).normal(size=(60, 5)).astype(np.float32))
    return tmp_path


def error_of(words, capsys):
    capsys.readouterr()
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def contents(folder):
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def test_a_finished_training_in_python(tmp_path):
    rows, options = torch.randn(40, 5), {"epochs": 1, "progress": False}
    Trainer(**options).fit(linear_pair(), rows, run=tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError, match="already holds a training"):
        Trainer(**options).fit(linear_pair(), rows, run=tmp_path / "run")
    assert contents(tmp_path / "run") == before
    Trainer(**options).fit(linear_pair(), rows + 1, run=tmp_path / "run", overwrite=True)
    assert contents(tmp_path / "run") != before


def test_default_folders_are_numbered(here, capsys):
    for name in ("gaussian-mine", "gaussian-mine-2", "gaussian-mine-3"):
        assert main(TRAIN) == 0
        assert f"run folder runs/{name}\n" in capsys.readouterr().out
        assert Run.open(f"runs/{name}").load_vae() is not None
    before = contents("runs/gaussian-mine-2")
    assert main([*TRAIN, "--overwrite", "--lr", "0.1"]) == 0
    assert "run folder runs/gaussian-mine\n" in capsys.readouterr().out
    assert Run.open("runs/gaussian-mine").config["training"]["lr"] == 0.1
    assert contents("runs/gaussian-mine-2") == before


def test_a_chosen_folder(here, capsys):
    assert main([*TRAIN, "--out", "run"]) == 0
    before = contents("run")
    assert "run already holds a run; go on with it" in error_of([*TRAIN, "--out", "run"], capsys)
    assert contents("run") == before
    assert main([*TRAIN, "--out", "run", "--latent-dim", "3", "--overwrite"]) == 0
    assert Run.open("run").config["pair_options"]["latent_dim"] == 3
    Run.open("run").load_vae()


def test_a_new_training_that_fails_in_its_first_epoch_leaves_the_old_run(here, capsys):
    """Also where its checkpoints are due before that."""
    assert main([*TRAIN, "--out", "run"]) == 0
    before = contents("run")
    worse = [*TRAIN, "--out", "run", "--overwrite", "--batch-size", "8", "--checkpoint-seconds", "0"]
    assert "is not finite" in error_of([*worse, "--lr", "1e30"], capsys)
    assert contents("run") == before
    assert main([*worse, "--epochs", "2", "--latent-dim", "3"]) == 0
    assert Run.open("run").config["pair_options"]["latent_dim"] == 3
    assert len(Run.open("run").folder.read_metrics()) == 2


class Stops(Callback):
    """Stops a training after some batches, as an error of a user's callback does."""

    def __init__(self, batches):
        self.batches = batches

    def on_batch(self, progress):
        self.batches -= 1
        if not self.batches:
            raise RuntimeError("stopped")


def test_the_old_run_is_replaced_with_the_first_epoch(tmp_path):
    """Then the new run is what the folder holds, whole, and goes on."""
    x, options = torch.randn(40, 5), {"epochs": 3, "batch_size": 10, "progress": False, "checkpoint_seconds": 0}
    folder = tmp_path / "run"
    Trainer(**options).fit(linear_pair(), x, run=folder)
    before = contents(folder)
    for batches, replaced in ((3, False), (6, True)):
        with pytest.raises(RuntimeError, match="stopped"):
            Trainer(**options, lr=0.1, callbacks=[Stops(batches)]).fit(linear_pair(), x, run=folder, overwrite=True)
        assert (contents(folder) != before) == replaced
    assert Run.open(folder, linear_pair()).config["training"]["lr"] == 0.1
    assert len(Trainer(**options, lr=0.1).fit(linear_pair(), x, run=folder, resume=True).rows) == 3


def test_files_of_no_run(here, capsys):
    Path("notes").mkdir()
    Path("notes/thoughts.txt").write_text("mine")
    text = "notes holds files of no run, such as thoughts.txt; choose another folder (--out), or write beside them"
    assert text in error_of([*TRAIN, "--out", "notes"], capsys)
    assert "mine.npy is a file; choose another" in error_of([*TRAIN, "--out", "mine.npy"], capsys)
    assert contents("notes").keys() == {Path("notes/thoughts.txt")}
    assert main([*TRAIN, "--out", "notes", "--overwrite"]) == 0
    assert Path("notes/thoughts.txt").read_text() == "mine"
    assert main([*TRAIN, "--out", "notes", "--overwrite"]) == 0
    assert Path("notes/thoughts.txt").read_text() == "mine"


@pytest.mark.filterwarnings("ignore:Encountered")
@pytest.mark.parametrize("wrong", [["--lr", "1e30"], ["--monitor", "lr_model"], ["--batch-size", "0"]], ids=" ".join)
def test_what_fails_before_the_first_epoch_is_in_nobodys_way(wrong, here, capsys):
    error_of([*TRAIN, "--out", "run", "--batch-size", "8", *wrong], capsys)
    assert not Path("run").exists()
    assert main([*TRAIN, "--out", "run"]) == 0
