"""Chunks of rows: schema and scaling of the first one, an optimizer that goes on, and what is refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from mixed_frames import assert_same, imputer, mixed
from sklearn.base import clone
from sklearn.utils import estimator_checks

from pyrovae.estimators import VAEImputer, VAETransformer, chunk_training

CHECKS = ("check_estimators_partial_fit_n_features", "check_n_features_in_after_fitting", "check_fit_score_takes_y")


def parts(frame, size=50):
    return [frame.iloc[start : start + size] for start in range(0, len(frame), size)]


def after(chunks, **options):
    estimator = imputer(**options)
    for chunk in chunks:
        estimator.partial_fit(chunk)
    return estimator


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", [VAEImputer, VAETransformer])
def test_checks_of_scikit_learn(kind, name):
    getattr(estimator_checks, name)(kind.__name__, kind(2, hidden=(8,), epochs=1, random_state=0))


def test_every_call_leaves_an_estimator_that_works():
    frame = mixed(150)
    estimator = imputer(epochs=2)
    for number, chunk in enumerate(parts(frame), 1):
        assert estimator.partial_fit(chunk) is estimator
        assert estimator.n_iter_ == 2 * number
        assert [row["epoch"] for row in estimator.history_.rows] == list(range(1, 2 * number + 1))
        filled = estimator.transform(frame)
        assert not filled.drop(columns="none").isna().to_numpy().any()
        assert list(filled.dtypes) == list(frame.dtypes)
    assert np.isfinite(estimator.score_samples(frame)).all()
    assert len(estimator.sample(3)) == 3


def test_calls_repeat_and_go_on_after_pickling(tmp_path):
    chunks = parts(mixed(150))
    whole, broken = after(chunks), after(chunks[:2])
    resumed = pickle.loads(pickle.dumps(broken)).partial_fit(chunks[2])
    frame = mixed(40, seed=1)
    assert_same(whole.transform(frame), resumed.transform(frame))
    assert_same(whole.transform(frame), after(chunks).transform(frame))
    whole.save(tmp_path / "saved")
    assert_same(whole.transform(frame), VAEImputer.load(tmp_path / "saved").transform(frame))
    other = after(chunks, random_state=1)
    assert not np.allclose(whole.transform(frame)["real"], other.transform(frame)["real"])


def test_the_optimizer_and_the_weights_are_those_of_the_call_before():
    chunks = parts(mixed(100))
    estimator = after(chunks[:1], epochs=1)
    training = estimator._chunks
    optimizer, parameter = training.optimizer, next(training.vae.parameters())
    steps = optimizer.state[parameter]["step"].item()
    before, moments = parameter.detach().clone(), optimizer.state[parameter]["exp_avg"].clone()
    estimator.partial_fit(chunks[1])
    assert training.optimizer is optimizer
    assert next(training.vae.parameters()) is parameter
    assert optimizer.state[parameter]["step"].item() == 2 * steps
    assert not torch.equal(parameter, before)
    assert not torch.equal(optimizer.state[parameter]["exp_avg"], moments)


def test_many_chunks_teach_what_one_frame_teaches():
    rng = np.random.default_rng(0)
    first = rng.normal(size=4000)
    frame = pd.DataFrame({"a": first, "b": 3 * first + 0.1 * rng.normal(size=4000), "c": np.where(first > 0, "+", "-")})
    estimator = imputer(epochs=3, hidden=(32,), lr=5e-3)
    for chunk in parts(frame[:3200], 800):
        estimator.partial_fit(chunk)
    held = frame[3200:].assign(b=np.nan, c=None)
    filled = estimator.transform(held)
    assert np.sqrt(np.mean((filled["b"] - frame["b"][3200:]) ** 2)) < 0.35 * frame["b"].std()
    assert (filled["c"] == frame["c"][3200:]).mean() > 0.95


def test_fit_begins_anew_and_partial_fit_after_fit_says_that_it_does():
    frame = mixed(80)
    fitted = imputer(kinds={"Int": "real"}).fit(frame)
    again = after(parts(frame), kinds={"Int": "real"}).fit(frame)
    assert_same(fitted.transform(frame), again.transform(frame))
    with pytest.warns(UserWarning, match="partial_fit begins anew: what fit or load left is dropped"):
        again.partial_fit(frame)
    assert_same(again.transform(frame), clone(again).partial_fit(frame).transform(frame))


def test_ranges_grow_unless_they_are_declared():
    frame = pd.DataFrame({"a": np.arange(40.0) + 0.5, "n": np.arange(40) % 30 + 100, "c": list("xy") * 20})
    later = frame.assign(a=frame["a"] + 30, n=frame["n"] - 50)
    estimator = after([frame, later])
    assert (estimator.schema_["a"].low, estimator.schema_["a"].high) == (0.5, 69.5)
    assert (estimator.schema_["n"].low, estimator.schema_["n"].high) == (50, 129)
    assert estimator.model_.codec.schema == estimator.schema_
    declared = after([frame], ranges={"a": (0, 50), "n": (None, 200)})
    with pytest.raises(ValueError, match=r"column 'a' has 50.5 in row 20, outside of its declared range"):
        declared.partial_fit(later)
    declared.partial_fit(later.assign(a=frame["a"]))
    assert (declared.schema_["n"].low, declared.schema_["n"].high) == (50, 200)


def test_earlier_dates_move_the_day_from_which_days_count():
    days = pd.Timestamp("2020-03-01 12:00") + pd.to_timedelta(np.arange(60), "D")
    frame = pd.DataFrame({"day": days, "x": np.arange(60.0) + 0.5})
    estimator = imputer(epochs=1).partial_fit(frame)
    before = estimator.model_.codec
    earlier = frame.assign(day=frame["day"] - pd.Timedelta(40, "D"))
    estimator.partial_fit(earlier)
    after_it = estimator.model_.codec
    assert (after_it.schema["day"].low, after_it.schema["day"].high) == (1.0, 100.0)
    assert after_it.schema["day"].origin == "2020-01-20T12:00:00.000000"
    np.testing.assert_allclose(before.scaled(frame)[0], after_it.scaled(frame)[0], atol=1e-9)
    filled = estimator.transform(earlier.assign(day=earlier["day"].where(earlier.index > 0)))
    assert (filled["day"].dt.hour == 12).all()
    declared = imputer(epochs=1, ranges={"day": (pd.Timestamp("2020-03-01"), None)}).partial_fit(frame)
    with pytest.raises(
        ValueError, match=r"column 'day' has 2020-01-21 12:00:00 in row 0, outside of its declared range"
    ):
        declared.partial_fit(earlier)


def test_chunks_that_are_refused_change_nothing():
    frame = pd.DataFrame(
        {
            "text": ["x", "y", "z"] * 20,
            "count": np.arange(60) * 3,
            "same": 7,
            "none": np.nan,
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(60), "D"),
        }
    )
    estimator = imputer().partial_fit(frame)
    before = estimator.transform(frame[:3].assign(text=None))
    for change, words in {
        (
            "text",
            "w",
        ): r"column 'text' has the value 'w' in row 0, and was categorical \(x, y, z\) in the first chunk; declare",
        ("count", -1): r"column 'count' has the value -1 in row 0, and was count \(0 to 177\) in the first chunk",
        ("same", 8): r"column 'same' has the value 8 in row 0, and had the value 7 alone in the first chunk",
        ("none", 1.0): r"column 'none' has the value 1.0 in row 0, and had no value in the first chunk",
        ("count", np.inf): "column 'count' has the value inf in row 0",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            estimator.partial_fit(frame.assign(**dict([change])))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="'same' is missing"):
        estimator.partial_fit(frame.drop(columns="same"))
    assert_same(before, estimator.transform(frame[:3].assign(text=None)))
    assert estimator._chunks.calls == 1
    declared = imputer(levels={"text": ["w", "x", "y", "z"]}, kinds={"same": "real"}).partial_fit(frame)
    declared.partial_fit(frame.assign(text="w", same=8.5))
    assert declared.schema_["same"].high == 8.5
    assert not declared.schema_["same"].integer


def test_options_of_fit_alone():
    frame = mixed(40)
    with pytest.raises(ValueError, match="partial_fit trains one net; num_nets must be 1 or None, got 2"):
        imputer(num_nets=2).partial_fit(frame)
    with pytest.raises(ValueError, match="patience is for fit"):
        imputer(patience=3).partial_fit(frame)
    with pytest.raises(ValueError, match="balance is for fit"):
        imputer(balance="lipschitz").partial_fit(frame)
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        imputer().partial_fit(frame[:1])
    assert after([frame, frame[:1], frame[:5].assign(**dict.fromkeys(frame.columns))]).n_iter_ == 6


def test_rows_are_kept_evenly_and_trees_are_fitted_on_them(monkeypatch):
    monkeypatch.setattr(chunk_training, "KEPT_ROWS", 1000)
    rng = np.random.default_rng(0)
    first = rng.normal(size=4000)
    frame = pd.DataFrame({"number": np.arange(4000.0), "a": first, "b": np.sign(first) + 0.1 * rng.normal(size=4000)})
    estimator = after(parts(frame, 2000), trees=True, epochs=1)
    scaled, mask, held = estimator._chunks.kept.arrays
    assert len(scaled) == 1000
    scaler = estimator.model_.codec.scaler
    kept = scaled[:, 0] * scaler.scale[0] + scaler.loc[0]
    assert len(np.unique(kept.round())) == 1000
    counts = np.histogram(kept, bins=8, range=(0, 4000))[0]
    assert ((counts - 125) ** 2 / 125).sum() < 24.3  # chi-squared of 7 degrees of freedom, 0.1 %
    assert 0.03 < held.mean() < 0.07
    assert not (held & ~mask).any()
    assert estimator.model_.predictor.trees is not None
    assert estimator.model_.is_calibrated


def test_held_out_entries_are_never_trained_on(monkeypatch):
    seen = []

    def train(self, rows):
        seen.append(rows)

    monkeypatch.setattr(chunk_training.ChunkTraining, "_train", train)
    estimator = after(parts(mixed(200), 100))
    _, mask, held = estimator._chunks.kept.arrays
    shown = np.concatenate([rows.mask.numpy() for rows in seen])
    assert (shown == (mask & ~held)).all()
    assert held.any()


@pytest.mark.parametrize(
    "options", [{"scale_where": "inside"}, {"marginals": "quantile"}, {"variants": ({"layer": "residual"},)}], ids=str
)
def test_other_options_are_honoured(options):
    frame = mixed(80)
    ranges = {"day": (pd.Timestamp("2020-01-01"), None)}
    estimator = imputer(kinds={"Int": "real"}, ranges=ranges, epochs=1, **options)
    for chunk in parts(frame, 40):
        estimator.partial_fit(chunk)
    assert not estimator.transform(frame).drop(columns="none").isna().to_numpy().any()
    if "scale_where" in options:
        assert estimator.model_.codec.within is not None
    if "marginals" in options:
        assert "quantile" in estimator.model_.codec.families.families
    if "variants" in options:
        assert estimator._chunks.pair["layer"] == "residual"
