"""Models of which entries of a table are missing, where that depends on the entries themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal
from torch.special import log_ndtr, ndtri

from pyrovae.distributions import NaturalBernoulli, NaturalNormal, OrderedLogits
from pyrovae.distributions.columns import ColumnGroup, Columns
from pyrovae.distributions.levels import Levels
from pyrovae.distributions.selected_normal import SelectedNormal
from pyrovae.likelihoods.tables import OF_LEVELS, ColumnFamilies

MECHANISMS = ("ignorable", "self-masking", "self-masking-high", "self-masking-low")
"""What a missing entry may depend on: observed ones alone, itself, itself in a direction that is known."""
_DIRECTIONS = {"self-masking-high": 1.0, "self-masking-low": -1.0}
_NUMBERS = ("normal",)
_RATES = (0.02, 0.98)
SPEED = 10.0
"""Parameters are scaled so that they learn so many times as fast as nets do, whose weights are far smaller."""
_ONE = 0.5413
"""softplus of this is 1, the first slope where the direction is known."""


class SelfMasking(nn.Module):
    r"""The probability that an entry is missing, as a function of the entry itself: not-MIWAE's self-masking.

    Use it where large (or small) values tend to be missing, which an ignorable model cannot see: a model of tables
    with this part learns from which entries are missing, and moves what it imputes to where values go missing.

    Parameters
    ----------
    columns : ColumnFamilies
        The families of the columns.
    mechanisms : sequence of str, length D
        For each column "ignorable", "self-masking", "self-masking-high" or "self-masking-low". With the last two it is
        known that larger, or smaller, numbers are missing more often. Columns of levels have a probability for each
        level instead of a direction.
    loc, scale : Tensor, shape ``[D]``
        Mean and standard deviation of the numbers, in which slopes are measured.
    rates : Tensor, shape ``[D]``, optional
        Share of missing entries of each column in the training rows, for initial values. A column without missing ones
        is ignorable: nothing can be learned of it. None is for a pair whose weights are read next.

    Raises
    ------
    ValueError
        A mechanism is unknown or does not suit its column, or nothing is missing in the columns that are not ignorable.

    Notes
    -----
    .. math:: p(m_j = \mathrm{missing} \mid x_j) = \Phi\big(c_j + a_j (x_j - \mathrm{loc}_j) / \mathrm{scale}_j\big)

    for numbers, and a probability for each level for levels. The paper has a logistic function instead. The probit is
    as flexible, and missing entries can be integrated out exactly: for :math:`x_j \sim \mathrm{N}(\mu, \sigma)` given
    the latent, :math:`p(m_j \mid z) = \Phi\big((c + a \mu) / \sqrt{1 + a^2 \sigma^2}\big)` in units of the column, and
    for levels a sum. So no missing entry is drawn in training, and the bound has less variance than the published one.

    References
    ----------
    N. B. Ipsen, P.-A. Mattei and J. Frellsen (2021), "not-MIWAE: deep generative modelling with missing not at random
    data", equations 5 and 9.
    """

    loc: Tensor
    scale: Tensor
    active: Tensor
    direction: Tensor
    first_level: Tensor

    def __init__(
        self,
        columns: ColumnFamilies,
        mechanisms: Sequence[str],
        loc: Tensor,
        scale: Tensor,
        rates: Tensor | None = None,
    ) -> None:
        super().__init__()
        families = columns.families
        if len(mechanisms) != len(families):
            raise ValueError(f"missingness has {len(mechanisms)} mechanisms for {len(families)} columns")
        for family, mechanism in zip(families, mechanisms, strict=True):
            check_mechanism(mechanism, family)
        self.mechanisms = tuple(mechanisms)
        self.register_buffer("loc", loc.float().clone(), persistent=False)  # the encoder has one too
        self.register_buffer("scale", scale.float().clone(), persistent=False)
        asked = torch.tensor([mechanism != "ignorable" for mechanism in mechanisms])
        direction = torch.tensor([_DIRECTIONS.get(mechanism, 0.0) for mechanism in mechanisms])
        self.register_buffer("direction", direction, persistent=False)
        active = asked if rates is None else asked & (rates > 0)
        if not bool(active.any()):
            raise ValueError(
                "nothing is missing in the training rows of the columns that are not ignorable, so there is nothing to "
                "learn of it; take missingness='ignorable'"
            )
        self.register_buffer("active", active)
        sizes = torch.tensor([0, *columns.num_levels]).cumsum(0)
        self.register_buffer("first_level", sizes[:-1], persistent=False)
        shares = torch.full_like(direction, 0.5) if rates is None else rates.clamp(*_RATES)
        start = ndtri(shares.double()).float() / SPEED
        self.slope = nn.Parameter(torch.where(direction != 0, _ONE / SPEED, torch.zeros_like(direction)))
        self.intercept = nn.Parameter(start * torch.where(direction != 0, 2**0.5, 1.0))
        of_levels = [start[column].expand(levels) for column, levels in enumerate(columns.num_levels)]
        levels = torch.cat(of_levels)
        self.levels = nn.Parameter(levels) if len(levels) else None

    def forward(self, fn: Columns, x: Tensor, known: Tensor | None) -> TorchDistribution:
        """The distribution of the mask of rows, 1 where an entry is observed.

        Parameters
        ----------
        fn : Columns
            The distribution p(x|z) of the entries, ``[..., D]``.
        x : Tensor, shape ``[..., D]``
            Rows. Entries that are not known may hold anything that is finite.
        known : Tensor of bool, shape ``[..., D]``, optional
            Which entries are known. The others are integrated out. None means that all are.

        Returns
        -------
        Distribution
            Of event shape ``[D]``. Ignorable columns count nothing.
        """
        logits = self._of_values(fn, x) if known is None else torch.where(known, self._of_values(fn, x), self._of(fn))
        result: TorchDistribution = dist.Bernoulli(logits=logits).mask(self.active).to_event(1)
        return result

    def given(self, fn: Columns, sign: Tensor) -> Columns:
        """The distribution of the entries given the latents and the mask.

        Parameters
        ----------
        fn : Columns
            The distribution p(x|z) of the entries, ``[..., D]``.
        sign : Tensor, shape ``[..., D]``
            1 where an entry is missing, -1 where it is recorded though not known here, 0 where that is not known.
        """
        sign = sign * self.active
        groups = []
        for columns, part in fn.groups:
            some = sign.index_select(-1, columns)
            groups.append(
                ColumnGroup(columns, part if not self._modelled(columns) else self._given(part, columns, some))
            )
        return Columns(groups)

    def slopes(self) -> Tensor:
        """The slopes a of the columns of numbers, in standard deviations, ``[D]``."""
        slope = SPEED * self.slope
        return torch.where(self.direction != 0, self.direction * F.softplus(slope), slope)

    def _modelled(self, columns: Tensor) -> bool:
        """Whether some of the columns of a group may be missing for what they are."""
        return any(self.mechanisms[column] != "ignorable" for column in columns.tolist())

    def _score_of(self, columns: Tensor, value: Tensor) -> Tensor:
        """What the probit is taken of, at numbers ``[..., n]`` of some columns."""
        standard = (value - self.loc[columns]) / self.scale[columns]
        return SPEED * self.intercept[columns] + self.slopes()[columns] * standard

    def _levels_of(self, columns: Tensor, count: int) -> Tensor:
        """What the probit is taken of, at all levels of some columns, ``[n, count]``; anything beyond their last."""
        assert self.levels is not None
        places = self.first_level[columns].unsqueeze(-1) + torch.arange(count, device=columns.device)
        return SPEED * self.levels[places.clamp(max=len(self.levels) - 1)]

    def _of_values(self, fn: Columns, x: Tensor) -> Tensor:
        """Logits of observed, at values, ``[..., D]``."""

        def compute(part: Distribution, columns: Tensor) -> Tensor:
            value, logs = x.index_select(-1, columns), level_logs(part)
            if not self._modelled(columns):
                return torch.zeros_like(value)
            if logs is None:
                return _logit(self._score_of(columns, value))
            at = self._levels_of(columns, logs.shape[-1])
            at = at.expand(*value.shape, -1)
            return _logit(at.gather(-1, value.long().unsqueeze(-1)).squeeze(-1))

        return fn.joined(compute)

    def _of(self, fn: Columns) -> Tensor:
        """Logits of observed, at values that are integrated out, ``[..., D]``."""

        def compute(part: Distribution, columns: Tensor) -> Tensor:
            if not self._modelled(columns):
                return torch.zeros(part.batch_shape, dtype=self.loc.dtype, device=columns.device)
            logs = level_logs(part)
            if logs is not None:
                at = self._levels_of(columns, logs.shape[-1])
                return (logs + log_ndtr(-at)).logsumexp(-1) - (logs + log_ndtr(at)).logsumexp(-1)
            mean, scale = _loc_and_scale(part)
            spread = self.slopes()[columns] * scale / self.scale[columns]
            return _logit(self._score_of(columns, mean) / torch.hypot(spread, torch.ones_like(spread)))

        return fn.joined(compute)

    def _given(self, part: Distribution, columns: Tensor, sign: Tensor) -> Distribution:
        logs = level_logs(part)
        if logs is not None:
            tilted = logs + log_ndtr(sign.unsqueeze(-1) * self._levels_of(columns, logs.shape[-1]))
            if isinstance(part, Bernoulli | NaturalBernoulli):
                return Bernoulli(logits=tilted[..., 1] - tilted[..., 0])
            sizes = part.num_levels if isinstance(part, Levels) else torch.full_like(columns, logs.shape[-1])
            return Levels(tilted, sizes)
        mean, scale = _loc_and_scale(part)
        slope = self.slopes()[columns] * scale / self.scale[columns]
        return SelectedNormal(mean, scale, sign * slope, sign * self._score_of(columns, mean))


def mechanisms_by_name(missingness: str | Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The mechanism of each of some columns by its name, as it was asked for, see `resolve_mechanisms`.

    Raises
    ------
    ValueError
        The one mechanism for all columns is unknown, or a text cannot be read.
    """
    if isinstance(missingness, str) and "=" not in missingness:
        if missingness not in MECHANISMS:
            raise ValueError(f"missingness must be one of {', '.join(MECHANISMS)}, got {missingness!r}")
        return dict.fromkeys(names, missingness)
    given = _by_name(missingness) if isinstance(missingness, str) else missingness
    return {name: given.get(name, "ignorable") for name in names}


def resolve_mechanisms(
    missingness: str | Mapping[str, str], names: Sequence[str], columns: ColumnFamilies
) -> tuple[str, ...]:
    """The mechanism of each column.

    Parameters
    ----------
    missingness : str or mapping of str to str
        A mechanism for all columns; or mechanisms by the names of columns, of which the others are ignorable. On a
        command line the latter is written ``income=self-masking-high,age=self-masking``.
    names : sequence of str, length D
        Names of the columns.
    columns : ColumnFamilies
        Their families.

    Returns
    -------
    tuple of str, length D
        Out of `MECHANISMS`.

    Raises
    ------
    ValueError
        A mechanism or a column is unknown, or they do not suit each other.

    Examples
    --------
    >>> columns = ColumnFamilies(("normal", "bernoulli"), (0, 2))
    >>> resolve_mechanisms("income=self-masking-high", ["income", "owner"], columns)
    ('self-masking-high', 'ignorable')
    """
    found = list(mechanisms_by_name(missingness, names).values())
    if isinstance(missingness, str) and missingness in _DIRECTIONS:
        found = ["self-masking" if family in OF_LEVELS else missingness for family in columns.families]
    elif not isinstance(missingness, str) or "=" in missingness:
        asked = _by_name(missingness) if isinstance(missingness, str) else missingness
        if unknown := [name for name in asked if name not in names]:
            raise ValueError(f"missingness names {unknown[0]!r}, which is no column with two values or more")
    for name, mechanism, family in zip(names, found, columns.families, strict=True):
        try:
            check_mechanism(mechanism, family)
        except ValueError as error:
            raise ValueError(f"missingness of column {name!r}: {error}") from None
    return tuple(found)


def check_mechanism(mechanism: str, family: str) -> None:
    """Check that a column of a family can be missing by a mechanism.

    Raises
    ------
    ValueError
        It cannot, or there is no such mechanism.
    """
    if mechanism not in MECHANISMS:
        raise ValueError(f"it must be one of {', '.join(MECHANISMS)}, got {mechanism!r}")
    if mechanism != "ignorable" and family not in (*_NUMBERS, *OF_LEVELS):
        raise ValueError(
            f"a column with the likelihood {family!r} cannot be self-masking; take the likelihood 'normal', or name "
            "other columns"
        )
    if mechanism in _DIRECTIONS and family in OF_LEVELS:
        raise ValueError("levels have a probability each, and no direction; take 'self-masking'")


def level_logs(fn: Distribution) -> Tensor | None:
    """Log-probabilities of all levels ``[..., n, K]`` of a group of columns; None of numbers."""
    if isinstance(fn, Levels | OrderedLogits):
        return fn.log_probs
    if isinstance(fn, Bernoulli | NaturalBernoulli):
        logit = fn.logits if isinstance(fn, Bernoulli) else fn.natural[..., 0]
        return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], -1)
    return None


def _by_name(text: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.split(",")]
    if wrong := [name for name, sign, _ in parts if not sign]:
        raise ValueError(f"missingness must be COLUMN=MECHANISM,COLUMN=MECHANISM, got {wrong[0]!r} between commas")
    names = [name for name, _, _ in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"missingness names {twice[0]!r} twice")
    return {name: mechanism for name, _, mechanism in parts}


def _loc_and_scale(fn: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a normal; of nothing else are missing entries integrated out."""
    if isinstance(fn, Normal):
        return fn.loc, fn.scale
    if isinstance(fn, NaturalNormal):
        given = fn.to_canonical()
        return given["loc"], given["scale"]
    raise TypeError(f"numbers that are missing because of themselves are normal given the latent, not {fn}")


def _logit(score: Tensor) -> Tensor:
    """The logit of observed, where missing has the probability ``Phi(score)``."""
    return log_ndtr(-score) - log_ndtr(score)
