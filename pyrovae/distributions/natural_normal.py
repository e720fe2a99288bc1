"""Normal and log-normal distributions in natural parameters."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, broadcast_floats
from pyrovae.distributions.constraints import NaturalDomain
from pyrovae.distributions.exponential_family import (
    NaturalExponentialFamily,
    conjugate_update,
    smooth_positive,
)

__all__ = ["NaturalLogNormal", "NaturalNormal"]

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_REAL_AND_NEGATIVE = NaturalDomain(constraints.real, constraints.less_than(0.0))


def _constrain_normal(raw: Tensor) -> Tensor:
    return torch.stack([raw[..., 0], -smooth_positive(raw[..., 1])], -1)


def _normal_log_normalizer(natural: Tensor) -> Tensor:
    first, second = natural.unbind(-1)
    return -first.square() / (4 * second) - 0.5 * (-2 * second).log()


def _standardise(natural: Tensor, value: Tensor) -> Tensor:
    """(x - loc) / scale from natural parameters of the normal."""
    first, second = natural.unbind(-1)
    return -(2 * second * value + first) / (-2 * second).sqrt()


def _loc_scale(natural: Tensor) -> tuple[Tensor, Tensor]:
    first, second = natural.unbind(-1)
    return -first / (2 * second), (-2 * second).rsqrt()


def _normal_natural(loc: Tensor | float, scale: Tensor | float) -> Tensor:
    loc, scale = broadcast_floats(loc, scale)
    precision = scale.square().reciprocal()
    return torch.stack([loc * precision, -0.5 * precision], -1)


def _normal_posterior(
    likelihood: str, prior: "NaturalNormal", statistics: Tensor, count: Tensor | float, scale: Tensor | float
) -> "NaturalNormal":
    precision = torch.as_tensor(scale, dtype=prior.natural.dtype, device=prior.natural.device) ** -2
    return conjugate_update(
        likelihood, NaturalNormal, prior, [precision * statistics[..., 0], -0.5 * precision * count]
    )


class NaturalNormal(NaturalExponentialFamily):
    r"""Normal distribution, eta = (loc / scale^2, -1 / (2 scale^2)), T = (x, x^2).

    .. math:: A(\eta) = -\frac{\eta_1^2}{4\eta_2} - \tfrac12\log(-2\eta_2), \qquad h(x) = (2\pi)^{-1/2}

    The quadratic in x is evaluated as a completed square, :math:`(2\eta_2 x + \eta_1)^2 / (4\eta_2)`, because its
    three terms cancel where the mean is many standard deviations from 0.

    Shapes: `natural` `[..., 2]`, the second entry negative; scalar events.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> p = NaturalNormal.from_canonical(torch.tensor(3.0), torch.tensor(0.5))
        >>> p.natural, p.mean, p.mean_parameters
        (tensor([12., -2.]), tensor(3.), tensor([3.0000, 9.2500]))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": _REAL_AND_NEGATIVE}
    support = constraints.real
    has_rsample = True
    num_natural = 2
    log_normalizer = staticmethod(_normal_log_normalizer)
    constrain = staticmethod(_constrain_normal)

    @staticmethod
    def sufficient_statistics(value: Tensor) -> Tensor:
        """(x, x^2)."""
        return torch.stack([value, value.square()], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Minus half log 2 pi."""
        return torch.full_like(value, -_HALF_LOG_2PI)

    @classmethod
    def from_canonical(
        cls, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalNormal":
        """From location and scale."""
        return cls(_normal_natural(loc, scale), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keywords `loc` and `scale`."""
        return dict(zip(("loc", "scale"), _loc_scale(self.natural), strict=True))

    @classmethod
    def posterior(
        cls, prior: "NaturalNormal", sufficient_statistics: Tensor, count: Tensor | float, *, scale: Tensor | float
    ) -> "NaturalNormal":
        """Posterior of the mean of a normal likelihood with known `scale`, after `count` values.

        Args:
            prior: distribution of the mean.
            sufficient_statistics: sum of T(x) over the values, `[..., 2]`.
            count: number of values, `[...]`.
            scale: the likelihood's standard deviation.
        """
        return _normal_posterior("NaturalNormal", prior, sufficient_statistics, count, scale)

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return torch.full_like(natural[..., 0], -_HALF_LOG_2PI)

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        return -0.5 * _standardise(natural, value).square() + 0.5 * (-2 * natural[..., 1]).log() - _HALF_LOG_2PI

    @property
    def mean(self) -> Tensor:
        """Location."""
        return _loc_scale(self.natural)[0]

    @property
    def mode(self) -> Tensor:
        """Location."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """Squared scale."""
        return -0.5 / self.natural[..., 1]

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Reparameterised draws, location plus scale times noise."""
        loc, scale = _loc_scale(self.natural)
        noise = torch.randn(self._extended_shape(sample_shape), dtype=loc.dtype, device=loc.device)
        return loc + scale * noise

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return torch.special.ndtr(_standardise(natural, value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`."""
        loc, scale = _loc_scale(self.natural)
        return loc + scale * torch.special.ndtri(value)


class NaturalLogNormal(NaturalExponentialFamily):
    """Log-normal distribution, eta = (loc / scale^2, -1 / (2 scale^2)), T = (log x, log^2 x), h = 1 / (x sqrt(2 pi)).

    `loc` and `scale` are those of log x; A is the normal's, and so is the evaluation as a completed square.

    Shapes: `natural` `[..., 2]`, the second entry negative; scalar events, positive.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> NaturalLogNormal.from_canonical(torch.tensor(0.0), torch.tensor(1.0)).mean
        tensor(1.6487)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": _REAL_AND_NEGATIVE}
    support = constraints.positive
    has_rsample = True
    num_natural = 2
    log_normalizer = staticmethod(_normal_log_normalizer)
    constrain = staticmethod(_constrain_normal)

    @staticmethod
    def sufficient_statistics(value: Tensor) -> Tensor:
        """(log x, log^2 x)."""
        log_value = value.log()
        return torch.stack([log_value, log_value.square()], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Minus log x minus half log 2 pi."""
        return -value.log() - _HALF_LOG_2PI

    @classmethod
    def from_canonical(
        cls, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalLogNormal":
        """From location and scale of log x."""
        return cls(_normal_natural(loc, scale), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keywords `loc` and `scale`."""
        return dict(zip(("loc", "scale"), _loc_scale(self.natural), strict=True))

    @classmethod
    def posterior(
        cls, prior: NaturalNormal, sufficient_statistics: Tensor, count: Tensor | float, *, scale: Tensor | float
    ) -> NaturalNormal:
        """Posterior of `loc` with known `scale`, after `count` values whose T(x) sum to the given `[..., 2]`."""
        return _normal_posterior("NaturalLogNormal", prior, sufficient_statistics, count, scale)

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters[..., 0] - _HALF_LOG_2PI

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        square = _standardise(natural, value.log()).square()
        return -0.5 * square + 0.5 * (-2 * natural[..., 1]).log() + self.log_base_measure(value)

    # Moments are in float64: location and squared scale may be large and cancel in the exponent.

    @property
    def mean(self) -> Tensor:
        """exp(loc + scale^2 / 2)."""
        loc, scale = _loc_scale(self.natural.double())
        return (loc + 0.5 * scale.square()).exp().to(self.natural.dtype)

    @property
    def mode(self) -> Tensor:
        """exp(loc - scale^2)."""
        loc, scale = _loc_scale(self.natural.double())
        return (loc - scale.square()).exp().to(self.natural.dtype)

    @property
    def variance(self) -> Tensor:
        """mean^2 (exp(scale^2) - 1)."""
        loc, scale = _loc_scale(self.natural.double())
        variance = (2 * (loc + scale.square())).exp() * one_minus_exp(scale.square())
        return variance.to(self.natural.dtype)

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Reparameterised draws, the exponential of a normal's."""
        loc, scale = _loc_scale(self.natural)
        noise = torch.randn(self._extended_shape(sample_shape), dtype=loc.dtype, device=loc.device)
        return (loc + scale * noise).exp()

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return torch.special.ndtr(_standardise(natural, value.log()))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`."""
        loc, scale = _loc_scale(self.natural)
        return (loc + scale * torch.special.ndtri(value)).exp()
