"""Columns whose values say less, or more, than training saw: without any, earlier dates, fractions of later chunks."""

import numpy as np
import pandas as pd
import pytest

from pyrovae.estimators import VAEImputer

SMALL = {"n_components": 1, "hidden": (8,), "epochs": 2, "random_state": 0, "trees": False, "num_nets": 1}


@pytest.fixture(scope="module")
def frame():
    z = np.random.default_rng(0).normal(size=120)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.round(100 * z), unit="D")
    return pd.DataFrame({"number": z + 5, "whole": np.round(10 * z).astype("int64"), "day": day})


@pytest.mark.parametrize(
    "declared",
    [
        {"kinds": {"number": "real"}},
        {"kinds": {"number": "positive"}, "likelihoods": {"number": "gamma"}},
        {"kinds": {"number": "count"}, "ranges": {"number": (3, 9)}},
        {"kinds": {"number": "real"}, "marginals": "quantile"},
        {"levels": {"number": ["low", "high"]}},
    ],
)
def test_nothing_is_made_up_for_a_column_without_a_value(frame, declared):
    empty = frame.assign(number=pd.Series([None] * len(frame), dtype=object if "levels" in declared else float))
    imputer = VAEImputer(**SMALL, **declared).fit(empty)
    assert imputer.schema_["number"].kind == "missing"
    assert imputer.transform(empty)["number"].isna().all()
    assert not imputer.transform(empty)["whole"].isna().any()


@pytest.mark.parametrize("options", [{}, {"scale_where": "inside"}, {"marginals": "quantile"}])
def test_a_date_before_those_of_the_training_counts(frame, options):
    imputer = VAEImputer(**SMALL, **options).fit(frame)
    rows = pd.DataFrame({"number": np.nan, "whole": np.nan, "day": pd.to_datetime(["2018-01-01", None])})
    assert np.isfinite(imputer.score_samples(rows)).all()
    early, nothing = imputer.transform(rows)["number"]
    assert early != nothing


def test_the_density_of_dates_is_that_of_days(frame):
    imputer = VAEImputer(**{**SMALL, "kl_weight": 1.0, "epochs": 20}).fit(frame)
    days = pd.date_range("2018-01-01", "2022-01-01")
    rows = pd.DataFrame({"number": np.nan, "whole": np.nan, "day": days})
    assert np.exp(imputer.score_samples(rows, 300)).sum() == pytest.approx(1, abs=0.02)


def test_positive_likelihoods_have_no_earlier_date(frame):
    imputer = VAEImputer(**SMALL, likelihoods={"day": "log-normal"}).fit(frame)
    rows = frame[:2].assign(day=pd.to_datetime(["2018-01-01", "2020-01-01"]))
    scores = imputer.score_samples(rows)
    assert scores[0] == -np.inf
    assert np.isfinite(scores[1])
    with pytest.raises(ValueError, match="'day' holds a date a day or more before the earliest one"):
        imputer.model_.codec.scaled(rows)
    with pytest.raises(ValueError, match="column 'day' has the value Timestamp"):
        VAEImputer(**SMALL, likelihoods={"day": "log-normal"}).partial_fit(frame).partial_fit(rows)


def test_fractions_of_a_later_chunk_are_drawn_too(frame):
    for dtype, later in (("int64", "float64"), ("UInt8", "Float64"), ("Int64", "Float64")):
        first = frame.assign(whole=frame["whole"].abs().astype(dtype))
        imputer = VAEImputer(**SMALL, kinds={"whole": "real"}).partial_fit(first)
        assert imputer.sample(3)["whole"].dtype == dtype
        imputer.partial_fit(first.assign(whole=first["whole"].astype(later) + 0.25))
        drawn = imputer.sample(20)["whole"]
        assert drawn.dtype == later
        assert (drawn % 1 != 0).any()


def test_a_first_chunk_without_a_scaling_is_refused(frame):
    with pytest.raises(ValueError, match="column 'number' has no value in the first chunk, which tells its scaling"):
        VAEImputer(**SMALL, kinds={"number": "real"}).partial_fit(frame.assign(number=np.nan))


def test_options_cannot_change_between_chunks(frame):
    imputer = VAEImputer(**SMALL).partial_fit(frame)
    before = imputer.score_samples(frame)
    with pytest.raises(ValueError, match="lr, n_components cannot change after the first chunk"):
        imputer.set_params(n_components=3, lr=0.1).partial_fit(frame)
    assert (imputer.score_samples(frame) == before).all()
    imputer.set_params(n_components=1, lr=SMALL.get("lr", 0.002), num_samples=9).partial_fit(frame)
