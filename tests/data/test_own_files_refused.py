"""CSV files and folders of pictures that cannot be used: one clear line for each."""

from pathlib import Path

import numpy as np
import pytest
from own_data import GREY, check_refused, write_bytes
from PIL import Image

from pyrovae.data import DataError, load, load_to_evaluate


def write_pictures(**shapes):
    def write(path):
        for name, shape in shapes.items():
            file = path / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros(shape, np.uint8)).save(file)

    return write


def write_broken_picture(path):
    path.mkdir()
    Image.fromarray(GREY[0]).save(path / "1.png")
    (path / "2.png").write_bytes((path / "1.png").read_bytes()[:40])


def write_deep_picture(path):
    path.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(path / "1.png")


def write_text_picture(path):
    path.mkdir()
    (path / "1.jpg").write_text("no picture")


# Name of the file, what writes it, options of `load`, what the message says.
CASES = {
    "ragged csv": ("rows.csv", write_bytes(b"1,2,3\n4,5\n"), {}, "rows.csv, line 2 has 2 cells, the first line has 3"),
    "long line": (
        "rows.csv",
        write_bytes(b"a,b\n4,5\n\n6,7,8\n"),
        {},
        "rows.csv, line 4 has 3 cells, the first line has",
    ),
    "text cell": (
        "rows.csv",
        write_bytes(b"a,b\n4,5\n\n6,x7\n"),
        {},
        "line 4, column 'b' is 'x7', expected a number.*--l",
    ),
    "text cell, no names": (
        "rows.csv",
        write_bytes(b"1,2\n4,five\n"),
        {},
        "line 2, column 2 is 'five', expected a numb",
    ),
    "text in line one": (
        "rows.csv",
        write_bytes(b"1,one\n4,five\n"),
        {},
        "line 1, column 2 is 'one', expected a number",
    ),
    "infinite cell": (
        "rows.csv",
        write_bytes(b"a,b\n1,2\n3,inf\n"),
        {},
        "line 3, column 'b' is inf, expected a finite",
    ),
    "semicolons": ("rows.csv", write_bytes(b"1;2\n3;4\n"), {}, "rows.csv separates its cells by ';'; separate them"),
    "encoding": ("rows.csv", write_bytes("a,ü\n1,2\n".encode("latin-1")), {}, "rows.csv is no UTF-8 text .byte 2."),
    "utf-16": ("rows.csv", write_bytes("a,b\n1,2\n".encode("utf-16")), {}, "rows.csv is no UTF-8 text .byte 0."),
    "empty csv": ("rows.csv", write_bytes(b"\n\n"), {}, "rows.csv is empty"),
    "only names": ("rows.csv", write_bytes(b"a,b\n"), {}, "rows.csv has no rows, only a line of names"),
    "row numbers": (
        "rows.csv",
        write_bytes(b",a,b\n0,1,2\n"),
        {},
        "column without a name, perhaps row numbers.*index=F",
    ),
    "twice the name": ("rows.csv", write_bytes(b"a,a\n0,1\n"), {}, "rows.csv has two columns 'a'"),
    "label column": (
        "rows.csv",
        write_bytes(b"a,b\n0,1\n"),
        {"label_column": "c"},
        "no column 'c'; its columns are a, b",
    ),
    "no names": (
        "rows.csv",
        write_bytes(b"0,1\n"),
        {"label_column": "c"},
        "no column 'c'; its columns are none, since",
    ),
    "only labels": (
        "rows.csv",
        write_bytes(b"a\n1\n"),
        {"label_column": "a"},
        "rows.csv has no column besides the label",
    ),
    "no pictures": ("pics", lambda path: path.mkdir(), {}, "pics holds no PNG or JPEG pictures"),
    "sizes": (
        "pics",
        write_pictures(a=(4, 5), b=(4, 6)),
        {},
        "b.png is 6x4 pixels, pics/a.png is 5x4; make them of one",
    ),
    "zero size": ("pics", write_pictures(a=(4, 5)), {"image_size": 0}, "image_size must be at least 1, got 0"),
    "broken picture": ("pics", write_broken_picture, {}, "pics/2.png is damaged"),
    "text picture": ("pics", write_text_picture, {}, "pics/1.jpg is damaged, or no PNG or JPEG picture"),
    "16 bits": ("pics", write_deep_picture, {}, "pics/1.png has more than 8 bits for a pixel"),
    "line of a value": (
        "rows.csv",
        write_bytes(b"a,b\n0,1\n0,7\n"),
        {"kind": "unit"},
        "rows.csv, line 3, column 'b' is 7",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case, folder):
    check_refused(CASES[case], folder)


def test_columns_and_classes_of_files_must_agree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("a,b,y\n1,2,cat\n3,4,dog\n")
    Path("b.csv").write_text("b,y\n1,cat\n")
    Path("c.csv").write_text("a,b,y\n1,2,cow\n")
    Path("d.csv").write_text("a,b,y\n1,2,0\n")
    options = {"label_column": "y", "test": 0}
    with pytest.raises(DataError, match=r"b.csv has no column 'a'; its columns are b, y"):
        load("a.csv", validation="b.csv", **options)
    with pytest.raises(DataError, match=r"c.csv has the class 'cow'; known are cat, dog"):
        load("a.csv", validation="c.csv", **options)
    with pytest.raises(DataError, match=r"d.csv and a.csv must both have labels that are words, or both numbers"):
        load("a.csv", validation="d.csv", **options)
    trained_on = load("a.csv", validation=0, **options).options
    with pytest.raises(DataError, match=r"c.csv has the class 'cow'; known are cat, dog"):
        load_to_evaluate("c.csv", trained_on, "real")
