"""Data of one's own that cannot be used: one clear line, and code in a file never runs."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from own_data import GREY, ROWS, check_refused, write_bytes, write_npy
from PIL import Image

from pyrovae.data import DataError, load


class Trap:
    """Its pickle makes a file when it is opened."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def changed(index, value, array=ROWS):
    array = array.copy()
    array[index] = value
    return array


def write_npz(**arrays):
    def write(path):
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return write


def write_pt(content):
    return lambda path: torch.save(content, path)


def write_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")


# Name of the file, what writes it, options of `load`, what the message says.
CASES = {
    "missing": ("gone.npy", None, {}, "there is no file or folder gone.npy"),
    "other ending": ("rows.txt", write_bytes(b"1 2"), {}, "rows.txt cannot be read: data are in .npy, .npz, .pt, .csv"),
    "empty npy": ("rows.npy", write_bytes(b""), {}, "rows.npy is empty"),
    "no npy": ("rows.npy", write_bytes(b"text"), {}, "rows.npy is damaged, or no .npy file"),
    "no npz": ("rows.npz", write_bytes(b"text"), {}, "rows.npz is damaged, or no .npz file"),
    "empty npz": ("rows.npz", write_bytes(b""), {}, "rows.npz is empty"),
    "truncated npz": ("rows.npz", write_bytes(b"PK\x03\x04abc"), {}, "rows.npz is damaged, or no .npz file"),
    "other archive": ("rows.npz", write_archive, {}, "rows.npz is an archive of other things than arrays"),
    "object array": (
        "rows.npy",
        write_npy(np.array([[{}]], object)),
        {},
        "rows.npy holds Python objects, which are nev",
    ),
    "object in npz": ("rows.npz", write_npz(x=ROWS, y=np.array([{}], object)), {}, "rows.npz holds Python objects"),
    "no arrays": ("rows.npz", write_npz(), {}, "rows.npz holds no array"),
    "unknown names": ("rows.npz", write_npz(a=ROWS, b=ROWS), {}, "holds 'a', 'b', and 'a' is none of the known names"),
    "no x": ("rows.npz", write_npz(y=ROWS, mask=ROWS), {}, "and no x for the train rows; name arrays x, y and mask"),
    "twice": ("rows.npz", write_npz(x_val=ROWS, x_valid=ROWS), {}, "holds x of the validation rows twice"),
    "no training rows": (
        "rows.npz",
        write_npz(x_test=ROWS, y_test=np.zeros(12)),
        {},
        "no training rows, only test rows",
    ),
    "texts": ("rows.npy", write_npy(np.array([["a"]])), {}, "rows.npy: x holds texts, expected numbers"),
    "complex": ("rows.npy", write_npy(ROWS + 1j), {}, "rows.npy: x holds complex numbers"),
    "flat": ("rows.npy", write_npy(ROWS[:, 0]), {}, r"x has shape \(12,\), expected a row for each datum.*reshape"),
    "no rows": ("rows.npy", write_npy(ROWS[:0]), {}, r"rows.npy: x has no rows, its shape is \(0, 3\)"),
    "no entries": ("rows.npy", write_npy(ROWS[:, :0]), {}, "rows.npy: x has rows without entries"),
    "infinite": ("rows.npy", write_npy(changed((3, 1), -np.inf)), {}, "row 3, entry 1 .counted from 0. is -inf"),
    "too large": (
        "rows.npy",
        write_npy(changed((3, 1), 1e300)),
        {},
        "rows.npy: row 3, entry 1 .* is inf, expected a f",
    ),
    "all missing": ("rows.npy", write_npy(ROWS * np.nan), {}, "rows.npy: no entry is observed"),
    "shape of mask": (
        "rows.npz",
        write_npz(x=ROWS, mask=ROWS[:, :2] > 0),
        {},
        r"mask has shape \(12, 2\), expected that",
    ),
    "values of mask": ("rows.npz", write_npz(x=ROWS, mask=ROWS), {}, "mask must hold True .observed. and False"),
    "number of labels": (
        "rows.npz",
        write_npz(x=ROWS, y=np.zeros(5)),
        {},
        "y has shape .5,., expected one label for e",
    ),
    "half labels": (
        "rows.npz",
        write_npz(x=ROWS, y=ROWS[:, 0]),
        {},
        "label of row 0 is .*, expected whole numbers from",
    ),
    "date labels": ("rows.npz", write_npz(x=ROWS, y=np.zeros(12, "M8[s]")), {}, "y holds dates"),
    "shapes of splits": (
        "rows.npz",
        write_npz(train=ROWS, test=ROWS[:, :2]),
        {},
        r"a row of test.x has shape \(2,\), of",
    ),
    "types of splits": ("rows.npz", write_npz(train=GREY, test=GREY / 255), {}, "bytes; save both in one type"),
    "unknown label": (
        "rows.npz",
        write_npz(train=ROWS, y_train=np.zeros(12), test=ROWS, y_test=np.full(12, 4)),
        {},
        "the test rows have the label 4, and those of the training rows only go up to 0",
    ),
    "list in pt": (
        "rows.pt",
        write_pt([ROWS.tolist()]),
        {},
        "rows.pt holds a list under 'x', expected a tensor or a d",
    ),
    "nested pt": ("rows.pt", write_pt({"x": {"x": 3}}), {}, "holds a dict under 'x', expected a tensor"),
    "sparse pt": ("rows.pt", write_pt(torch.eye(3).to_sparse()), {}, "a sparse or quantised tensor under 'x'"),
    "module in pt": ("rows.pt", write_pt(torch.nn.Linear(2, 2)), {}, "rows.pt holds more than tensors, or is damaged"),
    "no pt": ("rows.pt", write_bytes(b"PK\x03\x04abc"), {}, "rows.pt is damaged, or no .pt file"),
    "label column of npy": (
        "rows.npy",
        write_npy(ROWS),
        {"label_column": "c"},
        "label_column is for .csv files, and rows",
    ),
    "size of npy": (
        "rows.npy",
        write_npy(ROWS),
        {"image_size": 8},
        "image_size is for folders of pictures, and rows.np",
    ),
    "grey as unit": (
        "rows.npy",
        write_npy(GREY.astype(float)),
        {"kind": "unit"},
        r"rows.npy: row 0, entry \(0, 0\) .counted from 0. is \d+, and kind 'unit' means values from 0 to 1; give kind",
    ),
    "test of another kind": (
        "rows.npz",
        write_npz(train=ROWS > 0, test=changed((2, 1), 0.5, (ROWS > 0).astype(float))),
        {"kind": "binary"},
        "rows.npz, test rows: row 2, entry 1 .* is 0.5, and kind 'binary' means 0 or 1; give kind unit",
    ),
    "real as 8-bit": ("rows.npy", write_npy(ROWS), {"kind": "8-bit"}, "and kind '8-bit' means .*; give kind real"),
    "real as symmetric": (
        "rows.npy",
        write_npy(ROWS * 9),
        {"kind": "symmetric"},
        "means values from -1 to 1; give kind re",
    ),
    "bytes as symmetric": (
        "rows.npy",
        write_npy(GREY),
        {"kind": "symmetric"},
        "bytes are of kind 8-bit; scale 'symmetric",
    ),
    "bytes as binary": (
        "rows.npy",
        write_npy(GREY),
        {"kind": "binary"},
        "and kind 'binary' means 0 or 1; give kind 8-bit",
    ),
    "unknown kind": ("rows.npy", write_npy(ROWS), {"kind": "int"}, "kind must be one of 'binary', .*, not 'int'"),
    "share": ("rows.npy", write_npy(ROWS), {"validation": 1.5}, "validation must be a share of the rows .*, not 1.5"),
    "negative": ("rows.npy", write_npy(ROWS), {"test": -1}, "test must be a share of the rows .*, not -1"),
    "not a number": (
        "rows.npy",
        write_npy(ROWS),
        {"test": float("nan")},
        "test must be a share of the rows .*, not nan",
    ),
    "nothing left": (
        "rows.npy",
        write_npy(ROWS),
        {"test": 6, "validation": 0.5},
        "12 rows, and 6 for test and 6 for val",
    ),
    "one row": (
        "rows.npy",
        write_npy(ROWS[:1]),
        {},
        "rows.npy has 1 rows, and 1 for test and 1 for validation leave none",
    ),
    "no such file": ("rows.npy", write_npy(ROWS), {"test": "gone.npy"}, "there is no file or folder gone.npy"),
    "own splits": (
        "rows.npz",
        write_npz(train=ROWS, test=ROWS),
        {"test": 0.1},
        "rows.npz has test rows of its own; leave",
    ),
    "split of splits": (
        "rows.npz",
        write_npz(train=ROWS, validation=ROWS),
        {"test": "rows.npz"},
        "rows.npz has splits of its own, so it cannot be the test rows",
    ),
    "binarize real": (
        "rows.npy",
        write_npy(ROWS),
        {"binarize": "static"},
        "binarize needs values of kind .* rows is 'real'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case, folder):
    check_refused(CASES[case], folder)


@pytest.mark.parametrize("ending", ["npy", "npz", "pt"])
def test_code_in_a_file_is_not_run(ending, tmp_path):
    opened, path = tmp_path / "opened", tmp_path / f"trap.{ending}"
    trap = Trap(opened)
    if ending == "pt":
        torch.save({"x": trap}, path)
    elif ending == "npz":
        np.savez(path, x=np.array([trap], object))
    else:
        path.write_bytes(pickle.dumps(trap))
    with pytest.raises(DataError, match=r"Python objects|more than tensors"):
        load(path)
    assert not opened.exists()
    pickle.loads(pickle.dumps(trap))
    assert opened.exists(), "so the trap does work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 5}, "test is for data of your own; leave it out with the data set digits"),
        ({"kind": "unit"}, "kind is for data of your own"),
        ({"label_column": "y"}, "label_column is for data of your own"),
        ({"image_size": 8}, "image_size is for data of your own"),
        (
            {"validation": "rows.npy"},
            "validation of digits must be a share or a number of its training rows, not a file",
        ),
        ({"validation": 1.5}, "validation of digits must be a share between 0 and 1, or a whole number of at least 1"),
    ],
)
def test_options_that_do_not_go_with_a_named_set(options, message):
    with pytest.raises(ValueError, match=message):
        load("digits", **options)


def test_share_of_a_named_set():
    assert [len(split) for split in load("digits", validation=0.1).splits().values()] == [1350, 150, 297]


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz", "rows.pt", "rows.csv", "pics/a.png", "pics/a.jpg"])
def test_damaged_files_are_refused_or_read_but_never_crash(name, folder):
    """Files cut off anywhere, and with bytes changed, as a broken disk or download leaves them."""
    path, rng = folder / name, np.random.default_rng(0)
    path.parent.mkdir(exist_ok=True)
    writers = {
        ".npy": lambda: np.save(path, ROWS),
        ".npz": lambda: np.savez_compressed(path, x=ROWS, y=np.arange(12)),
        ".pt": lambda: torch.save({"x": torch.from_numpy(ROWS)}, path),
        ".csv": lambda: np.savetxt(path, ROWS, delimiter=",", header="a,b,c", comments=""),
    }
    writers.get(path.suffix, lambda: Image.fromarray(GREY[0]).save(path))()
    content = path.read_bytes()
    for attempt in range(60):
        damaged = bytearray(content[: rng.integers(len(content)) if attempt % 2 else len(content)])
        for place in rng.integers(len(damaged), size=3) if damaged else ():
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load(name.partition("/")[0])
        except (DataError, ValueError) as error:
            assert "\n" not in str(error)  # noqa: PT017  some damage cannot be seen
