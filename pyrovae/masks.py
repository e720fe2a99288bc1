"""Entries of a datum that are missing."""

from __future__ import annotations

import torch
from torch import Tensor


def fill_missing(x: Tensor, mask: Tensor | None, value: Tensor | float) -> Tensor:
    """Put a value where entries are missing.

    Fill before anything is computed: a NaN that is masked only afterwards still gives NaN gradients.

    Parameters
    ----------
    x : Tensor, shape ``[..., *data_shape]``
        Data. Missing entries may hold anything, NaN too.
    mask : Tensor of bool, shape of `x`, or None
        True where an entry is observed. None means that all are.
    value : Tensor or float
        What to put there; broadcast to `x`.

    Returns
    -------
    Tensor, shape of `x`
        Observed entries of `x`, and `value` elsewhere.

    Examples
    --------
    >>> fill_missing(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]), 0.0)
    tensor([1., 0.])
    """
    return x if mask is None else torch.where(mask, x, value)
