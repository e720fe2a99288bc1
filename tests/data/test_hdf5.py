"""HDF5 files of the layout of the auto-decoder's authors, written by h5py itself or by the library."""

import builtins

import h5py
import numpy as np
import pytest
import torch

from pyrovae.data import DataError, load
from pyrovae.data.hdf5 import ratios_of, read_missing, write_clean, write_missing

RNG = np.random.default_rng(0)
X = RNG.random((12, 5)).astype(np.float32)
MASK = (np.arange(60).reshape(12, 5) % 3 > 0).astype(np.uint8)
HOLES = {
    "train_y": np.where(MASK, X, 0),
    "train_mask": MASK,
    "test_y": np.where(MASK[:4], X[:4], 0),
    "test_mask": MASK[:4],
    "test_y_true": X[:4],
}


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


class TestReading:
    @pytest.mark.parametrize("names", [("train_data", "test_data"), ("train_x", "test_x"), ("train_2d", "test_2d")])
    def test_clean_data(self, names, tmp_path):
        path = write(tmp_path / "a.h5", **dict(zip(names, (X, X[:4]), strict=True)), extra=np.zeros(3))
        dataset = load(path, validation=0.25)
        assert torch.equal(dataset.test.x, torch.tensor(X[:4]))
        assert sorted([len(dataset.train), len(dataset.validation)]) == [3, 9]
        assert dataset.train.mask is None
        assert load(**dataset.options).train.x.equal(dataset.train.x)

    def test_landmarks_have_validation_rows(self, tmp_path):
        marks = RNG.normal(size=(12, 7, 2))
        path = write(tmp_path / "a.hdf5", train_2d=marks, valid_2d=marks[:3], test_2d=marks[:4])
        dataset = load(path)
        assert dataset.shape == (7, 2)
        assert [len(rows) for rows in dataset.splits().values()] == [12, 3, 4]

    def test_digits_have_labels(self, tmp_path):
        pictures, labels = RNG.integers(0, 255, (12, 6, 6)).astype(np.uint8), np.arange(12) % 3
        path = write(tmp_path / "a.h5", train_x=pictures, train_y=labels, test_x=pictures[:4], test_y=labels[:4])
        dataset = load(path, validation=0)
        assert (dataset.kind, dataset.shape, dataset.num_classes) == ("8-bit", (1, 6, 6), 3)
        assert dataset.test.y.tolist() == [0, 1, 2, 0]
        assert torch.allclose(dataset.train.x[:, 0] * 255, torch.tensor(pictures).float())

    def test_data_with_holes(self, tmp_path):
        dataset = load(write(tmp_path / "a_0.3.h5", **HOLES), validation=0)
        assert torch.equal(dataset.train.mask, torch.tensor(MASK).bool())
        assert torch.equal(dataset.train.x, torch.tensor(HOLES["train_y"]))
        assert torch.equal(dataset.test.x, torch.tensor(X[:4]))
        assert dataset.test.mask is None

    def test_files_beside_it(self, tmp_path):
        for name in ("a_0.5.h5", "a_0.1.h5", "a_b.h5", "b_0.3.h5", "a_0.7.npz"):
            (tmp_path / name).touch()
        expected = {0.1: tmp_path / "a_0.1.h5", 0.5: tmp_path / "a_0.5.h5"}
        assert ratios_of(tmp_path / "a.h5") == ratios_of(tmp_path / "a_0.5.h5") == expected
        assert ratios_of(tmp_path / "c.h5") == ratios_of(tmp_path / "a_c.h5") == {}


class TestRefused:
    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": X}, "holds x, and should hold train_data and test_data, train_x and test_x, or train_2d"),
            ({"train_data": X}, "holds train_data, and should hold"),
            ({}, "holds no array, and should hold"),
            (
                {"train_y": X, "train_mask": MASK},
                "holds train_mask, train_y, and lacks test_y, test_mask, test_y_true of a file with holes",
            ),
            ({**HOLES, "train_mask": MASK[:3]}, r"mask has shape \(3, 5\), expected that of x"),
            ({**HOLES, "train_mask": MASK * 2}, "mask must hold True"),
            ({"train_data": X, "test_data": X[:, :3]}, "shape"),
            ({"train_data": X[0], "test_data": X}, "expected a row for each datum"),
            ({"train_data": np.array([b"text"] * 12).reshape(12, 1), "test_data": X}, "expected numbers"),
        ],
    )
    def test_wrong_arrays(self, arrays, message, tmp_path):
        with pytest.raises((DataError, ValueError), match=message) as error:
            load(write(tmp_path / "a.h5", **arrays))
        assert "\n" not in str(error.value)

    def test_a_group_is_no_array(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_group("train_data")
            file["test_data"] = X
        with pytest.raises(DataError, match="holds test_data, and should hold"):
            load(tmp_path / "a.h5")

    def test_other_files_are_not_followed(self, tmp_path):
        write(tmp_path / "other.h5", secret=X)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["test_data"] = X
            file["train_data"] = h5py.ExternalLink("other.h5", "secret")
        with pytest.raises(DataError, match="holds test_data, and should hold"):
            load(tmp_path / "a.h5")

    @pytest.mark.parametrize("content", [b"", b"no such file", "half"])
    def test_damaged(self, content, tmp_path):
        path = tmp_path / "a.h5"
        if content == "half":
            write(path, train_data=np.zeros((2000, 50)), test_data=X)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.h5 is damaged, or no HDF5 file") as error:
            load(path)
        assert "\n" not in str(error.value)

    def test_no_file(self, tmp_path):
        with pytest.raises(DataError, match="there is no file"):
            load(tmp_path / "a.h5")

    def test_without_h5py(self, tmp_path, monkeypatch):
        path, there = write(tmp_path / "a.h5", train_data=X, test_data=X), builtins.__import__

        def without(name, *arguments, **options):
            if name == "h5py":
                raise ImportError
            return there(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ImportError, match=r"needs h5py: pip install 'pyrovae\[hdf5\]'"):
            load(path)

    def test_a_mask_of_the_other_sense(self, tmp_path):
        path = write(tmp_path / "a_0.3.h5", **{**HOLES, "test_mask": 1 - MASK[:4]})
        with pytest.raises(DataError, match="must be 1 there, and 0 where an entry is missing"):
            read_missing(path)

    def test_truth_of_other_rows(self, tmp_path):
        path = write(tmp_path / "a_0.3.h5", **{**HOLES, "test_y_true": X[:5]})
        with pytest.raises(DataError, match=r"test_y has shape \(4, 5\), and test_y_true \(5, 5\)"):
            read_missing(path)


class TestWriting:
    def test_what_is_written_is_read(self, tmp_path):
        digits = load("digits")
        write_clean(digits, tmp_path / "digits.h5", keys="x")
        again = load(tmp_path / "digits.h5", kind="unit")
        for split, rows in digits.splits().items():
            assert torch.equal(again.splits()[split].x, rows.x)
            assert torch.equal(again.splits()[split].y, rows.y)

    def test_holes(self, tmp_path):
        digits = load("digits")
        files = write_missing(digits, tmp_path / "digits.h5", [0.3, 0.7])
        assert ratios_of(tmp_path / "digits.h5") == dict(zip((0.3, 0.7), files, strict=True))
        for ratio, file in zip((0.3, 0.7), files, strict=True):
            truth, holes = read_missing(file)
            assert np.array_equal(truth.x, digits.test.x)
            assert abs((~holes.mask).mean() - ratio) < 0.01
            assert (holes.x[~holes.mask] == 0).all()
            trained = load(file, kind="unit")
            assert abs(float((~trained.train.mask).float().mean()) - ratio) < 0.01
        first = h5py.File(files[0])["train_mask"][:]
        assert np.array_equal(h5py.File(write_missing(digits, tmp_path / "b.h5", [0.3])[0])["train_mask"][:], first)
        other = write_missing(digits, tmp_path / "c.h5", [0.3], seed=1)[0]
        assert not np.array_equal(h5py.File(other)["train_mask"][:], first)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda d, p: write_clean(d, p, keys="y"), "keys must be one of data, x, 2d, got 'y'"),
            (lambda d, p: write_missing(d, p, [1.0]), "between 0 and 1, got 1"),
            (lambda d, p: write_missing(d, p, [0.5], pattern="rows"), "got 'rows'"),
            (lambda d, p: write_clean(load("digits", missing=0.5), p), "has missing entries"),
        ],
    )
    def test_refused(self, call, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            call(load("digits"), tmp_path / "a.h5")
        assert not list(tmp_path.iterdir())
