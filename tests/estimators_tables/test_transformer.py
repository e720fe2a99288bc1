"""The transformer on frames of mixed columns with holes: latents, densities, rows of latents, and folders."""

import pickle

import numpy as np
import pandas as pd
import pytest
from mixed_frames import COMPLETE, NUMBERS, mixed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from pyrovae.estimators.transformer import VAETransformer
from pyrovae.storage import CheckpointError

QUICK = {"n_components": 2, "hidden": (16,), "epochs": 3, "batch_size": 32, "num_particles": 3, "random_state": 0}


def transformer(**options):
    """A transformer, not fitted."""
    return VAETransformer(**{**QUICK, **options})


@pytest.fixture(scope="module")
def frame():
    return mixed()


@pytest.fixture(scope="module")
def fitted(frame):
    return transformer().fit(frame)


@pytest.fixture(scope="module")
def latents(frame, fitted):
    return fitted.transform(frame)


def test_latents(frame, fitted, latents):
    before = frame.copy()
    assert latents.shape == (len(frame), 2)
    assert latents.dtype == np.float64
    assert np.isfinite(latents).all()
    assert latents.std(0).min() > 0
    np.testing.assert_array_equal(fitted.fit_transform(frame), latents)
    pd.testing.assert_frame_equal(frame, before)
    assert fitted.n_iter_ == 3
    assert fitted.n_features_in_ == frame.shape[1]


def test_names_and_output(frame, latents):
    model = transformer().set_output(transform="pandas").fit(frame)
    found = model.transform(frame)
    assert model.get_feature_names_out().tolist() == ["vaetransformer0", "vaetransformer1"]
    assert found.columns.tolist() == ["vaetransformer0", "vaetransformer1"]
    assert found.index.equals(frame.index)
    np.testing.assert_array_equal(found, latents)


def test_rows_stand_alone(frame, fitted, latents):
    """One row at a time, rows and columns in another order, a level that was not seen."""
    order, scores = np.random.default_rng(0).permutation(len(frame)), fitted.score_samples(frame, 20)
    reordered = frame.iloc[order, ::-1]
    np.testing.assert_allclose(fitted.transform(reordered), latents[order], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fitted.score_samples(reordered, 20), scores[order], rtol=1e-10)
    for row in range(4):
        np.testing.assert_allclose(fitted.transform(frame.iloc[[row]]), latents[[row]], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(fitted.score_samples(frame.iloc[[row]], 20), scores[[row]], rtol=1e-10)
    new, without = frame.copy(), frame.copy()
    new.iloc[0, frame.columns.get_loc("text")], without.iloc[0, frame.columns.get_loc("text")] = "unknown", None
    np.testing.assert_array_equal(fitted.transform(new), fitted.transform(without))


def test_rows_of_latents(frame, fitted, latents):
    rows = fitted.inverse_transform(latents)
    pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
    assert len(rows) == len(frame)
    assert rows.drop(columns="none").notna().all(axis=None)
    assert (rows["same"] == 7.5).all()
    for name in NUMBERS:
        assert rows[name].between(frame[name].min(), frame[name].max()).all(), name
    pd.testing.assert_frame_equal(fitted.inverse_transform(pd.DataFrame(latents)), rows)


def test_rows_of_latents_are_near(caller_rng):
    """Two columns that are one: the row comes back from one latent."""
    first = np.random.default_rng(0).normal(size=400)
    table = np.stack([first, -3 * first], 1)
    model = transformer(n_components=1, epochs=20, lr=0.02, kl_weight=0.05, num_particles=1).fit(table)
    back = model.inverse_transform(model.transform(table))
    assert isinstance(back, np.ndarray)
    assert (np.square(back - table).mean(0) < np.array([0.1, 0.9])).all()
    half = model.inverse_transform(model.transform(np.where([True, False], np.nan, table)))
    assert (np.square(half - table).mean(0) < np.array([0.2, 1.8])).all()


@pytest.mark.parametrize(
    "options",
    [{"encoder": "set", "prior": "vamp"}, {"prior": "mixture", "parameterization": "natural", "num_particles": 1}],
    ids=str,
)
def test_other_options(frame, options):
    model = transformer(**options).fit(frame)
    assert np.isfinite(model.transform(frame)).all()
    assert np.isfinite(model.score(frame))
    assert model.sample(3, {"text": "a"}).shape == (3, frame.shape[1])


def test_score(frame, fitted):
    scores = fitted.score_samples(frame)
    assert scores.shape == (len(frame),)
    assert fitted.score(frame) == pytest.approx(scores.mean())


def test_repeats(frame, fitted, latents, caller_rng, store):
    np.testing.assert_array_equal(clone(fitted).fit(frame).transform(frame), latents)
    assert not np.array_equal(clone(fitted).set_params(random_state=1).fit_transform(frame), latents)
    pd.testing.assert_frame_equal(fitted.sample(5), fitted.sample(5))


def test_clone_pickle_and_folder(frame, fitted, latents, tmp_path):
    assert clone(fitted).get_params() == fitted.get_params()
    fitted.save(tmp_path / "model")
    loaded = VAETransformer.load(tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(fitted)), loaded):
        np.testing.assert_array_equal(again.transform(frame), latents)
        np.testing.assert_array_equal(again.score_samples(frame), fitted.score_samples(frame))
        pd.testing.assert_frame_equal(again.sample(7), fitted.sample(7))
        pd.testing.assert_frame_equal(again.inverse_transform(latents), fitted.inverse_transform(latents))
        assert again.get_feature_names_out().tolist() == fitted.get_feature_names_out().tolist()
    assert loaded.get_params() == {**fitted.get_params(), "random_state": None}
    with pytest.raises(CheckpointError, match="already holds a run"):
        fitted.save(tmp_path / "model")
    fitted.save(tmp_path / "model", overwrite=True)


def test_folder_of_an_array(frame, tmp_path):
    numbers = frame[["real", "tail"]].to_numpy()
    transformer().fit(numbers).save(tmp_path / "model")
    again = VAETransformer.load(tmp_path / "model")
    assert not hasattr(again, "feature_names_in_")
    assert isinstance(again.sample(3), np.ndarray)
    np.testing.assert_array_equal(again.transform(numbers), transformer().fit(numbers).transform(numbers))


def test_in_a_pipeline(frame):
    target = frame["int"] > 45
    model = make_pipeline(transformer(), LogisticRegression()).fit(frame, target)
    assert model.predict(frame).shape == (len(frame),)


def test_in_a_grid_search(frame):
    """By its own score, the density of held-out rows."""
    some = frame[["real", "tail", "flag", *COMPLETE]]
    search = GridSearchCV(transformer(epochs=2), {"n_components": [1, 2]}, cv=2).fit(some)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("method", "argument", "error", "message"),
    [
        ("inverse_transform", [[1.0, 2.0, 3.0]], ValueError, r"Z must have shape \[N, 2\].*got \(1, 3\)"),
        ("inverse_transform", [[np.nan, 0.0]], ValueError, "Input Z contains NaN"),
        ("transform", pd.DataFrame({"real": [1.0]}), ValueError, "the columns must be those of fit: 'tail' is missing"),
        ("sample", 0, ValueError, "num_samples == 0, must be >= 1"),
        ("sample", 2.5, TypeError, "num_samples must be an instance of int"),
    ],
)
def test_refused(fitted, method, argument, error, message):
    with pytest.raises(error, match=message):
        getattr(fitted, method)(argument)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 0}, "num_particles == 0, must be >= 1"),
        ({"encoder": "conv"}, "encoder must be one of dense, set, got 'conv'"),
        ({"hidden": ()}, "hidden must hold the size of at least one layer"),
    ],
)
def test_options_refused(frame, options, message):
    with pytest.raises(ValueError, match=message):
        transformer(**options).fit(frame)


@pytest.mark.parametrize("method", ["transform", "inverse_transform", "score_samples", "score", "sample", "save"])
def test_before_fit(method, tmp_path):
    with pytest.raises(NotFittedError, match="VAETransformer instance is not fitted yet"):
        getattr(transformer(), method)(tmp_path / "model")
