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

    Raises
    ------
    ValueError
        If the mask has another shape than the data.

    Examples
    --------
    >>> fill_missing(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]), 0.0)
    tensor([1., 0.])
    """
    if mask is None:
        return x
    if mask.shape != x.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, and the data have {tuple(x.shape)}; they must be equal")
    return torch.where(mask, x, value)
