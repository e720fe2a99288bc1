"""A run folder has one writer at a time, and readers see one save."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from pairs import linear_pair
from safetensors.torch import load_file

from pyrovae.runs import Run
from pyrovae.storage import CheckpointError
from pyrovae.training import Callback, RunFolder, Trainer

QUICK = {"epochs": 2, "batch_size": 16, "progress": False}


class Call(Callback):
    """Calls a function before the first batch."""

    def __init__(self, function):
        self.function = function

    def on_start(self, progress):
        self.function()


def rows():
    return torch.randn(40, 5, generator=torch.Generator().manual_seed(1))


def test_a_second_training_of_this_process(tmp_path):
    def second():
        with pytest.raises(CheckpointError, match=r"another training is writing to .*run; wait until it ends"):
            Trainer(**QUICK).fit(linear_pair(), rows(), run=tmp_path / "run", overwrite=True)

    Trainer(**QUICK, callbacks=[Call(second)]).fit(linear_pair(), rows(), run=tmp_path / "run")
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 2
    assert not (tmp_path / "run/.lock").exists()


HOLD = """
import sys, time
from pyrovae.training import RunFolder
with RunFolder(sys.argv[1]).writing():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_and_a_kill(tmp_path):
    """The lock is another process's, and ends with it, however it ends."""
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="another training is writing"):
            Trainer(**QUICK).fit(linear_pair(), rows(), run=path)
        with pytest.raises(CheckpointError, match="another training is writing"):
            Run.create(path, "gaussian", {}, {"name": "digits"}, {"epochs": 1})
        assert not (path / "model.safetensors").exists()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert (path / ".lock").exists()
    Trainer(**QUICK).fit(linear_pair(), rows(), run=path)
    assert len(RunFolder(path).read_metrics()) == 2
    assert not (path / ".lock").exists()


def test_what_a_kill_leaves_of_a_file_is_removed(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "last").mkdir()
    for name in (".model.safetensors.12ab.partial", "last/.state.safetensors.34cd.partial"):
        (tmp_path / name).write_bytes(b"half")
    with folder.writing():
        pass
    assert not list(tmp_path.rglob("*.partial"))


def test_a_reader_beside_a_training_sees_one_save(tmp_path):
    """Weights and metrics that are read while a training saves after every batch are of one state each time."""
    folder, seen, stop = RunFolder(tmp_path / "run"), [], threading.Event()

    def read():
        weights = load_file(folder.weights_path)
        return weights, folder.read_metrics()

    def go_on_reading():
        while not stop.is_set():
            if folder.state_path.exists():
                seen.append(folder.consistently(read))

    reader = threading.Thread(target=go_on_reading)
    reader.start()
    options = {**QUICK, "epochs": 15, "checkpoint_seconds": 0.0}
    try:
        history = Trainer(**options).fit(linear_pair(), rows(), run=folder)
    finally:
        stop.set()
        reader.join()
    assert len(seen) > 3
    best = {}  # what the best weights were after so many epochs, from a training that is the same
    for weights, metrics in seen:
        epochs = len(metrics)
        best.setdefault(epochs, weights)
        assert all(torch.equal(best[epochs][name], weights[name]) for name in weights)
        assert [row["loss"] for row in metrics] == [row["loss"] for row in history.rows[:epochs]]


def test_a_run_that_was_replaced_since_it_was_opened(tmp_path):
    options = {"epochs": 1, "batch_size": 500}
    for latent_dim in (2, 3):
        run = Run.create(
            tmp_path / f"run-{latent_dim}",
            "gaussian",
            {"latent_dim": latent_dim, "hidden": (4,)},
            {"name": "digits"},
            options,
        )
        run.train(progress=False)
    opened = Run.open(tmp_path / "run-2")
    opened.load_vae()
    (tmp_path / "run-2").rename(tmp_path / "old")
    (tmp_path / "run-3").rename(tmp_path / "run-2")
    with pytest.raises(CheckpointError, match=r"another architecture|was replaced by another run"):
        opened.load_vae()


def test_a_full_disk_names_the_file_and_how_to_go_on(tmp_path, monkeypatch):
    class FillDisk(Callback):
        def on_epoch(self, progress):
            if progress.epoch == 2:
                monkeypatch.setattr(os, "fsync", full)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def train(name, resume=False, callbacks=()):
        torch.manual_seed(0)
        options = {"epochs": 4, "batch_size": 16, "progress": False, "checkpoint_seconds": 0.0, "callbacks": callbacks}
        Trainer(**options).fit(linear_pair(), rows(), run=tmp_path / name, resume=resume)

    with pytest.raises(
        OSError, match=r"No space left on device; the last save is whole, make room .*: resume=True"
    ) as e:
        train("full", callbacks=[FillDisk()])
    assert e.value.filename == str(tmp_path / "full/model.safetensors")
    assert not list((tmp_path / "full").rglob(".*"))
    monkeypatch.undo()
    train("full", resume=True)
    train("whole")
    for name in ("model.safetensors", "last/state.safetensors"):
        first, second = load_file(tmp_path / "full" / name), load_file(tmp_path / "whole" / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
