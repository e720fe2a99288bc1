"""The negative binomial distribution in natural parameters."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE, Shape
from pyrovae.distributions.constraints import NaturalDomain
from pyrovae.distributions.exponential_family import (
    NaturalExponentialFamily,
    canonical_logits,
    conjugate_update,
    smooth_positive,
    value_itself,
)
from pyrovae.distributions.natural_counts import integral_over_rates, odds
from pyrovae.distributions.natural_simplex import NaturalBeta

__all__ = ["NaturalNegativeBinomial"]


class NaturalNegativeBinomial(NaturalExponentialFamily):
    r"""Negative binomial distribution of the successes before `total_count` failures, in its natural parameter.

    Use it for counts whose variance is larger than their mean. Successes and failures are named as in torch.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 1]``
        Logarithm of the probability of success, negative.
    total_count : float
        Number of failures r, positive and not necessarily whole. It is the same for all entries.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Raises
    ------
    ValueError
        `total_count` is not positive.

    Notes
    -----
    With T(x) = x,

    .. math:: h(x) = \frac{\Gamma(x + r)}{\Gamma(r)\,x!}, \qquad A(\eta) = -r\log(1 - e^\eta)

    The count r is fixed, because with a free r the distribution is not an exponential family. Events are the numbers 0,
    1, ... The entropy integrates E[log h] from the probability generating function, as `NaturalPoisson` does:

    .. math:: E\log h = \int_0^\infty (1 - E e^{-tx}) \frac{e^{-t} - e^{-rt}}{1 - e^{-t}} \frac{dt}{t}

    Examples
    --------
    >>> import torch
    >>> NaturalNegativeBinomial.from_canonical(total_count=4.0, probs=torch.tensor(0.25)).mean
    tensor(1.3333)
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": NaturalDomain(constraints.less_than(0.0))}
    support = constraints.nonnegative_integer
    num_natural = 1
    sufficient_statistics = staticmethod(value_itself)

    def __init__(self, natural: Tensor, total_count: float, *, validate_args: bool | None = None) -> None:
        if not float(total_count) > 0:
            raise ValueError(f"NaturalNegativeBinomial: total_count must be positive, got {total_count}")
        self.total_count = float(total_count)
        super().__init__(natural, validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> "NaturalNegativeBinomial":
        """The same distribution with `batch_shape`."""
        new = self._expand_as(NaturalNegativeBinomial, batch_shape, _instance)
        new.total_count = self.total_count
        return new

    def same_family(self, other: NaturalExponentialFamily) -> bool:
        """Return whether `other` is a negative binomial with the same count."""
        return super().same_family(other) and self.total_count == other.total_count

    def log_base_measure(self, value: Tensor) -> Tensor:
        """Log h(x), the logarithm of the generalised binomial coefficient, shape of `value`."""
        count = torch.as_tensor(self.total_count, dtype=value.dtype, device=value.device)
        return torch.lgamma(value + count) - torch.lgamma(count) - torch.lgamma(value + 1)

    def log_normalizer(self, natural: Tensor) -> Tensor:
        """A(eta), minus `total_count` times the log probability of failure, ``[..., 1]`` to ``[...]``."""
        return -self.total_count * one_minus_exp(-natural[..., 0]).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map real numbers to negative ones: minus (softplus plus 1e-6), same shape."""
        return -smooth_positive(raw)

    @classmethod
    def from_canonical(
        cls,
        total_count: float,
        probs: Tensor | None = None,
        logits: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> "NaturalNegativeBinomial":
        """Make the distribution from the count and the probability of success or its log-odds.

        Parameters
        ----------
        total_count : float
            Number of failures, positive.
        probs : Tensor, shape ``[...]``, optional
            Probability of success.
        logits : Tensor, shape ``[...]``, optional
            Log-odds of success.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalNegativeBinomial
            The distribution with `batch_shape` ``[...]``.

        Raises
        ------
        ValueError
            Both of `probs` and `logits` are given, or none; or `total_count` is not positive.
        """
        logits = canonical_logits("NaturalNegativeBinomial", probs, logits)
        return cls(F.logsigmoid(logits).unsqueeze(-1), total_count, validate_args=validate_args)

    def to_canonical(self) -> dict[str, Any]:
        """Return a dict with `total_count`, a float, and `logits`, shape ``[...]``."""
        natural = self.natural[..., 0]
        return {"total_count": self.total_count, "logits": natural - one_minus_exp(-natural).log()}

    @classmethod
    def posterior(
        cls, prior: NaturalBeta, sufficient_statistics: Tensor, count: Tensor | float, *, total_count: float
    ) -> NaturalBeta:
        """Compute the posterior of the probability of *failure*.

        Parameters
        ----------
        prior : NaturalBeta
            Prior of the probability of failure.
        sufficient_statistics : Tensor, shape ``[..., 1]``
            Sum of T(x) over the values.
        count : Tensor or float, shape ``[...]``
            Number of values.
        total_count : float
            Number of failures per value.

        Returns
        -------
        NaturalBeta
            The posterior.

        Raises
        ------
        TypeError
            The prior is of another family.

        Notes
        -----
        The probability of failure is exp(-A / r).
        """
        increment = [total_count * count, sufficient_statistics[..., 0]]
        return conjugate_update("NaturalNegativeBinomial", NaturalBeta, prior, increment)

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        count, ratio = self.total_count, odds(natural[..., 0])

        sign, smaller = (1.0, 1.0) if count >= 1 else (-1.0, count)

        def integrand(t: Tensor) -> Tensor:
            hit = one_minus_exp(t)
            present = one_minus_exp(count * torch.log1p(ratio * hit))
            # exp(-t) - exp(-r t), which would cancel for r near 1 and for t near 0
            difference = sign * (-smaller * t).exp() * one_minus_exp(abs(count - 1) * t)
            return present * difference / hit

        return integral_over_rates(integrand, ratio)

    @property
    def mean(self) -> Tensor:
        """`total_count` times the odds of success, shape `batch_shape`."""
        return self.total_count * odds(self.natural[..., 0])

    @property
    def mode(self) -> Tensor:
        """(total_count - 1) times the odds of success, rounded down, shape `batch_shape`; 0 for counts below 1."""
        return (max(self.total_count - 1, 0.0) * odds(self.natural[..., 0])).floor()

    @property
    def variance(self) -> Tensor:
        """Mean over the probability of failure, shape `batch_shape`."""
        return self.mean / one_minus_exp(-self.natural[..., 0])

    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws in the dtype of `natural`, without gradients, shape ``[*sample_shape, *batch_shape]``.

        They are Poisson draws with a Gamma rate.
        """
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            rate = torch._standard_gamma(self.natural.new_full(shape, self.total_count))
            return torch.poisson(rate * odds(self.natural[..., 0]))
