"""Numbers in another precision, where nothing is lost."""

from __future__ import annotations

import torch
from torch import Tensor

_LOST = 1e-3  # share of the spread of an entry that rounding may take
_NOISE = 64  # steps of its own precision by which an entry may vary that is always the same


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
    varies = spread > _NOISE * torch.finfo(value.dtype).eps * (low + mean).abs()
    lost = (error > _LOST * spread) & varies
    if bool(lost.any()):
        entry = int(lost.nonzero()[0])
        about, by = float(low[entry] + mean[entry]), float(spread[entry])
        raise ValueError(
            f"entry {first + entry} of {what} is about {about:g} and varies by {by:.2g}, which {bits}-bit numbers "
            f"would blur; subtract its mean, {advice}"
        )
    return found
