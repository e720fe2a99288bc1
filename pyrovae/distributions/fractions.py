"""What all distributions of stick fractions share: draws and scores through ``log v`` and ``log(1 - v)``."""

from abc import abstractmethod

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Distribution, Independent

from pyrovae.distributions._numerics import open_unit
from pyrovae.distributions._validation import NO_SHAPE, CheckedDistribution, Shape
from pyrovae.distributions.constraints import open_unit_interval


class Fractions(CheckedDistribution):
    """Abstract distribution of one number v in (0, 1) that is drawn and scored through ``log v`` and ``log(1 - v)``.

    Use a subclass, such as `Kumaraswamy` or `Beta`, for the fractions of `StickBreaking`. A subclass gives
    `rsample_log`, `log_prob_from_logs`, `arg_constraints` and `expand`. Its events are scalars. It sets its parameters,
    broadcast to `batch_shape`, before it calls ``super().__init__``.

    Notes
    -----
    In float32, a fraction within 1e-8 of 1 rounds to 1, and nothing is left of the stick. Its two logarithms keep that
    remainder.
    """

    support = open_unit_interval
    has_rsample = True

    @abstractmethod
    def rsample_log(self, sample_shape: Shape = NO_SHAPE) -> tuple[Tensor, Tensor]:
        """Draw ``log v`` and ``log(1 - v)`` of the same reparameterised draws, neither of them rounded through v.

        Parameters
        ----------
        sample_shape : torch.Size, default empty
            Shape of the draws in front of the batch.

        Returns
        -------
        log_v, log_1mv : Tensor
            Two finite tensors of shape ``[*sample_shape, *batch_shape]``.
        """

    @abstractmethod
    def log_prob_from_logs(self, log_v: Tensor, log_1mv: Tensor) -> Tensor:
        """Compute the log density of v from both of its logarithms, also where the dtype cannot hold v.

        Parameters
        ----------
        log_v : Tensor, shape ``[...]``
            ``log v``.
        log_1mv : Tensor, shape ``[...]``
            ``log(1 - v)``.

        Returns
        -------
        Tensor
            Log density of v (not of its logarithm) in nats, broadcast shape.
        """

    def rsample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Reparameterised draws strictly inside (0, 1), shape ``[*sample_shape, *batch_shape]``."""
        return open_unit(*self.rsample_log(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at `value` in nats, shape of `value` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_from_logs(torch.log(value), torch.log1p(-value))


def rsample_log(fractions: Distribution, sample_shape: Shape = NO_SHAPE) -> tuple[Tensor, Tensor]:
    """Draw ``log v`` and ``log(1 - v)`` from any distribution on the unit interval.

    Parameters
    ----------
    fractions : Distribution
        Distribution with reparameterised draws in [0, 1], perhaps inside `Independent`.
    sample_shape : torch.Size, default empty
        Shape of the draws in front of the batch.

    Returns
    -------
    log_v, log_1mv : Tensor
        Two tensors of the shape of a draw.

    Notes
    -----
    The result is exact for the fractions of this library (`Fractions`). For any other distribution, the draw is first
    moved into the open interval, and the logarithms are those of the moved draw.

    Examples
    --------
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
    """Compute the log density of v from both of its logarithms, for any distribution on the unit interval.

    Parameters
    ----------
    fractions : Distribution
        Distribution on the unit interval, perhaps inside `Independent`.
    log_v : Tensor
        ``log v``.
    log_1mv : Tensor
        ``log(1 - v)``, same shape.

    Returns
    -------
    Tensor
        Log density of v in nats, summed over the event dimensions of `fractions`.
    """
    if isinstance(fractions, Independent):
        score = log_prob_from_logs(fractions.base_dist, log_v, log_1mv)
        return sum_rightmost(score, fractions.reinterpreted_batch_ndims)
    if isinstance(fractions, Fractions):
        return fractions.log_prob_from_logs(log_v, log_1mv)
    return fractions.log_prob(open_unit(log_v, log_1mv))
