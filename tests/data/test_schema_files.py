"""Tables in files: what is read, what is refused in one line, and the verb that prints a schema."""

import argparse
import gzip
import json
import sys

import numpy as np
import pandas as pd
import pytest

from pyrovae.cli.tables import schema as print_schema
from pyrovae.data import DataError
from pyrovae.data.columns import Column
from pyrovae.data.schema import Schema
from pyrovae.data.table_files import read_table

TEXT = 'id,name,when,size\n1,"a, b",2020-01-31,0.5\n2,?,,NA\n3,c;d,2020-02-29 12:30,\n'


def check_text_table(frame):
    assert list(frame) == ["id", "name", "when", "size"]
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["name"].dropna().tolist() == ["a, b", "c;d"]
    assert frame["when"].dropna().tolist() == [pd.Timestamp("2020-01-31"), pd.Timestamp("2020-02-29 12:30")]
    assert frame["size"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV", "t.tsv"])
def test_text_is_read(folder, name):
    content = TEXT.encode("utf-8-sig")
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    check_text_table(read_table(name))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators(folder, separator):
    (folder / "t.csv").write_text("a,b,c\n1,x,0.5\n\n2,y,1.5\n".replace(",", separator))
    frame = read_table("t.csv", None if separator != "|" else "|")
    assert frame.to_numpy().tolist() == [[1, "x", 0.5], [2, "y", 1.5]]


def test_an_index_is_read(folder):
    frame = pd.DataFrame({"a": [1.5, 2.0], "b": ["x", "y"]}, index=[7, 9])
    frame.to_csv("t.csv")
    pd.testing.assert_frame_equal(read_table("t.csv"), frame)


def test_one_column_and_no_dates(folder):
    (folder / "t.csv").write_text("when\n2020-02-31\n2020-01-01\n")
    assert read_table("t.csv")["when"].tolist() == ["2020-02-31", "2020-01-01"]


# Name of the file, its bytes, and what the message says.
BAD_FILES = {
    "short line": ("t.csv", b"a,b\n1,2\n\n3\n", r"t.csv, line 4 has 1 cells, the first line has 2"),
    "long line": ("t.csv", b"a,b\n1,2\n3,4,5\n", "t.csv, line 3 has 3 cells, the first line has 2"),
    "encoding": ("t.csv", "a,b\n1,é\n".encode("latin-1"), r"t.csv is no UTF-8 text \(byte 6\); save it with the enc"),
    "empty": ("t.csv", b"", "t.csv is empty"),
    "no rows": ("t.csv", b"a,b\n", "t.csv has no rows, only a line of names"),
    "no names": (
        "t.csv",
        b"0.9,-1.3\n1.0,2.0\n",
        "t.csv has no names of columns: its first line holds '0.9'; write a l",
    ),
    "no names of words": (
        "t.csv",
        b"52,f,3.4\n30,m,2.2\n41,f,1\n",
        "t.csv has no names of columns: its first line holds '3.4'",
    ),
    "names twice": ("t.csv", b"a,a\n1,2\n", "t.csv has two columns 'a'; give every column a name of its own"),
    "no name": (
        "t.csv",
        b"a,\n0,2\n",
        "t.csv has a column without a name, column 2; give every column a name of its own",
    ),
    "no gzip": ("t.csv.gz", b"a,b\n1,2\n", r"t.csv.gz cannot be read \(Not a gzipped file"),
    "half a gzip": ("t.csv.gz", gzip.compress(bytes(TEXT, "utf-8"))[:40], "t.csv.gz cannot be read"),
    "other ending": ("t.xlsx", b"a", "t.xlsx cannot be read as a table: tables are in .csv, .csv.gz, .tsv"),
    "no file": (None, None, "there is no file t.csv"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_are_refused(folder, case):
    name, content, message = BAD_FILES[case]
    if name is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_table(name or "t.csv")
    assert "\n" not in str(error.value)


def test_separators_that_are_refused(folder):
    (folder / "t.csv").write_text(TEXT)
    with pytest.raises(ValueError, match="separator must be one character, not ', '"):
        read_table("t.csv", ", ")


def test_parquet_is_read(folder):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "c": pd.Categorical(["b", "a", None], categories=["b", "a"], ordered=True),
            "d": pd.to_datetime(["2020-01-01", None, "2020-01-05"]),
            "f": np.array([0.5, np.nan, 1.5], dtype=np.float32),
        }
    )
    frame.to_parquet(folder / "t.parquet")
    read = read_table(folder / "t.parquet")
    pd.testing.assert_frame_equal(read, frame)


def test_parquet_of_others_is_read(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"n": [2**60 + 1, None], "b": [True, None], "s": ["x", None]})
    parquet.write_table(table, folder / "t.parquet")
    frame = read_table("t.parquet")
    assert frame.dtypes.astype(str).tolist()[:2] == ["Int64", "boolean"]
    assert frame["n"][0] == 2**60 + 1


def test_parquet_that_is_refused(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (folder / "none.parquet").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(DataError, match=r"none.parquet cannot be read as a Parquet file \(.+\)$"):
        read_table("none.parquet")
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), folder / "empty.parquet")
    with pytest.raises(DataError, match=r"empty.parquet has no rows"):
        read_table("empty.parquet")
    parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), folder / "twice.parquet")
    with pytest.raises(DataError, match=r"twice.parquet: the table has two columns 'a'"):
        read_table("twice.parquet")
    with pytest.raises(ValueError, match=r"separator is for .csv files"):
        read_table("twice.parquet", ";")
    parquet.write_table(pyarrow.table({"a": [[1, 2], [3]]}), folder / "lists.parquet")
    with pytest.raises(TypeError, match="column 'a' holds ndarray objects, for example"):
        Schema.infer(read_table("lists.parquet"))


def test_parquet_without_pyarrow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"reading t.parquet needs pyarrow: pip install 'pyrovae\[parquet\]'"):
        read_table("t.parquet")
    schema = Schema((Column("x", "real", "double[pyarrow]"),))
    with pytest.raises(ImportError, match=r"the dtype double\[pyarrow\] needs pyarrow: pip install"):
        schema.decode(np.zeros((1, 1)))


def test_the_verb(folder, capsys):
    (folder / "t.csv").write_text("age|rating|name\n" + "".join(f"{i * 0.5}|{i % 5}|n{i % 3}\n" for i in range(20)))
    options = argparse.Namespace(file="t.csv", separator="|", json=False)
    print_schema(options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1::2]] == [
        ["age", "real"],
        ["rating", "ordinal"],
        ["name", "categorical"],
    ]
    assert "0 to 9.5" in lines[1]
    assert lines[4].strip() == "It holds the whole numbers from 0 to 4 without a gap."
    options.json = True
    print_schema(options)
    assert Schema.from_dict(json.loads(capsys.readouterr().out)) == Schema.infer(read_table("t.csv", "|"))


def test_texts_that_are_mostly_numbers(folder):
    (folder / "t.csv").write_text("a\n" + "".join(f"{i}\n" for i in range(29)) + "x7\n")
    assert Schema.infer(read_table("t.csv"))["a"].why == (
        "It holds texts. 97% of the different ones are numbers, but 'x7' is none."
    )


NUMBERS_AS_NAMES = {
    "years": "2019,2020\n1,2\n",
    "one among words": "a,1.5\n1,2\n",
    "shares": "0.25,0.5,0.75\n1,2,3\n",
    "wavenumbers": "4000.5,3999.5,3998.5,3997.5\n1,2,3,4\n",
    "lags": "date,-2,-1,0\n2024-01-01,1,2,3\n2024-01-02,1,2,3\n",
    "samples": "sample,400.5,401.5\nS1,.1,.2\nS2,.1,.3\n",
    "an index": ",a\n0,1\n",
    "a missing cell": "y,-1.0,0.0\n,1,2\n3,1,2\n",
}


@pytest.mark.parametrize("names", NUMBERS_AS_NAMES)
def test_numbers_may_be_names(names, tmp_path):
    path, text = tmp_path / "t.csv", NUMBERS_AS_NAMES[names]
    path.write_text(text)
    assert list(read_table(path).columns) == [name for name in text.splitlines()[0].split(",") if name]
