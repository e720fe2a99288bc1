"""Beta and Dirichlet distributions in natural parameters."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._numerics import rsample_log_gamma
from pyrovae.distributions._validation import NO_SHAPE, broadcast_floats
from pyrovae.distributions.constraints import NaturalDomain, open_unit_interval
from pyrovae.distributions.exponential_family import NaturalExponentialFamily, smooth_positive
from pyrovae.distributions.sticks import Beta

__all__ = ["NaturalBeta", "NaturalDirichlet"]


def _log_normalizer(concentration: Tensor) -> Tensor:
    """Log of the multivariate Beta function."""
    return torch.lgamma(concentration).sum(-1) - torch.lgamma(concentration.sum(-1))


class NaturalBeta(NaturalExponentialFamily):
    r"""Beta distribution, eta = (concentration1, concentration0), T = (log x, log(1 - x)), h = 1 / (x (1 - x)).

    .. math:: A(\eta) = \log\Gamma(\eta_1) + \log\Gamma(\eta_2) - \log\Gamma(\eta_1 + \eta_2)

    As in the gamma family, the base measure leaves the concentrations themselves as natural parameters.

    Shapes: `natural` `[..., 2]`, positive; scalar events, strictly between 0 and 1.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
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
        """(log x, log(1 - x))."""
        return torch.stack([value.log(), torch.log1p(-value)], -1)

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Minus log x minus log(1 - x)."""
        return -value.log() - torch.log1p(-value)

    @classmethod
    def from_canonical(
        cls, concentration1: Tensor | float, concentration0: Tensor | float, *, validate_args: bool | None = None
    ) -> "NaturalBeta":
        """From the two concentrations, in torch's order."""
        return cls(torch.stack(broadcast_floats(concentration1, concentration0), -1), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keywords `concentration1` and `concentration0`."""
        return {"concentration1": self.natural[..., 0], "concentration0": self.natural[..., 1]}

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters.sum(-1)

    @property
    def mean(self) -> Tensor:
        """concentration1 over the sum of both."""
        return self.natural[..., 0] / self.natural.sum(-1)

    @property
    def mode(self) -> Tensor:
        """(concentration1 - 1) / (sum - 2), or the end of larger concentration where the density has no inner mode."""
        return _mode(self.natural)[..., 0]

    @property
    def variance(self) -> Tensor:
        """Product of mean and 1 - mean over (sum + 1)."""
        total = self.natural.sum(-1)
        return (self.natural / total.unsqueeze(-1)).prod(-1) / (total + 1)

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws with implicit gradients through the logarithms of two gamma draws, never exactly 0 or 1."""
        return Beta(*self.natural.unbind(-1), validate_args=False).rsample(sample_shape)


class NaturalDirichlet(NaturalExponentialFamily):
    r"""Dirichlet distribution, eta = concentration, T = log x, :math:`h = \prod_k 1 / x_k`.

    .. math:: A(\eta) = \sum_k \log\Gamma(\eta_k) - \log\Gamma\Big(\sum_k \eta_k\Big)

    Shapes: `natural` `[..., K]`, positive; events are points of the K-simplex, `[K]`.

    Args:
        natural: natural parameters.
        validate_args: as in torch.

    Example:
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
        """Logarithms of the weights."""
        return value.log()

    @staticmethod
    def log_base_measure(value: Tensor) -> Tensor:
        """Minus the sum of the logarithms of the weights."""
        return -value.log().sum(-1)

    @classmethod
    def from_canonical(cls, concentration: Tensor, *, validate_args: bool | None = None) -> "NaturalDirichlet":
        """From the concentrations `[..., K]`."""
        return cls(*broadcast_floats(concentration), validate_args=validate_args)

    def to_canonical(self) -> dict[str, Tensor]:
        """Keyword `concentration`."""
        return {"concentration": self.natural}

    def _expected_log_base_measure(self, natural: Tensor, mean_parameters: Tensor) -> Tensor:
        return -mean_parameters.sum(-1)

    def _log_density(self, natural: Tensor, value: Tensor) -> Tensor:
        # h and the inner product are infinite with opposite signs where a weight is 0, which the simplex allows.
        return torch.xlogy(natural - 1, value).sum(-1) - self.log_normalizer(natural)

    @property
    def mean(self) -> Tensor:
        """Concentrations over their sum."""
        return self.natural / self.natural.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        """(concentration - 1) / (sum - K) where all exceed 1; smaller ones get 0, the largest all if none does."""
        return _mode(self.natural)

    @property
    def variance(self) -> Tensor:
        """Product of mean and 1 - mean over (sum + 1)."""
        total = self.natural.sum(-1, keepdim=True)
        return self.natural * (total - self.natural) / (total.square() * (total + 1))

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Draws with implicit gradients through the logarithms of gamma draws, never exactly 0."""
        log_gamma = rsample_log_gamma(self.natural.expand(self._extended_shape(sample_shape)))
        weights = log_gamma.softmax(-1)
        return weights + (weights.clamp(min=torch.finfo(weights.dtype).tiny) - weights).detach()


def _mode(concentration: Tensor) -> Tensor:
    """Most probable point of the simplex, with all weight on the largest concentration where none exceeds 1."""
    excess = (concentration - 1).clamp(min=0)
    total = excess.sum(-1, keepdim=True)
    corner = torch.zeros_like(concentration).scatter(-1, concentration.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, excess / total.clamp(min=torch.finfo(total.dtype).tiny), corner)
