"""The likelihood of a row of a table: one distribution for each column, computed by groups of columns of one kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from pyro.distributions import Independent
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Distribution,
    Gamma,
    LogNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

from pyrovae.distributions import (
    NaturalBernoulli,
    NaturalGamma,
    NaturalLogNormal,
    NaturalNormal,
    NaturalPoisson,
    OrderedLogits,
)
from pyrovae.distributions.affine import InUnits
from pyrovae.distributions.columns import ColumnGroup, Columns
from pyrovae.distributions.levels import Levels
from pyrovae.distributions.mapped_normal import MappedNormal
from pyrovae.distributions.quantiles import quantile
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.marginals import UNCHANGED, Marginal
from pyrovae.masks import fill_missing

PARAMETERIZATIONS = ("natural", "canonical")
FAMILIES = {
    "normal": 2,
    "student-t": 3,
    "log-normal": 2,
    "gamma": 2,
    "poisson": 1,
    "negative-binomial": 2,
    "bernoulli": 1,
    "categorical": None,
    "ordered": 1,
    "quantile": None,
}
"""The distributions of columns, and raw parameters of each; None where it depends on the column: of a categorical one
there is one for each level, of one of the family "quantile" two, and with atoms one for each and one for the rest."""
POSITIVE, COUNTS = ("log-normal", "gamma"), ("poisson", "negative-binomial")
"""Families of positive numbers, which nets see and spreads are moved in logs, and of counts."""
OF_LEVELS = ("bernoulli", "categorical", "ordered")
_FILL = {"log-normal": 1.0, "gamma": 1.0}
_CANONICAL_ONLY = ("student-t", "negative-binomial", "ordered", "quantile")
WITH_TWO_FORMS = ("normal", "log-normal", "gamma", "poisson")
"""Families whose natural parameters are others than the canonical ones."""
WITH_FLOOR = ("normal", "student-t", "log-normal", "quantile")
"""Families whose scale is kept from zero."""


@dataclass(frozen=True)
class ColumnFamilies:
    """What the likelihood of a table needs to know of its columns.

    Parameters
    ----------
    families : sequence of str
        The distribution of each column: "normal", "student-t", "log-normal", "gamma", "poisson", "negative-binomial",
        "bernoulli", "categorical", "ordered" or "quantile", a normal seen through a map of the column's own.
    num_levels : sequence of int
        The number of levels of each column, 0 for numbers.
    marginals : sequence of Marginal or None, optional
        The maps and atoms of columns of the family "quantile", None for others. By default the maps change nothing.

    Raises
    ------
    ValueError
        For an unknown family, or a number of levels or a marginal that does not suit it.
    """

    families: tuple[str, ...]
    num_levels: tuple[int, ...]
    marginals: tuple[Marginal | None, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", tuple(self.families))
        object.__setattr__(self, "num_levels", tuple(self.num_levels))
        unchanged = tuple(UNCHANGED if family == "quantile" else None for family in self.families)
        object.__setattr__(self, "marginals", tuple(self.marginals) or unchanged)
        if len(self.families) != len(self.num_levels) or not self.families:
            raise ValueError(f"got {len(self.families)} families and {len(self.num_levels)} numbers of levels")
        for family, levels in zip(self.families, self.num_levels, strict=True):
            if family not in FAMILIES:
                raise ValueError(f"a column is one of {', '.join(FAMILIES)}, got {family!r}")
            if family in OF_LEVELS and (levels < 2 or (family == "bernoulli" and levels != 2)):
                raise ValueError(f"a column of the family {family!r} has two or more levels, got {levels}")
        if [marginal is not None for marginal in self.marginals] != [f == "quantile" for f in self.families]:
            raise ValueError("each column of the family 'quantile' has a marginal, and no other column has one")

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        found: dict[str, Any] = {"families": list(self.families), "num_levels": list(self.num_levels)}
        if "quantile" in self.families:
            found["marginals"] = [None if marginal is None else marginal.to_dict() for marginal in self.marginals]
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ColumnFamilies:
        """What `to_dict` wrote."""
        marginals = (None if stored is None else Marginal.from_dict(stored) for stored in values.get("marginals", ()))
        return cls(tuple(values["families"]), tuple(values["num_levels"]), tuple(marginals))

    def maps(self, columns: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values and scores ``[n, K]`` and atoms ``[n, A]`` of columns of the family "quantile", as many of each."""
        found = [marginal for column in columns if (marginal := self.marginals[column]) is not None]
        return (
            torch.tensor([marginal.values for marginal in found]),
            torch.tensor([marginal.scores for marginal in found]),
            torch.tensor([marginal.atoms for marginal in found]),
        )

    def columns(self, *families: str) -> list[int]:
        """The columns of some families."""
        return [column for column, family in enumerate(self.families) if family in families]

    def by_size(self, family: str) -> list[list[int]]:
        """The columns of a family in groups of like numbers of levels, or of knots and atoms.

        In a group of categorical columns they differ by at most a factor of two, in one of the others not at all.
        """
        groups: dict[Any, list[int]] = {}
        for column in self.columns(family):
            levels, marginal = self.num_levels[column], self.marginals[column]
            size: Any = levels if family == "ordered" else math.ceil(math.log2(max(levels, 1)))
            if marginal is not None:
                size = len(marginal.values), len(marginal.atoms)
            groups.setdefault(size, []).append(column)
        return [groups[size] for size in sorted(groups)]


class TableLikelihood(Likelihood):
    """Independent columns given the latents, each with a distribution of its own family.

    Use it for rows of tables. Numbers should be of order 1 (see `data.TableScaler`); levels are their codes from 0.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    parameterization : {"natural", "canonical"}, default "natural"
        Which parameters the decoder gives, and the densities are computed from. Student-t, negative binomial and
        ordered columns have no natural form, and are canonical in both.
    scale_floor : float, default 0.02
        Smallest standard deviation of normal, Student-t and log-normal columns, in units of the (log of the) column's.
        It bounds the density of columns that can be predicted without error.
    loc, scale : Tensor, shape ``[D]``, optional
        Shift and factor of each column. Values are then in the units of the table, and the likelihood unscales what the
        decoder gives: a column is ``loc + scale * y``, where y has the distribution that the decoder gives. 0 and 1 for
        columns of levels and counts. None: values are scaled already.
    weights : Tensor, shape ``[D]``, optional
        What the log-likelihood of each column counts in training; in evaluation all count 1. See
        `pyrovae.likelihoods.balance`.
    by_batch : bool, default False
        Whether the scaling in training is that of the observed entries of each batch, see `TabularVAE`. In evaluation
        it is `loc` and `scale`.

    Raises
    ------
    ValueError
        For another parameterization, a floor that is not positive, or scaling by batches without `loc` and `scale`.

    Examples
    --------
    >>> likelihood = TableLikelihood(ColumnFamilies(("normal", "categorical"), (0, 3)))
    >>> likelihood(torch.zeros(5, *likelihood.raw_shape)).event_shape
    torch.Size([2])
    """

    error_unit = "squared error, and 0 or 1 for levels"
    filling: Tensor
    is_level: Tensor
    loc: Tensor | None
    scale: Tensor | None
    weights: Tensor | None

    def __init__(
        self,
        columns: ColumnFamilies,
        *,
        parameterization: str = "natural",
        scale_floor: float = 0.02,
        loc: Tensor | None = None,
        scale: Tensor | None = None,
        weights: Tensor | None = None,
        by_batch: bool = False,
    ) -> None:
        super().__init__((len(columns.families),))
        if parameterization not in PARAMETERIZATIONS:
            raise ValueError(f"parameterization must be natural or canonical, got {parameterization!r}")
        if not scale_floor > 0:
            raise ValueError(f"scale_floor must be positive, got {scale_floor}")
        self.columns, self.parameterization, self.scale_floor = columns, parameterization, scale_floor
        fill = torch.tensor([_FILL.get(family, 0.0) for family in columns.families])
        self.register_buffer("filling", fill, persistent=False)
        levels = torch.tensor([family in OF_LEVELS for family in columns.families])
        self.register_buffer("is_level", levels, persistent=False)
        if (loc is None) != (scale is None) or (by_batch and loc is None):
            raise ValueError("scaling within the likelihood needs loc and scale")
        for name, given in (("loc", loc), ("scale", scale), ("weights", weights)):
            self.register_buffer(name, given, persistent=False)
        self.by_batch = by_batch
        self._of_batch: tuple[Tensor, Tensor] | None = None
        self.groups: list[tuple[str, int, int]] = []  # family, number of columns, raw parameters
        cuts = nn.ParameterDict()
        for family in FAMILIES:
            sized = family in ("categorical", "ordered", "quantile")
            found = columns.by_size(family) if sized else [columns.columns(family)]
            for members in found:
                if members:
                    self._add(family, members, cuts)
        self.cuts = cuts

    def _add(self, family: str, members: Sequence[int], cuts: nn.ParameterDict) -> None:
        number, sizes = len(self.groups), [self.columns.num_levels[column] for column in members]
        each = FAMILIES[family] or max(sizes)
        if family == "quantile":
            values, scores, atoms = self.columns.maps(members)
            each = 2 + (1 + atoms.shape[-1] if atoms.shape[-1] else 0)
            for name, part in (("values", values), ("scores", scores), ("atoms", atoms)):
                self.register_buffer(f"{name}_{number}", part, persistent=False)
        self.groups.append((family, len(members), each * len(members)))
        self.register_buffer(f"columns_{number}", torch.tensor(members), persistent=False)
        self.register_buffer(f"levels_{number}", torch.tensor(sizes), persistent=False)
        if family == "ordered":  # distances between cutpoints, log(e - 1) apart from 1
            cuts[str(number)] = nn.Parameter(torch.full((len(members), max(sizes) - 1), 0.5413))

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of a row's raw parameters."""
        return (sum(raw for _, _, raw in self.groups),)

    def elementwise(self, raw: Tensor) -> Columns:
        """Return the distribution of the entries, ``[..., D]``."""
        groups, start = [], 0
        for number, (family, count, size) in enumerate(self.groups):
            part = raw[..., start : start + size].unflatten(-1, (count, -1))
            start += size
            members = getattr(self, f"columns_{number}")
            fn = self._group(number, family, part)
            if self.loc is not None and self.scale is not None and family not in OF_LEVELS + COUNTS:
                of_batch = self._of_batch if self.training else None  # which stays from the last batch of the training
                loc, scale = (self.loc, self.scale) if of_batch is None else of_batch
                fn = InUnits(fn, loc.index_select(-1, members), scale.index_select(-1, members))
            groups.append(ColumnGroup(members, fn))
        return Columns(groups)

    def forward(self, raw: Tensor, mask: Tensor | None = None) -> Independent:
        """The distribution of rows; in training, with the weights of the columns. See `Likelihood`."""
        fn = self.elementwise(raw)
        if self.training and self.weights is not None:
            fn = fn.weighted(self.weights)
        return (fn if mask is None else fn.mask(mask)).to_event(1)

    def see(self, x: Tensor | None, mask: Tensor | None) -> None:
        """Take the scaling of the next rows from these, if that is how it is found, and this is a training."""
        self._of_batch = None
        if x is not None and self.by_batch and self.training and self.loc is not None and self.scale is not None:
            shifted = x.new_zeros(x.shape[-1], dtype=torch.bool)
            shifted[self.columns.columns("normal", "student-t", "quantile")] = True
            self._of_batch = batch_moments(x, mask, self.loc, self.scale, shifted)

    def _group(self, number: int, family: str, raw: Tensor) -> Distribution:
        """The distribution of one group of columns, from raw parameters ``[..., n, parameters]``."""
        if family == "categorical":
            return Levels(raw, getattr(self, f"levels_{number}"))
        if family == "ordered":
            return OrderedLogits(raw[..., 0], self._cutpoints(number))
        if family == "quantile":
            values, scores, atoms = (
                getattr(self, f"{name}_{number}").to(raw) for name in ("values", "scores", "atoms")
            )
            scale = F.softplus(raw[..., 1]) + self.scale_floor
            more = (atoms, raw[..., 2:]) if atoms.shape[-1] else ()
            return MappedNormal(raw[..., 0], scale, values, scores, *more)
        if family in _CANONICAL_ONLY or self.parameterization == "canonical":
            return self._canonical(family, raw)
        if family in ("normal", "log-normal"):
            # The precision is bounded, and with it the density.
            second = -0.5 / (self.scale_floor**2 + self._positive(raw[..., 1]).square())
            natural = torch.stack([raw[..., 0] * (-2 * second).sqrt(), second], -1)
            return NaturalNormal(natural) if family == "normal" else NaturalLogNormal(natural)
        if family == "gamma":
            return NaturalGamma(NaturalGamma.constrain(raw))
        return NaturalPoisson(raw) if family == "poisson" else NaturalBernoulli(raw)

    def _canonical(self, family: str, raw: Tensor) -> Distribution:
        first = raw[..., 0]
        if family == "bernoulli":
            return Bernoulli(logits=first)
        if family == "poisson":
            return Poisson(F.softplus(first) + 1e-6)
        second = F.softplus(raw[..., 1])
        if family == "negative-binomial":
            mean, count = F.softplus(first) + 1e-6, second + 1e-3
            return NegativeBinomial(count, logits=mean.log() - count.log())
        if family == "gamma":
            return Gamma(F.softplus(first) + 1e-3, second + 1e-3)
        scale = second + self.scale_floor
        if family == "student-t":
            return StudentT(3.0 + F.softplus(raw[..., 2]), first, scale)
        return Normal(first, scale) if family == "normal" else LogNormal(first, scale)

    def _positive(self, raw: Tensor) -> Tensor:
        return F.softplus(raw)

    def _cutpoints(self, number: int) -> Tensor:
        """Increasing cutpoints ``[n, K - 1]``, centred."""
        steps = F.softplus(self.cuts[str(number)]) + 1e-3
        return steps.cumsum(-1) - steps.sum(-1, keepdim=True) / 2

    def fill(self, x: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Rows with a value of each column's support where entries are missing; None stays None."""
        return x if x is None else fill_missing(x, mask, self.filling.to(x.dtype))

    def point(self, fn: Any, kind: str = "mean") -> Tensor:
        """The point estimate of every entry, as asked for; for the mean, the mode of levels."""
        entries = fn
        while not isinstance(entries, Columns):
            entries = entries.base_dist
        if kind == "median":
            half = torch.tensor(0.5, device=self.filling.device)
            return entries.joined(lambda part, _: quantile(part, half)).expand(entries.batch_shape)
        number = super().point(fn, kind)
        modes = entries.joined(_likeliest).expand(entries.batch_shape)
        return torch.where(self.is_level, modes.to(number.dtype), number)

    def error(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The squared error of numbers, and for levels 1 where they differ, ``[..., D]``."""
        return torch.where(self.is_level, (x_hat.round() != x).to(x_hat.dtype), (x_hat - x).square())


def batch_moments(
    x: Tensor, mask: Tensor | None, loc: Tensor, scale: Tensor, shifted: Tensor, few: int = 10
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the observed entries of a batch, ``[D]``, where `shifted`; else `loc` and `scale`.

    They are those of the table, too, in columns with few observed entries, and where all entries are alike.
    """
    x, mask = x.detach(), torch.ones_like(x, dtype=torch.bool) if mask is None else mask
    x, mask = x.reshape(-1, x.shape[-1]), mask.reshape(-1, x.shape[-1])
    count = mask.sum(0)
    mean = torch.where(mask, x, 0.0).sum(0) / count.clamp(min=1)
    spread = (torch.where(mask, x - mean, 0.0).square().sum(0) / count.clamp(min=1)).sqrt()
    usable = shifted & (count >= few) & (spread > 0.01 * scale)
    return torch.where(usable, mean, loc), torch.where(usable, spread, scale)


def level_probs(fn: Distribution) -> Tensor | None:
    """Probabilities of all levels ``[..., n, K]`` of a group of columns; None of numbers."""
    if isinstance(fn, Levels):
        return fn.probs
    if isinstance(fn, OrderedLogits):
        return fn.log_probs.exp()
    if isinstance(fn, Bernoulli | NaturalBernoulli):
        return torch.stack([1 - fn.mean, fn.mean], -1)
    return None


def _likeliest(fn: Distribution, columns: Tensor) -> Tensor:
    """The most probable level, the first of those that are alike; zeros for numbers."""
    probs = level_probs(fn)
    return torch.zeros(fn.batch_shape, device=columns.device) if probs is None else probs.argmax(-1)
