"""Baselines: what they fill in, what they leave, and published figures of the mean and the mode."""

import gzip
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from pyrovae.data import DataError
from pyrovae.data.hivae import TABLES, load_hivae
from pyrovae.estimators.baselines import BASELINES, impute_with
from pyrovae.metrics.imputation import hivae_error

KINDS = ("real", "positive", "count", "binary", "categorical", "ordinal")
CODES = {3: (0.0, 1.0), 4: (-2.0, 1.0, 7.0), 5: (1.0, 2.0, 3.0, 4.0)}
INSTALLED = [name for name in BASELINES if name != "miceforest" or importlib.util.find_spec("miceforest")]


@pytest.fixture
def real_data():
    folder = os.environ.get("PYROVAE_DATA")
    if not folder or not Path(folder, "hivae").is_dir():
        pytest.skip("$PYROVAE_DATA does not name a folder with the tables of HI-VAE")
    return folder


def table(num_rows=150, missing=0.3, seed=0):
    """Columns of every kind that one hidden number rules; and what was hidden in them."""
    rng = np.random.default_rng(seed)
    ruling = rng.standard_normal(num_rows)
    noise = 0.2 * rng.standard_normal((num_rows, 3))
    numbers = np.stack([ruling, np.exp(ruling), np.round(5 + 2 * ruling)], axis=1) + noise
    levels = [np.array(codes)[np.digitize(ruling, np.linspace(-1, 1, len(codes) - 1))] for codes in CODES.values()]
    truth = np.column_stack([numbers, *levels])
    return truth, np.where(rng.random(truth.shape) < missing, np.nan, truth)


@pytest.mark.parametrize("name", INSTALLED)
def test_filled(name):
    truth, train = table()
    other_truth, rows = table(40, seed=1)
    rows[0] = np.nan
    for asked, answer in ((train, truth), (rows, other_truth)):
        before = asked.copy()
        filled = impute_with(name, train, asked, KINDS)
        np.testing.assert_array_equal(asked, before)
        assert filled.shape == asked.shape
        assert not np.isnan(filled).any()
        np.testing.assert_array_equal(filled[~np.isnan(asked)], asked[~np.isnan(asked)])
        for column, codes in CODES.items():
            assert np.isin(filled[:, column], codes).all()
        hidden = np.isnan(asked)
        plain = impute_with("mean-mode", train, asked, KINDS)
        error, simple = (hivae_error(answer, values, hidden, KINDS, [1, 1, 1, 2, 3, 4]) for values in (filled, plain))
        assert error.average <= simple.average * (1.0 if name == "mean-mode" else 0.8)


@pytest.mark.parametrize("name", INSTALLED)
def test_repeatable(name):
    some = [0, 4, 5]
    train, kinds = table(60)[1][:, some], [KINDS[column] for column in some]
    np.testing.assert_array_equal(*(impute_with(name, train, train, kinds, random_state=3) for _ in range(2)))


@pytest.mark.parametrize("name", INSTALLED)
def test_odd_columns(name):
    """A column that is complete in training, one of a single level, and one without any value."""
    truth, train = table(80)
    train[:, 0] = truth[:, 0]
    train[:, 3] = np.where(np.isnan(train[:, 3]), np.nan, 1.0)
    train[:, 1] = np.nan
    rows = np.full((2, 6), np.nan)
    rows[1, 2] = 5.0
    rows[1, 1] = 4.0
    filled = impute_with(name, train, rows, KINDS)
    assert not np.isnan(filled).any()
    assert filled[:, 1].tolist() == [0.0, 4.0]
    assert filled[:, 3].tolist() == [1.0, 1.0]
    assert impute_with(name, train, train[:0], KINDS).shape == (0, 6)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("kind", ["real", "categorical"])
def test_one_column(name, kind):
    if name == "miceforest":
        pytest.skip("miceforest has nothing to predict a single column from")
    column = np.array([[1.0], [2.0], [2.0], [np.nan]] * 10)
    filled = impute_with(name, column, column, [kind])
    assert filled[3, 0] == pytest.approx(5 / 3 if kind == "real" else 2.0)


def test_mean_and_mode():
    train = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 3.0], [6.0, 5.0, 1.0], [np.nan, 5.0, np.nan]])
    filled = impute_with("mean-mode", train, np.full((1, 3), np.nan), ["count", "categorical", "ordinal"])
    assert filled.tolist() == [[3.0, 2.0, 3.0]]  # of two levels as frequent the smaller one


def test_refused(monkeypatch):
    _, train = table(20)
    with pytest.raises(ValueError, match="there is no baseline 'mice'; known are mean-mode, knn"):
        impute_with("mice", train, train, KINDS)
    with pytest.raises(ValueError, match=r"same columns.*\(20, 6\), \(20, 5\) and 6 kinds"):
        impute_with("knn", train, train[:, :5], KINDS)
    with pytest.raises(ValueError, match="unknown kind 'cat'; known are real"):
        impute_with("knn", train, train, ("cat", *KINDS[1:]))
    monkeypatch.setitem(sys.modules, "miceforest", None)
    with pytest.raises(ImportError, match="pip install miceforest"):
        impute_with("miceforest", train, train, KINDS)


@pytest.mark.parametrize(("percent", "error"), [(20, 0.2182), (50, 0.2067)])
def test_mean_and_mode_of_breast(real_data, percent, error):
    """The figures of the authors' own baseline, to four digits."""
    values, kinds, num_levels, hidden = load_hivae("breast", percent)
    train = np.where(hidden, np.nan, values)
    found = hivae_error(values, impute_with("mean-mode", train, train, kinds), hidden, kinds, num_levels)
    assert round(found.average, 4) == error


@pytest.mark.parametrize(
    ("name", "shape", "unknown"),
    [
        ("adult", (32561, 12), 3686),
        ("breast", (699, 10), 16),
        ("default_credit", (30000, 24), 0),
        ("letter", (20000, 17), 0),
    ],
)
def test_tables_of_hivae(real_data, name, shape, unknown):
    values, kinds, num_levels, hidden = load_hivae(name, 20)
    assert values.shape == hidden.shape == shape
    assert len(kinds) == len(num_levels) == shape[1]
    assert np.isnan(values).sum() == unknown
    assert hidden.mean() == pytest.approx(0.2, abs=0.01)
    numbers = np.isin(kinds, ("real", "positive", "count"))
    assert (num_levels[numbers] == 1).all()
    for column in np.flatnonzero(~numbers):
        assert 1 < len(np.unique(values[~np.isnan(values[:, column]), column])) <= num_levels[column]


def test_tables_of_hivae_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    with pytest.raises(ValueError, match=f"no table 'wine'; known are {', '.join(TABLES)}"):
        load_hivae("wine", 20)
    with pytest.raises(ValueError, match="no mask of 25 %; known are 10, 20"):
        load_hivae("adult", 25)
    with pytest.raises(DataError, match=r"adult is not on this machine.*data_types.csv"):
        load_hivae("adult", 20)


def write_table(folder, types, places="1,1\r\n2,2\r\n"):
    folder = folder / "hivae" / "breast"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.csv").write_text("1,2.5\r\n3,nan\r\n")
    (folder / "data_types.csv").write_text(types)
    (folder / "Missing20_1.csv.gz").write_bytes(gzip.compress(places.encode()))


def test_a_table_with_bare_carriage_returns(tmp_path):
    write_table(tmp_path, "type,dim,nclass\rordinal,4,4\rpos,1,\r\r")
    values, kinds, num_levels, hidden = load_hivae("breast", 20, tmp_path)
    np.testing.assert_array_equal(values, [[1.0, 2.5], [3.0, np.nan]])
    assert kinds == ("ordinal", "positive")
    assert num_levels.tolist() == [4, 1]
    assert hidden.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("types", "places", "message"),
    [
        ("type,dim,nclass\nordinal,4,4\n", "1,1\n", "1 types for 2 columns"),
        ("type,dim,nclass\nordinal,4,4\nlog,1,\n", "1,1\n", "unknown types log"),
        ("type,dim,nclass\nordinal,4,4\npos,1,\n", "1,3\n", r"outside of the table of shape \(2, 2\)"),
    ],
)
def test_damaged_tables(tmp_path, types, places, message):
    write_table(tmp_path, types, places)
    with pytest.raises(DataError, match=message):
        load_hivae("breast", 20, tmp_path)
