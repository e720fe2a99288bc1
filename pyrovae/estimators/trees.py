"""Boosted trees that predict each column of a table from the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from tqdm.auto import tqdm

from pyrovae.data.stored import first_line
from pyrovae.estimators.archives import write_arrays
from pyrovae.estimators.tree_arrays import TreeArrays
from pyrovae.likelihoods.tables import OF_LEVELS, ColumnFamilies

MIN_OBSERVED = 20
"""Observed values that a column needs for a model."""
RARE = 3e-4
"""The least probability of a level, also of one that a model did not see."""
_NUMBERS = ("normal", "student-t", "quantile")
_LEVELS = ("bernoulli", "categorical")

Model: TypeAlias = HistGradientBoostingRegressor | HistGradientBoostingClassifier | None
"""A fitted model; None where only one class was seen."""


@dataclass(frozen=True, eq=False)
class ColumnTrees:
    """One boosted model a column of a table, that predicts it from all other columns.

    Use it beside a VAE of the table, see `Expectations.weights`. A model sees missing entries of the other columns as
    they are, and codes of levels as numbers. Made by `fit` or `load`.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    models : mapping of int to TreeArrays
        The models of columns that have one.
    seen : mapping of int to ndarray
        The codes that the model of a column with levels was fitted on, increasing; empty for numbers.

    Raises
    ------
    ValueError
        A model does not suit its column.

    Notes
    -----
    Predicted are the scaled value of normal, Student-t and quantile columns, and the probabilities of all codes of
    Bernoulli and categorical columns. Other families have no model, nor have columns with few observed values, one
    observed class, or too many levels.

    Examples
    --------
    >>> first = np.arange(200.0) % 2
    >>> table = np.stack([first, np.where(first == 1, 3.0, -3.0)], 1)
    >>> trees = ColumnTrees.fit(table, ("bernoulli", "normal"), (2, 0), random_state=0)
    >>> trees.layout, trees.predict(table).shape
    ([(0, 0, 2), (1, 2, 1)], (200, 3))
    """

    columns: ColumnFamilies
    models: Mapping[int, TreeArrays]
    seen: Mapping[int, NDArray[np.int64]]

    def __post_init__(self) -> None:
        families, sizes = self.columns.families, self.columns.num_levels
        for column, trees in self.models.items():
            if not 0 <= column < len(families) or families[column] not in _NUMBERS + _LEVELS:
                raise ValueError(f"column {column} has a model, but cannot have one")
            seen = np.asarray(self.seen[column])
            if seen.ndim != 1 or seen.dtype.kind not in "iu":
                raise ValueError(f"the codes seen of column {column} must be whole numbers, got {seen.dtype}")
            outputs = 1
            if families[column] in _LEVELS:
                if len(seen) < 2 or (np.diff(seen) < 1).any() or seen[0] < 0 or seen[-1] >= sizes[column]:
                    raise ValueError(f"the codes seen of column {column} do not suit its {sizes[column]} levels")
                outputs = 1 if len(seen) == 2 else len(seen)
            if trees.num_features != len(families) - 1 or trees.num_outputs != outputs:
                got = f"{trees.num_features} features and {trees.num_outputs} outputs"
                raise ValueError(f"the model of column {column} has {got}, not {len(families) - 1} and {outputs}")

    @property
    def layout(self) -> list[tuple[int, int, int]]:
        """Where the prediction of a column lies among all: column, start and size."""
        found, start = [], 0
        for column in sorted(self.models):
            size = _size(self.columns, column)
            found.append((column, start, size))
            start += size
        return found

    @classmethod
    def fit(
        cls,
        values: NDArray,
        families: Sequence[str],
        num_levels: Sequence[int],
        *,
        random_state: int,
        max_levels: int = 100,
        max_iter_numbers: int = 60,
        max_iter_levels: int = 40,
        verbose: bool = False,
    ) -> ColumnTrees:
        """Fit a model of each column on the rows in which it is observed.

        Parameters
        ----------
        values : ndarray, shape ``[N, D]``
            The training rows: scaled numbers, codes of levels from 0, NaN where an entry is missing.
        families, num_levels : sequence, length D
            As for `ColumnFamilies`.
        random_state : int
            Seed of the models, 0 or more.
        max_levels : int, default 100
            A column with more levels has no model.
        max_iter_numbers, max_iter_levels : int, default 60 and 40
            Rounds of boosting.
        verbose : bool, default False
            Show a bar over the columns.

        Returns
        -------
        ColumnTrees
            The models.

        Raises
        ------
        ValueError
            The shape of the values is wrong, or a code of a level is none.
        """
        columns = ColumnFamilies(tuple(families), tuple(num_levels))
        values = _checked(values, columns)
        models, seen = {}, {}
        for column, family in enumerate(tqdm(columns.families, desc="trees", unit="column", disable=not verbose)):
            target, levels = values[:, column], columns.num_levels[column]
            known = np.flatnonzero(~np.isnan(target))
            codes = _codes(target[known], column, levels) if family in OF_LEVELS else np.empty(0, dtype=np.int64)
            few = len(known) < MIN_OBSERVED or len(columns.families) == 1 or family not in _NUMBERS + _LEVELS
            if few or (family in _LEVELS and (len(codes) < 2 or levels > max_levels)):
                continue
            others, rounds = np.delete(values, column, 1), max_iter_levels if family in _LEVELS else max_iter_numbers
            model = _fitted(others[known], target[known], family, rounds, random_state)
            models[column], seen[column] = TreeArrays.of(model), codes
        return cls(columns, models, seen)

    def predict(self, values: NDArray) -> NDArray[np.float64]:
        """Predict the columns of rows from their other entries.

        Parameters
        ----------
        values : ndarray, shape ``[M, D]``
            The rows, as for `fit`. What is predicted of a column does not read that column.

        Returns
        -------
        ndarray, shape ``[M, H]``
            The predictions in the order of `layout`. Those of a row do not depend on other rows.

        Raises
        ------
        ValueError
            The values have another shape, or are infinite.
        """
        values, parts = _checked(values, self.columns), [np.empty((len(values), 0))]
        for column, _, size in self.layout:
            raw = self.models[column].raw_predict(np.delete(values, column, 1))
            parts.append(raw if self.columns.families[column] in _NUMBERS else _probs(raw, self.seen[column], size))
        return np.concatenate(parts, 1)

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, without pickle. A file of this name is replaced."""
        arrays: dict[str, Any] = {
            "families": np.array(self.columns.families),
            "num_levels": np.array(self.columns.num_levels),
        }
        arrays["modelled"] = np.array(sorted(self.models), dtype=np.int64)
        for column, trees in self.models.items():
            arrays |= {f"{column}.{name}": array for name, array in trees.to_arrays().items()}
            arrays[f"{column}.seen"] = self.seen[column]
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> ColumnTrees:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file cannot be read, is damaged, or holds something else. The message is one line that names it.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
            columns = ColumnFamilies(tuple(arrays["families"].tolist()), tuple(arrays["num_levels"].tolist()))
            models, seen = {}, {}
            for column in arrays["modelled"].tolist():
                own = {name.partition(".")[2]: a for name, a in arrays.items() if name.startswith(f"{column}.")}
                models[column], seen[column] = TreeArrays.from_arrays(own), own["seen"]
            return cls(columns, models, seen)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror or first_line(error)})") from None
        except Exception as error:  # a damaged file raises whatever its parser trips over
            raise ValueError(f"{path} holds no trees of columns, or is damaged ({first_line(error)})") from None


def _size(columns: ColumnFamilies, column: int) -> int:
    return columns.num_levels[column] if columns.families[column] in _LEVELS else 1


def _checked(values: NDArray, columns: ColumnFamilies) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(columns.families):
        raise ValueError(f"values must have shape [N, {len(columns.families)}], got {values.shape}")
    if np.isinf(values).any():
        raise ValueError("values must be finite, or NaN where an entry is missing; got an infinite one")
    return values


def _codes(known: NDArray[np.float64], column: int, levels: int) -> NDArray[np.int64]:
    """The codes that occur."""
    codes = np.unique(known)
    wrong = codes[(codes < 0) | (codes >= levels) | (codes != codes.round())]
    if len(wrong):
        raise ValueError(f"codes of column {column} must be whole numbers from 0 to {levels - 1}, got {wrong[0]:g}")
    return codes.astype(np.int64)


def _fitted(
    x: NDArray, target: NDArray, family: str, rounds: int, random_state: int
) -> HistGradientBoostingRegressor | HistGradientBoostingClassifier:
    options = {"max_iter": rounds, "max_leaf_nodes": 31, "early_stopping": False, "random_state": random_state}
    x = np.where(np.isnan(x).all(axis=0), 0.0, x)  # scikit-learn cannot bin a column without values
    if family in _NUMBERS:
        return HistGradientBoostingRegressor(**options).fit(x, target)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*unique classes.*")  # few values of each, but fewer than the limit
        return HistGradientBoostingClassifier(**options).fit(x, target.astype(int))


def _probs(raw: NDArray[np.float64], seen: NDArray[np.integer], levels: int) -> NDArray[np.float64]:
    """Probabilities of all levels from raw predictions of a model and the codes that it saw."""
    if len(seen) == 2:
        raw = np.concatenate([np.zeros_like(raw), raw], 1)
    found = np.full((len(raw), levels), RARE)
    found[:, seen] = np.maximum(softmax(raw, axis=1), RARE)
    return found / found.sum(1, keepdims=True)
