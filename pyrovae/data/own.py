"""Data of one's own: files and folders as data sets, their splits, and what kind of values they hold.

Read are `.npy`, `.npz` and `.pt` files (`pyrovae.data.array_files` says how arrays are named), `.h5` files (see
`pyrovae.data.hdf5`), `.csv` files of numbers, and folders of PNG or JPEG pictures (`pyrovae.data.pictures`). NaN and
empty cells are missing entries. Splits that a file has are used; the others are drawn from the training rows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyrovae.data.array_files import read_arrays
from pyrovae.data.csv_files import read_csv
from pyrovae.data.dataset import KINDS, TABLE, Dataset, Rows
from pyrovae.data.download import DataError
from pyrovae.data.hdf5 import HDF5_FORMATS, read_hdf5
from pyrovae.data.kinds import convert, find_kind
from pyrovae.data.pictures import read_folder
from pyrovae.data.preprocessing import seeded_generator
from pyrovae.data.stored import Stored, damaged_in_one_line
from pyrovae.data.table_files import TABLE_FORMATS

logger = logging.getLogger(__name__)
FORMATS = (".npy", ".npz", ".pt", ".csv", *HDF5_FORMATS)
"""Endings of files that can be read."""
SHARE = 0.1
"""Share of the rows that is drawn for validation and for test where nothing else is asked for."""
_SPLITTING = 4  # the stream of random numbers; those before are taken in `preprocessing`


def is_path(name: str | Path) -> bool:
    """Whether this looks like the path of a file or folder.

    Examples
    --------
    >>> is_path("faces.npz"), is_path("pictures/"), is_path("digitz")
    (True, True, False)
    """
    text = os.fspath(name)
    if not text:
        return False
    separators = {os.sep, os.altsep or os.sep}
    return (
        isinstance(name, Path)
        or bool(separators & set(text))
        or text.lower().endswith((*FORMATS, *TABLE_FORMATS))
        or Path(text).exists()
    )


def load_own(
    name: str | Path,
    *,
    validation: float | str | Path | None = None,
    test: float | str | Path | None = None,
    kind: str | None = None,
    label_column: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a file or folder, and divide its rows.

    Parameters
    ----------
    name : str or Path
        The file or folder.
    validation, test, kind, label_column, columns, classes, image_size, seed
        See `pyrovae.data.load`.

    Returns
    -------
    Dataset
        Its `options` hold these arguments, with the kind that was found.

    Raises
    ------
    DataError
        If the data cannot be read, or do not hold what they should.
    ValueError
        For options that contradict each other or the data.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, (*KINDS, TABLE)))}, not {kind!r}")
    source = os.fspath(name)
    reading: dict[str, Any] = {"label_column": label_column, "columns": columns, "image_size": image_size}
    parts = read(source, **reading)
    if "train" not in parts:
        raise DataError(f"{source} has no training rows, only {' and '.join(parts)} rows")
    train, counts = parts["train"], {}
    reading["columns"] = train.columns  # those of another file may stand in another order
    for split, wanted in (("test", test), ("validation", validation)):
        if split in parts:
            if wanted is not None:
                raise ValueError(f"{source} has {split} rows of its own; leave out {split}")
        elif isinstance(wanted, str | Path):
            parts[split] = _read_split(os.fspath(wanted), split, reading)
        else:
            counts[split] = count_rows(split, SHARE if wanted is None else wanted, len(train.x))
    names = tuple(classes) if classes is not None else train.classes
    parts = {split: _numbered_by(part, names, train) for split, part in parts.items()}
    found, how = (kind, "") if kind is not None else find_kind(list(parts.values()))
    splits = {split: convert(part, found) for split, part in parts.items()}
    splits |= draw_splits(splits["train"], counts, seed, source)
    dataset = Dataset(
        Path(source).resolve().stem,
        splits["train"],
        splits["validation"],
        splits["test"],
        found,
        options={
            "name": source,
            "validation": _plain(validation),
            "test": _plain(test),
            "kind": found,
            "label_column": label_column,
            "columns": None if train.columns is None else list(train.columns),
            "classes": None if names is None else list(names),
            "image_size": image_size,
        },
    )
    _check_labels(dataset, source)
    if kind is None:
        logger.info("%s", _summary(source, dataset, how))
    return dataset


def load_whole(
    name: str | Path,
    *,
    kind: str,
    label_column: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Load a file or folder to evaluate on: all its rows are test rows, unless it has splits.

    Parameters
    ----------
    name : str or Path
        The file or folder.
    kind, label_column, columns, classes, image_size
        See `pyrovae.data.load`. A file may lack the column of the labels.

    Returns
    -------
    Dataset
        The rows. Splits that there are not have zero rows.

    Raises
    ------
    DataError
        If the data cannot be read, or do not hold what they should.
    """
    source = os.fspath(name)
    parts = read(source, label_column, columns, image_size, need_labels=False)
    if parts.keys() == {"train"}:
        parts = {"test": parts["train"]}
    names = None if classes is None else tuple(classes)
    reason = "the run was trained on values of that kind"
    splits = {split: convert(_numbered_by(part, names, None), kind, reason=reason) for split, part in parts.items()}
    blank = next(iter(splits.values())).take(slice(0))
    train, validation, test = (splits.get(split, blank) for split in ("train", "validation", "test"))
    return Dataset(Path(source).resolve().stem, train, validation, test, kind)


def read(
    source: str,
    label_column: str | None = None,
    columns: Sequence[str] | None = None,
    image_size: int | None = None,
    need_labels: bool = True,
) -> dict[str, Stored]:
    """The splits of a file or folder by name; rows without a split are "train".

    Raises
    ------
    DataError
        If it cannot be read, or does not hold what it should.
    ValueError
        For an option that does not go with it.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"there is no file or folder {source}")
    is_csv = path.suffix.lower() == ".csv" and not path.is_dir()
    for option, value in (("label_column", label_column), ("columns", columns)):
        if value is not None and not is_csv:
            raise ValueError(f"{option} is for .csv files, and {source} is none")
    if image_size is not None and not path.is_dir():
        raise ValueError(f"image_size is for folders of pictures, and {source} is none")
    if path.is_dir():
        return read_folder(path, image_size)
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f"{source} cannot be read: data are in {', '.join(FORMATS)} files, or in a folder of PNG or JPEG pictures; "
            f"tables of kind 'table' in {', '.join(TABLE_FORMATS)} files"
        )
    with damaged_in_one_line(source):
        if path.suffix.lower() in HDF5_FORMATS:
            return read_hdf5(path)
        return {"train": read_csv(path, label_column, columns, need_labels)} if is_csv else read_arrays(path)


def options_for(name: str | Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some options of reading that go with a file or folder."""
    path = Path(name).expanduser()
    other = path.suffix.lower() != ".csv"
    unfit = {"label_column": other, "columns": other, "image_size": not path.is_dir()}
    return {key: value for key, value in options.items() if not unfit.get(key, False)}


def _read_split(source: str, split: str, reading: Mapping[str, Any]) -> Stored:
    parts = read(source, **options_for(source, reading))
    if parts.keys() != {"train"}:
        raise ValueError(f"{source} has splits of its own, so it cannot be the {split} rows; give a file of rows")
    return parts["train"]


def _plain(wanted: float | str | Path | None) -> float | str | None:
    return os.fspath(wanted) if isinstance(wanted, Path) else wanted


def count_rows(split: str, wanted: float, rows: int) -> int:
    """How many rows a share or a number of them is.

    Raises
    ------
    ValueError
        If it is neither. The message names the split.
    """
    if isinstance(wanted, bool) or not (0 <= wanted < 1 or (wanted >= 1 and wanted == int(wanted))):
        raise ValueError(
            f"{split} must be a share of the rows (from 0, below 1), a whole number of them, or a file, not {wanted!r}"
        )
    return max(1, round(wanted * rows)) if 0 < wanted < 1 else int(wanted)


def draw_splits(rows: Rows, counts: Mapping[str, int], seed: int, source: str) -> dict[str, Rows]:
    """Training rows and those drawn from them; the order of the training rows stays.

    Raises
    ------
    DataError
        If no training row is left.
    """
    if sum(counts.values()) >= len(rows):
        parts = " and ".join(f"{count} for {split}" for split, count in counts.items())
        raise DataError(f"{source} has {len(rows)} rows, and {parts} leave none for training; take fewer")
    order = torch.randperm(len(rows), generator=seeded_generator(seed, _SPLITTING))
    drawn, start = {}, 0
    for split, count in counts.items():  # test first, so that it does not depend on the validation rows
        drawn[split] = rows.take(order[start : start + count].sort().values)
        start += count
    return {**drawn, "train": rows.take(order[start:].sort().values)}


def _numbered_by(part: Stored, classes: tuple[str, ...] | None, train: Stored | None) -> Stored:
    """The same rows with their classes numbered as in `classes`.

    Raises
    ------
    DataError
        If they have another class.
    """
    if part.classes is None or classes is None or part.classes == classes:
        if train is not None and part.y is not None and (part.classes is None) != (train.classes is None):
            raise DataError(f"{part.source} and {train.source} must both have labels that are words, or both numbers")
        return part
    unknown = sorted(set(part.classes) - set(classes))
    if unknown:
        raise DataError(f"{part.source} has the class {unknown[0]!r}; known are {', '.join(classes)}")
    numbers = np.array([*(classes.index(word) for word in part.classes), -1])
    return replace(part, y=numbers[part.y], classes=classes)


def _check_labels(dataset: Dataset, source: str) -> None:
    known = dataset.num_classes
    for name, split in dataset.splits().items():
        if known is not None and split.y is not None and len(split) and int(split.y.max()) >= known:
            raise DataError(
                f"{source}: the {name} rows have the label {int(split.y.max())}, and those of the training rows only "
                f"go up to {known - 1}; take another seed, or files for the splits"
            )


def _summary(source: str, dataset: Dataset, how: str) -> str:
    sizes = ", ".join(f"{len(split)} for {name}" for name, split in dataset.splits().items())
    shape = "x".join(map(str, dataset.shape))
    text = f"{source}: values of kind {dataset.kind} ({how}); rows of {shape}: {sizes}"
    missing = sum(int((~split.mask).sum()) for split in dataset.splits().values() if split.mask is not None)
    if missing:
        entries = sum(split.x.numel() for split in dataset.splits().values())
        text += f"; {missing} of {entries} entries are missing"
    if dataset.options["classes"] is not None:
        names = dataset.options["classes"]
        text += f"; {len(names)} classes: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"
    return text
