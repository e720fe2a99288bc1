"""Poisson and geometric distributions in natural parameters."""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, Shape, broadcast_floats
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
    """Integrate f(t) / t over t > 0 by the trapezoidal rule in log t.

    Parameters
    ----------
    integrand : callable
        The function f, from t ``[nodes, 1, ...]`` to values that broadcast to ``[nodes, ...]``. It must be of order t
        near 0 and fall exponentially.
    like : Tensor, shape ``[...]``
        The nodes take its device and broadcast against it.

    Returns
    -------
    Tensor of float64
        The integral, shape ``[...]``.

    Notes
    -----
    The nodes are the same for every parameter, so the result is smooth and can be traced. At this step the rule has an
    error of 1e-16 for integrands that are analytic in the right half-plane.
    """
    step = 0.25
    log_t = torch.arange(-80.0, 15.0, step, dtype=torch.double, device=like.device)
    return step * integrand(log_t.exp().reshape(-1, *[1] * like.dim())).sum(0)


def odds(log_prob: Tensor) -> Tensor:
    """Compute p / (1 - p) from log p.

    Parameters
    ----------
    log_prob : Tensor
        Logarithm of p, negative, any shape.

    Returns
    -------
    Tensor
        The odds, same shape.
    """
    return log_prob.exp() / one_minus_exp(-log_prob)


class NaturalPoisson(NaturalExponentialFamily):
    r"""Poisson distribution in its natural parameter, the log rate.

    Use it for counts where you need conjugate updates or divergences in natural parameters.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 1]``
        Logarithm of the rate, any real number.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = x, h(x) = 1 / x! and :math:`A(\eta) = e^\eta`. Events are the numbers 0, 1, ...

    The entropy needs E[log x!]. It is integrated to rounding from the probability generating function, by Malmsten's
    formula for the log Gamma function:

    .. math:: E \log x! = \int_0^\infty \Big[\lambda - \frac{1 - E e^{-tx}}{1 - e^{-t}}\Big] \frac{e^{-t}}{t} dt

    References
    ----------
    A. Erdelyi, W. Magnus, F. Oberhettinger and F. Tricomi (1953), "Higher transcendental functions", volume 1, section
    1.9, for Malmsten's formula.

    Examples
    --------
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
        """Log h(x) = -log x!, shape of `value`."""
        return -torch.lgamma(value + 1)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """A(eta), the rate, ``[..., 1]`` to ``[...]``."""
        return natural[..., 0].exp()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map real numbers to log rates, ``[..., 1]`` to ``[..., 1]``.

        The rate is a softplus of `raw`. It grows linearly, not exponentially, with a large `raw`.
        """
        return log_softplus(raw)

    @classmethod
    def from_canonical(cls, rate: Tensor | float, *, validate_args: bool | None = None) -> "NaturalPoisson":
        """Make the distribution from the rate.

        Parameters
        ----------
        rate : Tensor or float, shape ``[...]``
            Rate, positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalPoisson
            The distribution with `batch_shape` ``[...]``.
        """
        (rate,) = broadcast_floats(rate)
        return cls(rate.log().unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `rate`, shape ``[...]``."""
        return {"rate": self.natural[..., 0].exp()}

    @classmethod
    def posterior(cls, prior: NaturalGamma, sufficient_statistics: Tensor, count: Tensor | float) -> NaturalGamma:
        """Compute the posterior of the rate.

        Parameters
        ----------
        prior : NaturalGamma
            Prior of the rate.
        sufficient_statistics : Tensor, shape ``[..., 1]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.

        Returns
        -------
        NaturalGamma
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.
        """
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
        """The rate, shape `batch_shape`."""
        return self.natural[..., 0].exp()

    @property
    def mode(self) -> Tensor:
        """The rate rounded down, shape `batch_shape`."""
        return self.mean.floor()

    @property
    def variance(self) -> Tensor:
        """The rate, shape `batch_shape`."""
        return self.mean

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws in the dtype of `natural`, without gradients, shape ``[*sample_shape, *batch_shape]``."""
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self._extended_shape(sample_shape)))


class NaturalGeometric(NaturalExponentialFamily):
    r"""Geometric distribution of the failures before the first success, in its natural parameter.

    Use it for waiting times in whole steps.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 1]``
        Logarithm of the probability of failure, negative.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = x, h(x) = 1 and

    .. math:: A(\eta) = -\log(1 - e^\eta).

    Events are the numbers 0, 1, ...

    Examples
    --------
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
        """A(eta), minus the log probability of success, ``[..., 1]`` to ``[...]``."""
        return -one_minus_exp(-natural[..., 0]).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map real numbers to negative ones: minus (softplus plus 1e-6), same shape."""
        return -smooth_positive(raw)

    @classmethod
    def from_canonical(
        cls, probs: Tensor | None = None, logits: Tensor | None = None, *, validate_args: bool | None = None
    ) -> "NaturalGeometric":
        """Make the distribution from the probability of success or from its log-odds.

        Parameters
        ----------
        probs : Tensor, shape ``[...]``, optional
            Probability of success.
        logits : Tensor, shape ``[...]``, optional
            Log-odds of success.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalGeometric
            The distribution with `batch_shape` ``[...]``.

        Raises
        ------
        ValueError
            Both are given, or none.
        """
        logits = canonical_logits("NaturalGeometric", probs, logits)
        return cls(F.logsigmoid(-logits).unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `logits`, the log-odds of success, shape ``[...]``."""
        natural = self.natural[..., 0]
        return {"logits": one_minus_exp(-natural).log() - natural}

    @classmethod
    def posterior(cls, prior: NaturalBeta, sufficient_statistics: Tensor, count: Tensor | float) -> NaturalBeta:
        """Compute the posterior of the probability of success.

        Parameters
        ----------
        prior : NaturalBeta
            Prior of the probability of success.
        sufficient_statistics : Tensor, shape ``[..., 1]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.

        Returns
        -------
        NaturalBeta
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.
        """
        return conjugate_update("NaturalGeometric", NaturalBeta, prior, [count, sufficient_statistics[..., 0]])

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return one_minus_exp(-natural[..., 0] * (value + 1))

    @property
    def mean(self) -> Tensor:
        """Odds of failure, shape `batch_shape`."""
        return odds(self.natural[..., 0])

    @property
    def mode(self) -> Tensor:
        """Zero, shape `batch_shape`."""
        return torch.zeros_like(self.natural[..., 0])

    @property
    def variance(self) -> Tensor:
        """Mean over the probability of success, shape `batch_shape`."""
        return self.mean / one_minus_exp(-self.natural[..., 0])

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws in the dtype of `natural`, without gradients, shape ``[*sample_shape, *batch_shape]``.

        They are exponential noise rounded down.
        """
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            # 1 - rand is never 0, so the logarithm is finite.
            noise = torch.log1p(-torch.rand(shape, dtype=torch.double, device=self.natural.device))
            return (noise / self.natural[..., 0].double()).floor().to(self.natural.dtype)
