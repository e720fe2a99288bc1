"""Whether the value of a data site is the data, entry by entry, or another layout or unit of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor

from pyrovae.programs import Program, trace, trial
from pyrovae.sites import data_sites, nodes_of, rows_first


def data_in_order(
    model: Program, traced: Trace, args: tuple, kwargs: Mapping[str, Any], plates: Collection[str]
) -> dict[str, torch.Size]:
    """Those data sites whose value is the data in their own order, perhaps flattened; with the shape of their rows.

    Where the value is no view of the data, the model is run once more, on data that look different in every layout.

    Parameters
    ----------
    model : callable
        The model.
    traced : Trace
        A trace of it on these arguments.
    args, kwargs : tuple and mapping
        Its arguments, the data `[B, ...]` first; `mask` among them says what is observed.
    plates : collection of str
        The names of the plates over the data.
    """
    x, mask = args[0], kwargs.get("mask")
    found = _equal_sites(traced, x, mask, plates)
    if not all(_is_view(nodes_of(traced)[name]["value"], x) for name in found):
        try:
            with trial(model), pyro.validation_enabled(False):
                other = torch.rand(x.shape).to(x) if x.is_floating_point() else torch.randint_like(x, int(x.max()) + 2)
                again = _equal_sites(trace(model, (other, *args[1:]), kwargs), other, mask, plates)
        except Exception:  # a program that takes no such data
            again = {}
        found = {name: shape for name, shape in found.items() if name in again}
    return found


def _equal_sites(traced: Trace, x: Tensor, mask: Tensor | None, plates: Collection[str]) -> dict[str, torch.Size]:
    found = {}
    for name, site in data_sites(traced).items():
        if not isinstance(site["value"], Tensor) or not site["value"].dim():
            continue
        value = rows_first(site["value"], site, plates)
        if value.numel() != x.numel() or len(value) != len(x):
            continue
        same = (value.reshape(x.shape) == x) | x.isnan()
        if mask is not None and mask.shape == x.shape:
            same = same | ~mask
        if bool(same.all()):
            found[name] = value.shape[1:]
    return found


def _is_view(value: Tensor, x: Tensor) -> bool:
    return value.data_ptr() == x.data_ptr() and value.is_contiguous() and x.is_contiguous()
