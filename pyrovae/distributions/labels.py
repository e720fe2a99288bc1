"""Distributions of class labels that are known for some data."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Categorical
from torch import Tensor

_NEVER = -1e4  # exp of it is exactly 0 in every floating-point type, and 0 times it is no NaN


def labelled_logits(logits: Tensor, y: Tensor) -> Tensor:
    """Class logits in which every known label has all the probability.

    Other classes of such a row get the probability 0 exactly and a log-probability that is finite, so that sums over
    the classes leave them out and stay finite; no gradient reaches the given logits there.

    Args:
        logits: `[..., B, C]` or `[C]`.
        y: labels `[B]`, -1 = unknown.

    >>> labelled_logits(torch.zeros(2, 3), torch.tensor([1, -1])).softmax(-1)
    tensor([[0.0000, 1.0000, 0.0000],
            [0.3333, 0.3333, 0.3333]])
    """
    label = y.unsqueeze(-1)
    hit = torch.arange(logits.shape[-1], device=y.device) == label
    zero = torch.zeros((), dtype=logits.dtype, device=logits.device)
    return torch.where(label < 0, logits, torch.where(hit, zero, zero + _NEVER))


class KnownLabels(Categorical):
    """The point masses at known labels, `labelled_logits` of labels that are all known.

    The support of a row is its label alone, so that enumeration, which would otherwise go through all the classes,
    has one term.

    Args:
        label: labels `[B]`.
        num_classes: number of classes.
        dtype: of the probabilities.

    >>> labels = KnownLabels(torch.tensor([2, 0]), 3)
    >>> labels.enumerate_support(), labels.probs[0]
    (tensor([[2, 0]]), tensor([0., 0., 1.]))
    """

    def __init__(
        self,
        label: Tensor,
        num_classes: int,
        *,
        dtype: torch.dtype = torch.float32,
        validate_args: bool | None = None,
    ) -> None:
        self.label = label
        logits = labelled_logits(torch.zeros(num_classes, dtype=dtype, device=label.device), label)
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: KnownLabels | None = None) -> KnownLabels:
        """The same distributions with more batch dimensions."""
        new = self._get_checked_instance(KnownLabels, _instance)
        new.label = self.label.expand(batch_shape)
        return super().expand(batch_shape, _instance=new)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The labels."""
        return self.label.expand(self._extended_shape(torch.Size(sample_shape)))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The labels, as the one value of each row: `[1, B]`."""
        return self.label.unsqueeze(0)
