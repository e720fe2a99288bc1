"""The negative binomial distribution in natural parameters."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp
from pyrovae.distributions._validation import NO_SHAPE
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
    r"""Successes before `total_count` failures, eta = log probability of success, T = x, as torch counts them.

    .. math:: h(x) = \frac{\Gamma(x + r)}{\Gamma(r)\,x!}, \qquad A(\eta) = -r\log(1 - e^\eta)

    The count r is fixed, since with it the distribution is no exponential family. The entropy integrates E[log h] from
    the generating function as for the Poisson:

    .. math:: E\log h = \int_0^\infty (1 - E e^{-tx}) \frac{e^{-t} - e^{-rt}}{1 - e^{-t}} \frac{dt}{t}

    Shapes: `natural` `[..., 1]`, negative; scalar events 0, 1, ...

    Args:
        natural: natural parameters.
        total_count: positive number r, not necessarily whole, one for all entries.
        validate_args: as in torch.

    Raises:
        ValueError: for a `total_count` that is not positive.

    Example:
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

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "NaturalNegativeBinomial":
        """The same distribution with `batch_shape`."""
        new = self._expand_as(NaturalNegativeBinomial, batch_shape, _instance)
        new.total_count = self.total_count
        return new

    def same_family(self, other: NaturalExponentialFamily) -> bool:
        """Whether `other` is a negative binomial with the same count."""
        return super().same_family(other) and self.total_count == other.total_count

    def log_base_measure(self, value: Tensor) -> Tensor:
        """Log of the generalised binomial coefficient."""
        count = torch.as_tensor(self.total_count, dtype=value.dtype, device=value.device)
        return torch.lgamma(value + count) - torch.lgamma(count) - torch.lgamma(value + 1)

    def log_normalizer(self, natural: Tensor) -> Tensor:
        """Minus `total_count` times the log probability of failure."""
        return -self.total_count * one_minus_exp(-natural[..., 0]).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Minus a shifted softplus."""
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
        """From the count and the probability of success or its log-odds."""
        logits = canonical_logits("NaturalNegativeBinomial", probs, logits)
        return cls(F.logsigmoid(logits).unsqueeze(-1), total_count, validate_args=validate_args)

    def to_canonical(self) -> dict[str, Any]:
        """Keywords `total_count` and `logits`."""
        natural = self.natural[..., 0]
        return {"total_count": self.total_count, "logits": natural - one_minus_exp(-natural).log()}

    @classmethod
    def posterior(
        cls, prior: NaturalBeta, sufficient_statistics: Tensor, count: Tensor | float, *, total_count: float
    ) -> NaturalBeta:
        """Posterior of the probability of *failure*, exp(-A / r), after `count` values whose T(x) sum to `[..., 1]`."""
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
        """`total_count` times the odds of success."""
        return self.total_count * odds(self.natural[..., 0])

    @property
    def mode(self) -> Tensor:
        """(total_count - 1) times the odds of success, rounded down."""
        return (max(self.total_count - 1, 0.0) * odds(self.natural[..., 0])).floor()

    @property
    def variance(self) -> Tensor:
        """Mean over the probability of failure."""
        return self.mean / one_minus_exp(-self.natural[..., 0])

    def sample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws, of the dtype of `natural`: Poisson with a gamma rate."""
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            rate = torch._standard_gamma(self.natural.new_full(shape, self.total_count))
            return torch.poisson(rate * odds(self.natural[..., 0]))
