"""Exponential and gamma distributions in natural parameters."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp, rsample_log_gamma, standard_exponential
from pyrovae.distributions._validation import NO_SHAPE, broadcast_floats
from pyrovae.distributions.constraints import NaturalDomain
from pyrovae.distributions.exponential_family import (
    NaturalExponentialFamily,
    conjugate_update,
    smooth_positive,
    value_itself,
)

__all__ = ["NaturalExponential", "NaturalGamma"]


class NaturalExponential(NaturalExponentialFamily):
    r"""Exponential distribution, eta = -rate, T = x, h = 1, :math:`A(\eta) = -\log(-\eta)`.

    Shapes: `natural` `[..., 1]`, negative; scalar events, 0 or more.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> prior = NaturalGamma.from_canonical(torch.tensor(2.0), torch.tensor(1.0))
        >>> x = torch.tensor([0.5, 1.5, 1.0])
        >>> NaturalExponential.posterior(prior, x.sum(-1, keepdim=True), 3).to_canonical()
        {'concentration': tensor(5.), 'rate': tensor(4.)}
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": NaturalDomain(constraints.less_than(0.0))}
    support = constraints.nonnegative
    has_rsample = True
    num_natural = 1
    sufficient_statistics = staticmethod(value_itself)

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """Minus the log rate."""
        return -(-natural[..., 0]).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Minus a shifted softplus."""
        return -smooth_positive(raw)

    @classmethod
    def from_canonical(cls, rate: Tensor | float, *, validate_args: bool | None = None) -> "NaturalExponential":
        """From the rate."""
        (rate,) = broadcast_floats(rate)
        return cls(-rate.unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword `rate`."""
        return {"rate": -self.natural[..., 0]}

    @classmethod
    def posterior(cls, prior: "NaturalGamma", sufficient_statistics: Tensor, count: Tensor | float) -> "NaturalGamma":
        """Posterior of the rate after `count` values whose T(x) sum to `sufficient_statistics` `[..., 1]`."""
        return conjugate_update("NaturalExponential", NaturalGamma, prior, [count, -sufficient_statistics[..., 0]])

    @property
    def mean(self) -> Tensor:
        """1 / rate."""
        return -1 / self.natural[..., 0]

    @property
    def mode(self) -> Tensor:
        """Zero."""
        return torch.zeros_like(self.natural[..., 0])

    @property
    def variance(self) -> Tensor:
        """1 / rate^2."""
        return self.natural[..., 0].square().reciprocal()

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Reparameterised draws, noise divided by the rate."""
        return standard_exponential(self._extended_shape(sample_shape), self.natural) / -self.natural[..., 0]

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return one_minus_exp(-natural[..., 0] * value)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`."""
        return torch.log1p(-value) / self.natural[..., 0]


class NaturalGamma(NaturalExponentialFamily):
    r"""Gamma distribution, eta = (concentration, -rate), T = (log x, x), h = 1 / x.

    .. math:: A(\eta) = \log\Gamma(\eta_1) - \eta_1\log(-\eta_2)

    With 1 / x in the base measure the first parameter is the concentration itself instead of concentration - 1, which
    would lose the digits of small concentrations.

    `cdf` has a gradient in the value but none in the parameters: torch's incomplete Gamma function has no derivative in
    the concentration and raises `NotImplementedError`. Draws and `log_prob` have all of theirs.

    Shapes: `natural` `[..., 2]`, the first entry positive, the second negative; scalar events, positive.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
        >>> import torch
        >>> p = NaturalGamma.from_canonical(torch.tensor(3.0), torch.tensor(2.0))
        >>> p.mean, p.mean_parameters  # E[log x] is digamma(3) - log(2)
        (tensor(1.5000), tensor([0.2296, 1.5000]))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "natural": NaturalDomain(constraints.positive, constraints.less_than(0.0))
    }
    support = constraints.positive
    has_rsample = True
    num_natural = 2

    @staticmethod
    def sufficient_statistics(value: Tensor) -> Tensor:
        """(log x, x)."""
        return torch.stack([value.log(), value], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Minus log x."""
        return -value.log()

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """Log Gamma function of the concentration minus concentration times log rate."""
        concentration, minus_rate = natural.unbind(-1)
        return torch.lgamma(concentration) - concentration * (-minus_rate).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """A shifted softplus of both entries, the second negated."""
        positive = smooth_positive(raw)
        return torch.stack([positive[..., 0], -positive[..., 1]], -1)

    @classmethod
    def from_canonical(
        cls, concentration: Tensor | float, rate: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalGamma":
        """From concentration and rate."""
        concentration, rate = broadcast_floats(concentration, rate)
        return cls(torch.stack([concentration, -rate], -1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keywords `concentration` and `rate`."""
        return {"concentration": self.natural[..., 0], "rate": -self.natural[..., 1]}

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters[..., 0]

    @property
    def mean(self) -> Tensor:
        """Concentration / rate."""
        return -self.natural[..., 0] / self.natural[..., 1]

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / rate, or 0 at the end of the support for concentrations below one."""
        return -(self.natural[..., 0] - 1).clamp(min=0) / self.natural[..., 1]

    @property
    def variance(self) -> Tensor:
        """Concentration / rate^2."""
        return self.natural[..., 0] / self.natural[..., 1].square()

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws with implicit gradients, made in log space and kept above 0."""
        concentration, minus_rate = self.natural.expand((*self._extended_shape(sample_shape), 2)).unbind(-1)
        log_draw = rsample_log_gamma(concentration) - (-minus_rate).log()
        return log_draw.clamp(min=math.log(torch.finfo(log_draw.dtype).tiny)).exp()

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        concentration, minus_rate = natural.unbind(-1)
        return torch.special.gammainc(concentration, -minus_rate * value)
