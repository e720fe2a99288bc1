"""Forests beside a model that completes rows: against scikit-learn's own predictions, stored, damaged, refused."""

import numpy as np
import pandas as pd
import pytest
from mixed_frames import mixed
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from pyrovae.estimators import VAEImputer
from pyrovae.estimators.forests import ColumnForests, Forest, completed_rows
from pyrovae.estimators.stacking import FEW, Expectations
from pyrovae.likelihoods.tables import ColumnFamilies
from pyrovae.storage import CheckpointError


@pytest.fixture
def layout():
    return Expectations(ColumnFamilies(("normal", "categorical", "normal"), (0, 4, 0)))


@pytest.fixture
def table():
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 3, 300)  # the fourth level does not occur
    first = levels + 0.3 * generator.normal(size=300)
    values = np.stack([first, levels, np.sin(first)], 1)
    return np.where(generator.uniform(size=values.shape) < 0.2, np.nan, values)


@pytest.mark.parametrize("kind", [ExtraTreesRegressor, ExtraTreesClassifier])
def test_arrays_predict_as_scikit_learn_does(kind):
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(200, 4)), generator.integers(0, 3, 200)
    model = kind(7, random_state=0).fit(x, y)
    new = generator.normal(size=(50, 4))
    theirs = model.predict_proba(new) if kind is ExtraTreesClassifier else model.predict(new)[:, None]
    np.testing.assert_allclose(Forest.of(model).predict(new), theirs, atol=1e-12)


def test_completed_rows_by_hand(layout):
    expected = np.array([[0.5, 0.1, 0.2, 0.3, 0.4, -1.0]] * 2)
    values = np.array([[np.nan, 2.0, np.nan], [7.0, np.nan, 8.0]])
    found = completed_rows(layout, expected, values)
    np.testing.assert_array_equal(found, [[0.5, 0, 0, 1, 0, -1.0], [7.0, 0.1, 0.2, 0.3, 0.4, 8.0]])


def test_columns_are_learned_and_stored(layout, table, tmp_path):
    rows = completed_rows(layout, np.full((300, 6), 0.25), table)
    forests = ColumnForests.fit(layout, rows, table, random_state=0)
    assert forests.known.all()
    found = forests.predict(rows)
    observed = ~np.isnan(table)
    assert np.mean(np.square(found[observed[:, 2], 5] - table[observed[:, 2], 2])) < 0.1
    np.testing.assert_allclose(found[:, 1:5].sum(1), 1)
    assert (found[:, 4] == 0).all(), "a level that was never seen"
    forests.save(tmp_path / "f.npz")
    np.testing.assert_array_equal(ColumnForests.load(tmp_path / "f.npz", layout).predict(rows), found)
    part = np.concatenate([forests.predict(rows[:10]), forests.predict(rows[10:])])
    np.testing.assert_array_equal(part, found)
    with pytest.raises(ValueError, match="is of another table"):
        ColumnForests.load(tmp_path / "f.npz", Expectations(ColumnFamilies(("normal",), (0,))))
    (tmp_path / "f.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        ColumnForests.load(tmp_path / "f.npz", layout)


def test_a_forest_that_loops_is_refused():
    zero = np.zeros(2, dtype=np.int32)
    with pytest.raises(ValueError, match="a child of a node comes before it"):
        Forest(zero, np.zeros(2), zero, zero, np.zeros((2, 1)), np.zeros(1, dtype=np.int64))


def test_one_standard_error():
    """With few entries, of weights that are as good as the best within its error, that nearest to a half counts."""
    layout = Expectations(ColumnFamilies(("normal",), (0,)))
    generator = np.random.default_rng(0)
    for few, scales in ((True, (0.7, 0.8)), (False, (0.6, 0.9))):
        truth = generator.normal(size=(FEW // 4 if few else 40 * FEW, 1))
        first, second = (truth + generator.normal(size=truth.shape) * scale for scale in scales)
        held = np.ones_like(truth, dtype=bool)
        weight = layout.weights(first, second, np.array([True]), truth, held, np.ones(1))[0]
        assert weight == pytest.approx(0.5 if few else 0.3, abs=0.1 if not few else 1e-9)
    awful = truth + 30 * generator.normal(size=truth.shape)
    assert layout.weights(first, awful, np.array([True]), truth, held, np.ones(1))[0] == 0


def test_an_imputer_with_forests(tmp_path):
    frame = mixed(150)
    options = {"n_components": 2, "hidden": (16,), "epochs": 4, "random_state": 0}
    imputer = VAEImputer(**options).fit(frame)
    predictor = imputer.model_.predictor
    assert predictor.forests is not None
    assert predictor.forest_weights.any()
    imputer.save(tmp_path / "run")
    again = VAEImputer.load(tmp_path / "run")
    pd.testing.assert_frame_equal(again.transform(frame), imputer.transform(frame))
    pd.testing.assert_frame_equal(again.impute_draws(frame, 1)[0], imputer.impute_draws(frame, 1)[0])
    whole, part = imputer.transform(frame), imputer.transform(frame.iloc[5:9])
    pd.testing.assert_frame_equal(whole.iloc[5:9], part)
    assert VAEImputer(**options, trees=False).fit(frame).model_.predictor.forests is None
    (tmp_path / "run" / "forests.npz").unlink()
    with pytest.raises(CheckpointError, match=r"forests\.npz cannot be read"):
        VAEImputer.load(tmp_path / "run")
