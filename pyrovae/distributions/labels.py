"""Distributions of class labels that are known for some of the data."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Categorical
from torch import Tensor

_NEVER = -1e4  # exp of it is exactly 0 in every floating-point type, and 0 times it is no NaN


def labelled_logits(logits: Tensor, y: Tensor) -> Tensor:
    """Give every known label all the probability of its row.

    Use it for the class latent of a semi-supervised model.

    Parameters
    ----------
    logits : Tensor, shape ``[..., B, C]`` or ``[C]``
        Class logits of the rows whose label is unknown.
    y : Tensor of int64, shape ``[B]``
        Labels; -1 means unknown.

    Returns
    -------
    Tensor
        Class logits, shape ``[..., B, C]``. Rows with an unknown label are unchanged.

    Notes
    -----
    In a row with a known label, the other classes have a probability of exactly 0 and a finite log-probability. So sums
    over the classes leave them out and stay finite. No gradient reaches `logits` in such a row.

    Examples
    --------
    >>> labelled_logits(torch.zeros(2, 3), torch.tensor([1, -1])).softmax(-1)
    tensor([[0.0000, 1.0000, 0.0000],
            [0.3333, 0.3333, 0.3333]])
    """
    label = y.unsqueeze(-1)
    hit = torch.arange(logits.shape[-1], device=y.device) == label
    zero = torch.zeros((), dtype=logits.dtype, device=logits.device)
    return torch.where(label < 0, logits, torch.where(hit, zero, zero + _NEVER))


def label_range(y: Tensor) -> tuple[int, int]:
    """The lowest and the highest label. A recording may ask for it, since recordings are told apart by known labels."""
    with torch._C.DisableTorchFunction():
        lowest, highest = torch.stack(y.aminmax()).tolist()
    return lowest, highest


def checked_range(y: Tensor, num_classes: int, rows: int) -> tuple[int, int]:
    """The lowest and the highest label, once they are found to be labels of rows.

    Raises
    ------
    ValueError
        For labels that are no whole numbers or no classes, and for another number of them.
    """
    known = f"the classes are 0 to {num_classes - 1}; -1 means unknown"
    if y.is_floating_point():
        raise ValueError(f"y must hold whole numbers, got {y.dtype}, and {known}")
    if y.dim() != 1 or len(y) not in (1, rows):
        raise ValueError(f"y must hold a label for each of the {rows} rows, got shape {tuple(y.shape)}")
    lowest, highest = label_range(y)
    if lowest < -1 or highest >= num_classes:
        raise ValueError(f"y holds the label {lowest if lowest < -1 else highest}, and {known}")
    return lowest, highest


class KnownLabels(Categorical):
    """Point masses at known labels.

    Use it instead of a `Categorical` where all labels are known. The support of each row is its label alone. So
    enumeration has one term instead of one for every class.

    Parameters
    ----------
    label : Tensor of int64, shape ``[B]``
        Labels, all known.
    num_classes : int
        Number of classes.
    dtype : torch.dtype, default torch.float32
        Type of the probabilities.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Examples
    --------
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
        """The labels, shape ``[*sample_shape, *batch_shape]``."""
        return self.label.expand(self._extended_shape(torch.Size(sample_shape)))

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The labels, as the only value of each row, shape ``[1, *batch_shape]``."""
        return self.label.unsqueeze(0)
