"""What the estimators of tables share: frames from what users give, and options of pair and training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import _check_feature_names, _check_n_features, check_array

from pyrovae.data.schema import Schema

TABLE_OPTIONS = (
    "n_components",
    "hidden",
    "kinds",
    "levels",
    "ranges",
    "likelihoods",
    "parameterization",
    "kl_weight",
    "encoder",
    "prior",
    "scaling",
    "scale_floor",
    "num_samples",
    "weights",
    "epochs",
    "lr",
    "batch_size",
)
"""Options that are written down with a model."""


def check_frame(estimator: Any, X: Any, *, reset: bool) -> pd.DataFrame:
    """A frame of what a user gives, whose columns are those of `fit`.

    Frames keep their dtypes. Arrays of numbers get columns x0, x1, ...

    Raises
    ------
    ValueError, TypeError
        As scikit-learn's estimators do: empty data, infinite values, another number or other names of columns.
    """
    if isinstance(X, pd.DataFrame):
        if X.shape[0] == 0 or X.shape[1] == 0:
            raise ValueError(f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s) while a minimum of 1 is required.")
        if not X.columns.is_unique:
            twice = X.columns[X.columns.duplicated()][0]
            raise ValueError(f"two columns are called {twice!r}; give every column a name of its own")
        if not reset:
            X = _in_order(estimator, X)
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, X, reset=reset)
        frame = X
    else:
        if not hasattr(X, "__array__") and hasattr(X, "__arrow_c_stream__"):
            raise TypeError("give a pandas DataFrame, frame.to_pandas()")
        array = check_array(X, dtype=None, ensure_all_finite="allow-nan", estimator=estimator)
        if array.dtype.kind not in "bifuO":
            array = array.astype(object)
        if array.dtype.kind == "O":
            array = _numbers(array)
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, array, reset=reset)
        frame = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])
    if reset and len(frame) < 2:
        raise ValueError(f"Found array with {len(frame)} sample(s) (shape={frame.shape}) while a minimum of 2 is required.")
    if reset and frame.isna().to_numpy().all():
        raise ValueError("all entries are missing, so there is nothing to learn from")
    return frame


def _in_order(estimator: Any, X: pd.DataFrame) -> pd.DataFrame:
    """The columns of `fit` in their order; what is missing or new is left to scikit-learn's message."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or set(names) != set(X.columns):
        return X
    return X[list(names)]


def _numbers(array: np.ndarray) -> np.ndarray:
    """An array of objects as numbers where all are some."""
    if np.iscomplexobj(array):
        raise ValueError("Complex data not supported")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        return array


def raw_columns(frame: pd.DataFrame) -> np.ndarray:
    """The values of a completed array."""
    return frame.to_numpy()


def fit_options(estimator: Any, frame: pd.DataFrame) -> tuple[Schema, dict[str, Any]]:
    """The schema of the rows, and options of `TableModel.train`."""
    schema = Schema.infer(frame, kinds=estimator.kinds, levels=estimator.levels, ranges=estimator.ranges)
    options = {
        "pair": {
            "latent_dim": estimator.n_components,
            "hidden": tuple(estimator.hidden),
            "encoder": estimator.encoder,
            "prior": estimator.prior,
            "parameterization": estimator.parameterization,
            "scale_floor": estimator.scale_floor,
        },
        "training": {
            "epochs": estimator.epochs,
            "lr": estimator.lr,
            "lr_schedule": "cosine",
            "batch_size": estimator.batch_size,
            "kl_weight": estimator.kl_weight,
            "progress": estimator.verbose,
        },
        "likelihoods": estimator.likelihoods,
        "scaling": estimator.scaling,
    }
    return schema, options
