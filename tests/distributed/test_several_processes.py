"""Several processes train what one trains: the same where nothing is drawn, and the same again after a stop."""

import json
import os
import signal
import time
from pathlib import Path

import pairs_of_processes as together
import pytest
import torch
from safetensors.torch import load_file

from pyrovae.training import Trainer

NAMES = ["enum", "delta", "clipped"]
SCRIPT = together.__file__
DIGITS = ["train", "gaussian", "--data", "digits", "--hidden", "8", "--latent-dim", "2", "--device", "cpu"]


def furthest(first, second):
    assert first.keys() == second.keys()
    pairs = [[torch.as_tensor(some[n], dtype=torch.float64) for some in (first, second)] for n in first]
    return max(float((a - b).abs().max()) for a, b in pairs)


def weights(folder, rank=0):
    return load_file(folder / f"{rank}.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds."""
    folder = tmp_path_factory.mktemp("alone")
    together.report(NAMES, folder)
    return json.loads((folder / "0.json").read_text())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The weights of a training by two processes that nothing stops."""
    folder = tmp_path_factory.mktemp("unbroken")
    for output, status in together.work(2, "killed", str(folder), 1000, 0):
        assert status == 0, output
    assert furthest(weights(folder, 0), weights(folder, 1)) == 0, "rows of both are complete in each"
    return weights(folder)


@pytest.mark.parametrize("size", [2, 3])
def test_nothing_drawn_gives_the_weights_of_one_process(tmp_path, alone, size):
    for output, status in together.work(size, "report", NAMES, str(tmp_path)):
        assert status == 0, output
    for rank in range(size):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for name in NAMES:
            assert furthest(found[name]["parameters"], alone[name]["parameters"]) < 1e-9, (rank, name)
            assert found[name]["best"] == alone[name]["best"]
            for row, other in zip(found[name]["history"], alone[name]["history"], strict=True):
                assert row == pytest.approx(other, abs=1e-9), (rank, name)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the names of threads are those that Linux tells")
def test_no_thread_of_torch_outlives_the_group(tmp_path):
    """One that lets go of a tensor while the interpreter ends would abort the process."""
    for output, status in together.work(2, "parted", str(tmp_path)):
        assert status == 0, output
    (threads, lost), (others, _) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert lost == "another process of the training has ended, killed perhaps"
    assert not [name for name in (*threads, *others) if "gloo" in name]


def test_no_thread_is_the_last_to_let_go_of_what_was_summed(tmp_path):
    """It would enter Python, and workers that a loader forks at this moment would never begin, before Python 3.12."""
    for output, status in together.work(2, "freed", str(tmp_path)):
        assert status == 0, output
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [1000, 0]


def test_ctrl_c_in_one_process_stops_all_and_they_go_on_bit_for_bit(tmp_path, unbroken):
    stopped = together.work(2, "interrupted", str(tmp_path), 9, 1)
    assert all("interrupted in epoch 2 after batch 4" in output for output, _ in stopped), "at the next sum"
    for output, status in together.work(2, "interrupted", str(tmp_path), 0, 0):
        assert status == 0, output
    assert furthest(weights(tmp_path), unbroken) == 0


def test_a_killed_process_is_started_again_and_the_weights_are_the_same(tmp_path, unbroken):
    command = [SCRIPT, "killed", json.dumps([str(tmp_path), 15, 1])]
    [(output, status)] = together.ended([together.torchrun(2, command, "--max-restarts", "1")])
    assert status == 0, output
    assert furthest(weights(tmp_path), unbroken) == 0


def test_another_number_of_processes_goes_on(tmp_path, alone):
    """From one process to three and back to one; nothing is drawn, so that the result is that of one."""
    how = {"batch_size": 8, "lr": 0.02, "progress": False, "seed": 5, "checkpoint_seconds": 0.0}
    torch.manual_seed(3)
    vae = together.pair("delta")
    Trainer(epochs=4, **how).fit(vae, together.data(), run=tmp_path)
    for output, status in together.work(3, "longer", str(tmp_path), 7):
        assert status == 0, output
    Trainer(epochs=10, **how).fit(vae, together.data(), run=tmp_path, resume=True)
    found = {name: p.detach() for name, p in vae.named_parameters()}
    assert furthest(found, alone["delta"]["parameters"]) < 1e-9


def until_trained(folder, started):
    """Wait until an epoch is saved."""
    end = time.monotonic() + together.TIME
    while not (folder / "metrics.csv").exists():
        assert time.monotonic() < end
        assert started.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize("victim", [1, 0])
def test_a_process_that_dies_for_good_ends_the_others_in_one_line(tmp_path, victim):
    folder = tmp_path / "run"
    options = ["--epochs", "100000", "--out", str(folder), "--quiet"]
    started = together.started(2, ["-m", "pyrovae", *DIGITS, *options])
    until_trained(folder, started[0])
    os.kill(started[victim].pid, signal.SIGKILL)
    begun = time.monotonic()
    ends = together.ended(started)
    assert time.monotonic() - begun < 60
    (nothing, _), (output, status) = ends[victim], ends[1 - victim]
    assert status == 2
    assert nothing == ""
    who = "" if victim else "process 1: "
    assert output.splitlines() == [
        f"pyrovae: {who}another process of the training has ended, killed perhaps; the last save in {folder} is whole, "
        f"go on from it: pyrovae resume {folder}"
    ]


def test_ctrl_c_of_torchrun_saves_and_prints_once(tmp_path):
    folder = tmp_path / "run"
    options = ["--epochs", "100000", "--out", str(folder), "--quiet"]
    process = together.torchrun(2, ["-m", "pyrovae", *DIGITS, *options])
    until_trained(folder, process)
    process.send_signal(signal.SIGINT)
    [(output, status)] = together.ended([process])
    assert status != 0
    assert output.count("interrupted") == 1
    assert "everything is saved" in output


def test_bad_input_is_one_line_of_the_first_process(tmp_path):
    wrong = [*DIGITS, "--batch-size", "1", "--out", str(tmp_path / "run")]
    (first, status), (second, other) = together.ended(together.started(2, ["-m", "pyrovae", *wrong]))
    assert (status, other, second) == (2, 2, "")
    assert first.splitlines() == [
        "pyrovae: batch_size=1 is the number of rows of all processes together, and there are 2 processes; give at "
        "least 2"
    ]
