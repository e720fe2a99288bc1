"""A distribution of columns in other units: shifted and multiplied."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyrovae.distributions._validation import NO_SHAPE, Shape

__all__ = ["InUnits"]


class InUnits(TorchDistribution):
    """The distribution of ``loc + scale * y``, where y has another one.

    Use it to state in the data's own units a likelihood whose parameters are those of standardised columns. Unlike a
    `TransformedDistribution` it has mean, variance, mode and quantiles.

    Parameters
    ----------
    base : Distribution
        The distribution of y, of numbers, of batch shape ``[..., n]``.
    loc, scale : Tensor, shape ``[n]``
        Shift and positive factor of each column.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> fn = InUnits(Normal(torch.zeros(3, 1), 1.0), torch.tensor([20.0]), torch.tensor([5.0]))
    >>> fn.mean[0], fn.stddev[0], fn.icdf(torch.tensor(0.5))[0]
    (tensor([20.]), tensor([5.]), tensor([20.]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (as torch declares it)
    support = constraints.real

    def __init__(self, base: Distribution, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.base, self.loc, self.scale = base, loc, scale
        super().__init__(base.batch_shape, validate_args=False)
        self._validate_args = validate_args is not False

    def expand(self, batch_shape: Shape, _instance: Any = None) -> InUnits:
        """The same distribution with `batch_shape`, whose last dimension is the columns."""
        new = self._get_checked_instance(InUnits, _instance)
        new.base, new.loc, new.scale = self.base.expand(torch.Size(batch_shape)), self.loc, self.scale
        super(InUnits, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def standardised(self, value: Tensor) -> Tensor:
        """The values of y."""
        return (value - self.loc) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, in the units of the values."""
        return self.base.log_prob(self.standardised(value)) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most these values."""
        return self.base.cdf(self.standardised(value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles."""
        return self.loc + self.scale * self.base.icdf(value)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, ``[*sample_shape, *batch_shape]``."""
        return self.loc + self.scale * self.base.sample(torch.Size(sample_shape))

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc + self.scale * self.base.mean

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.loc + self.scale * self.base.mode

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.scale.square() * self.base.variance
