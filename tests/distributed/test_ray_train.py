"""Two workers of Ray Train give the weights that two processes of torchrun give."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pairs_of_processes as together
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or importlib.util.find_spec("ray.train") is None,
    reason="Ray is not installed; install the extra 'ray'",
)


def test_two_workers_give_the_weights_of_torchrun(tmp_path):
    folders = by_ray, by_torchrun = tmp_path / "ray", tmp_path / "torchrun"
    for folder in folders:
        folder.mkdir()
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ray_training.py")), str(by_ray)],
        env=together.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=together.TIME,
    )
    assert process.returncode == 0, process.stdout
    command = [together.__file__, "plain", json.dumps([str(by_torchrun)])]
    [(output, status)] = together.ended([together.torchrun(2, command)])
    assert status == 0, output
    for rank in (0, 1):
        found, expected = (load_file(folder / f"{rank}.safetensors") for folder in folders)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), rank
