"""Arrays for the tests of data of one's own."""

import numpy as np
import pytest

from pyrovae.data import DataError, load

ROWS = np.random.default_rng(0).normal(size=(12, 3))
GREY = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)


def real(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def grey(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def sizes(dataset):
    return [len(split) for split in dataset.splits().values()]


def write_bytes(content):
    """What writes a file of these bytes."""
    return lambda path: path.write_bytes(content)


def write_npy(array):
    def write(path):
        with path.open("wb") as file:
            np.save(file, array)

    return write


def check_refused(case, folder):
    """`load` refuses a case (name of the file, what writes it, options, message) in one line."""
    name, write, options, message = case
    if write is not None:
        write(folder / name)
    with pytest.raises((DataError, ValueError), match=message) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 260
