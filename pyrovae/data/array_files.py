"""Reading `.npy`, `.npz` and `.pt` files of one's own. Code in a file is never run.

Arrays of an `.npz` file and tensors of a `.pt` file go by these names:

* `x`, and if there are any `y` (labels) and `mask` (True = observed): rows, to be split;
* `x_train`, `y_train`, `mask_train`, `x_validation`, ..., `x_test`, ...: rows of each split. `train`, `validation` and
  `test` alone mean `x_train`, `x_validation` and `x_test`; `val` and `valid` are short for `validation`;
* a single array is `x`, whatever its name.

`x` is `[N, ...]`, pictures `[N, channels, height, width]`. Two other ways to write pictures are understood: channels
last (`[N, height, width, 3]` or `1`), and bytes without channels (`[N, height, width]`).
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.download import DataError
from pyrovae.data.stored import Stored, first_line, stored

SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""Names of splits in files and folders, and what they stand for."""
_FIELDS = ("x", "y", "mask")
_NAMES = "name arrays x, y and mask, or by split: x_train, y_train, x_validation, x_test, ..."


def read_arrays(path: Path) -> dict[str, Stored]:
    """Read a `.npy`, `.npz` or `.pt` file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to Stored
        The splits that the file has, by name; rows without a split are "train".

    Raises
    ------
    DataError
        If the file cannot be read, or does not hold what it should.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty")
        arrays = _read_torch(path) if path.suffix.lower() == ".pt" else _read_numpy(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or first_line(error)})") from None
    places = {name: _place(name) for name in arrays}
    if len(arrays) == 1:
        places = {
            name: place if place is not None and place[0] == "x" else ("x", "train") for name, place in places.items()
        }
    held = ", ".join(map(repr, arrays)) or "no array"
    found: dict[str, dict[str, Any]] = {}  # the arrays of a split by name, as `stored` takes them
    for name, place in places.items():
        if place is None:
            raise DataError(f"{path} holds {held}, and {name!r} is none of the known names; {_NAMES}")
        field, split = place
        if field in found.setdefault(split, {}):
            raise DataError(f"{path} holds {field} of the {split} rows twice; {_NAMES}")
        found[split][field] = arrays[name]
    for split, fields in found.items():
        if "x" not in fields:
            raise DataError(f"{path} holds {held}, and no x for the {split} rows; {_NAMES}")
    if not found:
        raise DataError(f"{path} holds no array; {_NAMES}")
    return {
        split: stored(str(path) if len(found) == 1 else f"{path}, {split} rows", **fields)
        for split, fields in found.items()
    }


def _place(name: str) -> tuple[str, str] | None:
    """Which field of which split an array holds, by its name; None for other names."""
    if name in _FIELDS:
        return name, "train"
    if name in SPLITS:
        return "x", SPLITS[name]
    field, _, split = name.partition("_")
    return (field, SPLITS[split]) if field in _FIELDS and split in SPLITS else None


def _read_numpy(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"x": content}
            arrays = {name: content[name] for name in content.files}
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser trips over
        with path.open("rb") as file:
            may_hold_objects = file.read(6).startswith((b"\x93NUMPY", b"\x80")) or zipfile.is_zipfile(file)
        said = "pickle" in str(error)  # of all that NumPy does not know
        if said and may_hold_objects:
            raise DataError(
                f"{path} holds Python objects, which are never read; save arrays of numbers (numpy.save, numpy.savez)"
            ) from None
        why = "" if said else f" ({first_line(error)})"
        raise DataError(f"{path} is damaged, or no {path.suffix} file{why}") from None
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise DataError(f"{path} is an archive of other things than arrays")
    return arrays


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the version of the format, before the error that tells more
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} holds more than tensors, or is damaged; save a tensor or a dictionary of tensors (torch.save)"
        ) from None
    except OSError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{path} is damaged, or no .pt file ({first_line(error)})") from None
    tensors = content if isinstance(content, Mapping) else {"x": content}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise DataError(
                f"{path} holds a {type(tensor).__name__} under {name!r}, expected a tensor or a dictionary of tensors"
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise DataError(f"{path} holds a sparse or quantised tensor under {name!r}; save it as a dense one")
    return {name: _to_numpy(tensor.detach()) for name, tensor in tensors.items()}


def _to_numpy(tensor: Tensor) -> np.ndarray:
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor).numpy()
