"""Rows as files of one's own hold them, checked: what every reader returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from pyrovae.data.download import DataError
from pyrovae.data.rounding import in_double, rounded

_WHOLE = 2**24
"""The largest whole number below which single precision has all others."""
_AT_ONCE = 32
"""Entries of a row that are looked at together, which bounds the memory."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Rows as a file holds them, checked.

    Parameters
    ----------
    source : str
        The file, and the split where it holds several, for messages.
    x : ndarray, shape ``[N, ...]``
        uint8 or float32; missing and hidden entries are 0.
    y : ndarray of int64, shape ``[N]``, optional
        Labels, -1 where the label is unknown.
    mask : ndarray of bool, shape of `x`, optional
        True where an entry is observed. None if all are.
    classes : tuple of str, optional
        What the numbers in `y` stand for, where the file has words.
    pixels : bool, default False
        Whether the values are certainly bytes of pictures.
    columns : tuple of str, optional
        Names of the entries of a row.
    lines : sequence of int, optional
        The line of each row in a text file.
    """

    source: str
    x: np.ndarray
    y: np.ndarray | None = None
    mask: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    pixels: bool = False
    columns: tuple[str, ...] | None = None
    lines: Sequence[int] | None = None

    def place(self, index: Sequence[int]) -> str:
        """Where an entry of `x` is, in words."""
        row, *entry = map(int, index)
        if self.lines is not None:
            column = repr(self.columns[entry[0]]) if self.columns else str(entry[0] + 1)
            return f"{self.source}, line {self.lines[row]}, column {column}"
        where = entry[0] if len(entry) == 1 else tuple(entry)
        return f"{self.source}: row {row}, entry {where} (counted from 0)"


def stored(
    source: str,
    x: np.ndarray,
    y: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    columns: tuple[str, ...] | None = None,
    lines: Sequence[int] | None = None,
) -> Stored:
    """Check arrays and bring them to the forms of `Stored`; NaN entries become missing.

    Parameters
    ----------
    source : str
        The file, for messages.
    x : ndarray of numbers, shape ``[N, ...]``
        The data.
    y : ndarray of whole numbers or texts, shape ``[N]``, optional
        Labels; -1, NaN or "" where they are unknown.
    mask : ndarray of bool, shape of `x`, optional
        True where an entry is observed.
    columns, lines
        See `Stored`.

    Returns
    -------
    Stored
        The rows.

    Raises
    ------
    DataError
        If they hold no rows, no numbers or infinite values, or do not fit together.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(f"{source}: x holds {_dtype_in_words(x)}, expected numbers")
    if x.ndim < 2:
        advice = "; reshape it to (N, 1) for rows of one entry" if x.ndim == 1 and len(x) else ""
        raise DataError(f"{source}: x has shape {x.shape}, expected a row for each datum, (N, ...){advice}")
    if 0 in x.shape:
        what = "no rows" if not len(x) else "rows without entries"
        raise DataError(f"{source}: x has {what}, its shape is {x.shape}")
    if mask is not None:
        mask = _checked_mask(source, mask, x.shape)
    y, classes = (None, None) if y is None else labels_of(source, y, len(x))
    x, mask = _channels_first(x, mask)
    if x.dtype.kind == "f":
        missing = np.isnan(x)
        if missing.any():
            mask = ~missing if mask is None else mask & ~missing
    if x.dtype != np.uint8:
        x = _in_single(source, x, mask)
    if mask is not None and mask.all():
        mask = None
    if mask is not None:
        x = np.where(mask, x, np.zeros((), x.dtype))
    result = Stored(source, np.ascontiguousarray(x), y, mask, classes, columns=columns, lines=lines)
    if x.dtype != np.uint8 and not np.isfinite(x).all():
        index = np.argwhere(~np.isfinite(x))[0]
        raise DataError(
            f"{result.place(index)} is {x[tuple(index)]}, expected a finite number, or NaN if it is missing"
        )
    return result


def _in_single(source: str, x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Numbers in single precision.

    Raises
    ------
    DataError
        If that would blur what an entry says.
    """
    with np.errstate(over="ignore"):
        found = x.astype(np.float32)
    exact = x.dtype == np.float32 or x.dtype.itemsize <= 2
    if exact or (x.dtype.kind in "iu" and max(-int(x.min()), int(x.max())) <= _WHOLE):
        return found
    rows, seen = x.reshape(len(x), -1), None if mask is None else mask.reshape(len(x), -1)
    for first in range(0, rows.shape[1], _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        try:
            known = in_double(rows[:, part], source, seen=None if seen is None else seen[:, part], first=first)
            if seen is not None:
                known[~seen[:, part]] = np.nan
            known[np.isinf(found.reshape(rows.shape)[:, part])] = np.nan  # which are told by their place
            advice = "or load it yourself and train in double precision"
            rounded(torch.from_numpy(known), torch.float32, source, advice=advice, first=first)
        except ValueError as error:
            raise DataError(str(error)) from None
    return found


def labels_of(source: str, y: np.ndarray, rows: int) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as numbers from 0, -1 where they are unknown; with the names of the classes, where the labels are words.

    Parameters
    ----------
    source : str
        The file, for messages.
    y : ndarray of whole numbers or texts, shape ``[N]``
        The labels; -1, NaN or "" where they are unknown.
    rows : int
        N.

    Returns
    -------
    y : ndarray of int64, shape ``[N]``
        The numbers.
    classes : tuple of str or None
        The words that 0, 1, 2, ... stand for, sorted.

    Raises
    ------
    DataError
        If they are not one whole number or one word for each row.
    """
    if y.shape == (rows, 1):
        y = y[:, 0]
    if y.shape != (rows,):
        raise DataError(f"{source}: y has shape {y.shape}, expected one label for each of the {rows} rows")
    if y.dtype.kind in "US":
        words = y.astype(str)
        classes = tuple(sorted(set(words.tolist()) - {""}))
        numbers = {word: number for number, word in enumerate(classes)} | {"": -1}
        return np.array([numbers[word] for word in words.tolist()], dtype=np.int64), classes
    if y.dtype.kind not in "biuf":
        raise DataError(f"{source}: y holds {_dtype_in_words(y)}, expected whole numbers or texts")
    if y.dtype.kind == "f":
        y = np.where(np.isnan(y), -1, y)
    wrong = np.flatnonzero((y < -1) | (y != np.floor(y)) | (y > 1_000_000))
    if len(wrong):
        raise DataError(
            f"{source}: the label of row {wrong[0]} is {y[wrong[0]]}, expected whole numbers from 0, or -1 if unknown"
        )
    return y.astype(np.int64), None


def _checked_mask(source: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape != shape:
        raise DataError(f"{source}: mask has shape {mask.shape}, expected that of x, {shape}")
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise DataError(f"{source}: mask must hold True (observed) and False, or 1 and 0")
    return mask.astype(bool)


def _channels_first(x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures as `[N, C, H, W]`, see the rules at the top."""
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return x.transpose(0, 3, 1, 2), None if mask is None else mask.transpose(0, 3, 1, 2)
    if x.ndim == 3 and x.dtype == np.uint8:
        return x[:, None], None if mask is None else mask[:, None]
    return x, mask


def _dtype_in_words(array: np.ndarray) -> str:
    kinds = {"O": "Python objects", "U": "texts", "S": "texts", "c": "complex numbers", "M": "dates", "m": "durations"}
    return kinds.get(array.dtype.kind, f"values of type {array.dtype}")


@contextmanager
def damaged_in_one_line(source: object) -> Iterator[None]:
    """A context in which whatever a parser trips over is one line with the name of the file."""
    try:
        yield
    except (DataError, ImportError):
        raise
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or first_line(error)}") from None
    except MemoryError:
        raise DataError(
            f"{source} says that it holds more than there is memory for; it is damaged, or too large"
        ) from None
    except Exception as error:
        raise DataError(f"{source} is damaged, or no such file ({type(error).__name__}: {first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """The first line of what an error says, not too long, or else its type."""
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
