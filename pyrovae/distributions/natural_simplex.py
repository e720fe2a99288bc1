"""Beta and Dirichlet distributions in natural parameters."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import rsample_log_gamma
from pyrovae.distributions._validation import NO_SHAPE, Shape, broadcast_floats
from pyrovae.distributions.constraints import NaturalDomain, open_unit_interval
from pyrovae.distributions.exponential_family import NaturalExponentialFamily, smooth_positive
from pyrovae.distributions.sticks import Beta

__all__ = ["NaturalBeta", "NaturalDirichlet"]


def _log_normalizer(natural: Tensor) -> Tensor:
    """Logarithm of the multivariate Beta function."""
    return torch.lgamma(natural).sum(-1) - torch.lgamma(natural.sum(-1))


class NaturalBeta(NaturalExponentialFamily):
    r"""Beta distribution in its natural parameters, (concentration1, concentration0).

    Use it for probabilities, and as the conjugate prior of `NaturalBernoulli`, `NaturalGeometric` and
    `NaturalNegativeBinomial`.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., 2]``
        Both concentrations, positive.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = (log x, log(1 - x)), h(x) = 1 / (x (1 - x)) and

    .. math:: A(\eta) = \log\Gamma(\eta_1) + \log\Gamma(\eta_2) - \log\Gamma(\eta_1 + \eta_2).

    As in `NaturalGamma`, this base measure makes the concentrations themselves the natural parameters. Events are
    scalars strictly between 0 and 1.

    Examples
    --------
    >>> import torch
    >>> p = NaturalBeta(torch.tensor([2.0, 3.0]))
    >>> p.mean, p.log_prob(torch.tensor(0.5))  # log 1.5
    (tensor(0.4000), tensor(0.4055))
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {
        "natural": NaturalDomain(constraints.positive, constraints.positive)
    }
    support = open_unit_interval
    has_rsample = True
    num_natural = 2
    log_normalizer = staticmethod(_log_normalizer)
    constrain = staticmethod(smooth_positive)

    @staticmethod
    def sufficient_statistics(value: Tensor) -> Tensor:
        """T(x) = (log x, log(1 - x)), ``[...]`` to ``[..., 2]``."""
        return torch.stack([value.log(), torch.log1p(-value)], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Log h(x), minus log x minus log(1 - x), shape of `value`."""
        return -value.log() - torch.log1p(-value)

    @classmethod
    def from_canonical(
        cls, concentration1: Tensor | float, concentration0: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalBeta":
        """Make the distribution from the two concentrations, in torch's order.

        Parameters
        ----------
        concentration1 : Tensor or float, shape ``[...]``
            Exponent of x, plus one; positive.
        concentration0 : Tensor or float, shape ``[...]``
            Exponent of 1 - x, plus one; positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalBeta
            The distribution with the broadcast shape as `batch_shape`.
        """
        return cls(torch.stack(broadcast_floats(concentration1, concentration0), -1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `concentration1` and `concentration0`, each of shape ``[...]``."""
        return {"concentration1": self.natural[..., 0], "concentration0": self.natural[..., 1]}

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters.sum(-1)

    @property
    def mean(self) -> Tensor:
        """concentration1 over the sum of both, shape `batch_shape`."""
        return self.natural[..., 0] / self.natural.sum(-1)

    @property
    def mode(self) -> Tensor:
        """(concentration1 - 1) / (sum - 2), shape `batch_shape`.

        Where the density has no mode inside, it is the end on the side of the larger concentration.
        """
        return _mode(self.natural)[..., 0]

    @property
    def variance(self) -> Tensor:
        """Product of mean and 1 - mean over (sum + 1), shape `batch_shape`."""
        total = self.natural.sum(-1)
        return (self.natural / total.unsqueeze(-1)).prod(-1) / (total + 1)

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws with implicit gradients, never exactly 0 or 1, shape ``[*sample_shape, *batch_shape]``.

        They go through the logarithms of two Gamma draws.
        """
        return Beta(*self.natural.unbind(-1), validate_args=False).rsample(sample_shape)


class NaturalDirichlet(NaturalExponentialFamily):
    r"""Dirichlet distribution in its natural parameters, the concentrations.

    Use it for vectors of probabilities, and as the conjugate prior of `NaturalCategorical`.

    Parameters
    ----------
    natural : Tensor of float, shape ``[..., K]``
        Concentrations, positive. `batch_shape` is ``[...]`` and `event_shape` is ``[K]``.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    T(x) = log x, :math:`h(x) = \prod_k 1 / x_k` and

    .. math:: A(\eta) = \sum_k \log\Gamma(\eta_k) - \log\Gamma\Big(\sum_k \eta_k\Big).

    Examples
    --------
    >>> import torch
    >>> NaturalDirichlet(torch.tensor([1.0, 2.0, 5.0])).mean
    tensor([0.1250, 0.2500, 0.6250])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    log_normalizer = staticmethod(_log_normalizer)
    constrain = staticmethod(smooth_positive)

    @staticmethod
    def _natural_event_shape(natural: Tensor) -> torch.Size:
        return natural.shape[-1:]

    @staticmethod
    def sufficient_statistics(value: Tensor) -> Tensor:
        """T(x), the logarithms of the weights, ``[..., K]`` to ``[..., K]``."""
        return value.log()

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Log h(x), minus the sum of the logarithms of the weights, ``[..., K]`` to ``[...]``."""
        return -value.log().sum(-1)

    @classmethod
    def from_canonical(cls, concentration: Tensor, *, validate_args: bool | None = None) -> "NaturalDirichlet":
        """Make the distribution from the concentrations.

        Parameters
        ----------
        concentration : Tensor, shape ``[..., K]``
            Concentrations, positive.
        validate_args : bool, optional
            Whether to check parameters and values. None follows torch's global setting.

        Returns
        -------
        NaturalDirichlet
            The distribution with `batch_shape` ``[...]``.
        """
        return cls(*broadcast_floats(concentration), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Return a dict with `concentration`, shape ``[..., K]``."""
        return {"concentration": self.natural}

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters.sum(-1)

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        # h and the inner product are infinite with opposite signs where a weight is 0, which the simplex allows.
        return torch.xlogy(natural - 1, value).sum(-1) - self.log_normalizer(natural)

    @property
    def mean(self) -> Tensor:
        """Concentrations over their sum, shape ``[..., K]``."""
        return self.natural / self.natural.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / (sum - K) where all concentrations exceed 1, shape ``[..., K]``.

        Otherwise, entries whose concentration is 1 or less get 0. If no concentration exceeds 1, the largest one gets
        all.
        """
        return _mode(self.natural)

    @property
    def variance(self) -> Tensor:
        """Product of mean and 1 - mean over (sum + 1), shape ``[..., K]``."""
        total = self.natural.sum(-1, keepdim=True)
        return self.natural * (total - self.natural) / (total.square() * (total + 1))

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws with implicit gradients, never exactly 0, shape ``[*sample_shape, *batch_shape, K]``.

        They go through the logarithms of Gamma draws.
        """
        log_gamma = rsample_log_gamma(self.natural.expand(self._extended_shape(sample_shape)))
        weights = log_gamma.softmax(-1)
        return weights + (weights.clamp(min=torch.finfo(weights.dtype).tiny) - weights).detach()


def _mode(concentration: Tensor) -> Tensor:
    """Most probable point of the simplex. All weight is on the largest concentration where none exceeds 1."""
    excess = (concentration - 1).clamp(min=0)
    total = excess.sum(-1, keepdim=True)
    corner = torch.zeros_like(concentration).scatter(-1, concentration.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, excess / total.clamp(min=torch.finfo(total.dtype).tiny), corner)
