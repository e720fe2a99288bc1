"""What the imputer refuses: data, options and folders, each in one clear line."""

import numpy as np
import pandas as pd
import pytest
from mixed_frames import imputer
from sklearn.exceptions import NotFittedError

from pyrovae.estimators.imputer import VAEImputer
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError

FRAME = pd.DataFrame({"a": [1.5, 2.5, None, 4.0] * 5, "b": ["x", "y", None, "x"] * 5})

DATA = {
    "no rows": (FRAME.iloc[:0], ValueError, r"Found array with 0 sample\(s\)"),
    "one row": (FRAME.iloc[:1], ValueError, r"1 sample\(s\) \(shape=\(1, 2\)\) while a minimum of 2"),
    "no columns": (FRAME[[]], ValueError, r"0 feature\(s\)"),
    "nothing": (pd.DataFrame({"a": [np.nan] * 3, "b": [None] * 3}), ValueError, "all entries are missing"),
    "constants": (pd.DataFrame({"a": [1, 1, 1]}), ValueError, "no column has two different values"),
    "names twice": (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), ValueError, "two columns are called 'a'"),
    "lists": (FRAME.assign(c=[[1]] * 20), TypeError, "column 'c' holds list objects"),
    "mixed": (FRAME.assign(c=[1, "u"] * 10), TypeError, "column 'c' mixes numbers and texts"),
    "infinite": (FRAME.assign(c=[1.0, np.inf] * 10), ValueError, "column 'c' has the value inf in row 1"),
    "infinite array": (np.array([[1.0], [np.inf]]), ValueError, "infinity"),
    "complex": (FRAME.assign(c=1j), TypeError, "column 'c' has the dtype complex128"),
    "names of two types": (FRAME.set_axis(["a", 1], axis=1), TypeError, "string names"),
    "a column": (FRAME["a"], ValueError, "2-dimensional"),
}
OPTIONS = {
    "unknown kind of": ({"kinds": {"z": "real"}}, ValueError, "kinds has 'z', which is no column; columns are a, b"),
    "unknown levels of": ({"levels": {"z": [1, 2]}}, ValueError, "levels has 'z', which is no column"),
    "unknown range of": ({"ranges": {"z": (0, 1)}}, ValueError, "ranges has 'z', which is no column"),
    "kind": ({"kinds": {"a": "whole"}}, ValueError, r"kinds\['a'\] must be one of real, positive"),
    "range": ({"ranges": {"a": (2, 3)}}, ValueError, "column 'a' has 1.5 in row 0, outside"),
    "kinds": ({"kinds": ["real"]}, TypeError, "kinds must be a dictionary"),
    "likelihood of": ({"likelihoods": {"z": "normal"}}, ValueError, "likelihoods names 'z'"),
    "likelihood": (
        {"likelihoods": {"a": "gaussian"}},
        ValueError,
        "one of normal, student-t, quantile, not",
    ),
    "likelihood of levels": ({"likelihoods": {"b": "normal"}}, ValueError, "one of bernoulli, categorical, not"),
    "likelihoods": ({"likelihoods": "normal"}, TypeError, "likelihoods must be a dictionary"),
    "negative weight": ({"kl_weight": -1}, ValueError, "kl_weight == -1, must be >= 0"),
    "no component": ({"n_components": 0}, ValueError, "n_components == 0, must be >= 1"),
    "half a component": ({"n_components": 2.5}, TypeError, "n_components must be an instance of int, not float"),
    "no layer": ({"hidden": ()}, ValueError, r"hidden must hold the size of at least one layer.*got \(\)"),
    "empty layer": ({"hidden": (8, 0)}, ValueError, r"hidden must hold .*got \(8, 0\)"),
    "a number of layers": ({"hidden": 8}, ValueError, "hidden must hold .*got 8"),
    "no epoch": ({"epochs": 0}, ValueError, "epochs == 0, must be >= 1"),
    "no rate": ({"lr": 0.0}, ValueError, "lr == 0.0, must be > 0"),
    "no batch": ({"batch_size": 0}, ValueError, "batch_size == 0, must be >= 1"),
    "no sample": ({"num_samples": 0}, ValueError, "num_samples == 0, must be >= 1"),
    "no floor": ({"scale_floor": 0}, ValueError, "scale_floor == 0, must be > 0"),
    "encoder": ({"encoder": "conv"}, ValueError, "encoder must be one of dense, set, got 'conv'"),
    "prior": ({"prior": "flat"}, ValueError, "prior must be one of standard-normal, mixture, vamp, got 'flat'"),
    "weights": ({"weights": "all"}, ValueError, "weights must be one of none, importance, got 'all'"),
    "scaling": ({"scaling": "log"}, ValueError, "scaling must be one of standardize, normalize, none, got 'log'"),
    "parameters": ({"parameterization": "mean"}, ValueError, "parameterization must be one of natural, canonical"),
    "device": ({"device": "abacus"}, ValueError, "device 'abacus' cannot be used"),
    "seed": ({"random_state": "one"}, ValueError, "cannot be used to seed"),
}
NEW = {
    "missing": (FRAME[["a"]], ValueError, "the columns must be those of fit: 'b' is missing"),
    "extra": (FRAME.assign(c=1), ValueError, "the columns must be those of fit: 'c' is new"),
    "other": (FRAME.set_axis(list("uv"), axis=1), ValueError, "'a' is missing, 'b' is missing, 'u' is new and 1 more"),
    "infinite": (FRAME.assign(a=-np.inf), ValueError, "column 'a' has the value -inf in row 0"),
    "text": (FRAME.assign(a="one"), TypeError, "column 'a' must hold numbers, not 'one' in row 0"),
    "no rows": (FRAME.iloc[:0], ValueError, r"0 sample\(s\)"),
}
METHODS = ("transform", "impute_draws", "intervals", "score_samples")


@pytest.fixture(scope="module")
def fitted():
    return imputer().fit(FRAME)


def check_one_line(refused):
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("data", "error", "message"), DATA.values(), ids=DATA)
def test_data(data, error, message):
    with pytest.raises(error, match=message) as refused:
        imputer().fit(data)
    check_one_line(refused)


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options(options, error, message):
    with pytest.raises(error, match=message) as refused:
        imputer(**options).fit(FRAME)
    check_one_line(refused)


@pytest.mark.parametrize(("data", "error", "message"), NEW.values(), ids=NEW)
@pytest.mark.parametrize("method", METHODS)
def test_new_rows(fitted, method, data, error, message):
    with pytest.raises(error, match=message) as refused:
        getattr(fitted, method)(data)
    check_one_line(refused)


@pytest.mark.parametrize("method", [*METHODS, "save"])
def test_before_fit(method, tmp_path):
    with pytest.raises(NotFittedError, match="VAEImputer instance is not fitted yet"):
        getattr(imputer(), method)(tmp_path / "model" if method == "save" else FRAME)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("impute_draws", {"num_draws": 0}, "num_draws == 0, must be >= 1"),
        ("intervals", {"num_draws": 1}, "num_draws == 1, must be >= 2"),
        ("intervals", {"coverage": 1.0}, r"coverage must be between 0 and 1, got 1\.0"),
        ("intervals", {"coverage": float("nan")}, "coverage must be between 0 and 1, got nan"),
        ("intervals", {"coverage": "90%"}, "coverage must be between 0 and 1, got '90%'"),
        ("score_samples", {"num_samples": 0}, "num_samples == 0, must be >= 1"),
    ],
)
def test_arguments(fitted, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(fitted, method)(FRAME, **arguments)


def test_folders(tmp_path):
    with pytest.raises(CheckpointError) as refused:
        VAEImputer.load(tmp_path / "nowhere")
    check_one_line(refused)
    data = {"name": "digits"}
    run = Run.create(tmp_path / "other", "gaussian", {"hidden": (8,)}, data, {"epochs": 1, "batch_size": 500})
    run.train()
    with pytest.raises(ValueError, match="holds a pair that is for no table") as refused:
        VAEImputer.load(tmp_path / "other")
    check_one_line(refused)
