"""What the values of data are: found from them, or asked for and checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pyrovae.data.dataset import Rows
from pyrovae.data.download import DataError
from pyrovae.data.stored import Stored

MEANING = {
    "binary": "0 or 1",
    "unit": "values from 0 to 1",
    "symmetric": "values from -1 to 1",
    "8-bit": "multiples of 1/255 from 0 to 1, or bytes",
    "real": "finite numbers",
}
ROUNDING = 1e-6
"""What values that were scaled to a range may lie beyond it."""
_GREY_LEVELS = 32  # more different multiples of 1/255 than this are pictures, and fewer may be anything


def find_kind(parts: Sequence[Stored]) -> tuple[str, str]:
    """The kind of some values, and how it was found, in words.

    Bytes are "8-bit", or "binary" if all are 0 or 255, or 0 or 1. Other values are "binary" if all are 0 or 1; "8-bit"
    if all are multiples of 1/255 up to 1, many of them different; "unit" if they lie in [0, 1]; "symmetric" if they
    reach from exactly -1 to exactly 1; otherwise "real".

    Parameters
    ----------
    parts : sequence of Stored
        All splits.

    Returns
    -------
    kind : {"binary", "unit", "symmetric", "8-bit", "real"}
        What they are.
    how : str
        Why.

    Raises
    ------
    DataError
        If no entry is observed, or some splits are bytes and others are not.
    """
    values = [_observed(part) for part in parts]
    if not sum(len(value) for value in values):
        raise DataError(f"{parts[0].source}: no entry is observed")
    if any(map(_are_bytes, parts)):
        for part in parts:
            if part.x.dtype != np.uint8:
                raise DataError(f"{part.source} are {part.x.dtype}, {parts[0].source} are bytes; save both in one type")
        if all(np.isin(value, (0, 255)).all() for value in values):
            return "binary", "bytes that are all 0 or 255, divided by 255"
        largest = max(int(value.max()) for value in values if len(value))
        return "8-bit", f"bytes up to {largest}, divided by 255"
    low = min(float(value.min()) for value in values if len(value))
    high = max(float(value.max()) for value in values if len(value))
    reach = f"from {low:.4g} to {high:.4g}"
    if all(np.isin(value, (0, 1)).all() for value in values):
        return "binary", "all are 0 or 1"
    if low >= 0 and high <= 1:
        if not any(wrong_values(value, "8-bit").any() for value in values):
            seen = np.zeros(256, bool)
            for value in values:
                seen[np.round(value * 255).astype(np.uint8)] = True
            if seen.sum() > _GREY_LEVELS:
                return "8-bit", "multiples of 1/255"
        return "unit", reach
    if low == -1 and high == 1:
        return "symmetric", reach
    hint = "; if they are grey values, give kind 8-bit" if all(_are_grey(value) for value in values) else ""
    return "real", reach + hint


def convert(part: Stored, kind: str, *, reason: str | None = None) -> Rows:
    """Rows whose values are of a kind: bytes and whole numbers up to 255 are divided by 255 where that is meant.

    Parameters
    ----------
    part : Stored
        The rows.
    kind : {"binary", "unit", "symmetric", "8-bit", "real"}
        What the values are to be.
    reason : str, optional
        Why it is that kind, for the message, where the user cannot choose another one.

    Returns
    -------
    Rows
        With float32 data.

    Raises
    ------
    DataError
        For the first value that contradicts the kind, with its place.
    """
    x = part.x
    if x.dtype == np.uint8:
        divided = kind == "8-bit" or (kind in ("binary", "unit") and _are_bytes(part))
    else:
        divided = kind == "8-bit" and _are_grey(_observed(part)) and bool((x > 1).any())
    if kind == "symmetric" and _are_bytes(part):
        raise DataError(f"{part.source}: bytes are of kind 8-bit; scale 'symmetric' then brings them to [-1, 1]")
    x = x.astype(np.float32)
    if divided:
        x /= 255
    wrong = wrong_values(x, kind)
    if part.mask is not None:
        wrong &= part.mask
    if wrong.any():
        index = tuple(np.argwhere(wrong)[0])
        value = part.x[index]
        found, _ = find_kind([part])
        fits = f"give kind {found}"
        if _are_grey(_observed(part)):
            fits = "give kind 8-bit for grey values from 0 to 255, or divide them by 255"
        raise DataError(f"{part.place(index)} is {value:g}, and kind {kind!r} means {MEANING[kind]}; {reason or fits}")
    if kind == "8-bit":
        x = np.round(x * 255) / np.float32(255)
    y, mask = (None if value is None else torch.from_numpy(value) for value in (part.y, part.mask))
    return Rows(torch.from_numpy(x), y, mask)


def _observed(part: Stored) -> np.ndarray:
    return part.x.reshape(-1) if part.mask is None else part.x[part.mask]


def _are_bytes(part: Stored) -> bool:
    return part.pixels or (part.x.dtype == np.uint8 and bool((part.x > 1).any()))


def _are_grey(values: np.ndarray) -> bool:
    """Whether values are whole numbers from 0 to 255, and some above 1."""
    return bool(((values >= 0) & (values <= 255) & (values == np.floor(values))).all() and (values > 1).any())


def wrong_values(x: np.ndarray, kind: str, rounding: float = 0.0) -> np.ndarray:
    """True where a value contradicts a kind; it may lie beyond a range by `rounding`."""
    if kind == "binary":
        return (x != 0) & (x != 1)
    if kind == "unit":
        return (x < -rounding) | (x > 1 + rounding)
    if kind == "symmetric":
        return np.abs(x) > 1 + rounding
    if kind == "8-bit":
        levels = x * np.float32(255)
        return (np.abs(levels - np.round(levels)) > 1e-2) | (x < 0) | (x > 1)
    return np.zeros(x.shape, bool)
