"""HDF5 files of the layout of the auto-decoder's authors: clean data in one file, data with holes in others.

* `PREFIX.h5` holds clean data: `train_data` and `test_data`; or `train_x` and `test_x` (digit sets, whose labels may be
  `train_y` and `test_y`); or `train_2d`, `valid_2d` and `test_2d` (landmarks).
* `PREFIX_r.h5` holds the same data with a share r missing: `train_y`, `train_mask`, `test_y`, `test_mask`, and
  `test_y_true`, the test rows without holes. A mask is 1 where an entry is observed.

Reading and writing need h5py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyrovae.data.download import DataError
from pyrovae.data.patterns import hidden, random_mask
from pyrovae.data.preprocessing import seeded_generator
from pyrovae.data.stored import Stored, first_line, stored

if TYPE_CHECKING:
    from pyrovae.data.dataset import Dataset, Rows

HDF5_FORMATS = (".h5", ".hdf5")
"""Endings of these files."""
_CLEAN = {
    "data": {"train": "train_data", "validation": "valid_data", "test": "test_data"},
    "x": {"train": "train_x", "validation": "valid_x", "test": "test_x"},
    "2d": {"train": "train_2d", "validation": "valid_2d", "test": "test_2d"},
}
KINDS_OF_KEYS = tuple(_CLEAN)
"""How the arrays of clean data may be called."""
_HOLES = ("train_y", "train_mask", "test_y", "test_mask", "test_y_true")
_WANTED = (
    "train_data and test_data, train_x and test_x, or train_2d, valid_2d and test_2d; of data with holes "
    f"{', '.join(_HOLES)}"
)
_MISSING = 20  # the first of the streams of random numbers, one for each split


def read_hdf5(path: Path) -> dict[str, Stored]:
    """Read a file of clean data, or of data with holes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to Stored
        The splits by name. The test rows of a file with holes are the complete ones, `test_y_true`.

    Raises
    ------
    DataError
        If the file is damaged, or lacks its keys. The message names those that it has and those that it should have.
    ImportError
        If h5py is not installed.
    """
    arrays = _arrays(path)
    found: dict[str, dict[str, Any]]
    if "train_mask" in arrays or "test_y_true" in arrays:
        _need(path, arrays, _HOLES)
        found = {
            "train": {"x": arrays["train_y"], "mask": arrays["train_mask"]},
            "test": {"x": arrays["test_y_true"]},
        }
    else:
        names = next((names for names in _CLEAN.values() if names["train"] in arrays), None)
        if names is None or names["test"] not in arrays:
            raise DataError(f"{path} holds {_listed(arrays)}, and should hold {_WANTED}")
        found = {split: {"x": arrays[name]} for split, name in names.items() if name in arrays}
        for split in found:
            labels = arrays.get(f"{names[split][:-2]}_y")
            if names is _CLEAN["x"] and labels is not None and labels.ndim == 1:
                found[split]["y"] = labels
    return {split: stored(f"{path}, {split} rows", **fields) for split, fields in found.items()}


def ratios_of(path: str | Path) -> dict[float, Path]:
    """The files with holes that lie beside a file of clean data, by their ratio.

    Parameters
    ----------
    path : str or Path
        `PREFIX.h5`, or one of the files with holes.

    Returns
    -------
    dict of float to Path
        `PREFIX_r.h5` by r, sorted.
    """
    path = Path(path)
    before, _, ratio = path.stem.rpartition("_")
    prefix = before if before and _ratio(ratio) is not None else path.stem
    others = {other: _ratio(other.stem[len(prefix) + 1 :]) for other in path.parent.glob(f"{prefix}_*{path.suffix}")}
    return dict(sorted((ratio, other) for other, ratio in others.items() if ratio is not None))


def _ratio(text: str) -> float | None:
    """The ratio that the end of a name says, between 0 and 1, or None."""
    try:
        ratio = float(text)
    except ValueError:
        return None
    return ratio if 0 < ratio < 1 else None


def read_missing(path: str | Path) -> tuple[Stored, Stored]:
    """The test rows of a file with holes: as they are without holes, and with them.

    Parameters
    ----------
    path : str or Path
        `PREFIX_r.h5`.

    Returns
    -------
    truth, holes : Stored
        Both without the other's `mask`: `holes` has the mask.

    Raises
    ------
    DataError
        If the file is damaged or lacks its keys, or observed entries differ between the two.
    """
    path = Path(path)
    arrays = _arrays(path)
    _need(path, arrays, ("test_y", "test_mask", "test_y_true"))
    truth = stored(f"{path}, test_y_true", arrays["test_y_true"])
    holes = stored(f"{path}, test_y", arrays["test_y"], mask=arrays["test_mask"])
    if truth.x.shape != holes.x.shape:
        raise DataError(f"{path}: test_y has shape {holes.x.shape}, and test_y_true {truth.x.shape}")
    mask = np.ones(holes.x.shape, dtype=bool) if holes.mask is None else holes.mask
    if not np.array_equal(truth.x[mask], holes.x[mask]):
        raise DataError(
            f"{path}: test_y and test_y_true differ in entries that test_mask calls observed (it must be 1 there, and "
            "0 where an entry is missing)"
        )
    return truth, holes


def write_clean(dataset: Dataset, path: str | Path, keys: str = "data") -> Path:
    """Write the splits of a data set as a file of clean data.

    Parameters
    ----------
    dataset : Dataset
        The data, complete.
    path : str or Path
        `PREFIX.h5`.
    keys : {"data", "x", "2d"}, default "data"
        How the arrays are called. "x" writes labels too.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        For other keys, and rows with missing entries.
    ImportError
        If h5py is not installed.
    """
    if keys not in _CLEAN:
        raise ValueError(f"keys must be one of {', '.join(_CLEAN)}, got {keys!r}")
    arrays = {}
    for split, rows in dataset.splits().items():
        if not len(rows):
            continue
        arrays[_CLEAN[keys][split]] = _complete(dataset.name, rows)
        if keys == "x" and rows.y is not None:
            arrays[f"{_CLEAN[keys][split][:-2]}_y"] = rows.y.numpy()
    return _write(Path(path), arrays)


def write_missing(
    dataset: Dataset, path: str | Path, ratios: Sequence[float], pattern: str = "entries", seed: int = 0
) -> list[Path]:
    """Write a file with holes for each ratio, for figures on masks that stay the same (`--missing-mode fixed`).

    Parameters
    ----------
    dataset : Dataset
        The data, complete.
    path : str or Path
        `PREFIX.h5`, the name of the file of clean data; it is not written.
    ratios : sequence of float
        Shares to hide, between 0 and 1.
    pattern : {"entries", "points", "block"}, default "entries"
        What is hidden as one, see `pyrovae.data.patterns.random_mask`.
    seed : int, default 0
        Fixes the masks.

    Returns
    -------
    list of Path
        The files, `PREFIX_r.h5`.

    Raises
    ------
    ValueError
        For a ratio out of range, another pattern, and rows with missing entries.
    ImportError
        If h5py is not installed.

    Examples
    --------
    ``write_missing(load("digits"), Path("digits.h5"), [0.1, 0.5])`` writes `digits_0.1.h5` and `digits_0.5.h5`, and
    gives back both paths. It needs the extra `hdf5`.
    """
    path, written = Path(path), []
    for number, ratio in enumerate(ratios):
        if not 0 < ratio < 1:
            raise ValueError(f"a ratio of missing entries is between 0 and 1, got {ratio}")
        arrays = {}
        for place, split in enumerate(("train", "test")):
            rows = dataset.splits()[split]
            clean = _complete(dataset.name, rows)
            generator = seeded_generator(seed, _MISSING + 2 * number + place)
            holes = hidden(rows, random_mask(dataset.shape, len(rows), ratio, pattern, generator))
            arrays[f"{split}_y"] = holes.x.numpy()
            arrays[f"{split}_mask"] = np.asarray(holes.mask, dtype=np.uint8)
            if split == "test":
                arrays["test_y_true"] = clean
        written.append(_write(path.with_name(f"{path.stem}_{ratio:g}{path.suffix}"), arrays))
    return written


def _complete(name: str, rows: Rows) -> np.ndarray:
    if rows.mask is not None and not bool(rows.mask.all()):
        raise ValueError(f"{name} has missing entries, and these files need the complete rows beside those with holes")
    return rows.x.to(torch.float32).numpy()


def _arrays(path: Path) -> dict[str, np.ndarray]:
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            links = {name: file.get(name, getlink=True) for name in file}
            return {
                name: np.asarray(file[name])
                for name, link in links.items()
                if not isinstance(link, h5py.ExternalLink) and isinstance(file[name], h5py.Dataset)
            }
    except Exception as error:  # a damaged file raises whatever the library trips over
        if not path.exists():
            raise DataError(f"there is no file {path}") from None
        raise DataError(f"{path} is damaged, or no HDF5 file ({first_line(error)})") from None


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError(f"{path} is an HDF5 file, which needs h5py: pip install 'pyrovae[hdf5]'") from None
    return h5py


def _need(path: Path, arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise DataError(f"{path} holds {_listed(arrays)}, and lacks {', '.join(lacking)} of a file with holes")


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "no array"


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    h5py = _h5py(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with h5py.File(temporary, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, compression="gzip", compression_opts=4)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
