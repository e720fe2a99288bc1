"""Every row of data against what the data set says of itself, before anything is learned or computed from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pyrovae.data.dataset import TABLE, Dataset, Rows, check_rows, slices
from pyrovae.data.kinds import MEANING, ROUNDING, wrong_values
from pyrovae.rng import forked

_ENTRIES_AT_ONCE = 1 << 24
_ADVICE = {
    "binary": "binarise them (binarize='static' or 'dynamic'), or give another kind",
    "unit": "scale them to [0, 1], or give kind 'real' and a likelihood that takes such values",
    "symmetric": "scale them to [-1, 1], or give kind 'real' and a likelihood that takes such values",
    "8-bit": "divide whole numbers from 0 to 255 by 255, or give another kind",
    "real": "leave the row out, or mask the entry",
}


def check_dataset(dataset: Dataset) -> None:
    """Refuse a data set with a row that contradicts its kind, with a wrong label or mask.

    All rows of all splits are looked at, in parts of bounded size; training rows as `transform` gives them, once.

    Parameters
    ----------
    dataset : Dataset
        The data set.

    Raises
    ------
    ValueError
        Naming the split, the row, the entry, its value, what is expected, and what to do.
    """
    for name, rows in dataset.splits().items():
        if not len(rows):
            continue
        check_labels(rows, name, dataset.num_classes)
        transform = dataset.transform if name == "train" else None
        check_kind(rows, dataset.kind, name, transform)


def check_kind(rows: Rows, kind: str, name: str, transform: Any = None) -> None:
    """Refuse rows with an observed entry that contradicts a kind.

    Parameters
    ----------
    rows : Rows
        The rows.
    kind : {"binary", "unit", "symmetric", "8-bit", "real", "table"}
        What the values are said to be, see `Dataset`.
    name : str
        The split, for the message.
    transform : callable, optional
        What is done to the rows before a pair sees them.

    Raises
    ------
    ValueError
        For the first such entry.

    Examples
    --------
    >>> check_kind(Rows(torch.tensor([[0.0, 1.0], [0.5, 255.0]])), "unit", "train")
    Traceback (most recent call last):
    ...
    ValueError: train row 1, entry 1 is 255, and kind 'unit' means values from 0 to 1; scale them to [0, 1], or give \
kind 'real' and a likelihood that takes such values
    """
    kind = "real" if kind == TABLE else kind
    for start, part in _parts(rows, transform):
        x = part.x.detach().cpu()
        values = x.double().numpy() if not x.is_floating_point() or x.dtype == torch.bfloat16 else x.numpy()
        wrong = wrong_values(values, kind, ROUNDING) | ~np.isfinite(values)
        if part.mask is not None and part.mask.shape == part.x.shape:
            wrong &= part.mask.cpu().numpy()
        if not wrong.any():
            continue
        place = tuple(np.argwhere(wrong)[0].tolist())
        row, entry = start + place[0], place[1:]
        where = f", entry {entry if len(entry) != 1 else entry[0]}" if entry else ""
        said = f"kind {kind!r} means {MEANING[kind]}"
        raise ValueError(f"{name} row {row}{where} is {values[place]:.6g}, and {said}; {_ADVICE[kind]}")


def check_labels(rows: Rows, name: str, num_classes: int | None = None) -> None:
    """Refuse labels below -1, and those of classes that there are not.

    Parameters
    ----------
    rows : Rows
        The rows.
    name : str
        The split, for the message.
    num_classes : int, optional
        How many classes there are.

    Raises
    ------
    ValueError
        For the first such label.
    """
    if rows.y is None or not len(rows):
        return
    wrong = rows.y < -1
    if num_classes is not None:
        wrong = wrong | (rows.y >= num_classes)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        known = "" if num_classes is None else f" to {num_classes - 1}, those of the training rows"
        raise ValueError(
            f"{name} row {row} has the label {int(rows.y[row])}; labels are whole numbers from 0{known}, and -1 where "
            "they are not known"
        )


def check_given(rows: Rows, name: str) -> None:
    """Refuse a mask or labels of another shape or type, and labels below -1, of rows without a data set."""
    check_rows(rows.replace(x=torch.empty(rows.x.shape, device="meta")), name)
    check_labels(rows, name)


def _parts(rows: Rows, transform: Any) -> Iterator[tuple[int, Rows]]:
    """The rows in parts of bounded size, as a pair sees them, with the number of the first of each."""
    size = max(1, _ENTRIES_AT_ONCE // max(1, rows.x[0].numel()))
    for part in slices(len(rows), size):
        some = rows.take(part)
        if transform is None:
            yield part.start, some
        else:
            with forked():  # which a transform draws from
                yield part.start, transform(some)
