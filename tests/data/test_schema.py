"""Schemas: every dtype of pandas comes back, other rows fit, and large tables take little time and memory."""

import json
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from schema_table import NOW, mixed

from pyrovae.data.columns import Column
from pyrovae.data.schema import Schema

NOON = pd.to_datetime(["2015-01-04", None, "2018-03-25", "2016-02-29"])
RATED = pd.CategoricalDtype(["low", "mid", "high", "top"], ordered=True)

# Values, dtype, kind that is inferred. The dtypes of pyarrow are in PYARROW.
CASES = {
    "uint8": ([3, 250, 7, 90], "uint8", "count"),
    "int64": ([-3, 250, 7, 90], "int64", "real"),
    "bool": ([True, False, True, True], "bool", "binary"),
    "one bool": ([True, True], "bool", "constant"),
    "float32": ([0.5, None, -7.25, 2.0], "float32", "real"),
    "whole floats": ([5.0, None, 7.0, 900.0], "float64", "count"),
    "ratings": ([1, 2, None, 3, 4], "Int64", "ordinal"),
    "ratings as floats": ([1, 2, None, 3, 4], "float64", "ordinal"),
    "skewed": ([*np.exp(np.linspace(-3, 4, 40)), None], "Float64", "positive"),
    "Int64": ([3, None, 7, 90], "Int64", "count"),
    "UInt8": ([3, None, 7, 90], "UInt8", "count"),
    "large": ([2**60, 5, 2**62], "int64", "real"),
    "boolean": ([True, None, False], "boolean", "binary"),
    "string": (["a", None, "b", "c"], "string", "categorical"),
    "string[python]": (["a", None, "b", "c"], "string[python]", "categorical"),
    "str": (["a", None, "b", "c"], None, "categorical"),
    "object": (["a", None, pd.NA, np.nan, "b", "c"], "object", "categorical"),
    "object of bools": ([True, None, False], "object", "binary"),
    "object of ints": ([5, None, pd.NA, np.nan, 7, 70], "object", "count"),
    "object of numbers": ([5, 2.5, None, -1], "object", "real"),
    "category": (["a", None, "c"], pd.CategoricalDtype(["c", "b", "a"]), "categorical"),
    "ordered": (["low", None, "top"], RATED, "ordinal"),
    "category of int8": ([3, None, 1], pd.CategoricalDtype(pd.Index([3, 2, 1], dtype="int8")), "categorical"),
    "category of floats": ([3.5, None, 1.0], pd.CategoricalDtype([3.5, 2.0, 1.0]), "categorical"),
    "category of bools": ([True, None, False], pd.CategoricalDtype([True, False]), "binary"),
    "category, constant": (["a", None], pd.CategoricalDtype(["c", "b", "a"]), "constant"),
    "category, missing": ([None, None], pd.CategoricalDtype(["c", "b", "a"]), "missing"),
    "category, nothing": ([None, None], pd.CategoricalDtype([]), "missing"),
    "days": (NOON, "datetime64[ns]", "positive"),
    "times": ([NOW, None, NOW + pd.Timedelta("1h 3us")], "datetime64[us]", "positive"),
    "seconds": (NOON, "datetime64[s]", "positive"),
    "time zone": (NOON.tz_localize("Europe/Paris"), "datetime64[ns, Europe/Paris]", "positive"),
    "one date": ([NOW, None, NOW], "datetime64[ns]", "constant"),
    "no date": ([None, None], "datetime64[ns]", "missing"),
    "constant": ([7, 7, 7], "int16", "constant"),
    "constant text": (["a", None, "a"], "string", "constant"),
    "two numbers": ([0.5, None, 2.5], "float64", "binary"),
    "missing": ([None, None], "float64", "missing"),
    "missing objects": ([None, pd.NA], "object", "missing"),
}
PYARROW = {
    "double[pyarrow]": ([0.5, None, -7.25, 2.0], "real"),
    "int64[pyarrow]": ([3, None, 7, 90], "count"),
    "uint8[pyarrow]": ([1, None, 2, 3], "ordinal"),
    "bool[pyarrow]": ([True, None, False], "binary"),
    "string[pyarrow]": (["a", None, "b", "c"], "categorical"),
    "large_string[pyarrow]": (["a", None, "b", "c"], "categorical"),
    "timestamp[us][pyarrow]": ([NOW, None, NOW + pd.Timedelta("1h")], "positive"),
    "timestamp[us, tz=UTC][pyarrow]": ([NOW.tz_localize("UTC"), None, NOW.tz_localize("UTC")], "constant"),
    "date32[day][pyarrow]": ([NOW.date(), None, (NOW + pd.Timedelta("3D")).date(), NOW.date()], "positive"),
}


def make(values, dtype):
    return pd.DataFrame({"x": pd.Series(values, dtype=dtype)}).set_axis([f"row {i}" for i in range(len(values))])


def check_round_trip(frame, kind):
    schema = Schema.infer(frame)
    assert schema.kinds == {"x": kind}
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    values, mask = schema.encode(frame)
    assert values.dtype == np.float64
    assert mask.tolist() == frame.notna().to_numpy().tolist()
    assert np.array_equal(np.isnan(values), ~mask)
    decoded = schema.decode(values, index=frame.index)
    assert decoded.dtypes.tolist() == frame.dtypes.tolist()
    observed = frame["x"].dropna()
    if frame["x"].dtype != "int64":
        assert decoded["x"][observed.index].tolist() == observed.tolist()
    assert decoded["x"].isna().tolist() == frame["x"].isna().tolist()
    if kind == "missing":
        return
    first = values[mask[:, 0]][0]
    filled = schema.fill(frame, np.where(mask, -999.0, first))
    assert filled.dtypes.tolist() == frame.dtypes.tolist()
    assert filled.index.equals(frame.index)
    assert filled["x"].tolist() == [observed.iloc[0] if pd.isna(value) else value for value in frame["x"]]
    assert filled["x"][observed.index].tolist() == observed.tolist()


@pytest.mark.parametrize("case", CASES)
def test_dtypes_come_back(case):
    values, dtype, kind = CASES[case]
    check_round_trip(make(values, dtype), kind)


@pytest.mark.parametrize("name", PYARROW)
def test_dtypes_of_pyarrow_come_back(name):
    pyarrow = pytest.importorskip("pyarrow")
    values, kind = PYARROW[name]
    dtype = pd.ArrowDtype(pyarrow.string()) if name == "string[pyarrow]" else name
    frame = make(values, dtype)
    check_round_trip(frame, kind)
    assert Schema.infer(frame)["x"].dtype == name


def test_tables_of_polars():
    pytest.importorskip("pyarrow")
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {"a": [1, None, 70], "b": ["x", "y", None], "c": [True, None, False], "d": [NOW.date(), None, NOW.date()]}
    )
    schema = Schema.infer(frame)
    assert list(schema.kinds.values()) == ["binary", "binary", "binary", "constant"]
    values, mask = schema.encode(frame)
    assert mask.sum(0).tolist() == [2, 2, 2, 2]
    assert schema.decode(values)["a"].tolist() == [1, pd.NA, 70]


@pytest.mark.parametrize("scale", [1, np.nan])
def test_arrays(scale):
    array = np.array([[0.5, scale], [np.nan, 7.0], [2.5, 8.0], [9.5, 10.0]])
    schema = Schema.infer(array)
    assert schema.names == ("x0", "x1")
    assert schema.feature_names.tolist() == ["x0", "x1"]
    values, mask = schema.encode(array)
    assert np.array_equal(mask, ~np.isnan(array))
    assert np.array_equal(schema.fill(array, np.full((4, 2), 9.0))["x0"], [0.5, 9.0, 2.5, 9.5])
    frame = pd.DataFrame(array)
    assert schema.fill(frame, values).columns.equals(frame.columns)


def test_wishes():
    schema = Schema.infer(
        mixed(),
        kinds={"age": "real", "self": "ordinal"},
        levels={"grade": ["low", "mid", "high", "top"]},
        ranges={"age": (0, 120), "weight": (None, 80.0 + 20)},
    )
    assert schema.kinds == {"age": "real", "grade": "ordinal", "weight": "real", "self": "ordinal"}
    assert (schema["age"].low, schema["age"].high, schema["weight"].low, schema["weight"].high) == (0, 120, 60.5, 100)
    assert schema["grade"].levels == ("low", "mid", "high", "top")
    assert schema.encode(mixed())[0][:, 1].tolist()[::3] == [1, 2]
    decoded = schema.decode(np.array([[200.0, 9.0, 101.0, -4.0], [34.6, 1.2, 70.7, 1.6]]))
    assert decoded.values.tolist() == [[120, "top", 100.0, "a"], [35, "mid", 70.7, "c"]]
    assert schema.subset(["weight", "age"]).names == ("weight", "age")
    report = schema.report().set_index("column")
    assert report.loc["age", "values"] == "0 to 120"
    assert report.loc["grade", ["kind", "missing", "values"]].tolist() == ["ordinal", 0.25, "low, mid, high, top"]
    assert report["why"].str.endswith(".").all()


def test_a_declared_range_makes_numbers():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 0.5, 0.5], "c": pd.to_datetime(["2020-01-05"] * 3)})
    schema = Schema.infer(frame, ranges={"a": (1, 10), "b": (0.0, 1.0), "c": ("2020-01-01", "2020-12-31")})
    assert list(schema.kinds.values()) == ["count", "real", "positive"]
    assert schema.decode(np.array([[99.0, 99.0, 999.0]])).values.tolist()[0] == [10, 1.0, pd.Timestamp("2020-12-31")]
    assert schema["c"].values() == "2020-01-01 to 2020-12-31"


def test_rows_that_differ_but_fit():
    schema = Schema.infer(mixed())
    values, _ = schema.encode(mixed())
    other = mixed()[["self", "weight", "grade", "age"]].assign(more=[[1]] * 4, age=lambda f: f["age"].astype("Float32"))
    assert np.array_equal(schema.encode(other, extra="ignore")[0], values, equal_nan=True)
    assert schema.encode(mixed().assign(grade="top", age=-1), unseen="missing")[1].sum(0).tolist() == [0, 0, 3, 3]
    assert not schema.encode(mixed().assign(grade=np.nan, age=None))[1][:, :2].any()
    few = mixed()[:2]
    few["self"] = pd.Categorical(["b", None])
    assert schema.encode(few)[0][0, 3] == 1
    filled = schema.fill(few, np.full((2, 4), 2.0))
    assert filled["self"].tolist() == ["b", "c"]
    assert filled["self"].dtype == mixed()["self"].dtype
    filled = schema.fill(mixed().assign(grade=np.nan, age=np.nan, more="m"), np.ones((4, 4)))
    assert filled["grade"].tolist() == ["low"] * 4
    assert filled["age"].tolist() == [20.0] * 4
    assert list(filled) == [*mixed(), "more"]
    assert filled.index.equals(mixed().index)


def test_completed_values_are_whole_and_in_range():
    frame = pd.DataFrame({"n": [3.0, np.nan, 70.0, 12.0], "d": NOON, "u": np.array([4, 9, 200, 30], np.uint8)})
    schema = Schema.infer(frame)
    filled = schema.fill(frame, np.full((4, 3), 31.4))
    assert filled["n"].tolist() == [3.0, 31.0, 70.0, 12.0]
    assert filled["d"][1] == pd.Timestamp("2015-01-03") + pd.Timedelta("31D")
    assert schema.fill(frame, np.full((4, 3), np.nan)).equals(frame)
    decoded = schema.decode(np.array([[1e9, 1e9, 1e9], [np.nan, np.nan, np.nan]]))
    assert decoded.loc[0].tolist() == [70.0, pd.Timestamp("2018-03-25"), 200]
    assert decoded["u"].dtype == "UInt8"
    assert decoded.loc[1].isna().all()


def test_types_of_levels_are_kept_apart():
    levels = [(True, False), (1, 0), (1.0, 0.0), ("1", "0")]
    columns = tuple(Column(f"c{i}", "binary", "object", pair) for i, pair in enumerate(levels))
    read = Schema.from_dict(json.loads(json.dumps(Schema(columns).to_dict())))
    assert [[type(level) for level in c.levels] for c in read.columns] == [[type(x) for x in pair] for pair in levels]


def test_many_levels():
    rng = np.random.default_rng(0)
    names = np.array([f"name {i}" for i in range(20_000)])
    frame = pd.DataFrame({"a": rng.permutation(np.repeat(names, 3)), "b": pd.Categorical(np.repeat(names, 3))})
    tracemalloc.start()
    start = time.perf_counter()
    schema = Schema.infer(frame)
    values, mask = schema.encode(frame)
    assert schema.decode(values).equals(frame)
    hidden = frame.mask(rng.random(frame.shape) < 0.5)
    assert schema.fill(hidden, values).equals(frame)
    assert Schema.from_dict(schema.to_dict()) == schema
    assert time.perf_counter() - start < 30
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert len(schema["a"].values()) < 200
    assert mask.all()


def test_many_columns():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 1000)).round(1), columns=[f"c{i}" for i in range(1000)])
    frame = pd.concat([frame.iloc[:, :500], (frame.iloc[:, 500:] > 0).replace({True: "yes", False: "no"})], axis=1)
    start = time.perf_counter()
    schema = Schema.infer(frame)
    values, _ = schema.encode(frame)
    assert schema.decode(values).equals(frame)
    assert schema.fill(frame.mask(rng.random(frame.shape) < 0.5), values).equals(frame)
    assert time.perf_counter() - start < 30
