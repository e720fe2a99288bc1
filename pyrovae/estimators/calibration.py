"""What nets, trees, factors and forests count in a table, and how wide its numbers spread, from held-out entries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.estimators.forests import ColumnForests, completed_rows
from pyrovae.estimators.prediction import TINY, Predictor, Sampling
from pyrovae.estimators.stacking import weights_of_groups

COVERAGE = 0.9
"""The coverage at which spreads are calibrated."""
FEW = 40
"""Columns with fewer held-out entries share one factor."""
LIMITS = (0.2, 5.0)
_ROWS = 4000
_DRAWS = 200
_NUMBERS = 40_000_000
"""Drawn numbers at most for the spreads, of which a table of 1000 columns has as many in 200 rows."""
_SAMPLES = 50


def calibrate(
    predictor: Predictor,
    x: Tensor,
    shown: Tensor,
    held: NDArray[np.bool_],
    seed: int,
    *,
    with_forests: bool = False,
) -> None:
    """Find weights of nets, trees, factors and forests, and spreads, on entries that the training did not see.

    Parameters
    ----------
    predictor : Predictor
        What completes the table; it gets the weights and the spreads.
    x : Tensor, shape ``[N, D]``
        Scaled rows.
    shown : Tensor of bool, shape ``[N, D]``
        The entries that the training saw.
    held : ndarray of bool, shape ``[N, D]``
        Those that it did not.
    seed : int
        Seed of the draws.
    with_forests : bool, default False
        Whether forests are fitted, too, on what the training saw.
    """
    rows = np.random.RandomState(seed).permutation(np.flatnonzero(held.any(1)))[:_ROWS]
    if not len(rows):
        return
    entries = _HeldOut(predictor, x[rows], shown[rows], held[rows], Sampling(_SAMPLES, seed=seed))
    if predictor.others and predictor.num_variants > 1:
        entries.weigh_nets()
    if predictor.trees is not None:
        entries.weigh_trees()
    if with_forests:
        predictor.forest_weights = np.zeros_like(predictor.spread)
        predictor.forests = _fitted_forests(predictor, x, shown, entries.sampling)
        entries.weigh_forests(predictor.forests)
    entries.find_spreads()


class _HeldOut:
    """Rows with entries that the training did not see."""

    def __init__(
        self, predictor: Predictor, x: Tensor, shown: Tensor, held: NDArray[np.bool_], sampling: Sampling
    ) -> None:
        self.predictor, self.layout, self.sampling = predictor, predictor.expectations, sampling
        self.x, self.shown, self.held, self.truth = x, shown, held, x.cpu().numpy()
        observed = np.where(shown.cpu().numpy() | held, self.truth, np.nan)
        seen = [column[~np.isnan(column)] for column in observed.T]
        self.variances = np.array([np.var(column) if len(column) else 1.0 for column in seen])
        self.values = torch.where(shown, x, torch.nan).cpu().numpy()

    def weigh_nets(self) -> None:
        """Find the weights of all nets, alike for those of one variant."""
        count, variants = 1 + len(self.predictor.others), self.predictor.num_variants
        variant_of = np.arange(count) % variants
        expected = []
        for variant in np.unique(variant_of):
            alone = np.where(variant_of == variant, 1 / (variant_of == variant).sum(), 0.0)
            expected.append(replace(self.predictor, net_weights=alone).of_nets(self.x, self.shown, self.sampling))
        found = weights_of_groups(expected, self.layout, self.truth, self.held, self.variances)
        self.predictor.net_weights = found[variant_of] / np.bincount(variant_of)[variant_of]

    def weigh_trees(self) -> None:
        """Find what trees and the factor analyser count beside the nets."""
        predictor, layout = self.predictor, self.layout
        assert predictor.trees is not None
        known = np.zeros(len(predictor.spread), dtype=bool)
        known[[column for column, _, _ in predictor.trees.layout]] = True
        first = predictor.of_nets(self.x, self.shown, self.sampling)
        others, knowns = [predictor.of_trees(self.values)], [known]
        if predictor.factors is not None:
            others.append(predictor.factors.predict(self.values))
            knowns.append(predictor.factors.known)
        found = layout.blended(first, others, knowns, self.truth, self.held, self.variances)
        predictor.tree_weights, predictor.factor_shares = found

    def weigh_forests(self, forests: ColumnForests) -> None:
        """Find what forests count beside all of the above."""
        predictor = self.predictor
        nets = predictor.of_nets(self.x, self.shown, self.sampling)
        first, _, _ = predictor.stacked(self.x, self.shown, nets)
        second = forests.predict(completed_rows(self.layout, first, self.values))
        predictor.forest_weights = self.layout.weights(
            first, second, forests.known, self.truth, self.held, self.variances
        )

    def find_spreads(self) -> None:
        """Find the factors by which numbers spread about their means."""
        predictor, asked = self.predictor, self.held & ~self.layout.is_level
        if not asked.any():
            return
        some = slice(max(100, _NUMBERS // (_DRAWS * self.x.shape[1])))
        x, shown, truth, asked = self.x[some], self.shown[some], self.truth[some], asked[some]
        means = predictor.points(x, shown, self.sampling)
        draws = predictor.draws(x, shown, _DRAWS, self.sampling, by_row=False, levels=False)
        if predictor.in_logs.any():
            truth, means, draws = (
                np.where(predictor.in_logs, np.log(np.maximum(v, TINY)), v) for v in (truth, means, draws)
            )
        predictor.spread = np.where(self.layout.is_level, 1.0, spread_factors(truth, means, draws, asked))
        predictor.calibrated_on = np.array([float(asked.sum())])


def _fitted_forests(predictor: Predictor, x: Tensor, shown: Tensor, sampling: Sampling) -> ColumnForests:
    """Forests of rows as nets, trees and factors complete them."""
    expected, _, _ = predictor.stacked(x, shown, predictor.of_nets(x, shown, sampling))
    values = torch.where(shown, x, torch.nan).cpu().numpy()
    rows = completed_rows(predictor.expectations, expected, values)
    return ColumnForests.fit(predictor.expectations, rows, values, random_state=sampling.seed)


def spread_factors(
    truth: NDArray[np.float64], mean: NDArray[np.float64], draws: NDArray[np.float64], held: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Factors by which draws are to be moved from their mean so that intervals of held-out entries cover as they say.

    Parameters
    ----------
    truth : ndarray, shape ``[N, D]``
        The true values of numbers.
    mean : ndarray, shape ``[N, D]``
        Means of what the model says.
    draws : ndarray, shape ``[M, N, D]``
        Draws of what the model says.
    held : ndarray of bool, shape ``[N, D]``
        True for the held-out entries of numbers.

    Returns
    -------
    ndarray, shape ``[D]``
        The factors, 1 where nothing is known. Columns with few held-out entries share that of all columns, which is no
        less than 1 if these are few too.

    Notes
    -----
    An entry is covered at the factor s if it lies between mean + s (low - mean) and mean + s (high - mean), where low
    and high are the 5 % and 95 % quantiles of its draws. The factor is the 90 % quantile of the smallest s that covers
    each entry, with the correction of split conformal prediction, (n + 1) / n.

    References
    ----------
    Y. Romano, E. Patterson and E. Candes (2019), "Conformalized quantile regression", whose score is scaled here.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> truth, draws = 2 * generator.normal(size=(500, 1)), generator.normal(size=(400, 500, 1))
    >>> factor = spread_factors(truth, np.zeros((500, 1)), draws, np.ones((500, 1), bool))
    >>> bool(1.7 < factor[0] < 2.3)
    True
    """
    levels = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    by_column = [np.quantile(draws[:, :, column], levels, axis=0) for column in range(truth.shape[1])]  # saves memory
    low, high = np.stack(by_column, -1)
    distance = truth - mean
    reach = np.where(distance < 0, low - mean, high - mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(distance == 0, 0.0, distance / reach)
    needed = np.where(np.isfinite(needed) & (needed >= 0), needed, LIMITS[1])
    everything = _quantile(needed[held])
    if held.sum() < FEW:
        everything = max(everything, 1.0)  # by chance, few entries are all near their means
    factors = np.ones(truth.shape[1])
    for column in range(truth.shape[1]):
        some = needed[held[:, column], column]
        if len(some):
            factors[column] = _quantile(some) if len(some) >= FEW else everything
    return factors


def _quantile(needed: NDArray[np.float64]) -> float:
    if not len(needed):
        return 1.0
    level = min(1.0, COVERAGE * (len(needed) + 1) / len(needed))
    return float(np.clip(np.quantile(needed, level), *LIMITS))
