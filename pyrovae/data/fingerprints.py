"""Fingerprints of data: whether rows are those that something was learned from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.dataset import TABLE, Dataset, Rows, slices

_ENTRIES_AT_ONCE = 1 << 22
_SUMS = 4
_ROUNDING = 1e-5


def fingerprint(rows: Rows, *, computed: bool = False) -> dict[str, Any]:
    """What tells rows from others, ready for JSON.

    Parameters
    ----------
    rows : Rows
        The rows. Entries that their mask hides do not count.
    computed : bool, default False
        Whether values are results of sums over rows, such as principal components and standardised columns, which
        another processor rounds in another way.

    Returns
    -------
    dict
        Their number and a digest (SHA-256) of their values, labels, mask and further tensors. Of computed values a few
        weighted sums too: those of rows that differ by rounding alone are nearly the same.

    Examples
    --------
    >>> one, other = torch.zeros(3, 2), torch.zeros(3, 2)
    >>> other[2, 1] = 0.5
    >>> is_same(fingerprint(Rows(one)), fingerprint(Rows(other)))
    False
    """
    found, sums, scale = hashlib.sha256(), np.zeros(_SUMS), 0.0
    size = max(1, _ENTRIES_AT_ONCE // max(1, rows.x[:1].numel()))
    found.update(f"{tuple(rows.x.shape)} {rows.x.dtype}".encode())
    for part in slices(len(rows), size):
        some = rows.take(part)
        x = some.x.detach()
        if some.mask is not None and some.mask.shape == x.shape:
            x = torch.where(some.mask, x, torch.zeros((), dtype=x.dtype, device=x.device))
        for name, value in (("x", x), ("y", some.y), ("mask", some.mask), *sorted(some.more.items())):
            if isinstance(value, Tensor):
                found.update(f"\n{name} {value.dtype} {tuple(value.shape[1:])}\n".encode())
                found.update(_bytes(value).data)
        if not computed:
            continue
        values = x.cpu().double().reshape(-1).numpy()
        values = np.where(np.isfinite(values), values, 0.0)
        start = part.start * max(1, rows.x[:1].numel())
        places = np.arange(start, start + len(values), dtype=np.float64)
        for number in range(_SUMS):
            sums[number] += values @ np.cos(places * math.sqrt(2.0 + number) + number)
        scale += float(values @ values)
    of_values = {"sums": [*sums.tolist(), math.sqrt(scale)]} if computed else {}
    return {"rows": len(rows), "sha256": found.hexdigest(), **of_values}


def fingerprints(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The fingerprints of the splits of a data set by name, those without rows left out."""
    computed = is_computed(dataset)
    return {name: fingerprint(rows, computed=computed) for name, rows in dataset.splits().items() if len(rows)}


def is_computed(dataset: Any) -> bool:
    """Whether values of a data set are results of sums over rows."""
    return isinstance(dataset, Dataset) and (dataset.kind == TABLE or dataset.options.get("pca") is not None)


def is_same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of the same rows, up to rounding."""
    if first.get("sha256") == second.get("sha256"):
        return True
    ours, theirs = first.get("sums"), second.get("sums")
    if first.get("rows") != second.get("rows") or not isinstance(ours, list) or not isinstance(theirs, list):
        return False
    if len(ours) != len(theirs) or ours == theirs:  # equal sums of another digest: labels or masks differ
        return False
    allowed = _ROUNDING * max(abs(float(ours[-1])), abs(float(theirs[-1])))
    return all(abs(float(a) - float(b)) <= allowed for a, b in zip(ours, theirs, strict=True))


def changed_splits(dataset: Dataset, known: Mapping[str, Any]) -> list[str]:
    """The splits of a data set that are not those of which fingerprints are known."""
    computed = is_computed(dataset)
    return [
        name
        for name, rows in dataset.splits().items()
        if isinstance(known.get(name), Mapping) and not is_same(known[name], fingerprint(rows, computed=computed))
    ]


def _bytes(value: Tensor) -> np.ndarray:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
