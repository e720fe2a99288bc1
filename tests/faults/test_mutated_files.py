"""Whatever a damaged data file makes its parser raise is one line with the name of the file."""

import gzip
import io
import random
import struct
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch

from pyrovae.data import DataError, load
from pyrovae.data.files import DataFile, Files, parse_idx, parse_mat, parse_npz
from pyrovae.data.parquet_files import ParquetTable
from pyrovae.data.table_files import read_table

COUNT = 40
NUMBERS = np.random.RandomState(0).uniform(size=(30, 4)).astype(np.float32)
BYTES = np.random.RandomState(0).randint(0, 256, size=(8, 6, 6)).astype(np.uint8)


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def npy():
    content = io.BytesIO()
    np.save(content, NUMBERS)
    return content.getvalue()


def pt():
    content = io.BytesIO()
    torch.save({"x": torch.from_numpy(NUMBERS)}, content)
    return content.getvalue()


def csv():
    return pd.DataFrame(NUMBERS, columns=list("abcd")).to_csv(index=False).encode()


def mat():
    content = io.BytesIO()
    scipy.io.savemat(content, {"X": BYTES[:4], "y": np.arange(4, dtype=np.uint8)[:, None]}, do_compression=True)
    return content.getvalue()


def idx():
    return struct.pack(">4B3I", 0, 0, 8, 3, *BYTES.shape) + BYTES.tobytes()


def hdf5():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name in ("train_data", "test_data"):
            file.create_dataset(name, data=NUMBERS, compression="gzip")
    return content.getvalue()


def parquet():
    content = io.BytesIO()
    pd.DataFrame(NUMBERS, columns=list("abcd")).assign(e=["x", "y", "z"] * 10).to_parquet(content)
    return content.getvalue()


def read_in_chunks(path):
    table = ParquetTable(path)
    for start, chunk in table.chunks(7):
        table.frame(chunk, start)


def mutated(content, generator):
    """The content with bytes changed, cut out, doubled or cut off."""
    changed = bytearray(content)
    kind = generator.randrange(5)
    place = generator.randrange(min(len(changed), 400) if kind < 3 else len(changed))
    if kind in (0, 1):
        for _ in range(1 + 3 * kind):
            changed[generator.randrange(min(len(changed), 400))] = generator.randrange(256)
    elif kind == 2:
        changed[place : place + 8] = generator.randbytes(8)
    elif kind == 3:
        del changed[place : place + generator.randrange(1, 20)]
    else:
        del changed[place:]
    return bytes(changed)


def stored(parse):
    """Reads a file of a named data set."""

    def read(path):
        Files(path.parent, (DataFile(path.name),), verified=False).read(path.name, parse)

    return read


def own(path, **options):
    load(path, validation=2, test=2, **options)


READERS = {
    "mine.h5": (hdf5, lambda path: load(path, validation=2)),
    "table.parquet": (parquet, read_table),
    "chunks.parquet": (parquet, read_in_chunks),
    "mine.npz": (lambda: npz(x=NUMBERS, y=np.arange(30)), own),
    "mine.npy": (npy, own),
    "mine.pt": (pt, own),
    "mine.csv": (csv, own),
    "table.csv": (csv, read_table),
    "table.csv.gz": (lambda: gzip.compress(csv()), read_table),
    "set.npz": (lambda: npz(images=BYTES), stored(lambda content: parse_npz(content, {"images": (None, 6, 6)}))),
    "set-ubyte.gz": (lambda: gzip.compress(idx()), stored(lambda content: parse_idx(content, (None, 6, 6)))),
    "set-ubyte": (idx, stored(lambda content: parse_idx(content, (None, 6, 6)))),
}


@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name, tmp_path):
    make, read = READERS[name]
    content, generator, path, refused = make(), random.Random(1), tmp_path / name, 0
    path.write_bytes(content)
    read(path)
    for _ in range(COUNT):
        path.write_bytes(mutated(content, generator))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(path)
            except (DataError, ValueError) as error:
                refused += 1
                text = str(error)
                if "\n" in text or name.split(".")[0] not in text:
                    pytest.fail(f"{type(error).__name__}: {text}")
    assert refused


@pytest.mark.parametrize(
    "error", [MemoryError(), AttributeError("no such thing"), RecursionError("too deep"), KeyError("a")]
)
def test_whatever_a_parser_raises(error, tmp_path, monkeypatch):
    def parse(content):
        raise error

    (tmp_path / "set.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"set\.bin is damaged or incomplete"):
        stored(parse)(tmp_path / "set.bin")
    (tmp_path / "mine.csv").write_bytes(csv())
    monkeypatch.setattr(pd, "read_csv", lambda *args, **options: parse(b""))
    for read in (own, read_table):
        with pytest.raises(DataError, match=r"mine.csv (is damaged|says that it holds more)") as found:
            read(tmp_path / "mine.csv")
        assert "\n" not in str(found.value)


def test_mutated_mat_files(tmp_path):
    """They are read in a process of their own, which they may crash."""
    read, content, generator = (
        stored(lambda c: parse_mat(c, {"X": (None, 6, 6), "y": (None, 1)})),
        mat(),
        random.Random(2),
    )
    path = tmp_path / "set.mat"
    path.write_bytes(content)
    np.testing.assert_array_equal(parse_mat(content, {"X": (None, 6, 6)})["X"], BYTES[:4])
    for changed in (content[:-40], mutated(content, generator)):
        path.write_bytes(changed)
        with pytest.raises(DataError, match=r"set\.mat is damaged or incomplete") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_crash_of_the_reader_is_a_line(monkeypatch):
    monkeypatch.setattr("pyrovae.data.files._READ_MAT", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(ValueError, match="not a readable MATLAB 5 file: its reader crashed with signal 11"):
        parse_mat(b"", {"X": (None, 6, 6)})
