"""Numbers in another precision, where nothing is lost."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LOST = 1e-3  # share of the spread of an entry that rounding may take
_NOISE = 64  # steps of its own precision by which an entry may vary that is always the same


def in_double(array: np.ndarray, what: str, *, seen: np.ndarray | None = None, first: int = 0) -> np.ndarray:
    """Numbers in double precision, unless whole ones beyond 2^53 are blurred there, such as time stamps in nanoseconds.

    Raises
    ------
    ValueError
        Naming the entry.
    """
    found = array.astype(np.float64)
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8 or not array.size or np.abs(found).max() < 2.0**53:
        return found
    rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    if seen is not None:  # what is missing says nothing
        known = seen.reshape(rows.shape)
        rows = np.where(known, rows, np.take_along_axis(rows, known.argmax(0)[None], 0))
    # The halves of a number have no error in double precision, and nor have differences of alike ones.
    high, low = (rows >> 32).astype(np.int64), (rows & 0xFFFFFFFF).astype(np.float64)
    error = np.abs((high * 2.0**32 - rows.astype(np.float64)) + low).max(0)
    spread = ((high - high[:1]) * 2.0**32 + (low - low[:1])).std(0)
    if (lost := (error > _LOST * spread) & (spread > 0)).any():
        entry = int(lost.nonzero()[0][0])
        raise ValueError(
            f"entry {first + entry} of {what} is about {float(rows[0, entry]):g} and varies by {spread[entry]:.2g}, "
            "which floating point would blur; subtract its lowest value"
        )
    return found


def rounded(
    value: Tensor,
    dtype: torch.dtype,
    what: str,
    *,
    advice: str = "or train in double precision (vae.double())",
    first: int = 0,
) -> Tensor:
    """Values in another precision, unless something is lost. `first` is the number of the first entry, for messages.

    Raises
    ------
    ValueError
        Naming the entry.
    """
    found = value.to(dtype)
    if torch.finfo(dtype).eps <= torch.finfo(value.dtype).eps or not value.numel():
        return found
    bits = torch.finfo(dtype).bits
    if bool((found.isinf() & value.isfinite()).any()):
        raise ValueError(f"{what} hold {float(value[found.isinf()][0]):g}, which {bits}-bit numbers cannot; scale them")
    rows = value.reshape(len(value), -1) if value.dim() else value.reshape(1, 1)
    seen = rows.isfinite()
    error = torch.where(seen, (found.reshape(rows.shape).to(value.dtype) - rows).abs(), 0).amax(0)
    count = seen.sum(0).clamp(min=1)
    low = torch.where(seen, rows, torch.inf).amin(0).nan_to_num(posinf=0.0)
    above = torch.where(seen, rows - low, 0)  # which is exactly 0 where an entry is always the same
    mean = above.sum(0) / count
    spread = (torch.where(seen, above - mean, 0).square().sum(0) / count).sqrt()
    # Whole numbers vary on purpose.
    whole = (torch.where(seen, rows - rows.round(), 0) == 0).all(0) & ((low + mean).abs() < 2.0**54) & (spread > 0)
    varies = whole | (spread > _NOISE * torch.finfo(value.dtype).eps * (low + mean).abs())
    lost = (error > _LOST * spread) & varies
    if bool(lost.any()):
        entry = int(lost.nonzero()[0])
        about, by = float(low[entry] + mean[entry]), float(spread[entry])
        raise ValueError(
            f"entry {first + entry} of {what} is about {about:g} and varies by {by:.2g}, which {bits}-bit numbers "
            f"would blur; subtract its mean, {advice}"
        )
    return found
