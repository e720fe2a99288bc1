"""Boosted trees as arrays, against scikit-learn's own predictions, and what they predict of columns."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import NotFittedError

from pyrovae.estimators import tree_arrays
from pyrovae.estimators.tree_arrays import TreeArrays
from pyrovae.estimators.trees import RARE, ColumnTrees

FAMILIES, NUM_LEVELS = ("normal", "categorical", "bernoulli", "student-t", "ordered", "gamma"), (0, 4, 2, 0, 3, 0)
ROUNDS = {"max_iter_numbers": 8, "max_iter_levels": 5}


def table(rows=300, missing=0.2, seed=0):
    """Columns that depend on each other, of all sorts of families."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=rows)
    values = np.stack(
        [
            cause + 0.1 * rng.normal(size=rows),
            np.digitize(cause, [-0.7, 0.0, 0.7]),
            cause + 0.5 * rng.normal(size=rows) > 0,
            cause**2,
            rng.integers(0, 3, rows),
            np.exp(cause),
        ],
        1,
    )
    values[rng.random(values.shape) < missing] = np.nan
    return values


def fitted(values=None, **options):
    values = table() if values is None else values
    return ColumnTrees.fit(values, FAMILIES, NUM_LEVELS, **{"random_state": 0, **ROUNDS, **options})


def features(rows=400, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    target = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2])
    x[rng.random(x.shape) < 0.2] = np.nan
    return x, target


def models():
    x, target = features()
    options = {"max_iter": 12, "early_stopping": False}
    yield "numbers", HistGradientBoostingRegressor(**options).fit(x, target)
    yield "binary", HistGradientBoostingClassifier(**options).fit(x, target > 0)
    yield "several", HistGradientBoostingClassifier(**options).fit(x, np.digitize(target, [-1, 0, 1]))
    yield "stumps", HistGradientBoostingRegressor(min_samples_leaf=300, max_iter=3).fit(x, target)
    yield "counts", HistGradientBoostingRegressor(loss="poisson", **options).fit(x, target.round() ** 2)


MODELS = dict(models())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("at_once", [1, 1000, 10**6])
def test_raw_predictions_are_those_of_scikit_learn(name, at_once, monkeypatch):
    monkeypatch.setattr(tree_arrays, "_ENTRIES_AT_ONCE", at_once)
    model, (x, _) = MODELS[name], features(57, seed=2)
    x[0], x[1] = np.nan, np.inf
    for trees in (TreeArrays.of(model), TreeArrays.from_arrays(TreeArrays.of(model).to_arrays())):
        raw = trees.raw_predict(x)
        np.testing.assert_allclose(raw, model._raw_predict(x), rtol=0, atol=1e-9)
        assert raw.shape == (57, trees.num_outputs)
    assert trees.raw_predict(x[:0]).shape == (0, trees.num_outputs)
    np.testing.assert_array_equal(trees.raw_predict(x[7:8]), raw[7:8])


def test_models_that_are_refused():
    with pytest.raises(TypeError, match="got RandomForestRegressor"):
        TreeArrays.of(RandomForestRegressor())
    with pytest.raises(NotFittedError):
        TreeArrays.of(HistGradientBoostingRegressor())
    x = np.tile(np.arange(3.0), 40)[:, None]
    with pytest.raises(ValueError, match="categorical features"):
        TreeArrays.of(HistGradientBoostingRegressor(categorical_features=[0], max_iter=2).fit(x, x[:, 0]))
    with pytest.raises(ValueError, match=r"rows must have shape \[N, 4\], got \(3, 1\)"):
        TreeArrays.of(MODELS["numbers"]).raw_predict(x[:3])


DAMAGE = {
    "a cycle": ("left", lambda a: np.where(np.arange(len(a)) == 3, 3, a), "comes before it"),
    "to the root": ("right", lambda a: np.zeros_like(a), "comes before it"),
    "to another tree": ("right", lambda a: np.full_like(a, len(a) - 1), "outside of its tree"),
    "beyond the end": ("left", lambda a: a + 10**6, "outside of its tree"),
    "below zero": ("left", lambda a: -a - 1, "comes before it"),
    "a feature too far": ("feature", lambda a: a + 4, "none of the 4"),
    "a negative feature": ("feature", lambda a: a - 4, "none of the 4"),
    "a threshold": ("threshold", lambda a: a * np.nan, "not finite"),
    "values": ("value", lambda a: a + np.inf, "not finite"),
    "too few values": ("value", lambda a: a[:-1], "entries for"),
    "a type": ("is_leaf", lambda a: a.astype(float), "is_leaf of trees has the wrong type"),
    "a dimension": ("offsets", lambda a: a[None], "offsets of trees has the wrong type or shape"),
    "trees without nodes": ("offsets", lambda a: np.where(np.arange(len(a)) == 1, 0, a), "do not divide"),
    "a last offset": ("offsets", lambda a: a[:-1], "do not divide"),
    "no tree": ("offsets", lambda a: a[:1], "there are 0 trees"),
    "outputs": ("baseline", lambda a: np.zeros(5), "12 trees for 5 outputs"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_arrays_are_refused(case):
    arrays = TreeArrays.of(MODELS["numbers"]).to_arrays()
    name, change, text = DAMAGE[case]
    with pytest.raises(ValueError, match=text):
        TreeArrays.from_arrays(arrays | {name: change(arrays[name])})
    del arrays[name]
    with pytest.raises(ValueError, match=f"{name}' of trees is missing"):
        TreeArrays.from_arrays(arrays)


def test_layout_and_range_of_predictions():
    values = table()
    trees = fitted(values)
    predicted = trees.predict(values)
    assert trees.layout == [(0, 0, 1), (1, 1, 4), (2, 5, 2), (3, 7, 1)]
    assert predicted.shape == (300, 8)
    for first, last in ((1, 5), (5, 7)):
        np.testing.assert_allclose(predicted[:, first:last].sum(1), 1.0)
        assert (predicted[:, first:last] > RARE / 2).all()
    known = ~np.isnan(values)
    assert np.corrcoef(predicted[known[:, 0], 0], values[known[:, 0], 0])[0, 1] > 0.8
    assert (predicted[known[:, 1], 1:5].argmax(1) == values[known[:, 1], 1]).mean() > 0.7
    assert (predicted[known[:, 2], 5:7].argmax(1) == values[known[:, 2], 2]).mean() > 0.7
    assert [column for column, _, _ in fitted(values, max_levels=3).layout] == [0, 2, 3]


def test_predictions_of_a_row_stand_alone_and_do_not_read_their_column():
    trees, values = fitted(), table(40, seed=5)
    predicted = trees.predict(values)
    np.testing.assert_array_equal(np.concatenate([trees.predict(row[None]) for row in values]), predicted)
    np.testing.assert_array_equal(trees.predict(values[::-1])[::-1], predicted)
    for column, start, size in trees.layout:
        hidden, own = values.copy(), slice(start, start + size)
        hidden[:, column] = np.nan
        np.testing.assert_array_equal(trees.predict(hidden)[:, own], predicted[:, own])
    assert trees.predict(values[:0]).shape == (0, 8)


def test_levels_that_nobody_saw():
    values = table(missing=0.0)
    values[values[:, 1] == 3, 1] = 2
    trees = fitted(values)
    assert trees.seen[1].tolist() == [0, 1, 2]
    np.testing.assert_allclose(trees.predict(values)[:, 4], RARE, rtol=0.01)


def test_columns_without_models():
    values = table()
    values[19:, 0] = np.nan  # 19 observed values at most
    values[:, 1] = np.where(np.isnan(values[:, 1]), np.nan, 2.0)  # one class
    values[:, 5] = np.nan  # nothing at all
    trees = fitted(values)
    assert [column for column, _, _ in trees.layout] == [2, 3]
    assert trees.predict(values).shape == (300, 3)


def test_a_table_of_one_column(tmp_path):
    trees = ColumnTrees.fit(np.arange(50.0)[:, None], ("normal",), (0,), random_state=0)
    assert trees.layout == []
    trees.save(tmp_path / "trees.npz")
    assert ColumnTrees.load(tmp_path / "trees.npz").predict(np.zeros((3, 1))).shape == (3, 0)


def test_input_that_is_refused():
    values = table()
    with pytest.raises(ValueError, match=r"values must have shape \[N, 6\], got \(300, 5\)"):
        fitted(values[:, :5])
    values[0, 1] = 1.5
    with pytest.raises(ValueError, match=r"codes of column 1 must be whole numbers from 0 to 3, got 1\.5"):
        fitted(values)
    with pytest.raises(ValueError, match="values must be finite"):
        fitted(values + np.inf)


def test_saved_and_loaded_bit_for_bit(tmp_path):
    trees = fitted()
    trees.save(tmp_path / "own.name")
    loaded = ColumnTrees.load(tmp_path / "own.name")
    assert loaded.layout == trees.layout
    assert loaded.columns == trees.columns
    for column, model in trees.models.items():
        stored = loaded.models[column].to_arrays()
        for name, array in model.to_arrays().items():
            assert stored[name].dtype == array.dtype
            np.testing.assert_array_equal(stored[name], array)
    np.testing.assert_array_equal(loaded.predict(table(seed=9)), trees.predict(table(seed=9)))


def test_damaged_files_are_one_line(tmp_path):
    trees = fitted()
    trees.save(tmp_path / "trees.npz")
    whole, path, x = (tmp_path / "trees.npz").read_bytes(), tmp_path / "bad.npz", table(20, seed=9)
    predicted = trees.predict(x)

    def refused(content):
        path.write_bytes(content)
        loaded, message = None, ""
        try:
            loaded = ColumnTrees.load(path)
        except ValueError as error:
            message = str(error)
        if loaded is not None:  # a byte that nobody reads
            np.testing.assert_array_equal(loaded.predict(x), predicted)
            return False
        assert message.startswith(str(path)), message
        assert "\n" not in message
        return True

    assert all(refused(whole[:end]) for end in range(0, len(whole), len(whole) // 20))
    rng = np.random.default_rng(0)
    places = rng.integers(0, len(whole), 60)
    found = [refused(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]) for place in places]
    assert np.mean(found) > 0.7
    assert refused(b"no archive")


def test_files_of_other_things_are_one_line(tmp_path):
    path, trees = tmp_path / "other.npz", fitted()
    with pytest.raises(ValueError, match=r"other.npz cannot be read \(No such file"):
        ColumnTrees.load(path)
    trees.save(path)
    with np.load(path) as content:
        arrays = dict(content)
    changes = {
        "families": np.array(["gamma"] * 6),
        "num_levels": np.array([0, 2, 2, 0, 3, 0]),
        "1.seen": np.array([0, 1, 1, 2]),
        "2.num_features": np.array(6),
        "3.baseline": np.zeros(2),
        "modelled": np.array([0, 5]),
    }
    others = [arrays | {name: array} for name, array in changes.items()]
    for content in ({"a": np.zeros(3)}, {"families": np.array([{}], dtype=object)}, *others):
        np.savez(path, **content)
        with pytest.raises(ValueError, match=r"other\.npz holds no trees of columns"):
            ColumnTrees.load(path)
