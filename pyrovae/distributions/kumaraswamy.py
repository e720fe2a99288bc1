"""The Kumaraswamy distribution, computed in log space."""

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyrovae.distributions._numerics import complement_loglog, log1mexp, standard_exponential
from pyrovae.distributions._validation import NO_SHAPE
from pyrovae.distributions.sticks import Fractions

_EULER = 0.5772156649015329
_MINUS_LOG_2 = -0.6931471805599453


class Kumaraswamy(Fractions):
    r"""Distribution on (0, 1) that resembles the Beta and has a closed-form quantile function.

    .. math::
        p(v) = a b v^{a-1} (1 - v^a)^{b-1}, \qquad P(V > v) = (1 - v^a)^b

    with `a` = `concentration1` and `b` = `concentration0`. Draws, quantiles and scores go through ``log v`` and
    ``log(1 - v)``, so they stay finite and accurate for concentrations from 1e-3 to 1e3, in float32 and float64. A draw
    is strictly inside the interval: where the dtype cannot hold it, it is moved to 64 times the smallest normal
    number or to the largest number below one. `rsample_log` gives both logarithms of a draw without that rounding.

    Shapes: both concentrations broadcast to `batch_shape`; the event is a scalar. `entropy` is in nats.

    Reference: P. Kumaraswamy (1980), "A generalized probability density function for double-bounded random
    processes"; M. C. Jones (2009), "Kumaraswamy's distribution: a beta-type distribution with some tractability
    advantages".

    Args:
        concentration1: exponent `a` of the inner power, positive.
        concentration0: exponent `b` of the outer power, positive.
        validate_args: whether to check parameters and values.

    Raises:
        ValueError: a concentration that is not positive, or a value outside (0, 1).

    Example:
        >>> sticks = Kumaraswamy(torch.tensor([1.0, 2.0]), 3.0)
        >>> sticks.log_prob(torch.tensor([0.5, 0.5]))
        tensor([-0.2877,  0.5232])
        >>> log_v, log_1mv = sticks.rsample_log(torch.Size([4]))
        >>> torch.allclose(log_v.exp() + log_1mv.exp(), torch.ones(4, 2))
        True
    """

    arg_constraints = {  # noqa: RUF012
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def rsample_log(self, sample_shape: torch.Size = NO_SHAPE) -> tuple[Tensor, Tensor]:
        """``log v`` and ``log(1 - v)`` of the same draws, neither rounded through v.

        Returns:
            Two tensors of shape `sample_shape` + `batch_shape`, both finite.
        """
        noise = standard_exponential(self._extended_shape(sample_shape), self.concentration1)
        return self._log_quantile(torch.log(noise))

    def _log_quantile(self, loglog_survival: Tensor) -> tuple[Tensor, Tensor]:
        """Both logarithms of the v whose survival probability s has ``log(-log s)`` = `loglog_survival`."""
        loglog_power = complement_loglog(loglog_survival - torch.log(self.concentration0))  # v ** a
        loglog_v = loglog_power - torch.log(self.concentration1)
        return -torch.exp(loglog_v), -torch.exp(complement_loglog(loglog_v))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`; shape `value` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        log_v = torch.log(value)
        return self._log_density(log_v, log1mexp(self.concentration1 * log_v))

    def log_prob_from_logs(self, log_v: Tensor, log_1mv: Tensor) -> Tensor:
        """Log density (of v) where v is given by ``log v`` and ``log(1 - v)``, also beyond the range of the dtype."""
        # log(-log v) from whichever of the two logarithms is away from zero.
        small = log_v < _MINUS_LOG_2
        from_v = torch.log(-torch.where(small, log_v, -1.0))
        from_1mv = complement_loglog(torch.log(-torch.where(small, -1.0, log_1mv)))
        loglog_power = torch.where(small, from_v, from_1mv) + torch.log(self.concentration1)
        return self._log_density(log_v, -torch.exp(complement_loglog(loglog_power)))

    def _log_density(self, log_v: Tensor, log_1m_power: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        return torch.log(a) + torch.log(b) + (a - 1) * log_v + (b - 1) * log_1m_power

    def log_cdf(self, value: Tensor) -> Tensor:
        """``log P(V <= value)``, accurate where the probability is tiny."""
        if self._validate_args:
            self._validate_sample(value)
        loglog_power = torch.log(-torch.log(value)) + torch.log(self.concentration1)
        return -torch.exp(complement_loglog(complement_loglog(loglog_power) + torch.log(self.concentration0)))

    def log_survival(self, value: Tensor) -> Tensor:
        """``log P(V > value)``, accurate where the probability is tiny."""
        if self._validate_args:
            self._validate_sample(value)
        return self.concentration0 * log1mexp(self.concentration1 * torch.log(value))

    def cdf(self, value: Tensor) -> Tensor:
        """``P(V <= value)``."""
        return torch.exp(self.log_cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile at probability `value` in [0, 1]; 0 and 1 where the dtype cannot hold it."""
        log_v, log_1mv = self._log_quantile(torch.log(-torch.log1p(-value)))
        return torch.where(log_v < _MINUS_LOG_2, torch.exp(log_v), 1 - torch.exp(log_1mv))

    def _log_moment(self, order: int) -> Tensor:
        """``log E[v ** order]`` in double precision, because the terms of the log Beta function nearly cancel."""
        a, b = self.concentration1.double(), self.concentration0.double()
        power = 1 + order / a
        return torch.lgamma(power) + torch.lgamma(1 + b) - torch.lgamma(power + b)

    @property
    def mean(self) -> Tensor:
        """``b B(1 + 1/a, b)``, shape `batch_shape`."""
        return torch.exp(self._log_moment(1)).to(self.concentration1.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance, shape `batch_shape`."""
        log_mean = self._log_moment(1)
        log_square = self._log_moment(2)
        # E[v^2] (1 - E[v]^2 / E[v^2]); the ratio is below 1 but may round to it.
        variance = torch.exp(log_square + log1mexp((2 * log_mean - log_square).clamp(max=-1e-16)))
        return variance.to(self.concentration1.dtype)

    @property
    def mode(self) -> Tensor:
        """Where the density is largest: inside, or 0 or 1 where it is unbounded or largest there.

        NaN where there is no single mode: both concentrations below 1 (the density is unbounded at both ends), or
        both equal to 1 (it is flat).
        """
        a, b = self.concentration1, self.concentration0
        inside, single = (a > 1) & (b > 1), (a != 1) | (b != 1)
        ratio = torch.where(inside, (a - 1) / torch.where(inside, a * b - 1, torch.ones_like(a)), torch.ones_like(a))
        mode = torch.where((a <= 1) & (b >= 1), torch.zeros_like(a), ratio ** (1 / a))
        return torch.where(single & ((a >= 1) | (b >= 1)), mode, torch.nan)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, shape `batch_shape`."""
        a, b = self.concentration1, self.concentration0
        harmonic = torch.digamma(b + 1) + _EULER
        return (1 - 1 / b) + (1 - 1 / a) * harmonic - torch.log(a) - torch.log(b)
