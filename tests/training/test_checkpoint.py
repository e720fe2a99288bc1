"""Files that are whole or not there, and one clear line for those that cannot be used."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pyrovae.storage import (
    FORMAT_VERSION,
    CheckpointError,
    load_tensors,
    load_weights,
    module_tensors,
    save_tensors,
    save_weights,
    write_atomically,
)
from pyrovae.training.checkpoint import RunFolder


def net(hidden=3):
    return nn.Sequential(nn.Linear(2, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 1))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_weights_and_buffers_survive(tmp_path):
    first, second = net(), net()
    first(torch.randn(8, 2))  # moves the running statistics
    save_weights(first, tmp_path / "w.safetensors", epoch=3)
    assert load_weights(second, tmp_path / "w.safetensors") == {"format_version": FORMAT_VERSION, "epoch": 3}
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


def test_shared_tensors_are_written_once(tmp_path):
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    assert sorted(module_tensors(tied)) == ["0.bias", "0.weight", "1.bias"]
    save_weights(tied, tmp_path / "w.safetensors")
    load_weights(tied, tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8], ids=str)
def test_tensors_of_every_kind(dtype, tmp_path):
    tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "b": torch.arange(6).reshape(2, 3).T.to(dtype)}
    save_tensors(tmp_path / "t.safetensors", tensors, {"numbers": [0.1, 1e-300, None]})
    loaded, information = load_tensors(tmp_path / "t.safetensors")
    assert information["numbers"] == [0.1, 1e-300, None]
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == dtype for name, value in tensors.items())


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing.safetensors does not exist") as error:
        load_weights(net(), tmp_path / "nothing.safetensors")
    one_line(error)


@pytest.mark.parametrize("part", [0, 4, 0.3, 0.99])
def test_truncated_file(part, tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(net(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content)) if isinstance(part, float) else part])
    with pytest.raises(
        CheckpointError, match=r"w.safetensors is damaged or truncated \(.*\); restore it or train again"
    ) as e:
        load_weights(net(), path)
    one_line(e)


def test_file_of_somebody_else(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="was not written by pyrovae"):
        load_weights(net(), tmp_path / "w.safetensors")


def test_newer_version(tmp_path):
    header = {"pyrovae": json.dumps({"format_version": FORMAT_VERSION + 1})}
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(
        CheckpointError, match=r"has format version 2, and this pyrovae reads up to 1: install a newer"
    ) as e:
        load_weights(net(), tmp_path / "w.safetensors")
    one_line(e)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: net(4), r"'0.weight' has shape \(3, 2\) there and \(4, 2\) here"),
        (lambda: net()[:2], r"it has '2.bias' too many"),
        (lambda: nn.Sequential(*net(), nn.Linear(1, 1)), r"it lacks '3.bias'"),
        (lambda: nn.Linear(2, 2), r"it lacks 'bias' and has '0.bias' too many"),
    ],
)
def test_other_architecture_leaves_the_module_as_it_was(other, message, tmp_path):
    save_weights(net(), tmp_path / "w.safetensors")
    module = other()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"is of another architecture: {message}") as error:
        load_weights(module, tmp_path / "w.safetensors")
    one_line(error)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_writing_fails_and_the_old_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "old")

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_file_is_readable_for_those_whom_the_system_lets(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_atomically(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_what_a_kill_leaves_behind_is_removed_after_an_hour(tmp_path):
    old, young = tmp_path / ".file.txt.1a.partial", tmp_path / ".file.txt.2b.partial"
    for path in (old, young):
        path.write_text("half of")
    os.utime(old, (0, 0))
    write_atomically(tmp_path / "file.txt", "whole")  # the young one may be another writer's
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [young.name, "file.txt"]


def test_configuration(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write_config({"pair": "gaussian"})
    assert run.read_config() == {"format_version": FORMAT_VERSION, "pair": "gaussian"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run is no run folder: it has no config.json"),
        (b"{", r"config.json is damaged \(.*\); restore it or train again"),
        (b"\xff\xfe", r"config.json is damaged"),
        (b"[1, 2]", r"config.json is damaged"),
        (b'{"format_version": 7}', "has format version 7, and this pyrovae reads up to 1"),
        (b"{}", "has format version None"),
    ],
)
def test_configuration_that_cannot_be_used(content, message, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    if content is not None:
        run.config_path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        run.read_config()
    one_line(error)


def test_metrics(tmp_path):
    run = RunFolder(tmp_path)
    assert run.read_metrics() == []
    rows = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": float("nan"), "extra": 1e-9}]
    run.write_metrics(rows)
    first, second = run.read_metrics()
    assert first == rows[0]
    assert second["extra"] == 1e-9
    assert second["loss"] != second["loss"]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "epoch,loss,extra"
