"""What all distributions of stick fractions share: draws and scores through ``log v`` and ``log(1 - v)``."""

from abc import abstractmethod

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyrovae.distributions._numerics import open_unit
from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution
from pyrovae.distributions.constraints import open_unit_interval


class Fractions(CheckedDistribution):
    """Abstract distribution of one number in (0, 1), drawn and scored through ``log v`` and ``log(1 - v)``.

    A fraction within 1e-8 of 1 is 1 in float32, and the stick that it leaves is lost; its logarithms are not. A
    subclass gives `rsample_log`, `log_prob_from_logs`, `arg_constraints` and `expand`, has scalar events, and sets the
    parameters, broadcast to `batch_shape`, before it calls ``super().__init__``.
    """

    support = open_unit_interval
    has_rsample = True

    @abstractmethod
    def rsample_log(self, sample_shape: torch.Size = NO_SHAPE) -> tuple[Tensor, Tensor]:
        """``log v`` and ``log(1 - v)`` of the same reparameterised draws, neither rounded through v.

        Returns:
            Two finite tensors of shape `sample_shape` + `batch_shape`.
        """

    @abstractmethod
    def log_prob_from_logs(self, log_v: Tensor, log_1mv: Tensor) -> Tensor:
        """Log density (of v) where v is given by ``log v`` and ``log(1 - v)``, also beyond the range of the dtype."""

    def rsample(self, sample_shape: torch.Size = NO_SHAPE) -> Tensor:
        """Reparameterised draws of shape `sample_shape` + `batch_shape`, strictly inside (0, 1)."""
        return open_unit(*self.rsample_log(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value`; shape `value` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_from_logs(torch.log(value), torch.log1p(-value))


def rsample_log(fractions: Distribution, sample_shape: torch.Size = NO_SHAPE) -> tuple[Tensor, Tensor]:
    """``log v`` and ``log(1 - v)`` of one draw from any distribution on the unit interval.

    Exact for the fractions of this library (`Fractions`), also inside `Independent`; for any other distribution the
    logarithms of a draw, moved into the open interval first.

    Args:
        fractions: distribution with draws in [0, 1].
        sample_shape: shape of the draws in front of the batch.

    Returns:
        Two tensors of the shape of a draw.

    Example:
        >>> from pyrovae.distributions import Kumaraswamy
        >>> log_v, log_1mv = rsample_log(Kumaraswamy(torch.ones(3), 1e-3).to_event(1))
        >>> bool(log_1mv.isfinite().all())
        True
    """
    if isinstance(fractions, Independent):
        return rsample_log(fractions.base_dist, sample_shape)
    if isinstance(fractions, Fractions):
        return fractions.rsample_log(sample_shape)
    v = fractions.rsample(sample_shape)
    info = torch.finfo(v.dtype)
    v = v.clamp(info.tiny, 1 - info.eps / 2)
    return torch.log(v), torch.log1p(-v)


def log_prob_from_logs(fractions: Distribution, log_v: Tensor, log_1mv: Tensor) -> Tensor:
    """Log density of v from both its logarithms, summed over the event dimensions of `fractions`.

    Args:
        fractions: distribution on the unit interval, perhaps inside `Independent`.
        log_v: ``log v``.
        log_1mv: ``log(1 - v)``.

    Returns:
        Log density, shape of the batch.
    """
    if isinstance(fractions, Independent):
        score = log_prob_from_logs(fractions.base_dist, log_v, log_1mv)
        return sum_rightmost(score, fractions.reinterpreted_batch_ndims)
    if isinstance(fractions, Fractions):
        return fractions.log_prob_from_logs(log_v, log_1mv)
    return fractions.log_prob(open_unit(log_v, log_1mv))
