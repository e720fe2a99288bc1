"""A normal seen through a piecewise-linear map, with atoms: columns of numbers of any shape."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyrovae.distributions._validation import NO_SHAPE, Shape

__all__ = ["MappedNormal", "mapped_scores"]

AT_ATOM = 1e-5
"""Values that are nearer to an atom than this share of 1 + its size are that atom."""


def at_atom(values: Any, atoms: Any) -> Any:
    """Which values, tensors or arrays, are these atoms, up to the rounding of single precision."""
    return abs(values - atoms) <= AT_ATOM * (1 + abs(atoms))


def mapped_scores(x: Tensor, values: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of values under an increasing piecewise-linear map, and its slope there.

    Parameters
    ----------
    x : Tensor, shape ``[..., n]``
        Values.
    values, scores : Tensor, shape ``[n, K]``
        The knots of each column, increasing, K at least 2. Beyond the first and the last one the map goes on as before.

    Returns
    -------
    z, slope : Tensor, shape ``[..., n]``
        The scores, and the derivatives of score by value.
    """
    last = values.shape[-1] - 2
    flat = x.detach().reshape(-1, x.shape[-1]).T.contiguous()
    place = (torch.searchsorted(values.contiguous(), flat, right=True) - 1).clamp(0, last)
    slopes = scores.diff(dim=-1) / values.diff(dim=-1)
    low, start, slope = (each.gather(-1, place).T.reshape(x.shape) for each in (values, scores, slopes))
    return start + (x - low) * slope, slope


class MappedNormal(TorchDistribution):
    r"""Numbers whose score under an increasing map is normal, and which take some values, the atoms, now and then.

    Use it for columns of numbers that are far from normal: skewed ones, and those with many zeros.

    Parameters
    ----------
    loc, scale : Tensor, shape ``[..., n]``
        Mean and standard deviation of the score of what is no atom.
    values, scores : Tensor, shape ``[n, K]``
        The knots of the map of each column, both increasing, K at least 2.
    atoms : Tensor, shape ``[n, A]``, optional
        The atoms of each column. None: there are none.
    logits : Tensor, shape ``[..., n, 1 + A]``, optional
        Unnormalised log-probabilities: of no atom, and of each atom. Needed with `atoms`.
    validate_args : bool, optional
        Whether arguments are checked. None follows torch's global setting.

    Notes
    -----
    With the map g, which is linear between its knots and beyond them, the log-density of a value that is no atom is

    .. math:: \log p(x) = \log \pi_0 + \log N(g(x); \mu, \sigma) + \log g'(x),

    and at an atom `log_prob` is the log of its probability. So the density is one with regard to length plus a count
    of the atoms: a sum over the atoms and an integral over the rest give 1. Log-densities of columns with and without
    atoms are of different units and cannot be compared. A value that is nearer to a than `1e-5 (1 + |a|)` is that atom.

    Mean and variance are exact, by the moments of a normal within each piece.

    Examples
    --------
    >>> values, scores = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[-1.0, 0.0, 1.0]])
    >>> fn = MappedNormal(torch.zeros(1), torch.ones(1), values, scores)
    >>> fn.icdf(torch.tensor([0.5])), fn.log_prob(torch.tensor([5.0])).exp()
    (tensor([1.]), tensor([0.0440]))
    """

    arg_constraints: dict[str, Any] = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real
    has_rsample = False

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        values: Tensor,
        scores: Tensor,
        atoms: Tensor | None = None,
        logits: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if (atoms is None) != (logits is None):
            raise ValueError("atoms need logits, one more than there are atoms, and logits need atoms")
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.values, self.scores, self.atoms = values, scores, atoms
        self.log_probs = None if logits is None else logits.log_softmax(-1)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> MappedNormal:
        """The same distribution with `batch_shape`, whose last dimension is the columns."""
        shape = torch.Size(batch_shape)
        new = self._get_checked_instance(MappedNormal, _instance)
        new.loc, new.scale = self.loc.expand(shape), self.scale.expand(shape)
        new.values, new.scores, new.atoms = self.values, self.scores, self.atoms
        new.log_probs = None if self.log_probs is None else self.log_probs.expand(*shape, self.log_probs.shape[-1])
        super(MappedNormal, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of values that are no atoms, and the log-probability of atoms, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        z, slope = mapped_scores(value, self.values, self.scores)
        found = -0.5 * ((z - self.loc) / self.scale).square() - self.scale.log() - 0.5 * math.log(2 * math.pi)
        found = found + slope.log()
        if self.log_probs is None or self.atoms is None:
            return found
        at = at_atom(value.unsqueeze(-1), self.atoms)
        of_atom = torch.where(at, self.log_probs[..., 1:], 0.0).sum(-1)
        return torch.where(at.any(-1), of_atom, found + self.log_probs[..., 0])

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most these values."""
        z, _ = mapped_scores(value, self.values, self.scores)
        found = torch.special.ndtr((z - self.loc) / self.scale)
        if self.log_probs is None or self.atoms is None:
            return found
        probs = self.log_probs.exp()
        below = torch.where(self.atoms <= value.unsqueeze(-1), probs[..., 1:], 0.0).sum(-1)
        return found * probs[..., 0] + below

    def icdf(self, value: Tensor) -> Tensor:
        """The smallest values whose cumulative probability is at least `value`."""
        if self.log_probs is None or self.atoms is None:
            return self._values_of(self.loc + self.scale * torch.special.ndtri(value))
        probs = self.log_probs.exp()
        z, _ = mapped_scores(self.atoms.T, self.values, self.scores)  # [A, n]
        below = probs[..., :1] * torch.special.ndtr((z.T - self.loc.unsqueeze(-1)) / self.scale.unsqueeze(-1))
        lower = (self.atoms.unsqueeze(-2) < self.atoms.unsqueeze(-1)).to(probs.dtype)  # [n, this, other]
        before = below + (probs[..., 1:].unsqueeze(-2) * lower).sum(-1)
        level = value.unsqueeze(-1)
        at = (level > before) & (level <= before + probs[..., 1:])
        passed = torch.where(level > before + probs[..., 1:], probs[..., 1:], 0.0).sum(-1)
        rest = ((value - passed) / probs[..., 0].clamp(min=1e-12)).clamp(1e-9, 1 - 1e-7)
        number = self._values_of(self.loc + self.scale * torch.special.ndtri(rest))
        return torch.where(at.any(-1), torch.where(at, self.atoms, 0.0).sum(-1), number)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, ``[*sample_shape, *batch_shape]``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        level = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.icdf(level.clamp(torch.finfo(level.dtype).tiny, 1 - torch.finfo(level.dtype).eps))

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        """The variance."""
        first, second = self._moments()
        return (second - first.square()).clamp(min=0.0)

    @property
    def mode(self) -> Tensor:
        """The most probable atom if values are atoms more often than not, else where the density is highest."""
        best, found = torch.full_like(self.loc, -math.inf), self.loc
        slopes = (self.scores.diff(dim=-1) / self.values.diff(dim=-1)).log()
        for piece, (low, high) in enumerate(self._pieces()):
            z = self.loc.maximum(low).minimum(high)
            height = slopes[:, piece] - 0.5 * ((z - self.loc) / self.scale).square()
            found = torch.where(height > best, z, found)
            best = torch.maximum(height, best)
        number = self._values_of(found)
        if self.log_probs is None or self.atoms is None:
            return number
        probs = self.log_probs.exp()
        atom = self.atoms.expand(*probs.shape[:-1], -1).gather(-1, probs[..., 1:].argmax(-1, keepdim=True)).squeeze(-1)
        return torch.where(probs[..., 0] < 0.5, atom, number)

    def _values_of(self, z: Tensor) -> Tensor:
        return mapped_scores(z, self.scores, self.values)[0]

    def _pieces(self) -> list[tuple[Tensor, Tensor]]:
        """The scores at both ends of each linear piece, the first and the last infinite."""
        inner = list(self.scores[:, 1:-1].unbind(-1))
        infinite = torch.full_like(self.scores[:, 0], math.inf)
        return list(zip([-infinite, *inner], [*inner, infinite], strict=True))

    def _moments(self) -> tuple[Tensor, Tensor]:
        """The mean of the values, and of their squares."""
        factor = self.values.diff(dim=-1) / self.scores.diff(dim=-1)
        offset = self.values[:, :-1] - factor * self.scores[:, :-1]
        first = second = torch.zeros_like(self.loc)
        for piece, (low, high) in enumerate(self._pieces()):
            ends = [(end - self.loc) / self.scale for end in (low, high)]
            heights = [torch.exp(-0.5 * end.square()) / math.sqrt(2 * math.pi) for end in ends]
            # Of the tail that is nearer, so that small probabilities are not differences of large ones.
            upper = ends[0] > 0
            mass = torch.where(
                upper,
                torch.special.ndtr(-ends[0]) - torch.special.ndtr(-ends[1]),
                torch.special.ndtr(ends[1]) - torch.special.ndtr(ends[0]),
            )
            standard = heights[0] - heights[1]
            of_ends = [torch.where(height > 0, end * height, 0.0) for end, height in zip(ends, heights, strict=True)]
            squares = mass + of_ends[0] - of_ends[1]
            # The value is b + a e in this piece, with the standard normal e.
            a, b = factor[:, piece] * self.scale, offset[:, piece] + factor[:, piece] * self.loc
            first = first + b * mass + a * standard
            second = second + b.square() * mass + 2 * a * b * standard + a.square() * squares
        if self.log_probs is None or self.atoms is None:
            return first, second
        probs = self.log_probs.exp()
        at = probs[..., 1:]
        return (
            probs[..., 0] * first + (at * self.atoms).sum(-1),
            probs[..., 0] * second + (at * self.atoms.square()).sum(-1),
        )
