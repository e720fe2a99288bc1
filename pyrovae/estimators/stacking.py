"""What a VAE and boosted trees expect of the columns of a table, and how much each counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from pyrovae.infer.imputation import Mixture
from pyrovae.likelihoods.tables import OF_LEVELS, ColumnFamilies, level_probs

GRID = np.linspace(0.0, 1.0, 11)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW = 100
"""Columns with fewer held-out entries share a weight with their kind."""
_SMALLEST = 1e-4
EVENNESS = 5.0
_HARDLY = 0.02
"""Nets that count less are not worth their time."""


@dataclass(frozen=True)
class Expectations:
    """Where the expectation of each column stands in one vector: a mean for a number, a probability for each level.

    Parameters
    ----------
    columns : ColumnFamilies
        The columns.

    Examples
    --------
    >>> layout = Expectations(ColumnFamilies(("normal", "categorical"), (0, 3)))
    >>> layout.places, layout.point(np.array([[1.5, 0.2, 0.7, 0.1]]), np.array([False, False]))
    ([(0, 1), (1, 4)], array([[1.5, 1. ]]))
    """

    columns: ColumnFamilies

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """First and last place, exclusive, of each column."""
        sizes = [max(levels, 1) for levels in self.columns.num_levels]
        ends = np.cumsum(sizes).tolist()
        return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]

    @property
    def width(self) -> int:
        """Length of the vector."""
        return self.places[-1][1]

    @cached_property
    def is_level(self) -> NDArray[np.bool_]:
        """Which columns have levels, ``[D]``."""
        return np.array([family in OF_LEVELS for family in self.columns.families])

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The column of each place, ``[H]``."""
        return np.repeat(np.arange(len(self.places)), [end - start for start, end in self.places])

    @torch.no_grad()
    def of(self, mixture: Mixture) -> NDArray[np.float64]:
        """What the mixtures of rows expect, ``[B, H]``."""
        found = np.empty((mixture.raw.shape[1], self.width))
        weights = mixture.weights
        for columns, fn in mixture.entries.groups:
            probs = level_probs(fn)
            each = fn.mean if probs is None else probs
            values = (weights.reshape(weights.shape + (1,) * (each.dim() - 2)) * each).sum(0).cpu().numpy()
            for position, column in enumerate(columns.tolist()):
                start, end = self.places[column]
                part = values[:, position]
                found[:, start:end] = part[:, None] if probs is None else part[:, : end - start]
        return found

    def point(self, expected: NDArray[np.float64], ordered: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The mean of numbers, the median of ordered levels, the most probable of other levels, ``[B, D]``."""
        found = np.empty((len(expected), len(self.places)))
        for column, (start, end) in enumerate(self.places):
            part = expected[:, start:end]
            if not self.is_level[column]:
                found[:, column] = part[:, 0]
            elif ordered[column]:
                found[:, column] = (part.cumsum(1) < 0.5 * part.sum(1, keepdims=True)).sum(1)
            else:
                found[:, column] = part.argmax(1)
        return found

    def quantiles(self, expected: NDArray[np.float64], column: int, level: Tensor) -> Tensor:
        """Levels ``[M, B]`` of a column at uniform numbers ``[M, B]``."""
        start, end = self.places[column]
        cumulative = torch.as_tensor(expected[:, start:end], device=level.device).cumsum(1)
        cumulative = cumulative / cumulative[:, -1:]
        return (cumulative.unsqueeze(0) < level.unsqueeze(-1)).sum(-1).clamp(max=end - start - 1).to(level.dtype)

    def stacked(
        self, first: NDArray[np.float64], second: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Expectations in which the second counts by a weight for each column, ``[B, H]``."""
        weight = weights[self.owner]
        return np.where(weight > 0, (1 - weight) * first + weight * second, first)

    def weights(
        self,
        first: NDArray[np.float64],
        second: NDArray[np.float64],
        known: NDArray[np.bool_],
        truth: NDArray[np.float64],
        held: NDArray[np.bool_],
        variances: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The weight of the second for each column that predicts held-out entries best.

        Parameters
        ----------
        first, second : ndarray, shape ``[B, H]``
            What both expect.
        known : ndarray of bool, shape ``[D]``
            Which columns the second knows.
        truth : ndarray, shape ``[B, D]``
            Scaled numbers and codes.
        held : ndarray of bool, shape ``[B, D]``
            The held-out entries.
        variances : ndarray, shape ``[D]``
            Variances of the numbers, in whose units squared errors of several columns are added.

        Returns
        -------
        ndarray, shape ``[D]``
            Weights out of `GRID` with the least squared error of numbers, or log loss of levels. Columns with few
            held-out entries share that of all such columns with numbers, or with levels. Of weights whose loss is
            within one standard error of the least, columns that share take the one nearest to a half.

        References
        ----------
        L. Breiman et al. (1984), "Classification and regression trees", section 3.4.3 (one standard error).
        """
        return self.blended(first, [second], [known], truth, held, variances)[0]

    def blended(
        self,
        first: NDArray[np.float64],
        others: Sequence[NDArray[np.float64]],
        knowns: Sequence[NDArray[np.bool_]],
        truth: NDArray[np.float64],
        held: NDArray[np.bool_],
        variances: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The weight of one or two others beside the first, and the share of the last of two in it, as `weights` does.

        Parameters
        ----------
        first : ndarray, shape ``[B, H]``
            What the first expects.
        others : sequence of ndarray, shape ``[B, H]``
            What one or two others expect.
        knowns : sequence of ndarray of bool, shape ``[D]``
            Which columns they know.
        truth, held, variances : ndarray
            As for `weights`.

        Returns
        -------
        weights, shares : ndarray, shape ``[D]``
            Out of `GRID` and `SHARES`.
        """
        if len(others) == 1:
            alone = self._losses(first, others[0], knowns[0], truth, held, variances)
            return self._best([alone], knowns[0], held, SHARES[:1])[0], np.zeros(len(self.places))
        found, shares = np.zeros(len(self.places)), np.zeros(len(self.places))
        both = knowns[0] & knowns[1]
        for which, some in ((both, SHARES), (knowns[0] & ~both, (0.0,)), (knowns[1] & ~both, (1.0,))):
            if which.any():
                mixed = [(1 - share) * others[0] + share * others[1] for share in some]
                losses = [self._losses(first, each, which, truth, held, variances) for each in mixed]
                weights, number = self._best(losses, which, held, some)
                found, shares = found + weights, shares + np.where(weights > 0, np.array(some)[number], 0.0) * which
        return found, shares

    def _losses(
        self,
        first: NDArray[np.float64],
        second: NDArray[np.float64],
        known: NDArray[np.bool_],
        truth: NDArray[np.float64],
        held: NDArray[np.bool_],
        variances: NDArray[np.float64],
    ) -> dict[int, NDArray[np.float64]]:
        """The losses of the held-out entries of each column at each weight of `GRID`, ``[G, entries]``."""
        losses = {}
        for column in np.flatnonzero(known & held.any(0)).tolist():
            rows, (start, end) = held[:, column], self.places[column]
            a, b, true = first[rows, start:end], second[rows, start:end], truth[rows, column]
            each = []
            for weight in GRID:
                mixed = (1 - weight) * a + weight * b
                if self.is_level[column]:
                    each.append(-np.log(np.maximum(mixed[np.arange(len(true)), true.astype(int)], _SMALLEST)))
                else:
                    each.append(np.square(mixed[:, 0] - true) / max(float(variances[column]), _SMALLEST))
            losses[column] = np.stack(each)
        return losses

    def _best(
        self,
        losses: Sequence[dict[int, NDArray[np.float64]]],
        known: NDArray[np.bool_],
        held: NDArray[np.bool_],
        some: Sequence[float],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Weights ``[D]`` that are best by losses at S shares, and which of the S they belong to."""
        counts = held.sum(0)
        best = np.zeros(len(self.places), dtype=np.int64)
        # How far a choice is from an even one.
        uneven = np.array([[abs(w - 0.5) + abs(share - 0.5) * (len(some) > 1) for w in GRID] for share in some]).ravel()
        few = known & (counts < FEW)
        for kind in (True, False):
            shared = few & (self.is_level == kind)
            columns = [column for column in np.flatnonzero(shared).tolist() if counts[column]]
            if columns:
                flat = np.concatenate([np.concatenate([each[column] for column in columns], 1) for each in losses])
                apart = flat - flat[flat.sum(1).argmin()]
                error = apart.std(1) / apart.shape[1] ** 0.5
                good = apart.mean(1) <= error
                best[shared] = np.where(good, uneven + 1e-9 * apart.mean(1), np.inf).argmin()
        for column in np.flatnonzero(known & ~few).tolist():
            best[column] = np.concatenate([each[column] for each in losses]).sum(1).argmin()
        return GRID[best % len(GRID)], best // len(GRID)


def weights_of_groups(
    expected: Sequence[NDArray[np.float64]],
    layout: Expectations,
    truth: NDArray[np.float64],
    held: NDArray[np.bool_],
    variances: NDArray[np.float64],
) -> NDArray[np.float64]:
    """What groups of nets are to count so that their average predicts held-out entries best.

    Parameters
    ----------
    expected : sequence of ndarray, each of shape ``[B, H]``
        What each group expects of rows.
    layout : Expectations
        Where the columns stand in it.
    truth : ndarray, shape ``[B, D]``
        Scaled numbers and codes.
    held : ndarray of bool, shape ``[B, D]``
        The held-out entries.
    variances : ndarray, shape ``[D]``
        Variances of the numbers.

    Returns
    -------
    ndarray, shape ``[G]``
        Weights from 0 to 1 whose sum is 1. Alike, if nothing is held out.

    Notes
    -----
    Minimised is the sum over the entries of half the squared error in units of the variance, for numbers, and of the
    log loss, for levels; plus `EVENNESS` times the squared distance of the weights from even ones, which matters where
    few entries are held out. It is convex in the weights.

    References
    ----------
    L. Breiman (1996), "Stacked regressions".
    """
    count = len(expected)
    numbers, true, levels = [np.zeros((0, count))], [np.zeros(0)], [np.zeros((0, count))]
    for column, (start, end) in enumerate(layout.places):
        rows = held[:, column]
        values = np.stack([each[rows, start:end] for each in expected], -1)  # [n, places, G]
        if layout.is_level[column]:
            codes = truth[rows, column].astype(int)
            levels.append(np.maximum(values[np.arange(len(codes)), codes], _SMALLEST))
        else:
            scale = max(float(variances[column]), _SMALLEST) ** 0.5
            numbers.append(values[:, 0] / scale)
            true.append(truth[rows, column] / scale)
    of_numbers, targets, of_levels = np.concatenate(numbers), np.concatenate(true), np.concatenate(levels)
    total = len(of_numbers) + len(of_levels)
    even = np.full(count, 1 / count)
    if count == 1 or not total:
        return even

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        errors, probs = of_numbers @ weights - targets, of_levels @ weights
        value = 0.5 * np.square(errors).sum() - np.log(np.maximum(probs, _SMALLEST)).sum()
        slope = errors @ of_numbers - (of_levels / np.maximum(probs, _SMALLEST)[:, None]).sum(0)
        value, slope = value + EVENNESS * np.square(weights - even).sum(), slope + 2 * EVENNESS * (weights - even)
        return float(value) / total, slope / total

    sums_to_one = {"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(count)}
    found = minimize(loss, even, jac=True, bounds=[(0.0, 1.0)] * count, constraints=[sums_to_one], method="SLSQP")
    weights = np.clip(found.x, 0.0, None)
    weights = np.where(weights < _HARDLY, 0.0, weights)
    return weights / weights.sum() if np.isfinite(weights).all() and weights.sum() > 0 else even
