"""Levels 0, ..., K - 1 with an order, or with numbers of levels that differ between columns."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from pyrovae.distributions._validation import NO_SHAPE, Shape

__all__ = ["Levels"]

IMPOSSIBLE = -1e4
"""The logit of a level that a column does not have; its probability is exactly 0 in every floating type."""


class Levels(TorchDistribution):
    r"""Categorical entries ``[..., n]`` in natural parameters, each with its own number of levels.

    Use it for the categorical columns of a table: those with fewer levels than the largest are padded.

    Parameters
    ----------
    natural : Tensor, shape ``[..., n, K]``
        Logits, which are natural parameters of the family; of levels that an entry does not have, anything.
    num_levels : Tensor of int64, shape ``[n]``
        How many levels each entry has, at most K.
    validate_args : bool, optional
        Whether values are checked. None follows torch's global setting.

    Notes
    -----
    .. math:: \log p(k) = \eta_k - A(\eta), \qquad A(\eta) = \log\sum_{j < L} e^{\eta_j}

    The moments are those of the number of the level.

    Examples
    --------
    >>> fn = Levels(torch.zeros(2, 4), torch.tensor([2, 4]))
    >>> fn.probs
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.2500, 0.2500, 0.2500, 0.2500]])
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {"natural": constraints.real_vector}

    def __init__(self, natural: Tensor, num_levels: Tensor, *, validate_args: bool | None = None) -> None:
        self.num_levels = num_levels
        levels = torch.arange(natural.shape[-1], device=natural.device)
        self.natural = torch.where(levels < num_levels.unsqueeze(-1), natural, natural.new_full((), IMPOSSIBLE))
        super().__init__(natural.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Levels:
        """The same distribution with `batch_shape`."""
        new = self._get_checked_instance(Levels, _instance)
        shape = torch.Size(batch_shape)
        new.natural, new.num_levels = self.natural.expand(shape + self.natural.shape[-1:]), self.num_levels
        super(Levels, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Constraint:
        """Integers from 0 to the number of levels less 1, for each entry."""
        return constraints.integer_interval(0, self.num_levels - 1)

    @property
    def log_probs(self) -> Tensor:
        """Log probabilities of all levels in nats, ``[..., n, K]``."""
        return self.natural.log_softmax(-1)

    @property
    def probs(self) -> Tensor:
        """Probabilities of all levels, ``[..., n, K]``."""
        return self.natural.softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of levels `value` in nats, shape of `value` broadcast with `batch_shape`."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        logits = self.natural.expand((*shape, -1))
        picked = logits.gather(-1, value.long().expand(shape).unsqueeze(-1)).squeeze(-1)
        return picked - logits.logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, int64, ``[*sample_shape, *batch_shape]``."""
        shape = torch.Size(sample_shape) + self.natural.shape
        noise = -torch.empty(shape, dtype=self.natural.dtype, device=self.natural.device).exponential_().log()
        return (self.natural + noise).argmax(-1)

    @property
    def mode(self) -> Tensor:
        """The most probable level."""
        return self.natural.argmax(-1)

    @property
    def mean(self) -> Tensor:
        """The mean of the number of the level."""
        return (self.probs * torch.arange(self.natural.shape[-1], device=self.natural.device)).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance of the number of the level."""
        levels = torch.arange(self.natural.shape[-1], device=self.natural.device, dtype=self.natural.dtype)
        return (self.probs * levels.square()).sum(-1) - self.mean.square()
