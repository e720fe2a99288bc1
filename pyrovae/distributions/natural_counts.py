"""Poisson and geometric distributions in natural parameters."""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, broadcast_floats
from pyrovae.distributions.constraints import NaturalDomain
from pyrovae.distributions.exponential_family import (
    NaturalExponentialFamily,
    canonical_logits,
    conjugate_update,
    log_softplus,
    smooth_positive,
    value_itself,
)
from pyrovae.distributions.natural_gamma import NaturalGamma
from pyrovae.distributions.natural_simplex import NaturalBeta

__all__ = ["NaturalGeometric", "NaturalPoisson"]


def integral_over_rates(integrand: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Integral of f(t) / t over t > 0, trapezoidal in log t, for f of order t near 0 that falls exponentially.

    The nodes are the same for every parameter, so the result is smooth and traceable; the rule errs by 1e-16 at this
    step for integrands analytic in the right half-plane.
    """
    step = 0.25
    log_t = torch.arange(-80.0, 15.0, step, dtype=torch.double, device=like.device)
    return step * integrand(log_t.exp().reshape(-1, *[1] * like.dim())).sum(0)


def odds(log_prob: Tensor) -> Tensor:
    """P / (1 - p) from log p < 0."""
    return log_prob.exp() / one_minus_exp(-log_prob)


class NaturalPoisson(NaturalExponentialFamily):
    r"""Poisson distribution, eta = log rate, T = x, h = 1 / x!, :math:`A(\eta) = e^\eta`.

    The entropy needs E[log x!], which is integrated exactly (to rounding) from the probability generating function:

    .. math:: E \log x! = \int_0^\infty \Big[\lambda - \frac{1 - E e^{-tx}}{1 - e^{-t}}\Big] \frac{e^{-t}}{t} dt

    by Malmsten's formula for the log Gamma function (Abramowitz and Stegun, 6.1.50).

    Shapes: `natural` `[..., 1]`, real; scalar events 0, 1, ...

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> prior = NaturalGamma.from_canonical(torch.tensor(2.0), torch.tensor(1.0))
        >>> x = torch.tensor([3.0, 0.0, 4.0])
        >>> NaturalPoisson.posterior(prior, x.sum(-1, keepdim=True), 3).mean  # (2 + 7) / (1 + 3)
        tensor(2.2500)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": NaturalDomain(constraints.real)}
    support = constraints.nonnegative_integer
    num_natural = 1
    sufficient_statistics = staticmethod(value_itself)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Minus log x!."""
        return -torch.lgamma(value + 1)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """The rate."""
        return natural[..., 0].exp()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """The log of a softplus: the rate grows linearly, not exponentially, with a large `raw`."""
        return log_softplus(raw)

    @classmethod
    def from_canonical(cls, rate: Tensor | float, *, validate_args: bool | None = None) -> "NaturalPoisson":
        """From the rate."""
        (rate,) = broadcast_floats(rate)
        return cls(rate.log().unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword `rate`."""
        return {"rate": self.natural[..., 0].exp()}

    @classmethod
    def posterior(cls, prior: NaturalGamma, sufficient_statistics: Tensor, count: Tensor | float) -> NaturalGamma:
        """Posterior of the rate after `count` values whose T(x) sum to `[..., 1]`."""
        return conjugate_update("NaturalPoisson", NaturalGamma, prior, [sufficient_statistics[..., 0], -count])

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return torch.special.gammaincc(value + 1, natural[..., 0].exp())

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        rate = mean_parameters[..., 0]

        def integrand(t: Tensor) -> Tensor:
            hit = one_minus_exp(t)
            return (one_minus_exp(rate * hit) / hit - rate) * (-t).exp()

        return integral_over_rates(integrand, rate)

    @property
    def mean(self) -> Tensor:
        """The rate."""
        return self.natural[..., 0].exp()

    @property
    def mode(self) -> Tensor:
        """The rate rounded down."""
        return self.mean.floor()

    @property
    def variance(self) -> Tensor:
        """The rate."""
        return self.mean

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws, of the dtype of `natural`."""
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self._extended_shape(sample_shape)))


class NaturalGeometric(NaturalExponentialFamily):
    r"""Failures before the first success, eta = log of the failure probability, T = x, h = 1.

    .. math:: A(\eta) = -\log(1 - e^\eta)

    Shapes: `natural` `[..., 1]`, negative; scalar events 0, 1, ...

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> NaturalGeometric.from_canonical(probs=torch.tensor(0.25)).mean
        tensor(3.)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": NaturalDomain(constraints.less_than(0.0))}
    support = constraints.nonnegative_integer
    num_natural = 1
    sufficient_statistics = staticmethod(value_itself)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """Minus the log probability of success."""
        return -one_minus_exp(-natural[..., 0]).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Minus a shifted softplus."""
        return -smooth_positive(raw)

    @classmethod
    def from_canonical(
        cls, probs: Tensor | None = None, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> "NaturalGeometric":
        """From the probability of success or its log-odds."""
        logits = canonical_logits("NaturalGeometric", probs, logits)
        return cls(F.logsigmoid(-logits).unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword `logits`, the log-odds of success."""
        natural = self.natural[..., 0]
        return {"logits": one_minus_exp(-natural).log() - natural}

    @classmethod
    def posterior(cls, prior: NaturalBeta, sufficient_statistics: Tensor, count: Tensor | float) -> NaturalBeta:
        """Posterior of the probability of success after `count` values whose T(x) sum to `[..., 1]`."""
        return conjugate_update("NaturalGeometric", NaturalBeta, prior, [count, sufficient_statistics[..., 0]])

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return one_minus_exp(-natural[..., 0] * (value + 1))

    @property
    def mean(self) -> Tensor:
        """Odds of failure."""
        return odds(self.natural[..., 0])

    @property
    def mode(self) -> Tensor:
        """Zero."""
        return torch.zeros_like(self.natural[..., 0])

    @property
    def variance(self) -> Tensor:
        """Mean over the probability of success."""
        return self.mean / one_minus_exp(-self.natural[..., 0])

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws, of the dtype of `natural`: exponential noise rounded down."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            # 1 - rand is never 0, so the logarithm is finite.
            noise = torch.log1p(-torch.rand(shape, dtype=torch.double, device=self.natural.device))
            return (noise / self.natural[..., 0].double()).floor().to(self.natural.dtype)
