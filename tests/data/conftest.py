"""A small root of data sets for the tests of this folder."""

import gzip
import struct

import numpy as np
import pytest


@pytest.fixture
def small_root(tmp_path, monkeypatch):
    """A root with 40 + 12 images in the format of MNIST, in which every byte value occurs, and nothing else."""
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path))
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    rng = np.random.default_rng(3)
    for prefix, size in (("train", 40), ("t10k", 12)):
        images = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        labels = (np.arange(size) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path = tmp_path / "mnist" / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(header + array.tobytes()))
    return tmp_path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
