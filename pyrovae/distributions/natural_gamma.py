"""Exponential and gamma distributions in natural parameters."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import one_minus_exp, rsample_log_gamma, standard_exponential
from pyrovae.distributions._validation import NO_SHAPE, Shape, broadcast_floats
from pyrovae.distributions.constraints import NaturalDomain
from pyrovae.distributions.exponential_family import (
    NaturalExponentialFamily,
    conjugate_update,
    smooth_positive,
    value_itself,
)

__all__ = ["NaturalExponential", "NaturalGamma"]


class NaturalExponential(NaturalExponentialFamily):
    r"""Exponential distribution in its natural parameter, minus the rate.

    Use it for waiting times where you need conjugate updates or divergences in natural parameters.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 1]``
        Minus the rate, negative.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = x, h(x) = 1 and :math:`A(\eta) = -\log(-\eta)`. Events are scalars, 0 or more.

    Examples
    --------
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
        """A(eta), minus the log rate, ``[..., 1]`` to ``[...]``."""
        return -(-natural[..., 0]).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map real numbers to negative ones: minus (softplus plus 1e-6), same shape."""
        return -smooth_positive(raw)

    @classmethod
    def from_canonical(cls, rate: Tensor | float, *, validate_args: bool | None = None) -> "NaturalExponential":
        """Make the distribution from the rate.

        Parameters
        ----------
        rate : Tensor or float, shape ``[...]``
            Rate, positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalExponential
            The distribution with `batch_shape` ``[...]``.
        """
        (rate,) = broadcast_floats(rate)
        return cls(-rate.unsqueeze(-1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `rate`, shape ``[...]``."""
        return {"rate": -self.natural[..., 0]}

    @classmethod
    def posterior(cls, prior: "NaturalGamma", sufficient_statistics: Tensor, count: Tensor | float) -> "NaturalGamma":
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
        return conjugate_update("NaturalExponential", NaturalGamma, prior, [count, -sufficient_statistics[..., 0]])

    @property
    def mean(self) -> Tensor:
        """1 / rate, shape `batch_shape`."""
        return -1 / self.natural[..., 0]

    @property
    def mode(self) -> Tensor:
        """Zero, shape `batch_shape`."""
        return torch.zeros_like(self.natural[..., 0])

    @property
    def variance(self) -> Tensor:
        """1 / rate^2, shape `batch_shape`."""
        return self.natural[..., 0].square().reciprocal()

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised draws, noise over the rate, shape ``[*sample_shape, *batch_shape]``."""
        return standard_exponential(self._extended_shape(sample_shape), self.natural) / -self.natural[..., 0]

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        return one_minus_exp(-natural[..., 0] * value)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of the probability `value`, broadcast shape."""
        return torch.log1p(-value) / self.natural[..., 0]


class NaturalGamma(NaturalExponentialFamily):
    r"""Gamma distribution in its natural parameters, (concentration, -rate).

    Use it for positive numbers, and as the conjugate prior of `NaturalPoisson` and `NaturalExponential`.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 2]``
        The concentration, positive, and minus the rate, negative.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = (log x, x), h(x) = 1 / x and

    .. math:: A(\eta) = \log\Gamma(\eta_1) - \eta_1\log(-\eta_2).

    Because 1 / x is in the base measure, the first parameter is the concentration itself and not concentration - 1. The
    difference would lose the digits of small concentrations. Events are positive scalars.

    `cdf` has a gradient in the value but none in `natural`: torch's incomplete Gamma function has no derivative in the
    concentration and raises `NotImplementedError`. Draws and `log_prob` have all their gradients.

    Examples
    --------
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
        """T(x) = (log x, x), ``[...]`` to ``[..., 2]``."""
        return torch.stack([value.log(), value], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Log h(x) = -log x, shape of `value`."""
        return -value.log()

    @staticmethod
    def log_normalizer(natural: Tensor) -> Tensor:
        """A(eta), log Gamma(concentration) minus concentration times log rate, ``[..., 2]`` to ``[...]``."""
        concentration, minus_rate = natural.unbind(-1)
        return torch.lgamma(concentration) - concentration * (-minus_rate).log()

    @staticmethod
    def constrain(raw: Tensor) -> Tensor:
        """Map real numbers to natural parameters: softplus plus 1e-6, the second entry negated; same shape."""
        positive = smooth_positive(raw)
        return torch.stack([positive[..., 0], -positive[..., 1]], -1)

    @classmethod
    def from_canonical(
        cls, concentration: Tensor | float, rate: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalGamma":
        """Make the distribution from concentration and rate.

        Parameters
        ----------
        concentration : Tensor or float, shape ``[...]``
            Concentration, positive.
        rate : Tensor or float, shape ``[...]``
            Rate, positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalGamma
            The distribution with the broadcast shape as `batch_shape`.
        """
        concentration, rate = broadcast_floats(concentration, rate)
        return cls(torch.stack([concentration, -rate], -1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `concentration` and `rate`, each of shape ``[...]``."""
        return {"concentration": self.natural[..., 0], "rate": -self.natural[..., 1]}

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters[..., 0]

    @property
    def mean(self) -> Tensor:
        """Concentration / rate, shape `batch_shape`."""
        return -self.natural[..., 0] / self.natural[..., 1]

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / rate, shape `batch_shape`; 0 for concentrations below 1."""
        return -(self.natural[..., 0] - 1).clamp(min=0) / self.natural[..., 1]

    @property
    def variance(self) -> Tensor:
        """Concentration / rate^2, shape `batch_shape`."""
        return self.natural[..., 0] / self.natural[..., 1].square()

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws with implicit gradients, shape ``[*sample_shape, *batch_shape]``.

        They are made in log space and kept above 0.
        """
        concentration, minus_rate = self.natural.expand((*self._extended_shape(sample_shape), 2)).unbind(-1)
        log_draw = rsample_log_gamma(concentration) - (-minus_rate).log()
        return log_draw.clamp(min=math.log(torch.finfo(log_draw.dtype).tiny)).exp()

    def _cdf(self, natural: Tensor, value: Tensor) -> Tensor:
        concentration, minus_rate = natural.unbind(-1)
        return torch.special.gammainc(concentration, -minus_rate * value)
