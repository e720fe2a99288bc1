"""Imputers that a VAE is compared with: what a user would pick instead, with settings that need no tuning."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge

from pyrovae.data.arrays import without_mask
from pyrovae.data.columns import NUMBERS
from pyrovae.metrics.imputation import IMPUTED, NOMINAL

Baseline = Callable[[np.ndarray, np.ndarray, Sequence[str], int], np.ndarray]
"""From training rows, rows to fill, kinds of columns and a seed to the filled rows."""
BASELINES: dict[str, Baseline] = {}
"""The baselines by name. Those functions expect checked arrays; call `impute_with`."""
IN_SCIKIT_LEARN = ("mean-mode", "knn", "bayesian-ridge", "extra-trees", "hist-gradient-boosting")
"""Those that need no other package."""
_DATASETS = 5  # completed tables of miceforest, of which the mean, the median level or the commonest one is taken
_ROUNDS = 5


def impute_with(
    name: str, train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int = 0
) -> np.ndarray:
    """Fill the missing entries of some rows by an imputer fitted on other rows, or on the same.

    Parameters
    ----------
    name : str
        One of `BASELINES`: "mean-mode", "knn", "bayesian-ridge", "extra-trees", "hist-gradient-boosting" or
        "miceforest".
    train : array, shape ``[N, D]``
        Rows to fit on. Numbers, levels as codes, NaN where an entry is missing.
    rows : array, shape ``[M, D]``
        Rows to fill.
    kinds : sequence of str, length D
        The kind of each column: "real", "positive", "count", "binary", "categorical" or "ordinal".
    random_state : int, default 0
        Seed of imputers that draw.

    Returns
    -------
    ndarray, shape ``[M, D]``
        `rows` without NaN. Observed entries are as they were. Columns of levels hold codes that occur in `train`. A
        column without any value in `train` is filled with 0.

    Raises
    ------
    ValueError
        The name or a kind is unknown, or shapes do not fit.
    ImportError
        "miceforest" is asked for and not installed.

    Examples
    --------
    >>> table = np.array([[1.0, 0.0], [3.0, 1.0], [np.nan, 1.0]])
    >>> impute_with("mean-mode", table, table, ["real", "categorical"])[2]
    array([2., 1.])
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; known are {', '.join(BASELINES)}")
    train, rows = (np.asarray(without_mask(table), dtype=float) for table in (train, rows))
    if train.ndim != 2 or rows.ndim != 2 or train.shape[1] != rows.shape[1] or len(kinds) != train.shape[1]:
        shapes = f"{train.shape}, {rows.shape} and {len(kinds)} kinds"
        raise ValueError(f"train and rows must have the same columns, with a kind for each, got {shapes}")
    if unknown := sorted(set(kinds) - set(IMPUTED)):
        raise ValueError(f"unknown kind {unknown[0]!r}; known are {', '.join(IMPUTED)}")
    filled = np.where(np.isnan(rows), 0.0, rows)
    known = np.flatnonzero(~np.isnan(train).all(axis=0))
    if len(known) and len(rows):
        answer = BASELINES[name](
            train[:, known], rows[:, known], [kinds[int(column)] for column in known], random_state
        )
        filled[:, known] = np.where(np.isnan(rows[:, known]), answer, rows[:, known])
    return filled


def _baseline(name: str) -> Callable[[Baseline], Baseline]:
    def enter(function: Baseline) -> Baseline:
        BASELINES[name] = function
        return function

    return enter


@_baseline("mean-mode")
def _mean_mode(train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int) -> np.ndarray:
    """The mean of numbers and the most frequent level; of equally frequent levels the smallest code."""
    filled = np.empty_like(rows)
    numbers = np.isin(kinds, NUMBERS)
    for strategy, columns in (("mean", numbers), ("most_frequent", ~numbers)):
        if columns.any():
            filled[:, columns] = SimpleImputer(strategy=strategy).fit(train[:, columns]).transform(rows[:, columns])
    return filled


@_baseline("knn")
def _knn(train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int) -> np.ndarray:
    """The mean of the five nearest rows, for nominal columns the level that most of them have."""
    coding = _OneHot(train, kinds)
    return coding.decode(KNNImputer(n_neighbors=5).fit(coding.encode(train)).transform(coding.encode(rows)))


@_baseline("bayesian-ridge")
def _bayesian_ridge(train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int) -> np.ndarray:
    """Chained linear regressions: the default of IterativeImputer."""
    return _in_rounds(BayesianRidge(), 10, train, rows, kinds, random_state)


@_baseline("extra-trees")
def _extra_trees(train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int) -> np.ndarray:
    """Chained forests, in the manner of MissForest."""
    model = ExtraTreesRegressor(50, random_state=random_state)
    return _in_rounds(model, _ROUNDS, train, rows, kinds, random_state)


@_baseline("hist-gradient-boosting")
def _hist_gradient_boosting(train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int) -> np.ndarray:
    """One boosted model a column that reads missing entries of the others as they are: one pass, no chain."""
    filled = rows.copy()
    for column, kind in enumerate(kinds):
        asked = np.isnan(rows[:, column])
        known = ~np.isnan(train[:, column])
        target = train[known, column]
        if not asked.any():
            continue
        levels = np.unique(target)
        if len(levels) == 1 or len(kinds) == 1:  # nothing to tell apart, or nothing to tell it by
            filled[asked, column] = _mean_mode(train[:, [column]], rows[asked][:, [column]], [kind], random_state)[:, 0]
            continue
        others = np.delete(train, column, axis=1)[known]
        if kind in NOMINAL:
            model = HistGradientBoostingClassifier(max_iter=40, random_state=random_state)
        else:
            loss = "absolute_error" if kind == "ordinal" else "squared_error"
            model = HistGradientBoostingRegressor(loss=loss, max_iter=60, random_state=random_state)
        guesses = model.fit(others, target).predict(np.delete(rows, column, axis=1)[asked])
        filled[asked, column] = _nearest(guesses, levels) if kind == "ordinal" else guesses
    return filled


@_baseline("miceforest")
def _miceforest(train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int) -> np.ndarray:
    """Chained LightGBM models with predictive mean matching: five completed tables in one.

    The rows to fill are fitted too. The package's own way for new rows, ``impute_new_data``, was more than twice as
    wrong on the rows that it had been fitted on (6.0.5).
    """
    try:
        miceforest = importlib.import_module("miceforest")
    except ImportError as error:
        raise ImportError("the baseline 'miceforest' needs that package: pip install miceforest") from error
    table = rows if np.array_equal(train, rows, equal_nan=True) else np.concatenate([train, rows])
    levels = [np.unique(column[~np.isnan(column)]) for column in train.T]
    frame = pd.DataFrame(table, columns=[f"c{column}" for column in range(table.shape[1])])
    for name, kind, codes in zip(list(frame), kinds, levels, strict=True):
        if kind in NOMINAL and len(codes) > 1:
            frame[name] = pd.Categorical(frame[name], categories=codes)
    kernel = miceforest.ImputationKernel(frame, num_datasets=_DATASETS, random_state=random_state)
    kernel.mice(_ROUNDS, verbose=False)
    completed = [kernel.complete_data(number).to_numpy(float)[-len(rows) :] for number in range(_DATASETS)]
    draws = np.stack(completed)
    filled = draws.mean(axis=0)
    for column, kind in enumerate(kinds):
        if kind == "ordinal":
            filled[:, column] = _nearest(np.median(draws[:, :, column], axis=0), levels[column])
        elif kind in NOMINAL:
            counts = (draws[:, :, column, None] == levels[column]).sum(axis=0)
            filled[:, column] = levels[column][counts.argmax(axis=1)]
    return filled


def _in_rounds(
    model: Any, rounds: int, train: np.ndarray, rows: np.ndarray, kinds: Sequence[str], random_state: int
) -> np.ndarray:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  it changes scikit-learn: not at import
    from sklearn.impute import IterativeImputer

    coding = _OneHot(train, kinds)
    imputer = IterativeImputer(model, max_iter=rounds, random_state=random_state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of rounds is fixed on purpose
        return coding.decode(imputer.fit(coding.encode(train)).transform(coding.encode(rows)))


class _OneHot:
    """Numbers and ordinal codes standardised, each nominal column as a group of 0 and 1; and back."""

    def __init__(self, train: np.ndarray, kinds: Sequence[str]) -> None:
        self.kinds = kinds
        self.levels = [np.unique(column[~np.isnan(column)]) for column in train.T]
        self.means = np.nanmean(train, axis=0)
        scales = np.nanstd(train, axis=0)
        self.scales = np.where(scales > 0, scales, 1.0)

    def encode(self, values: np.ndarray) -> np.ndarray:
        parts = []
        for column, kind in enumerate(self.kinds):
            entries = values[:, [column]]
            if kind in NOMINAL:
                parts.append(np.where(np.isnan(entries), np.nan, entries == self.levels[column]))
            else:
                parts.append((entries - self.means[column]) / self.scales[column])
        return np.concatenate(parts, axis=1)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        columns, start = [], 0
        for column, kind in enumerate(self.kinds):
            levels = self.levels[column]
            stop = start + (len(levels) if kind in NOMINAL else 1)
            part, start = encoded[:, start:stop], stop
            if kind in NOMINAL:
                columns.append(levels[part.argmax(axis=1)])
            else:
                numbers = part[:, 0] * self.scales[column] + self.means[column]
                columns.append(_nearest(numbers, levels) if kind == "ordinal" else numbers)
        return np.stack(columns, axis=1)


def _nearest(guesses: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The level nearest to each guess."""
    return levels[np.abs(guesses[:, None] - levels).argmin(axis=1)]
