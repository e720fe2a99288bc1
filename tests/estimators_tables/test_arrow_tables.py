"""Tables of polars and pyarrow: taken with their types, and given back as what they were."""

import numpy as np
import pandas as pd
import pytest
from mixed_frames import imputer, mixed

from pyrovae.data import Schema
from pyrovae.estimators import VAETransformer

polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def tables():
    frame = mixed(80).drop(columns=["none"]).reset_index(drop=True)
    table = polars.from_pandas(frame).with_columns(date=polars.col("day").cast(polars.Date))
    return table.to_pandas(), table, table.to_arrow()


def test_polars_and_pyarrow_are_as_pandas(tables):
    frame, table, arrow = tables
    kinds = Schema.infer(frame.drop(columns="date")).kinds
    fitted = [imputer().fit(given) for given in (table, arrow)]
    for estimator in fitted:
        assert list(estimator.feature_names_in_) == table.columns
        assert {name: estimator.schema_.kinds[name] for name in kinds} == kinds
        assert estimator.schema_["date"].kind == "positive"
    filled = fitted[0].transform(table)
    assert isinstance(filled, polars.DataFrame)
    assert filled.schema == table.schema
    assert filled.null_count().row(0) == (0,) * len(table.columns)
    for name in table.columns:
        known = table[name].is_not_null()
        assert (filled[name].filter(known) == table[name].filter(known)).all()
    other = fitted[1].transform(arrow)
    assert isinstance(other, pyarrow.Table)
    assert other.schema.types == arrow.schema.types
    assert other["real"].to_pylist() == pytest.approx(filled["real"].to_list())
    turned = fitted[0].transform(table.select(table.columns[::-1]))
    assert turned.equals(filled)


def test_draws_intervals_densities_and_chunks(tables):
    table = tables[1]
    estimator = imputer(kinds={"Int": "real"}, ranges={"day": (pd.Timestamp("2019-01-01"), None)})
    estimator.partial_fit(table[:40].drop("date")).partial_fit(table[40:].drop("date"))
    table = table.drop("date")
    draws = estimator.impute_draws(table, 2)
    low, high = estimator.intervals(table)
    assert all(isinstance(part, polars.DataFrame) for part in (*draws, low, high))
    assert (low["real"] <= high["real"]).all()
    scores = estimator.score_samples(table)
    assert np.isfinite(scores).all()
    latents = VAETransformer(2, hidden=(8,), epochs=1, random_state=0).fit_transform(table)
    assert latents.shape == (80, 2)


def test_enums_of_polars_stay_enums(tables):
    texts = ["low", "high", None, "low"] * 20
    table = tables[1].select("real").with_columns(state=polars.Series(texts, dtype=polars.Enum(["low", "high", "off"])))
    estimator = imputer().fit(table)
    filled = estimator.transform(table)
    assert filled.schema == table.schema
    assert filled["state"].null_count() == 0
    known = table["state"].is_not_null()
    assert filled["state"].filter(known).to_list() == table["state"].filter(known).to_list()
    assert estimator.intervals(table)[0].schema == table.schema
    assert (
        estimator.transform(table.with_columns(state=table["state"].cast(polars.String)))["state"].dtype
        == polars.String
    )


@pytest.mark.parametrize(("kind", "expected"), [("pandas", pd.DataFrame), ("polars", polars.DataFrame)])
def test_set_output_decides(tables, kind, expected):
    _, table, arrow = tables
    estimator = imputer(epochs=1).set_output(transform=kind).fit(table)
    for given in (table, arrow):
        assert isinstance(estimator.transform(given), expected)


def test_refused(tables):
    _, table, _ = tables
    estimator = imputer(epochs=1).fit(table)
    with pytest.raises(ValueError, match="'day' is missing"):
        estimator.transform(table.drop("day"))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        imputer().fit(table[:0])
    with pytest.raises(TypeError, match=r"column 'l' holds"):
        imputer().fit(polars.DataFrame({"a": [1, 2], "l": [[1], [2]]}))
