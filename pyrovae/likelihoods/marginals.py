"""The shape of a column of numbers: an increasing map to a normal score, and values that it takes often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.distributions.mapped_normal import at_atom

KNOTS = 33
"""Knots of a map."""
ATOM_SHARE = 0.05
"""The share of a column from which on a value is an atom."""
MOST_ATOMS = 8
_CLOSE = 1e-6


@dataclass(frozen=True)
class Marginal:
    """An increasing piecewise-linear map of a column to a normal score, and its atoms.

    Parameters
    ----------
    values, scores : sequence of float
        The knots, both increasing, at least two.
    atoms : sequence of float, default ()
        Values that hold a large share of the column, such as zeros. They are kept discrete.

    Raises
    ------
    ValueError
        The knots do not increase, are fewer than two, or are not finite.

    Examples
    --------
    >>> column = np.concatenate([np.zeros(100), np.exp(np.random.default_rng(0).normal(size=300))])
    >>> marginal = Marginal.fit(column)
    >>> marginal.atoms, len(marginal.values), bool(abs(np.interp(1.0, marginal.values, marginal.scores)) < 0.2)
    ((0.0,), 33, True)
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]
    atoms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("values", "scores", "atoms"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if len(self.values) != len(self.scores) or len(self.values) < 2:
            raise ValueError(f"a map needs two knots or more, got {len(self.values)} and {len(self.scores)}")
        for knots in (self.values, self.scores):
            if not (np.isfinite(knots).all() and (np.diff(knots) > 0).all()):
                raise ValueError("the knots of a map must be finite and increase")
        if not np.isfinite(self.atoms).all():
            raise ValueError("atoms must be finite")

    @classmethod
    def fit(cls, column: NDArray[np.float64], *, atom_share: float = ATOM_SHARE, num_knots: int = KNOTS) -> Marginal:
        """Find the map and the atoms of a column.

        Parameters
        ----------
        column : ndarray, shape ``[N]``
            Its observed values, with at least two different ones.
        atom_share : float, default 0.05
            A value that holds a larger share is an atom; at most 8 are.
        num_knots : int, default 33
            Knots of the map, at even distances of their scores.

        Raises
        ------
        ValueError
            There are fewer than two different values.

        Notes
        -----
        The score of a value is the normal quantile of its rank among those that are no atoms. Of columns of which
        little else is left, the map is linear over their range.
        """
        values, counts = np.unique(column, return_counts=True)
        if len(values) < 2:
            raise ValueError("a column needs two different values")
        often = np.flatnonzero((counts > atom_share * len(column)) & (counts > 1))
        often = often[np.argsort(-counts[often], kind="stable")][:MOST_ATOMS]
        atoms = np.sort(values[often])
        rest = np.delete(values, often), np.delete(counts, often)
        if len(rest[0]) < 3:
            spread = float(column.std())
            middle = float(column.mean())
            return cls((middle - spread, middle + spread), (-1.0, 1.0), tuple(atoms))
        ranks = np.cumsum(rest[1]) - 0.5 * rest[1]
        scores = torch.special.ndtri(torch.as_tensor(ranks / rest[1].sum())).numpy()
        values = rest[0]
        grid = np.linspace(scores[0], scores[-1], num_knots)
        knots = np.interp(grid, scores, values)
        # Far enough apart for single precision.
        gap = _CLOSE * (float(column.std()) + np.abs(knots).max())
        knots = np.maximum.accumulate(knots - gap * np.arange(num_knots)) + gap * np.arange(num_knots)
        return cls(tuple(knots), tuple(grid), tuple(atoms))

    def is_atom(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which values ``[N]`` are atoms, as `MappedNormal` tells them."""
        return at_atom(values[:, None], np.array(self.atoms)).any(1)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return {name: list(getattr(self, name)) for name in ("values", "scores", "atoms")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Sequence[float]]) -> Marginal:
        """What `to_dict` wrote."""
        return cls(tuple(stored["values"]), tuple(stored["scores"]), tuple(stored["atoms"]))


UNCHANGED = Marginal((-1.0, 1.0), (-1.0, 1.0))
"""The map that changes nothing."""
