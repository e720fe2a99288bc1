"""Values, draws and spreads of missing entries, from a trained pair and, if asked for, boosted trees."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.data.rows import slices
from pyrovae.data.tables import TableCodec
from pyrovae.distributions.mapped_normal import at_atom
from pyrovae.estimators.factors import FactorModel
from pyrovae.estimators.forests import ColumnForests, completed_rows
from pyrovae.estimators.stacking import Expectations
from pyrovae.estimators.trees import ColumnTrees
from pyrovae.infer.imputation import Mixture, mixtures
from pyrovae.likelihoods.tables import POSITIVE
from pyrovae.vae import VAE

_DRAWS_AT_ONCE = 1_000_000
TINY = 1e-30
"""The smallest number whose log is taken."""


@dataclass(frozen=True)
class Sampling:
    """How missing entries are computed.

    Parameters
    ----------
    num_samples : int, default 50
        Draws of the latent for each row.
    weights : {"none", "importance"}, default "none"
        What they count, see `mixtures`.
    seed : int, default 0
        Seed of the draws.
    """

    num_samples: int = 50
    weights: str = "none"
    seed: int = 0


@dataclass
class Predictor:
    """Completes scaled rows of a table.

    Parameters
    ----------
    codec : TableCodec
        The columns.
    vae : VAE
        A trained pair of the kind `tabular`, in float64.
    trees : ColumnTrees or None
        Models of each column given the others.
    tree_weights : ndarray, shape ``[D]``
        What they, and the factor analyser, count beside the pair.
    spread : ndarray, shape ``[D]``
        Factors of the spread of numbers.
    others : tuple of VAE
        Further nets of the same table, with the same likelihood. A row is completed by a mixture over all nets.
    net_weights : ndarray, shape ``[1 + len(others)]``
        Their weights in that mixture, that of the pair first. They count alike by default.
    num_variants : int, default 1
        Net number k is of the variant ``k % num_variants``. `calibration.calibrate` weighs the variants.
    factors : FactorModel or None
        How missing entries of one row go together, so that draws keep their relations. Beside trees, also what is
        expected of the columns.
    factor_shares : ndarray, shape ``[D]``
        The share of the factor analyser in `tree_weights`.
    forests : ColumnForests or None
        Models of each column given the others as all of the above complete them.
    forest_weights : ndarray, shape ``[D]``
        What they count beside all of the above.
    calibrated_on : ndarray, shape ``[1]``
        Number of held-out entries that the factors of the spread were found on.
    """

    codec: TableCodec
    vae: VAE
    trees: ColumnTrees | None = None
    tree_weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    spread: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    others: tuple[VAE, ...] = ()
    net_weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    num_variants: int = 1
    factors: FactorModel | None = None
    factor_shares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    forests: ColumnForests | None = None
    forest_weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    calibrated_on: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        size = len(self.codec.families.families)
        if not len(self.net_weights):
            self.net_weights = np.full(1 + len(self.others), 1 / (1 + len(self.others)))
        if not len(self.tree_weights):
            self.tree_weights = np.zeros(size)
        if not len(self.spread):
            self.spread = np.ones(size)
        if not len(self.calibrated_on):  # a model of an earlier version does not say
            self.calibrated_on = np.array([float((self.spread != 1).sum())])
        if not len(self.factor_shares):
            self.factor_shares = np.zeros(size)
        if not len(self.forest_weights):
            self.forest_weights = np.zeros(size)

    @cached_property
    def expectations(self) -> Expectations:
        """Where expectations of columns stand."""
        return Expectations(self.codec.families)

    @property
    def in_logs(self) -> NDArray[np.bool_]:
        """Which columns have a spread of their logs, so that they stay positive."""
        return np.array([family in POSITIVE for family in self.codec.families.families])

    @property
    def ordered(self) -> NDArray[np.bool_]:
        """Which columns have an order."""
        return self.codec.ordered.numpy()

    def mixtures(
        self, x: Tensor, mask: Tensor, sampling: Sampling, missing: Tensor | None = None
    ) -> Iterator[tuple[slice, Mixture]]:
        """The mixtures of rows over draws of the latent and, with several nets, over nets, in parts.

        `missing` tells entries that were never recorded from those that are hidden, see `infer.imputation.mixtures`.
        """
        generator, nets = np.random.RandomState(sampling.seed), self.nets()
        count = math.ceil(sampling.num_samples / len(nets))
        parts = []
        for vae, _ in nets:
            prior: Any = vae.model.prior
            half = generator.standard_normal((math.ceil(count / 2), prior.latent_dim))
            noise = torch.as_tensor(np.concatenate([half, -half])[:count], device=x.device)
            parts.append(mixtures(vae, x, mask, noise, weights=sampling.weights, missing=missing))
        for found in zip(*parts, strict=True):
            rows, mixture = found[0]
            if len(nets) > 1:
                raw = torch.cat([each.raw for _, each in found])
                weights = torch.cat([w * each.weights for (_, w), (_, each) in zip(nets, found, strict=True)])
                mixture = Mixture(mixture.likelihood, raw, weights)
            yield rows, mixture

    def nets(self) -> list[tuple[VAE, float]]:
        """The nets that count, with their weights."""
        both = zip((self.vae, *self.others), self.net_weights.tolist(), strict=True)
        return [(vae, weight) for vae, weight in both if weight > 0]

    def tree_expectations(self, x: Tensor, mask: Tensor) -> NDArray[np.float64] | None:
        """What trees and factors expect of rows by their shares, ``[N, H]``; None without trees."""
        if self.trees is None or not self.tree_weights.any():
            return None
        values = torch.where(mask, x, torch.nan).cpu().numpy()
        if self.factors is None or not self.factor_shares.any():
            return self.of_trees(values)
        of_factors = self.factors.predict(values)
        if (self.factor_shares[self.tree_weights > 0] == 1).all():
            return of_factors
        return self.expectations.stacked(self.of_trees(values), of_factors, self.factor_shares)

    def of_trees(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What trees expect of rows, ``[N, H]``; missing values are NaN."""
        assert self.trees is not None
        found = np.zeros((len(values), self.expectations.width))
        predicted = self.trees.predict(values)
        for column, start, size in self.trees.layout:
            first, _ = self.expectations.places[column]
            found[:, first : first + size] = predicted[:, start : start + size]
        return found

    def points(self, x: Tensor, mask: Tensor, sampling: Sampling, missing: Tensor | None = None) -> NDArray[np.float64]:
        """The best single values of scaled rows, ``[N, D]``."""
        found = []
        for part, mixture in self.mixtures(x, mask, sampling, missing):
            expected, _, _ = self.stacked(x[part], mask[part], self.expectations.of(mixture))
            found.append(self.expectations.point(expected, self.ordered))
        return np.concatenate(found)

    def stacked(
        self, x: Tensor, mask: Tensor, expected: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
        """What is expected of rows, ``[N, H]``, from what the nets expect; and what trees, and forests, do."""
        of_trees, of_forests = self.tree_expectations(x, mask), None
        if of_trees is not None:
            expected = self.expectations.stacked(expected, of_trees, self.tree_weights)
        if self.forests is not None and self.forest_weights.any():
            values = torch.where(mask, x, torch.nan).cpu().numpy()
            of_forests = self.forests.predict(completed_rows(self.expectations, expected, values))
            expected = self.expectations.stacked(expected, of_forests, self.forest_weights)
        return expected, of_trees, of_forests

    def draws(
        self,
        x: Tensor,
        mask: Tensor,
        num_draws: int,
        sampling: Sampling,
        *,
        by_row: bool = True,
        missing: Tensor | None = None,
        levels: bool = True,
    ) -> NDArray[np.float64]:
        """Draws of the missing entries of scaled rows, ``[num_draws, N, D]``; observed entries are as given.

        With `by_row` rows are drawn independently of each other, by numbers that depend on what a row holds, and, of
        rows that hold the same, on which of them it is. Otherwise all rows share the numbers, which are stratified.
        Without `levels` those of categorical and ordinal columns are left at 0.
        """
        seen, parts = dict[bytes, int](), []
        for some in slices(len(x), max(1, _DRAWS_AT_ONCE // (num_draws * x.shape[1]))):
            absent = None if missing is None else missing[some]
            for rows, mixture in self.mixtures(x[some], mask[some], sampling, absent):
                inner = slice(some.start + rows.start, min(some.start + rows.stop, some.stop, len(x)))
                generators = row_generators(x[inner], mask[inner], sampling.seed, seen) if by_row else []
                uniform = self._uniform(mask[inner], num_draws, sampling.seed, generators, by_row=by_row)
                drawn = self._drawn(x[inner], mask[inner], mixture, uniform, levels=levels)
                parts.append(torch.where(mask[inner], x[inner], drawn).cpu().numpy())
        return np.concatenate(parts, 1)

    def _uniform(
        self, mask: Tensor, num_draws: int, seed: int, generators: Sequence[np.random.Generator], *, by_row: bool
    ) -> Tensor:
        """Uniform numbers ``[M, B or 1, 1 + 2 D]``: for the latent, for each entry, and for who draws it."""
        width = 1 + 2 * mask.shape[1]
        if by_row:
            numbers = np.stack([generator.random((num_draws, width)) for generator in generators], 1)
            if self.factors is not None:
                needed = (num_draws, self.factors.num_factors + mask.shape[1])
                normal = np.stack([generator.standard_normal(needed) for generator in generators], 1)
                numbers[..., 1 : 1 + mask.shape[1]] = self.factors.uniform(mask.cpu().numpy(), normal)
        else:
            shared = np.random.RandomState((seed + 1) % 2**32)
            ranks = np.stack([shared.permutation(num_draws) for _ in range(width)], 1)
            numbers = ((ranks + shared.uniform(size=(num_draws, width))) / num_draws)[:, None]
        return torch.as_tensor(numbers, device=mask.device).clamp(1e-9, 1 - 1e-9)

    def _drawn(self, x: Tensor, mask: Tensor, mixture: Mixture, uniform: Tensor, *, levels: bool = True) -> Tensor:
        """Draws of rows ``[M, B, D]``: numbers about the stacked mean, levels of the pair or of the trees.

        A number departs from its mean as the pair says, and, as far as the factors count for it, as they say.
        """
        size = len(self.spread)
        drawn = mixture.draws(uniform, levels=levels)
        layout = self.expectations
        expected = layout.of(mixture)
        means = torch.as_tensor(layout.point(expected, self.ordered), device=drawn.device)
        stacked, of_trees, of_forests = self.stacked(x, mask, expected)
        centre = torch.as_tensor(layout.point(stacked, self.ordered), device=drawn.device)
        spread = torch.as_tensor(self.spread, device=drawn.device)
        unmoved = (means == centre) & (spread == 1)
        to_logs = torch.as_tensor(self.in_logs, device=drawn.device)
        along, about, around = (torch.where(to_logs, v.clamp(min=TINY).log(), v) for v in (drawn, means, centre))
        numbers = around + spread * self._departures(along - about, x, mask, uniform[..., 1 : 1 + size])
        numbers = torch.where(unmoved | self._at_atom(drawn), drawn, torch.where(to_logs, numbers.exp(), numbers))
        drawn = torch.where(torch.as_tensor(layout.is_level, device=drawn.device), drawn, numbers)
        left = 1 - self.forest_weights
        for theirs, low, weights in (
            (of_forests, 0 * left, self.forest_weights),
            (of_trees, self.forest_weights, left * self.tree_weights),
        ):
            if theirs is None or not levels:
                continue
            for column in np.flatnonzero(layout.is_level & (weights > 0)):
                found = layout.quantiles(theirs, int(column), uniform[..., 1 + column].expand(drawn.shape[:2]))
                who = uniform[..., 1 + size + column]
                chosen = (who >= low[column]) & (who < low[column] + weights[column])
                drawn[..., column] = torch.where(chosen, found, drawn[..., column])
        return drawn

    def _at_atom(self, drawn: Tensor) -> Tensor:
        """Which drawn numbers are atoms of their column, ``[M, B, D]``; these stay what they are."""
        found = torch.zeros_like(drawn, dtype=torch.bool)
        for column, marginal in enumerate(self.codec.families.marginals):
            for atom in () if marginal is None else marginal.atoms:
                found[..., column] |= at_atom(drawn[..., column], atom)
        return found

    def _departures(self, ours: Tensor, x: Tensor, mask: Tensor, uniform: Tensor) -> Tensor:
        """How far numbers lie from their means, ``[M, B, D]``, from those of the pair and the same uniform numbers."""
        if self.trees is None or self.factors is None:
            return ours
        share = torch.as_tensor(self.tree_weights * self.factor_shares * ~self.expectations.is_level).to(ours)
        if not share.any():
            return ours
        theirs = self.factors.deviations(torch.where(mask, x, torch.nan).cpu().numpy())
        return (1 - share) * ours + share * torch.as_tensor(theirs).to(ours) * torch.special.ndtri(uniform)

    def of_nets(self, x: Tensor, mask: Tensor, sampling: Sampling) -> NDArray[np.float64]:
        """What the nets expect of rows, ``[N, H]``."""
        return np.concatenate([self.expectations.of(mixture) for _, mixture in self.mixtures(x, mask, sampling)])


def row_generators(
    x: Tensor, mask: Tensor, seed: int, seen: dict[bytes, int] | None = None
) -> list[np.random.Generator]:
    """A generator for each row, which is a function of its observed entries.

    Parameters
    ----------
    x, mask : Tensor, shape ``[B, D]``
        Scaled rows, and their observed entries.
    seed : int
        Seed of all.
    seen : dict, optional
        Counts rows of the same content, which then get generators of their own. Without it they get the same.
    """
    found = []
    rows = np.round(torch.where(mask, x, torch.nan).cpu().numpy(), 9) + 0.0  # other units change the last digits
    for row in rows:
        content, number = np.nan_to_num(row, nan=1e300).tobytes(), 1
        if seen is not None:
            number = seen[content] = seen.get(content, 0) + 1
        digest = hashlib.blake2b(content, digest_size=16, key=f"{seed} {number}".encode()[:64])
        key = np.frombuffer(digest.digest(), dtype=np.uint64)
        found.append(np.random.Generator(np.random.Philox(key=key)))
    return found
