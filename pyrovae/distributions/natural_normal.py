"""Normal and log-normal distributions in natural parameters."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, Shape, broadcast_floats
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
    r"""Normal distribution in its natural parameters, (loc / scale^2, -1 / (2 scale^2)).

    Use it where you need conjugate updates or divergences in natural parameters.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 2]``
        loc / scale^2, any real number, and -1 / (2 scale^2), negative.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = (x, x^2) and

    .. math:: A(\eta) = -\frac{\eta_1^2}{4\eta_2} - \tfrac12\log(-2\eta_2), \qquad h(x) = (2\pi)^{-1/2}

    `log_prob` evaluates the quadratic in x as a completed square, :math:`(2\eta_2 x + \eta_1)^2 / (4\eta_2)`. Its three
    terms would cancel where the mean is many standard deviations from 0. Events are scalars.

    Examples
    --------
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
        """T(x) = (x, x^2), ``[...]`` to ``[..., 2]``."""
        return torch.stack([value, value.square()], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Log h(x), minus half log 2 pi, shape of `value`."""
        return torch.full_like(value, -_HALF_LOG_2PI)

    @classmethod
    def from_canonical(
        cls, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalNormal":
        """Make the distribution from location and scale.

        Parameters
        ----------
        loc : Tensor or float, shape ``[...]``
            Mean.
        scale : Tensor or float, shape ``[...]``
            Standard deviation, positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalNormal
            The distribution with the broadcast shape as `batch_shape`.
        """
        return cls(_normal_natural(loc, scale), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `loc` and `scale`, each of shape ``[...]``."""
        return dict(zip(("loc", "scale"), _loc_scale(self.natural), strict=True))

    @classmethod
    def posterior(
        cls, prior: "NaturalNormal", sufficient_statistics: Tensor, count: Tensor | float, *, scale: Tensor | float
    ) -> "NaturalNormal":
        """Compute the posterior of the mean of a normal likelihood with known standard deviation.

        Parameters
        ----------
        prior : NaturalNormal
            Prior of the mean.
        sufficient_statistics : Tensor, shape ``[..., 2]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.
        scale : Tensor or float
            Standard deviation of the likelihood, positive.

        Returns
        -------
        NaturalNormal
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.
        """
        return _normal_posterior("NaturalNormal", prior, sufficient_statistics, count, scale)

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return torch.full_like(natural[..., 0], -_HALF_LOG_2PI)

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        return -0.5 * _standardise(natural, value).square() + 0.5 * (-2 * natural[..., 1]).log() - _HALF_LOG_2PI

    @property
    def mean(self) -> Tensor:
        """Location, shape `batch_shape`."""
        return _loc_scale(self.natural)[0]

    @property
    def mode(self) -> Tensor:
        """Location, shape `batch_shape`."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """Squared scale, shape `batch_shape`."""
        return -0.5 / self.natural[..., 1]

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised draws, location plus scale times noise, shape ``[*sample_shape, *batch_shape]``."""
        loc, scale = _loc_scale(self.natural)
        noise = torch.randn(self._extended_shape(sample_shape), dtype=loc.dtype, device=loc.device)
        return loc + scale * noise

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return torch.special.ndtr(_standardise(natural, value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`, broadcast shape."""
        loc, scale = _loc_scale(self.natural)
        return loc + scale * torch.special.ndtri(value)


class NaturalLogNormal(NaturalExponentialFamily):
    """Log-normal distribution in its natural parameters, (loc / scale^2, -1 / (2 scale^2)).

    Use it for positive numbers with a long right tail. `loc` and `scale` are those of log x.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 2]``
        loc / scale^2, any real number, and -1 / (2 scale^2), negative.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = (log x, log^2 x) and h(x) = 1 / (x sqrt(2 pi)). A is that of `NaturalNormal`, and `log_prob` evaluates a
    completed square as there. Events are positive scalars.

    Examples
    --------
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
        """T(x) = (log x, log^2 x), ``[...]`` to ``[..., 2]``."""
        log_value = value.log()
        return torch.stack([log_value, log_value.square()], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Log h(x), minus log x minus half log 2 pi, shape of `value`."""
        return -value.log() - _HALF_LOG_2PI

    @classmethod
    def from_canonical(
        cls, loc: Tensor | float, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalLogNormal":
        """Make the distribution from location and scale of log x.

        Parameters
        ----------
        loc : Tensor or float, shape ``[...]``
            Mean of log x.
        scale : Tensor or float, shape ``[...]``
            Standard deviation of log x, positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalLogNormal
            The distribution with the broadcast shape as `batch_shape`.
        """
        return cls(_normal_natural(loc, scale), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `loc` and `scale`, each of shape ``[...]``."""
        return dict(zip(("loc", "scale"), _loc_scale(self.natural), strict=True))

    @classmethod
    def posterior(
        cls, prior: NaturalNormal, sufficient_statistics: Tensor, count: Tensor | float, *, scale: Tensor | float
    ) -> NaturalNormal:
        """Compute the posterior of `loc` of a log-normal likelihood with known `scale`.

        Parameters
        ----------
        prior : NaturalNormal
            Prior of `loc`.
        sufficient_statistics : Tensor, shape ``[..., 2]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.
        scale : Tensor or float
            Standard deviation of log x in the likelihood, positive.

        Returns
        -------
        NaturalNormal
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.
        """
        return _normal_posterior("NaturalLogNormal", prior, sufficient_statistics, count, scale)

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters[..., 0] - _HALF_LOG_2PI

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        square = _standardise(natural, value.log()).square()
        return -0.5 * square + 0.5 * (-2 * natural[..., 1]).log() + self.log_base_measure(value)

    # Moments are in float64: location and squared scale may be large and cancel in the exponent.

    @property
    def mean(self) -> Tensor:
        """exp(loc + scale^2 / 2), shape `batch_shape`."""
        loc, scale = _loc_scale(self.natural.double())
        return (loc + 0.5 * scale.square()).exp().to(self.natural.dtype)

    @property
    def mode(self) -> Tensor:
        """exp(loc - scale^2), shape `batch_shape`."""
        loc, scale = _loc_scale(self.natural.double())
        return (loc - scale.square()).exp().to(self.natural.dtype)

    @property
    def variance(self) -> Tensor:
        """mean^2 (exp(scale^2) - 1), shape `batch_shape`."""
        loc, scale = _loc_scale(self.natural.double())
        variance = (2 * (loc + scale.square())).exp() * one_minus_exp(scale.square())
        return variance.to(self.natural.dtype)

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised draws, the exponential of normal draws, shape ``[*sample_shape, *batch_shape]``."""
        loc, scale = _loc_scale(self.natural)
        noise = torch.randn(self._extended_shape(sample_shape), dtype=loc.dtype, device=loc.device)
        return (loc + scale * noise).exp()

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return torch.special.ndtr(_standardise(natural, value.log()))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`, broadcast shape."""
        loc, scale = _loc_scale(self.natural)
        return (loc + scale * torch.special.ndtri(value)).exp()
