"""Boosted trees of scikit-learn as plain arrays, so that they are stored without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.utils.validation import check_is_fitted

_ENTRIES_AT_ONCE = 50_000  # rows times trees; more of them leave the processor's cache
_KINDS = {
    "feature": "iu",
    "threshold": "f",
    "left": "iu",
    "right": "iu",
    "missing_go_to_left": "b",
    "is_leaf": "b",
    "value": "f",
    "offsets": "iu",
    "baseline": "f",
    "num_features": "iu",
}


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """The trees of one model of scikit-learn's histogram gradient boosting as plain arrays.

    Use it to store such a model without pickle. The nodes of all trees follow each other; a parent comes before its
    children. Tree ``i`` belongs to output ``i % outputs``.

    Parameters
    ----------
    feature : ndarray of int, shape ``[nodes]``
        The feature that a node asks for.
    threshold : ndarray of float, shape ``[nodes]``
        Values up to it go to the left.
    left, right : ndarray of int, shape ``[nodes]``
        Positions of the children among the nodes of all trees. Those of leaves are not read.
    missing_go_to_left, is_leaf : ndarray of bool, shape ``[nodes]``
        Whether NaN goes to the left, and whether the node has no children.
    value : ndarray of float, shape ``[nodes]``
        What a leaf adds to the prediction.
    offsets : ndarray of int, shape ``[trees + 1]``
        Where each tree starts, and the number of nodes.
    baseline : ndarray of float, shape ``[outputs]``
        The prediction without trees.
    num_features : int
        Width of the rows.

    Raises
    ------
    ValueError
        Shapes, types or positions do not fit together.

    Examples
    --------
    >>> x = np.linspace(0, 1, 100)[:, None]
    >>> model = HistGradientBoostingRegressor(max_iter=3).fit(x, x[:, 0] > 0.5)
    >>> bool(np.allclose(TreeArrays.of(model).raw_predict(x)[:, 0], model.predict(x)))
    True
    """

    feature: NDArray[np.integer]
    threshold: NDArray[np.float64]
    left: NDArray[np.integer]
    right: NDArray[np.integer]
    missing_go_to_left: NDArray[np.bool_]
    is_leaf: NDArray[np.bool_]
    value: NDArray[np.float64]
    offsets: NDArray[np.integer]
    baseline: NDArray[np.float64]
    num_features: int

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            array, dimensions = np.asarray(getattr(self, name)), 0 if name == "num_features" else 1
            if array.dtype.kind not in kind or array.ndim != dimensions:
                raise ValueError(f"{name} of trees has the wrong type or shape: {array.dtype}, {array.shape}")
            if name not in ("offsets", "baseline", "num_features") and len(array) != len(self.value):
                raise ValueError(f"{name} of trees has {len(array)} entries for {len(self.value)} nodes")
        object.__setattr__(self, "num_features", int(self.num_features))
        offsets, trees = self.offsets.astype(np.int64), len(self.offsets) - 1
        if trees < 1 or not len(self.baseline) or trees % len(self.baseline):
            raise ValueError(f"there are {trees} trees for {len(self.baseline)} outputs")
        if offsets[0] != 0 or offsets[-1] != len(self.value) or (np.diff(offsets) < 1).any():
            raise ValueError("offsets of trees do not divide the nodes into trees")
        inner = np.flatnonzero(~self.is_leaf)
        end = np.repeat(offsets[1:], np.diff(offsets))[inner]
        for child in (self.left[inner].astype(np.int64), self.right[inner].astype(np.int64)):
            if ((child <= inner) | (child >= end)).any():  # children come later, so that every path ends
                raise ValueError("a child of a node comes before it, or lies outside of its tree")
        feature = self.feature[inner].astype(np.int64)
        if ((feature < 0) | (feature >= self.num_features)).any():
            raise ValueError(f"a node asks for a feature that is none of the {self.num_features}")
        if np.isnan(self.threshold).any() or not np.isfinite(self.value).all() or not np.isfinite(self.baseline).all():
            raise ValueError("thresholds, values or baselines of trees are not finite")

    @classmethod
    def of(cls, model: HistGradientBoostingRegressor | HistGradientBoostingClassifier) -> TreeArrays:
        """Copy the trees of a fitted model.

        Parameters
        ----------
        model : HistGradientBoostingRegressor or HistGradientBoostingClassifier
            The model, fitted without categorical features.

        Raises
        ------
        TypeError
            It is another model.
        ValueError
            It is not fitted, or has categorical features.
        """
        if not isinstance(model, HistGradientBoostingRegressor | HistGradientBoostingClassifier):
            raise TypeError(f"model must be one of histogram gradient boosting, got {type(model).__name__}")
        check_is_fitted(model)
        if model.is_categorical_ is not None:
            raise ValueError("model has categorical features; only numerical ones can be stored")
        trees = [tree.nodes for step in model._predictors for tree in step]
        offsets = np.cumsum([0, *map(len, trees)])
        nodes, start = np.concatenate(trees), np.repeat(offsets[:-1], np.diff(offsets))
        leaf = nodes["is_leaf"].astype(bool)
        return cls(
            feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
            threshold=np.where(leaf, 0.0, nodes["num_threshold"]),
            left=np.where(leaf, 0, nodes["left"] + start).astype(np.int32),
            right=np.where(leaf, 0, nodes["right"] + start).astype(np.int32),
            missing_go_to_left=nodes["missing_go_to_left"].astype(bool),
            is_leaf=leaf,
            value=np.where(leaf, nodes["value"], 0.0),
            offsets=offsets.astype(np.int32),
            baseline=np.array(model._baseline_prediction, dtype=np.float64).reshape(-1),
            num_features=model.n_features_in_,
        )

    @property
    def num_outputs(self) -> int:
        """Numbers that are predicted for a row."""
        return len(self.baseline)

    def raw_predict(self, x: NDArray) -> NDArray[np.float64]:
        """Sums of the trees, before the link: numbers, the logit of the second class, or logits of all classes.

        Parameters
        ----------
        x : ndarray, shape ``[N, num_features]``
            The rows, NaN where an entry is missing.

        Returns
        -------
        ndarray, shape ``[N, outputs]``
            What scikit-learn's `predict` of numbers and `decision_function` of classes give.

        Raises
        ------
        ValueError
            The rows have another width.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.num_features:
            raise ValueError(f"rows must have shape [N, {self.num_features}], got {x.shape}")
        at_once, raw = max(1, _ENTRIES_AT_ONCE // (len(self.offsets) - 1)), np.empty((len(x), self.num_outputs))
        children = np.stack([self.right, self.left], 1).astype(np.intp).reshape(-1)
        feature = self.feature.astype(np.intp)
        for start in range(0, len(x), at_once):
            part = x[start : start + at_once]
            values = self.value[self._leaves(part, feature, children)].reshape(len(part), -1, self.num_outputs)
            found = np.tile(self.baseline, (len(part), 1))
            for step in range(values.shape[1]):  # the order of scikit-learn's sum
                found += values[:, step]
            raw[start : start + at_once] = found
        return raw

    def _leaves(
        self, x: NDArray[np.float64], feature: NDArray[np.intp], children: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """The leaf of each row in each tree, ``[N, trees]``, all trees at once; `children` are right, left by turns."""
        leaf, trees = self.is_leaf, len(self.offsets) - 1
        nodes = np.tile(self.offsets[:-1].astype(np.intp), len(x))
        entries, places = x.reshape(-1), np.flatnonzero(~leaf[nodes])
        here, starts = nodes[places], places // trees * self.num_features
        while len(places):
            asked = entries.take(feature.take(here) + starts)
            to_left = asked <= self.threshold.take(here)
            to_left |= np.isnan(asked) & self.missing_go_to_left.take(here)
            here = children.take(2 * here + to_left)
            nodes[places] = here
            inner = np.flatnonzero(~leaf.take(here))
            places, here, starts = places.take(inner), here.take(inner), starts.take(inner)
        return nodes.reshape(len(x), trees)

    def to_arrays(self) -> dict[str, NDArray]:
        """The fields by name."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> TreeArrays:
        """What `to_arrays` gave; ValueError where something is missing or does not fit."""
        if absent := [name for name in _KINDS if name not in arrays]:
            raise ValueError(f"the array {absent[0]!r} of trees is missing")
        found: dict[str, Any] = {name: arrays[name] for name in _KINDS}
        return cls(**found)
