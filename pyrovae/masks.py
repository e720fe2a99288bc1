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
        If the mask has another shape than the data, or is not of type bool.

    Examples
    --------
    >>> fill_missing(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]), 0.0)
    tensor([1., 0.])
    """
    if mask is None:
        return x
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be of type bool, True where an entry is observed, got {mask.dtype}")
    if mask.shape != x.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, and the data have {tuple(x.shape)}; they must be equal")
    return torch.where(mask, x, value)


def check_entries(x: Tensor, mask: Tensor | None) -> None:
    """Check rows and their mask before anything is computed: the shape and type of the mask, and what is observed.

    Parameters
    ----------
    x : Tensor
        Rows. Missing entries may hold anything.
    mask : Tensor of bool, shape of `x`, or None
        True where an entry is observed. None means that all are.

    Raises
    ------
    TypeError
        If one of them is no tensor.
    ValueError
        If the mask does not fit, or an observed entry is NaN or infinite.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor, got {type(x).__name__}")
    if mask is not None and not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor, True where an entry is observed, got {type(mask).__name__}")
    if mask is not None and (mask.shape != x.shape or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be of type bool and of the shape of x, {tuple(x.shape)}, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}"
        )
    if not x.is_floating_point():
        return
    missing = x.isnan() if mask is None else x.isnan() & mask
    if bool(missing.any()):
        raise ValueError(
            f"x has NaN in {int(missing.sum())} entries that count as observed; give mask=, False where an entry is "
            "missing"
        )
    infinite = x.isinf() if mask is None else x.isinf() & mask
    if bool(infinite.any()):
        raise ValueError(f"x has infinite numbers in {int(infinite.sum())} observed entries")
