"""A flipped bit of a file is one line, or changes nothing; never another result."""

import json
import random

import pytest
import torch
from torch import nn

from pyrovae.storage import CheckpointError, load_tensors, save_tensors


def flipped(content, generator):
    """The content with one bit changed."""
    place = generator.randrange(len(content))
    changed = bytearray(content)
    changed[place] ^= 1 << generator.randrange(8)
    return bytes(changed)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "w.safetensors"
    module = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    extra = {
        "counts": torch.arange(4),
        "half": torch.ones(3).bfloat16(),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0),
    }
    save_tensors(path, {**module.state_dict(), **extra}, {"epoch": 3, "value": 0.1})
    return path


def test_flips_of_a_weight_file(weights):
    before, information = load_tensors(weights)
    content, generator, refused = weights.read_bytes(), random.Random(0), []
    for _ in range(400):
        weights.write_bytes(flipped(content, generator))
        try:
            tensors, found = load_tensors(weights)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        assert tensors.keys() == before.keys()
        assert all(torch.equal(tensors[name], before[name]) for name in before)
        assert found == information
    assert len(refused) > 350
    assert all(str(weights) in text and "\n" not in text for text in refused)


@pytest.mark.parametrize("cut", [0, 1, 8, 50, 200, -1])
def test_cut_weight_files(weights, cut):
    weights.write_bytes(weights.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="is damaged") as error:
        load_tensors(weights)
    assert "\n" not in str(error.value)


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"damaged|is a folder") as error:
        load_tensors(tmp_path)
    assert "\n" not in str(error.value)


def test_files_without_a_digest_are_read(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "old.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"pyrovae": json.dumps({"format_version": 1})})
    assert load_tensors(path)[0]["a"].tolist() == [1.0, 1.0]
