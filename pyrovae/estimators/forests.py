"""Forests that predict each column of a table from rows that something else has completed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from tqdm.auto import tqdm

from pyrovae.estimators.archives import stored_arrays, write_arrays
from pyrovae.estimators.stacking import Expectations

MOST_ROWS, MOST_WORK = 5000, 5_000_000
"""Forests grow with the rows, and take time as rows, columns and places do, so larger tables do without."""
MOST_LEVELS = 30
MIN_OBSERVED = 20
NUM_TREES = 50
MIN_LEAF_LEVELS = 3
_NAMES = ("feature", "threshold", "left", "right", "value", "roots")
_ENTRIES_AT_ONCE = 2_000_000


@dataclass(frozen=True, eq=False)
class Forest:
    """Extremely randomised trees as plain arrays. The nodes of all trees follow each other.

    Parameters
    ----------
    feature : ndarray of int, shape ``[nodes]``
        The feature that a node asks for, -1 in leaves.
    threshold : ndarray of float, shape ``[nodes]``
        Values up to it go to the left, in single precision as scikit-learn has it.
    left, right : ndarray of int, shape ``[nodes]``
        The children, whose numbers are larger than that of the node.
    value : ndarray of float, shape ``[nodes, outputs]``
        What is predicted in a leaf.
    roots : ndarray of int, shape ``[trees]``
        Where each tree starts.

    Raises
    ------
    ValueError
        The arrays do not fit together.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    roots: NDArray[np.int64]

    def __post_init__(self) -> None:
        nodes = len(self.feature)
        if self.value.ndim != 2 or not len(self.roots):
            raise ValueError("a forest has a value for each node, and a tree at least")
        if any(getattr(self, name).shape[:1] != (nodes,) for name in ("threshold", "left", "right", "value")):
            raise ValueError("the arrays of a forest are of different lengths")
        inner = np.flatnonzero(self.feature >= 0)
        for child in (self.left[inner], self.right[inner]):
            if ((child <= inner) | (child >= nodes)).any():  # children come later, so that every path ends
                raise ValueError("a child of a node comes before it, or is none")
        if ((self.roots < 0) | (self.roots >= nodes)).any() or not np.isfinite(self.value).all():
            raise ValueError("a tree of a forest starts nowhere, or a value is not finite")

    @classmethod
    def of(cls, model: ExtraTreesRegressor | ExtraTreesClassifier) -> Forest:
        """Copy the trees of a fitted model of one output or one list of classes."""
        trees = [each.tree_ for each in model.estimators_]
        starts = np.cumsum([0, *(tree.node_count for tree in trees)])
        leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        shift = np.repeat(starts[:-1], np.diff(starts))
        value = np.concatenate([tree.value[:, 0, :] for tree in trees])
        if isinstance(model, ExtraTreesClassifier):
            value = value / value.sum(1, keepdims=True)
        return cls(
            np.where(leaf, -1, np.concatenate([tree.feature for tree in trees])).astype(np.int32),
            np.concatenate([tree.threshold for tree in trees]),
            np.where(leaf, 0, np.concatenate([tree.children_left for tree in trees]) + shift).astype(np.int32),
            np.where(leaf, 0, np.concatenate([tree.children_right for tree in trees]) + shift).astype(np.int32),
            value,
            starts[:-1].astype(np.int64),
        )

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of the trees, ``[N, outputs]``, of rows ``[N, features]``."""
        if self.feature.max() >= x.shape[1]:
            raise ValueError(f"a node asks for feature {self.feature.max()} of rows with {x.shape[1]}")
        step, parts = max(1, _ENTRIES_AT_ONCE // len(self.roots)), []
        for start in range(0, len(x), step):
            rows = x[start : start + step].astype(np.float32)
            node = np.repeat(self.roots[None], len(rows), 0)
            while (inner := self.feature[node] >= 0).any():
                asked = rows[np.arange(len(rows))[:, None], np.maximum(self.feature[node], 0)]
                child = np.where(asked <= self.threshold[node], self.left[node], self.right[node])
                node = np.where(inner, child, node)
            parts.append(self.value[node].mean(1))
        return np.concatenate(parts) if parts else np.zeros((0, self.value.shape[1]))


@dataclass(frozen=True, eq=False)
class ColumnForests:
    """One forest a column, which predicts it from completed rows of the other columns: a round of self-imputation.

    Use it after a model that completes rows. Unlike models that see missing entries as such, it is told what that model
    expects of them. Made by `fit` or `load`.

    Parameters
    ----------
    layout : Expectations
        The columns, and where each stands in completed rows: numbers, and a place for each level.
    forests : mapping of int to Forest
        The forests by column.
    seen : mapping of int to ndarray of int
        The levels that the forest of a column knows; empty for numbers.

    References
    ----------
    P. Geurts, D. Ernst and L. Wehenkel (2006), "Extremely randomized trees". D. J. Stekhoven and P. Buehlmann (2012),
    "MissForest".
    """

    layout: Expectations
    forests: Mapping[int, Forest]
    seen: Mapping[int, NDArray[np.int64]]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which columns have a forest, ``[D]``."""
        found = np.zeros(len(self.layout.places), dtype=bool)
        found[list(self.forests)] = True
        return found

    @classmethod
    def fit(
        cls,
        layout: Expectations,
        completed: NDArray[np.float64],
        values: NDArray[np.float64],
        *,
        random_state: int,
        num_trees: int = NUM_TREES,
        verbose: bool = False,
    ) -> ColumnForests:
        """Fit a forest of each column on the rows in which it is observed.

        Parameters
        ----------
        layout : Expectations
            The columns.
        completed : ndarray, shape ``[N, H]``
            Completed rows, see `completed_rows`.
        values : ndarray, shape ``[N, D]``
            Scaled numbers and codes of levels, NaN where they are missing.
        random_state : int
            Seed of the forests.
        num_trees : int, default 50
            Trees of a forest.
        verbose : bool, default False
            Show a bar over the columns.
        """
        forests, seen = {}, {}
        for column, (start, end) in enumerate(tqdm(layout.places, desc="forests", unit="column", disable=not verbose)):
            known = np.flatnonzero(~np.isnan(values[:, column]))
            target, is_level = values[known, column], bool(layout.is_level[column])
            classes = np.unique(target)
            few = len(known) < MIN_OBSERVED or layout.width == end - start or len(classes) < 2
            if few or (is_level and end - start > MOST_LEVELS):
                continue
            others = np.delete(completed, np.s_[start:end], 1)[known]
            options: dict[str, Any] = {"n_estimators": num_trees, "random_state": random_state % 2**32}
            if is_level:
                model = ExtraTreesClassifier(min_samples_leaf=MIN_LEAF_LEVELS, **options).fit(others, target)
            else:
                model = ExtraTreesRegressor(**options).fit(others, target)
            forests[column] = Forest.of(model)
            seen[column] = classes.astype(np.int64) if is_level else np.zeros(0, dtype=np.int64)
        return cls(layout, forests, seen)

    def predict(self, completed: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the forests expect of the columns of completed rows, ``[N, H]``; zeros for columns without one."""
        found = np.zeros_like(completed)
        for column, forest in self.forests.items():
            start, end = self.layout.places[column]
            predicted = forest.predict(np.delete(completed, np.s_[start:end], 1))
            places = start + self.seen[column] if self.layout.is_level[column] else [start]
            found[:, places] = predicted
        return found

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, without pickle."""
        arrays: dict[str, Any] = {"columns": np.array(sorted(self.forests), dtype=np.int64)}
        for column, forest in self.forests.items():
            arrays |= {f"{column}.{name}": getattr(forest, name) for name in _NAMES}
            arrays[f"{column}.seen"] = self.seen[column]
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path, layout: Expectations) -> ColumnForests:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file cannot be read, is damaged, or is of other columns.
        """
        with stored_arrays(path) as stored:
            columns = stored["columns"].tolist()
            forests = {column: Forest(*(stored[f"{column}.{name}"] for name in _NAMES)) for column in columns}
            seen = {column: stored[f"{column}.seen"] for column in columns}
        for column in columns:
            if not 0 <= column < len(layout.places):
                raise ValueError(f"{path} is of another table: it has no column {column}; save the model again")
            start, end = layout.places[column]
            outputs = len(seen[column]) if layout.is_level[column] else 1
            wide = forests[column].feature.max() >= layout.width - (end - start)
            if wide or forests[column].value.shape[1] != outputs or (seen[column] >= end - start).any():
                raise ValueError(f"{path} is of another table: column {column} does not fit; save the model again")
        return cls(layout, forests, seen)


def affordable(rows: int, layout: Expectations) -> bool:
    """Whether a table is small enough for forests: fitted in half a minute of processor time or so.

    Examples
    --------
    >>> from pyrovae.likelihoods.tables import ColumnFamilies
    >>> small, wide = (Expectations(ColumnFamilies(("normal",) * size, (0,) * size)) for size in (30, 1000))
    >>> affordable(500, small), affordable(500, wide), affordable(50_000, small)
    (True, False, False)
    """
    return rows <= MOST_ROWS and rows * len(layout.places) * layout.width <= MOST_WORK


def completed_rows(
    layout: Expectations, expected: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows ``[N, H]`` with what is expected of missing entries, and 1 for the level of an observed one.

    Parameters
    ----------
    layout : Expectations
        The columns.
    expected : ndarray, shape ``[N, H]``
        What is expected of them.
    values : ndarray, shape ``[N, D]``
        Scaled numbers and codes of levels, NaN where they are missing.
    """
    found = expected.copy()
    for column, (start, end) in enumerate(layout.places):
        known = ~np.isnan(values[:, column])
        if layout.is_level[column]:
            found[known, start:end] = np.eye(end - start)[values[known, column].astype(int)]
        else:
            found[known, start] = values[known, column]
    return found
