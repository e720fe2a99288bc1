"""The imputer on frames of mixed columns with holes: what comes back, for which rows, and how often the same."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mixed_frames import NUMBERS, assert_same, imputer, mixed
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from pyrovae.estimators.prediction import Sampling
from pyrovae.storage import CheckpointError

PRINT_DIGEST = """
import hashlib, pandas as pd
from mixed_frames import imputer, mixed
frame = mixed()
model = imputer(trees=True).fit(frame)
tables = [model.transform(frame), *model.impute_draws(frame, 2), *model.intervals(frame)]
print(hashlib.sha256(pd.concat(tables).to_csv(float_format="%.12g").encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def frame():
    return mixed()


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "trees"])
def fitted(request, frame):
    return imputer(trees=request.param).fit(frame)


@pytest.fixture(scope="module")
def alone(frame):
    """A fitted one without trees, which has densities."""
    return imputer().fit(frame)


@pytest.fixture(scope="module")
def completed(frame, fitted):
    return fitted.transform(frame)


def check_completed(frame, completed):
    """Observed entries are the same objects or bits, and nothing but the column without a value lacks one."""
    assert completed.index.equals(frame.index)
    assert completed.columns.equals(frame.columns)
    pd.testing.assert_series_equal(completed.dtypes, frame.dtypes)
    for name in frame:
        seen = frame[name].notna()
        assert completed[name][seen].equals(frame[name][seen]), name
    assert completed.drop(columns="none").notna().all(axis=None)
    assert completed["none"].isna().all()


def test_completes(frame, fitted, completed):
    before = frame.copy()
    check_completed(frame, completed)
    pd.testing.assert_frame_equal(frame, before)
    assert (completed["same"] == 7.5).all()
    for name in NUMBERS:
        assert completed[name].between(frame[name].min(), frame[name].max()).all(), name
    assert fitted.schema_.kinds["none"] == "missing"
    assert fitted.n_iter_ == 3
    assert fitted.n_features_in_ == frame.shape[1]


@pytest.mark.parametrize("parameterization", ["natural", "canonical"])
@pytest.mark.parametrize("encoder", ["dense", "set"])
def test_every_likelihood(frame, parameterization, encoder):
    likelihoods = {
        "real": "student-t",
        "tail": "gamma",
        "int": "poisson",
        "Int": "normal",
        "grade": "ordered",
        "flag": "categorical",
        "day": "log-normal",
    }
    counts = frame.assign(count=frame["Int"].abs())
    model = imputer(likelihoods={**likelihoods, "count": "negative-binomial"}, kinds={"count": "count"})
    model.set_params(parameterization=parameterization, encoder=encoder, weights="importance")
    check_completed(counts, model.fit_transform(counts))
    for drawn in model.impute_draws(counts, 2):
        check_completed(counts, drawn)
    assert np.isfinite(model.score_samples(counts)).all()


def test_new_rows(frame, fitted):
    """Rows with a hole where `fit` saw none, an unknown level, a row without anything; the model stays as it was."""
    weights = {name: value.clone() for name, value in fitted.model_.vae.state_dict().items()}
    new = mixed(20, seed=1)
    new.loc["row 3", "int"] = None  # the dtype is float64 from here
    new.loc["row 4", "text"] = "unknown"
    new.loc["row 5"] = pd.DataFrame({name: pd.Series([None], dtype=new[name].dtype) for name in new}).iloc[0]
    completed = fitted.transform(new)
    check_completed(new, completed)
    assert completed.loc["row 4", "text"] == "unknown"
    assert completed.loc["row 3", "int"] == round(completed.loc["row 3", "int"])
    assert frame["int"].min() <= completed.loc["row 3", "int"] <= frame["int"].max()
    without = new.copy()
    without.loc["row 4", "text"] = None
    others = [name for name in new if name != "text"]
    assert_same(completed.loc[:, others], fitted.transform(without).loc[:, others])
    after = fitted.model_.vae.state_dict()
    assert all(bool((after[name] == value).all()) for name, value in weights.items())


def test_scores_of_new_rows(alone):
    """An unknown level counts as missing; a row without anything has the density of nothing, 1."""
    new = mixed(20, seed=1)
    without = new.copy()
    new.loc["row 4", "text"], without.loc["row 4", "text"] = "unknown", None
    np.testing.assert_allclose(alone.score_samples(new), alone.score_samples(without))
    nothing = new.iloc[:1].assign(
        **{name: pd.Series([None], new.index[:1], new[name].dtype) for name in new if name != "int"}
    )
    nothing["int"] = np.nan
    assert abs(alone.score_samples(nothing)[0]) < 0.5


def test_columns_in_another_order(frame, fitted, completed):
    assert_same(fitted.transform(frame[frame.columns[::-1]]), completed)
    reordered = fitted.impute_draws(frame[frame.columns[::-1]], 2)
    for drawn, again in zip(reordered, fitted.impute_draws(frame, 2), strict=True):
        assert_same(drawn, again)


def test_rows_stand_alone(frame, fitted, completed):
    """One row at a time, and rows in another order: the same values and intervals."""
    order = np.random.default_rng(0).permutation(len(frame))
    low = fitted.intervals(frame)[0]
    assert_same(fitted.transform(frame.iloc[order]), completed.iloc[order])
    assert_same(fitted.intervals(frame.iloc[order])[0], low.iloc[order])
    for row in range(5):
        one = frame.iloc[[row]]
        assert_same(fitted.transform(one), completed.iloc[[row]])
        assert_same(fitted.intervals(one)[0], low.iloc[[row]])


def test_scores_of_rows_stand_alone(frame, alone):
    scores, order = alone.score_samples(frame), np.random.default_rng(0).permutation(len(frame))
    np.testing.assert_allclose(alone.score_samples(frame.iloc[order]), scores[order], rtol=1e-10)
    for row in range(5):
        np.testing.assert_allclose(alone.score_samples(frame.iloc[[row]]), scores[[row]], rtol=1e-10)


def test_random_state(frame, fitted, completed, caller_rng, store):
    """The same seed gives the same tables; nothing of the caller's is used or left changed."""
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    pd.testing.assert_frame_equal(clone(fitted).fit_transform(frame), completed)
    other = clone(fitted).set_params(random_state=1).fit_transform(frame)
    assert not np.array_equal(other["real"], completed["real"])
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_repeats_in_two_processes():
    run = [sys.executable, "-c", PRINT_DIGEST]
    started = [
        subprocess.run(run, cwd=Path(__file__).parent, capture_output=True, text=True, check=True) for _ in range(2)
    ]
    first, second = (one.stdout for one in started)
    assert len(first.strip()) == 64
    assert first == second


def test_clone_and_pickle(frame, fitted, completed):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    again = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(again.transform(frame), completed)
    for table, same in zip(fitted.impute_draws(frame, 2), again.impute_draws(frame, 2), strict=True):
        pd.testing.assert_frame_equal(table, same)


def test_scores_after_pickle_and_load(frame, alone, tmp_path):
    alone.save(tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(alone)), type(alone).load(tmp_path / "model")):
        np.testing.assert_array_equal(again.score_samples(frame), alone.score_samples(frame))


def test_names_and_output(frame):
    model = imputer().set_output(transform="pandas").fit(frame)
    assert model.get_feature_names_out().tolist() == frame.columns.tolist()
    pd.testing.assert_frame_equal(model.transform(frame), imputer().fit_transform(frame))
    numbers = frame[["real", "tail"]].to_numpy()
    as_frame = imputer().set_output(transform="pandas").fit_transform(numbers)
    assert as_frame.columns.tolist() == ["x0", "x1"]
    as_array = imputer().fit_transform(numbers)
    assert isinstance(as_array, np.ndarray)
    np.testing.assert_array_equal(as_array, as_frame)


@pytest.mark.parametrize("names", [[0, 1], [5, 6], [("a", "b"), ("a", "c")]], ids=str)
def test_names_that_are_no_texts(frame, names):
    """Such frames count as having no names, as everywhere in scikit-learn."""
    numbers = frame[["real", "tail"]].to_numpy()
    named = pd.DataFrame(numbers, columns=pd.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else names)
    completed = imputer().fit(numbers).transform(named)
    assert completed.columns.equals(named.columns)
    np.testing.assert_array_equal(completed, imputer().fit_transform(numbers))
    np.testing.assert_array_equal(completed, imputer().fit_transform(named))


def test_frames_and_arrays_by_place(frame):
    """An array after a frame, and a frame after an array: columns by their places, and scikit-learn's warning."""
    named = frame[["real", "tail"]]
    expected = imputer().fit_transform(named).to_numpy()
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(imputer().fit(named).transform(named.to_numpy()), expected)
    with pytest.warns(UserWarning, match="X has feature names"):
        completed = imputer().fit(named.to_numpy()).transform(named)
    assert completed.columns.tolist() == ["real", "tail"]
    np.testing.assert_array_equal(completed, expected)


def test_arrays_of_objects():
    array = np.array([["a", 1], ["b", None], [None, 3.5], ["a", 2.5]] * 5, dtype=object)
    completed = imputer().fit_transform(array)
    assert completed.dtype == object
    seen = pd.DataFrame(array).notna().to_numpy()
    assert completed[seen].tolist() == array[seen].tolist()
    assert set(completed[:, 0]) == {"a", "b"}
    assert pd.DataFrame(completed).notna().all(axis=None)


@pytest.mark.parametrize("weights", ["none", "importance"])
def test_entries_far_off(frame, weights):
    """Where the density of an entry underflows, the others are completed all the same."""
    some = frame[["real", "tail", "flag"]]
    far = pd.DataFrame({"real": [1e200, None], "tail": [None, 1e300], "flag": pd.array([None, None], dtype="boolean")})
    check = imputer(weights=weights).fit(some).transform(far)
    assert check.notna().all(axis=None)
    assert check.loc[0, "real"] == 1e200


def test_index_with_repeated_labels(frame):
    twice = frame.set_axis([0] * len(frame))
    completed = imputer().fit_transform(twice)
    assert completed.index.tolist() == twice.index.tolist()
    assert_same(completed.reset_index(drop=True), imputer().fit_transform(frame).reset_index(drop=True))


def test_in_a_pipeline(frame):
    target = frame["int"] > 45
    levels = frame[["text", "object", "real", "sort"]]
    model = make_pipeline(imputer(), OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    assert model.fit(levels, target).predict(levels).shape == (len(frame),)


def test_in_a_column_transformer(frame):
    parts = [("numbers", imputer(), ["real", "tail"]), ("levels", imputer(), ["text", "grade"])]
    joined = ColumnTransformer(parts, verbose_feature_names_out=False).set_output(transform="pandas")
    completed = joined.fit_transform(frame)
    assert completed.columns.tolist() == ["real", "tail", "text", "grade"]
    pd.testing.assert_frame_equal(completed[["real", "tail"]], imputer().fit_transform(frame[["real", "tail"]]))
    assert completed["grade"].dtype == frame["grade"].dtype
    by_place = ColumnTransformer([("numbers", imputer(), [2, 0])])
    assert by_place.fit_transform(frame[["real", "Int", "tail"]].set_axis(range(3), axis=1)).shape == (len(frame), 2)


def test_in_a_grid_search(frame):
    """By the density of held-out rows, without a scorer that refits."""
    search = GridSearchCV(
        imputer(), {"kl_weight": [0.1, 1.0]}, scoring=lambda model, X, y=None: model.score_samples(X).mean(), cv=2
    ).fit(frame[["real", "tail", "flag"]])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.kl_weight == search.best_params_["kl_weight"]


@pytest.mark.parametrize("alike", [False, True])
def test_draws_of_rows_are_independent(alike):
    """What rows share would widen sums over rows: the mean of 400 entries has a 20th of their standard deviation."""
    numbers = np.random.default_rng(0).normal(size=(400, 2))
    if alike:
        numbers[:, 1] = numbers[:, 1] > 0
    model = imputer().fit(numbers)
    holes = np.where([True, False], np.nan, numbers)
    drawn = np.stack(model.impute_draws(holes, 40))[:, :, 0]
    assert drawn.mean(1).std() < 2 * drawn.std() / 20


def test_draws(frame, fitted):
    drawn = fitted.impute_draws(frame, 7)
    assert len(drawn) == 7
    for table in drawn:
        check_completed(frame, table)
    for table, again in zip(drawn, fitted.impute_draws(frame, 7), strict=True):
        pd.testing.assert_frame_equal(table, again)
    hole = frame["real"].isna()
    assert len({tuple(table["real"][hole]) for table in drawn}) == 7
    others = fitted.impute_draws(frame, 7, random_state=np.random.RandomState(5))
    assert not np.array_equal(others[0]["real"], drawn[0]["real"])


def test_intervals(frame, fitted):
    low, high = fitted.intervals(frame, 0.9)
    inner_low, inner_high = fitted.intervals(frame, 0.5)
    for name in NUMBERS:
        seen = frame[name].notna()
        assert low[name][seen].equals(frame[name][seen])
        assert high[name][seen].equals(frame[name][seen])
        assert (low[name] <= inner_low[name]).all()
        assert (inner_low[name] <= inner_high[name]).all()
        assert (inner_high[name] <= high[name]).all()
        if not seen.all():
            assert (low[name] < high[name])[~seen].any()
        assert low[name].dtype == frame[name].dtype
    assert (low["grade"] <= high["grade"]).all()
    for name in ("flag", "text", "sort", "object"):
        assert low[name].isna().equals(frame[name].isna()), "levels without an order have no interval"
    assert (low["same"] == 7.5).all()


def test_intervals_are_as_wide_as_their_coverage(frame, fitted):
    """Between the k-th draws from below and above lies a further draw with probability 1 - 2 k / (M + 1)."""
    widths = []
    for coverage in (0.5, 0.9, 0.99, 0.999):
        low, high = fitted.intervals(frame, coverage)
        widths.append(float((high["real"] - low["real"]).mean()))
    assert widths == sorted(widths)  # those of numbers end where their range does
    assert widths[0] < widths[1] < widths[2]
    with pytest.raises(ValueError, match=r"coverage 0\.999 needs num_draws of at least 1999, got 1998"):
        fitted.intervals(frame, 0.999, num_draws=1998)
    x, mask, missing = fitted._encoded(frame)[1:]
    sampling = Sampling(fitted.num_samples, fitted.weights, fitted._seed)
    for coverage, count in ((0.9, 199), (0.9, 200), (0.5, 3), (0.01, 3)):
        (ends,) = fitted.model_.intervals(x, mask, [coverage], count, sampling, missing)
        drawn = np.sort(fitted.model_.draws(x, mask, count, sampling, by_row=False, missing=missing), 0)
        place = int((1 - coverage) / 2 * (count + 1) + 1e-9)
        np.testing.assert_array_equal(ends, drawn[[place - 1, count - place]])
        assert 1 - 2 * place / (count + 1) >= coverage - 1e-9 > 1 - 2 * (place + 1) / (count + 1) - 1e-9


@pytest.mark.parametrize("likelihood", ["normal", "student-t"])
def test_scores_are_in_the_units_of_the_table(frame, likelihood):
    """A column ten times as large has a density a tenth as high where it is observed."""
    some = frame[["real", "tail", "flag"]]
    options = {"kinds": {"real": "real", "tail": "real"}, "likelihoods": {"real": likelihood}}
    scores = imputer(**options).fit(some).score_samples(some)
    scaled = some.assign(real=10 * some["real"])
    shift = -np.log(10) * some["real"].notna()
    np.testing.assert_allclose(imputer(**options).fit(scaled).score_samples(scaled), scores + shift, atol=1e-4)
    assert np.isfinite(scores).all()


def test_save_and_load(frame, fitted, completed, tmp_path):
    fitted.save(tmp_path / "model")
    again = type(fitted).load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.transform(frame), completed)
    for drawn, other in zip(fitted.impute_draws(frame, 2), again.impute_draws(frame, 2), strict=True):
        pd.testing.assert_frame_equal(drawn, other)
    for end, other in zip(fitted.intervals(frame), again.intervals(frame), strict=True):
        pd.testing.assert_frame_equal(end, other)
    assert again.get_feature_names_out().tolist() == frame.columns.tolist()
    assert again.get_params() == {**fitted.get_params(), "random_state": None}
    with pytest.raises(CheckpointError, match="already holds a run"):
        fitted.save(tmp_path / "model")
    fitted.save(tmp_path / "model", overwrite=True)


def test_save_and_load_what_is_no_json(frame, tmp_path):
    """Dates, numbers of NumPy and arrays as options."""
    options = {
        "ranges": {"day": (pd.Timestamp("2019-01-01"), None), "real": (np.float64(-9), np.int64(9))},
        "levels": {"text": np.array(["c", "b", "a"])},
        "hidden": np.array([8, 8]),
        "n_components": np.int64(3),
        "kl_weight": np.float64(0.2),
    }
    some = frame[["real", "day", "text"]]
    model = imputer(**options).fit(some)
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.transform(some), model.transform(some))
    pd.testing.assert_frame_equal(clone(again).set_params(random_state=0).fit_transform(some), model.transform(some))


def test_save_and_load_array(frame, tmp_path):
    numbers = frame[["real", "tail"]].to_numpy()
    model = imputer().fit(numbers)
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model")
    np.testing.assert_array_equal(again.transform(numbers), model.transform(numbers))
    assert not hasattr(again, "feature_names_in_")
