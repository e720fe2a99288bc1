"""A factor analyser of the columns of a table: what is linear between them, for predictions and for draws of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.utils.extmath import randomized_svd

from pyrovae.data.rows import slices
from pyrovae.estimators.archives import stored_arrays, write_arrays
from pyrovae.estimators.stacking import Expectations
from pyrovae.likelihoods.tables import COUNTS, OF_LEVELS, POSITIVE, ColumnFamilies

MAX_FACTORS = 20
MAX_LEVELS = 30
"""A column of more levels without an order is left out."""
RARE = 3e-4
"""The least probability of a level."""
_MOST_FEATURES = 2000
_MOST_ROWS = 3000
_ITERATIONS = 30
_FLOOR = 0.02
_LARGEST = 8.0
_ROWS_AT_ONCE = 2048
_NUMBERS = ("normal", "student-t", "quantile")
_ARRAYS = ("loadings", "noise", "loc", "scale", "owner", "level")


@dataclass(frozen=True, eq=False)
class FactorModel:
    """A factor analyser of a table: a linear VAE, whose posterior is exact whatever is missing.

    Use it beside a VAE of the table. It predicts missing entries linearly, which is hard to beat on small tables of
    numbers. And it says how what is left of the missing entries of one row goes together, so that entries drawn from
    other predictions keep their relations. Made by `fit` or `load`.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    loadings : ndarray, shape ``[C, R]``
        Loadings of the features: a number, an ordered level and a level of two are one feature each, other levels one
        for each level.
    noise : ndarray, shape ``[C]``
        Variances of what the factors do not explain.
    loc, scale : ndarray, shape ``[C]``
        Mean and standard deviation of the features.
    owner, level : ndarray of int, shape ``[C]``
        The column of each feature, and its level; -1 if the feature is the number or the code itself.

    Notes
    -----
    The standardised features of a row are t = W f + e with standard normal factors f and independent noise e. Given the
    observed features o, the factors are normal with the precision P = I + W_o' N_o^-1 W_o and the mean
    P^-1 W_o' N_o^-1 t_o, where N holds the variances of e.

    References
    ----------
    D. Rubin and D. Thayer (1982), "EM algorithms for ML factor analysis". M. Tipping and C. Bishop (1999),
    "Probabilistic principal component analysis", section 3.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> first = generator.normal(size=500)
    >>> table = np.stack([first, first + 0.5 * generator.normal(size=500)], 1)
    >>> factors = FactorModel.fit(table, ColumnFamilies(("normal", "normal"), (0, 0)), random_state=0)
    >>> asked = np.array([[2.0, np.nan]])
    >>> bool(abs(factors.predict(asked)[0, 1] - 2.0) < 0.2)
    True
    """

    columns: ColumnFamilies
    loadings: NDArray[np.float64]
    noise: NDArray[np.float64]
    loc: NDArray[np.float64]
    scale: NDArray[np.float64]
    owner: NDArray[np.int64]
    level: NDArray[np.int64]

    @classmethod
    def fit(
        cls, values: NDArray, columns: ColumnFamilies, *, ordered: Sequence[bool] | None = None, random_state: int
    ) -> FactorModel:
        """Fit the analyser to incomplete rows by the EM algorithm.

        Parameters
        ----------
        values : ndarray, shape ``[N, D]``
            The training rows: scaled numbers, codes of levels from 0, NaN where an entry is missing.
        columns : ColumnFamilies
            The families of the columns.
        ordered : sequence of bool, length D, optional
            Which columns of levels have an order. None: those of the family "ordered".
        random_state : int
            Seed of the rows that are taken of a long table, and of the first loadings.

        Returns
        -------
        FactorModel
            With as many factors as features but one, at most 20.
        """
        families = columns.families
        in_order = np.array([family == "ordered" for family in families]) | np.array(
            ordered if ordered is not None else [False] * len(families)
        )
        generator = np.random.RandomState(random_state)
        some = np.asarray(values, dtype=np.float64)[generator.permutation(len(values))[:_MOST_ROWS]]
        owner, level = _features(columns, in_order)
        raw = _raw(some, columns, owner, level)
        known = ~np.isnan(raw)
        counts = np.maximum(known.sum(0), 1)
        loc = np.where(known, raw, 0.0).sum(0) / counts
        scale = np.sqrt(np.square(np.where(known, raw - loc, 0.0)).sum(0) / counts)
        varies = scale > 1e-9
        owner, level, loc, scale = owner[varies], level[varies], loc[varies], scale[varies]
        standard = np.where(known[:, varies], ((raw[:, varies] - loc) / scale).clip(-_LARGEST, _LARGEST), 0.0)
        loadings, noise = _em(standard, known[:, varies], random_state)
        return cls(columns, loadings, noise, loc, scale, owner, level)

    def predict(self, values: NDArray) -> NDArray[np.float64]:
        """What is expected of the missing entries of rows.

        Parameters
        ----------
        values : ndarray, shape ``[M, D]``
            The rows, as for `fit`.

        Returns
        -------
        ndarray, shape ``[M, H]``
            In the order of `Expectations`; zeros for columns that are not `known`. What stands for an observed entry
            has seen that entry.
        """
        layout = Expectations(self.columns)
        found = np.zeros((len(values), layout.width))
        for part in slices(len(values), _ROWS_AT_ONCE):
            raw = _raw(np.asarray(values[part], dtype=np.float64), self.columns, self.owner, self.level)
            seen = ~np.isnan(raw)
            standard = np.where(seen, ((raw - self.loc) / self.scale).clip(-_LARGEST, _LARGEST), 0.0)
            covariance = self._covariance(seen)
            factors = covariance @ (standard @ (self.loadings / self.noise[:, None]))[..., None]
            expected = self.loc + self.scale * (factors[..., 0] @ self.loadings.T)
            for column in np.flatnonzero(self.known):
                start, end = layout.places[column]
                mine = np.flatnonzero(self.owner == column)
                if not layout.is_level[column]:
                    found[part, start] = expected[:, mine[0]]
                    continue
                probs = np.full((len(raw), end - start), RARE)
                if self.level[mine[0]] < 0:
                    probs[:, 1] = expected[:, mine[0]]
                    probs[:, 0] = 1 - probs[:, 1]
                else:
                    probs[:, self.level[mine]] = expected[:, mine]
                probs = np.maximum(probs, RARE)
                found[part, start:end] = probs / probs.sum(1, keepdims=True)
        return found

    def deviations(self, values: NDArray) -> NDArray[np.float64]:
        """Standard deviations of what `predict` leaves of the missing numbers of rows, ``[M, D]``; else zeros."""
        found = np.zeros((len(values), len(self.columns.families)))
        mine = np.flatnonzero((self.level < 0) & self.known[self.owner])
        for part in slices(len(values), _ROWS_AT_ONCE):
            seen = ~np.isnan(values[part][:, self.owner])
            root = np.linalg.cholesky(self._covariance(seen))
            spread = np.sqrt(np.square(self.loadings[mine] @ root).sum(-1) + self.noise[mine])
            found[part, self.owner[mine]] = self.scale[mine] * spread
        return found

    @property
    def num_factors(self) -> int:
        """The number of factors."""
        return int(self.loadings.shape[1])

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which columns `predict` knows: normal, Student-t and quantile ones, and levels without an order, ``[D]``."""
        found = np.zeros(len(self.columns.families), dtype=bool)
        for column in np.unique(self.owner):
            family, first = self.columns.families[column], self.level[self.owner == column][0]
            two = family in OF_LEVELS and self.columns.num_levels[column] == 2
            found[column] = family in _NUMBERS or first >= 0 or two
        return found

    def uniform(self, mask: NDArray[np.bool_], normal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Uniform numbers for the missing entries of rows that go together as the entries do.

        Parameters
        ----------
        mask : ndarray of bool, shape ``[B, D]``
            The observed entries of rows.
        normal : ndarray, shape ``[M, B, R + D]``
            Independent standard normal numbers.

        Returns
        -------
        ndarray, shape ``[M, B, D]``
            Each is uniform in (0, 1). Those of one row and draw depend on each other as the missing entries do given
            the observed ones. Those of columns with levels without an order, and of columns left out, are independent.

        Notes
        -----
        A Gaussian copula: u = Phi(r / sd(r)), where r is a draw of the features less their conditional mean.
        Which entries are observed matters for it, and not their values.
        """
        found = normal[..., self.num_factors :].copy()
        mine = np.flatnonzero(self.level < 0)
        loadings, noise, places = self.loadings[mine], self.noise[mine], self.owner[mine]
        for part in slices(len(mask), _ROWS_AT_ONCE):
            root = np.linalg.cholesky(self._covariance(mask[part][:, self.owner]))  # [B, R, R]
            own = normal[:, part].swapaxes(0, 1)  # [B, M, R + D]
            factors = own[..., : self.num_factors] @ root.swapaxes(1, 2)
            spread = np.sqrt(np.square(loadings @ root).sum(-1) + noise)[:, None]
            rest = np.sqrt(noise) * own[..., self.num_factors + places]
            found[:, part, places] = ((factors @ loadings.T + rest) / spread).swapaxes(0, 1)
        return ndtr(found)

    def _covariance(self, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Covariances of the factors of rows given their observed features, ``[B, R, R]``."""
        inverse = np.linalg.inv(_precision(seen.astype(np.float64), self.loadings, self.noise))
        return np.asarray(inverse, dtype=np.float64)

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, without pickle. A file of this name is replaced."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays["families"] = np.array(self.columns.families)
        arrays["num_levels"] = np.array(self.columns.num_levels)
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | Path) -> FactorModel:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file cannot be read, is damaged, or holds something else. The message is one line that names it.
        """
        with stored_arrays(path) as arrays:
            columns = ColumnFamilies(tuple(arrays["families"].tolist()), tuple(arrays["num_levels"].tolist()))
            found = cls(columns, *(arrays[name] for name in _ARRAYS))
        count = len(found.owner)
        if found.loadings.ndim != 2 or any(len(getattr(found, name)) != count for name in _ARRAYS):
            raise ValueError(f"{path} is damaged: its arrays do not fit together; save the model again")
        sizes = np.maximum(columns.num_levels, 1)
        if not all(np.isfinite(getattr(found, name)).all() for name in _ARRAYS) or (found.noise <= 0).any():
            raise ValueError(f"{path} is damaged: some of its numbers are none; save the model again")
        if count and not (found.owner.min() >= 0 and found.owner.max() < len(sizes)):
            raise ValueError(f"{path} is damaged: it knows columns that there are not; save the model again")
        if (found.level >= sizes[found.owner]).any():
            raise ValueError(f"{path} is damaged: it knows levels that there are not; save the model again")
        return found


def _features(columns: ColumnFamilies, ordered: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Column and level of each feature."""
    found: list[tuple[int, int]] = []
    for column, (family, levels) in enumerate(zip(columns.families, columns.num_levels, strict=True)):
        if family not in OF_LEVELS or levels == 2 or ordered[column]:
            found.append((column, -1))
        elif levels <= MAX_LEVELS:
            found += [(column, level) for level in range(levels)]
    owner, level = np.array(found[:_MOST_FEATURES], dtype=np.int64).reshape(-1, 2).T
    return owner, level


def _raw(
    values: NDArray[np.float64], columns: ColumnFamilies, owner: NDArray[np.int64], level: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Features ``[N, C]`` before they are standardised: logs of positive numbers, indicators of levels, NaN."""
    of_family = np.array(columns.families)[owner]
    found = values[:, owner]
    with np.errstate(invalid="ignore"):
        found = np.where(np.isin(of_family, POSITIVE), np.log(np.maximum(found, 1e-30)), found)
        found = np.where(np.isin(of_family, COUNTS), np.log1p(np.maximum(found, 0.0)), found)
        return np.where((level >= 0) & ~np.isnan(found), found == level, found)


def _precision(
    seen: NDArray[np.float64], loadings: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Precisions of the factors of rows given their observed features, ``[B, R, R]``."""
    size = loadings.shape[1]
    products = (loadings[:, :, None] * loadings[:, None, :] / noise[:, None, None]).reshape(len(noise), size**2)
    return (seen @ products).reshape(len(seen), size, size) + np.eye(size)


def _em(
    standard: NDArray[np.float64], known: NDArray[np.bool_], random_state: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Loadings ``[C, R]`` and variances of the noise ``[C]`` of standardised features, zeros where they are missing.

    A normal prior of the loadings, as much as one row, keeps them finite.
    """
    rows, count = standard.shape
    size = max(0, min(MAX_FACTORS, count - 1, rows - 1))
    if not size:
        return np.zeros((count, 0)), np.ones(count)
    seen = known.astype(np.float64)
    _, singular, directions = randomized_svd(standard, size, random_state=random_state)
    loadings = directions.T * (singular / rows**0.5)
    noise = np.maximum(1 - np.square(loadings).sum(1), 0.1)
    squares, counts = np.square(standard).sum(0), np.maximum(seen.sum(0), 1.0)
    for _ in range(_ITERATIONS):
        covariance = np.linalg.inv(_precision(seen, loadings, noise))
        means = (covariance @ (standard @ (loadings / noise[:, None]))[..., None])[..., 0]
        second = covariance + means[:, :, None] * means[:, None, :]
        moments = (seen.T @ second.reshape(rows, size**2)).reshape(count, size, size)
        cross = standard.T @ means
        loadings = np.linalg.solve(moments + np.eye(size), cross[..., None])[..., 0]
        explained = (loadings[:, None, :] @ moments @ loadings[..., None])[:, 0, 0]
        noise = np.maximum((squares - 2 * (loadings * cross).sum(1) + explained) / counts, _FLOOR)
    return loadings, noise
