"""Entries of several kinds side by side, such as the columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyrovae.distributions._validation import NO_SHAPE, Shape

__all__ = ["ColumnGroup", "Columns"]


class ColumnGroup(NamedTuple):
    """Columns of one kind with their distribution."""

    columns: Tensor
    """Which columns of the table, int64 ``[n]``."""
    fn: Distribution
    """Their distribution, of batch shape ``[..., n]`` and without event dimensions."""


class Columns(TorchDistribution):
    """Independent entries ``[..., D]`` whose distributions are of several kinds, one for each group of columns.

    Use it for the columns of a table. `mask` and `to_event` make a distribution of whole rows out of it.

    Parameters
    ----------
    groups : sequence of ColumnGroup
        The groups. Each of the columns 0 to D - 1 is in exactly one.
    validate_args : bool, optional
        Whether values are checked, by the distributions of the groups. None follows torch's global setting.

    Raises
    ------
    ValueError
        A column is in no group, or in two.

    Examples
    --------
    >>> from torch.distributions import Bernoulli, Normal
    >>> groups = [
    ...     ColumnGroup(torch.tensor([0, 2]), Normal(torch.zeros(5, 2), 1.0)),
    ...     ColumnGroup(torch.tensor([1]), Bernoulli(torch.full((5, 1), 0.5))),
    ... ]
    >>> fn = Columns(groups)
    >>> fn.batch_shape, fn.log_prob(torch.zeros(5, 3))[0]
    (torch.Size([5, 3]), tensor([-0.9189, -0.6931, -0.9189]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (as torch declares it)
    support = constraints.real

    def __init__(self, groups: Sequence[ColumnGroup], *, validate_args: bool | None = None) -> None:
        order = torch.cat([group.columns for group in groups])
        self.groups = tuple(groups)
        self._weights: Tensor | None = None
        self._places = torch.empty_like(order)
        self._places[order] = torch.arange(len(order), device=order.device)
        leading = torch.broadcast_shapes(*(group.fn.batch_shape[:-1] for group in groups))
        super().__init__(torch.Size((*leading, len(order))), validate_args=False)
        self._validate_args = validate_args is not False

    @classmethod
    def checked(cls, groups: Sequence[ColumnGroup]) -> Columns:
        """The same as the constructor, after a check of the columns.

        Raises
        ------
        ValueError
            A column is in no group, or in two.
        """
        named = sorted(int(column) for group in groups for column in group.columns)
        if named != list(range(len(named))):
            raise ValueError(f"each column is in exactly one group, got {named}")
        return cls(groups)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Columns:
        """The same distribution with `batch_shape`, whose last dimension is the columns."""
        shape = torch.Size(batch_shape)
        new = self._get_checked_instance(Columns, _instance)
        new.groups = tuple(
            ColumnGroup(group.columns, group.fn.expand(shape[:-1] + group.fn.batch_shape[-1:])) for group in self.groups
        )
        new._places, new._weights = self._places, self._weights
        super(Columns, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def joined(self, compute: Callable[[Distribution, Tensor], Tensor]) -> Tensor:
        """Compute something ``[..., n]`` of the distribution and the columns of each group; joined, ``[..., D]``."""
        parts = [compute(group.fn, group.columns) for group in self.groups]
        leading = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        dtype = torch.get_default_dtype()
        for part in parts:
            if part.is_floating_point():
                dtype = part.dtype
                break
        joined = torch.cat([part.to(dtype).expand(*leading, part.shape[-1]) for part in parts], -1)
        return joined.index_select(-1, self._places)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability, or its density, of every entry of `value` ``[..., D]``, in nats."""

        def score(fn: Distribution, columns: Tensor) -> Tensor:
            return fn.log_prob(value.index_select(-1, columns))

        found = self.joined(score)
        return found if self._weights is None else found * self._weights

    def weighted(self, weights: Tensor) -> Columns:
        """The same, but `log_prob` of each column counts by its weight ``[D]``: for training, where columns of some
        kinds would outweigh others. It is no log-density then.
        """
        new = Columns(self.groups, validate_args=self._validate_args)
        new._weights = weights
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Shape = NO_SHAPE) -> Tensor:
        """Draws, ``[*sample_shape, *batch_shape]``."""
        shape = torch.Size(sample_shape)
        return self.joined(lambda fn, _: fn.sample(shape)).expand(shape + self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """The mean of numbers and of the numbers of levels, ``[..., D]``."""
        return self.joined(lambda fn, _: fn.mean).expand(self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """The mode of every entry, ``[..., D]``."""
        return self.joined(lambda fn, _: fn.mode).expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """The variance of every entry, ``[..., D]``."""
        return self.joined(lambda fn, _: fn.variance).expand(self.batch_shape)
