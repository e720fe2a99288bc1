"""Dtypes of pandas that a table can have come back from the imputer; what cannot be is refused in one line."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from pyrovae.data.table_files import read_table
from pyrovae.estimators import VAEImputer

pa = pytest.importorskip("pyarrow")

ROWS = 60
RNG = np.random.default_rng(0)
NUMBERS, REALS = RNG.integers(0, 100, ROWS), RNG.normal(size=ROWS)
TEXTS, BOOLS = RNG.choice(["u", "v", "w"], ROWS), RNG.random(ROWS) < 0.5
DAYS = pd.Series(pd.to_datetime("2024-01-01") + pd.to_timedelta(NUMBERS, "D"))
HOLES = RNG.random(ROWS) < 0.2
HOLES[0] = True  # also the first entry, from which types are told


def holed(values, dtype=None):
    return pd.Series(values, dtype=dtype).mask(HOLES)


def objects(values, missing):
    return pd.Series([missing if hole else value for hole, value in zip(HOLES, values, strict=True)], dtype=object)


def arrow(kind, values):
    return pd.Series(
        pd.array([None if h else v for h, v in zip(HOLES, values, strict=True)], dtype=pd.ArrowDtype(kind))
    )


def columns():
    found = {f"numpy {name}": pd.Series(NUMBERS, dtype=name) for name in ("uint8", "int8", "int64", "uint64")}
    found |= {name: holed(NUMBERS, name) for name in ("UInt8", "Int8", "Int64", "UInt64")}
    found |= {name: holed(REALS, name) for name in ("float16", "float32", "float64", "Float32", "Float64")}
    found |= {"bool": pd.Series(BOOLS), "boolean": holed(BOOLS, "boolean")}
    found |= {name: holed(TEXTS, name) for name in ("str", "string", "string[python]", "string[pyarrow]")}
    for name, missing in (("None", None), ("pd.NA", pd.NA), ("NaN", np.nan)):
        found[f"texts and {name}"] = objects(TEXTS.tolist(), missing)
        found[f"bools and {name}"] = objects(BOOLS.tolist(), missing)
        found[f"numbers and {name}"] = objects(REALS.tolist(), missing)
    categories = ["w", "u", "v", "never"]
    found["category"] = holed(pd.Categorical(TEXTS, categories=categories))
    found["ordered category"] = holed(pd.Categorical(TEXTS, categories=categories, ordered=True))
    found["category of numbers"] = holed(pd.Categorical(NUMBERS % 3))
    found["category of bools"] = holed(pd.Categorical(BOOLS))
    found["category of Arrow texts"] = holed(pd.Series(TEXTS, dtype="string[pyarrow]").astype("category"))
    for unit in ("s", "ms", "us", "ns"):
        found[f"datetime64[{unit}]"] = holed(DAYS.to_numpy().astype(f"datetime64[{unit}]"))
    found["dates of a time zone"] = holed(DAYS.dt.tz_localize("Europe/Berlin"))
    found["dates in UTC"] = holed(DAYS.dt.tz_localize("UTC").dt.as_unit("ms"))
    kinds = (pa.int64(), pa.uint8(), pa.float32(), pa.float64())
    found |= {f"arrow {kind}": arrow(kind, NUMBERS) for kind in kinds}
    found["arrow decimal"] = arrow(pa.decimal128(12, 3), [decimal.Decimal(str(round(x, 2))) for x in REALS])
    found |= {f"arrow {kind}": arrow(kind, TEXTS) for kind in (pa.string(), pa.large_string())}
    found["arrow bool"] = arrow(pa.bool_(), BOOLS)
    codes = pa.array([None if hole else text for hole, text in zip(HOLES, TEXTS, strict=True)]).dictionary_encode()
    found["arrow dictionary"] = pd.Series(pd.arrays.ArrowExtensionArray(codes))
    found["arrow timestamp"] = holed(DAYS.astype(pd.ArrowDtype(pa.timestamp("us"))))
    found["arrow timestamp of a zone"] = holed(
        DAYS.dt.tz_localize("Europe/Berlin").astype(pd.ArrowDtype(pa.timestamp("us", tz="Europe/Berlin")))
    )
    found["arrow date"] = holed(pd.Series(DAYS.dt.date).astype(pd.ArrowDtype(pa.date32())))
    return found


COLUMNS = columns()


def imputer():
    return VAEImputer(n_components=2, hidden=(8,), epochs=2, num_nets=1, trees=False, random_state=0)


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame(COLUMNS)


@pytest.fixture(scope="module")
def fitted(frame):
    return imputer().fit(frame)


@pytest.fixture(scope="module")
def of_complete_rows(frame):
    """Fitted on rows of which none has a hole."""
    return imputer().fit(frame[~HOLES].reset_index(drop=True))


@pytest.fixture(scope="module")
def results(frame, fitted, of_complete_rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    fitted.save(folder / "imputer")
    return {
        "completed": fitted.transform(frame),
        "drawn": fitted.impute_draws(frame, 2)[1],
        "missing later": of_complete_rows.transform(frame),
        "loaded": VAEImputer.load(folder / "imputer").transform(frame),
    }


@pytest.fixture(scope="module")
def of_fit(frame, fitted):
    """Ends of intervals, and new rows."""
    return *fitted.intervals(frame, num_draws=20), fitted.sample(3)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_dtype_comes_back(name, frame, results, of_fit):
    column, seen = frame[name], frame[name].notna()
    for what, result in results.items():
        assert result[name].dtype == column.dtype, what
        assert not result[name].isna().any(), what
        pd.testing.assert_series_equal(result[name][seen], column[seen])
    low, high, new = of_fit
    assert new[name].dtype == low[name].dtype == high[name].dtype == column.dtype
    pd.testing.assert_series_equal(results["loaded"][name], results["completed"][name])


def test_a_parquet_file_holds_what_the_frame_does(frame, fitted, tmp_path):
    frame.to_parquet(tmp_path / "frame.parquet")
    read = read_table(tmp_path / "frame.parquet")
    completed = fitted.transform(read)
    assert not completed.isna().to_numpy().any()
    expected = fitted.transform(frame)
    for name in ("Int64", "float64", "arrow decimal", "arrow int64"):
        np.testing.assert_allclose(completed[name].to_numpy(float), expected[name].to_numpy(float), rtol=1e-6)


REFUSED = {
    "list": [[1, 2]] * ROWS,
    "dict": [{}] * ROWS,
    "bytes": [b"x", b"y"] * (ROWS // 2),
    "date": [datetime.date(2024, 1, 1)] * ROWS,
    "complex128": np.arange(ROWS) * 1j,
    "timedelta64": pd.to_timedelta(range(ROWS), unit="D"),
    "period": pd.period_range("2020", periods=ROWS, freq="M"),
    "interval": pd.arrays.IntervalArray.from_breaks(range(ROWS + 1)),
    "Sparse": pd.arrays.SparseArray([0.0] * (ROWS - 1) + [1.0]),
    "list<item: int64>": pd.array([[1]] * ROWS, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
    "struct<a: int64>": pd.array([{"a": 1}] * ROWS, dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))),
    "time32": pd.array([1] * ROWS, dtype=pd.ArrowDtype(pa.time32("s"))),
    "duration": pd.array([1] * ROWS, dtype=pd.ArrowDtype(pa.duration("s"))),
    "mixes numbers and texts": [1, "x"] * (ROWS // 2),
    "mixes bools and numbers": pd.Series([True, 2.5] * (ROWS // 2), dtype=object),
    "has the value inf": [np.inf, 1.0, 2.0] * (ROWS // 3),
    "which are too large for a model": [1e308, -1e308, 0.5] * (ROWS // 3),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_no_table_can_have_is_refused(why):
    with pytest.raises((TypeError, ValueError), match="column 'odd'") as refused:
        imputer().fit(pd.DataFrame({"real": REALS, "odd": REFUSED[why]}))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
