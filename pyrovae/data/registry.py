"""Data sets by name: `load` one, list those `available`. Loaders enter themselves with `register`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pyrovae.data.dataset import Dataset, Rows
from pyrovae.data.files import DataFile, Files, find, provide
from pyrovae.data.preprocessing import binarize as binarized
from pyrovae.data.preprocessing import dequantize as dequantized
from pyrovae.data.preprocessing import hide_labels, principal_components, rescale_symmetric


class Splits(NamedTuple):
    """What a loader returns."""

    train: Rows
    validation: Rows
    test: Rows
    evidence: Callable[[Tensor], Tensor] | None = None


Loader = Callable[[Files, int, int], Splits]


@dataclass(frozen=True)
class DatasetInfo:
    """A data set in words.

    Args:
        name: what `load` calls it.
        summary: one line.
        shape: of one datum.
        sizes: rows of training, validation and test split when nothing else is asked for.
        kind: of the values, see `Dataset`.
        source: where it is from and under which licence.
        location: the folder it was found in, "embedded", "to be downloaded", or "not here: " and what is missing.
    """

    name: str
    summary: str
    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    kind: str
    source: str
    location: str


@dataclass(frozen=True)
class _Entry:
    name: str
    summary: str
    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    kind: str
    source: str
    loader: Loader
    subfolder: str
    files: tuple[DataFile, ...]
    fixed_splits: bool


_ENTRIES: dict[str, _Entry] = {}


def register(
    name: str,
    *,
    summary: str,
    shape: tuple[int, ...],
    sizes: tuple[int, int, int],
    kind: str,
    source: str,
    subfolder: str = "",
    files: tuple[DataFile, ...] = (),
    fixed_splits: bool = False,
) -> Callable[[Loader], Loader]:
    """Enter the decorated loader under `name`.

    A loader is called with the files of the set, the number of validation rows to hold out, and the seed.

    Args:
        name: lower case, words joined by `-`.
        summary: see `DatasetInfo`.
        shape: see `DatasetInfo`.
        sizes: see `DatasetInfo`; the second is the default number of validation rows.
        kind: see `Dataset`.
        source: see `DatasetInfo`.
        subfolder: folder of the files below the root.
        files: what is read from there; empty for sets that need none.
        fixed_splits: whether the splits are given, so that `validation_size` cannot be chosen.

    Raises:
        ValueError: if the name is taken.
    """

    def enter(loader: Loader) -> Loader:
        if name in _ENTRIES:
            raise ValueError(f"there is a data set {name!r} already")
        _ENTRIES[name] = _Entry(name, summary, shape, sizes, kind, source, loader, subfolder, files, fixed_splits)
        return loader

    return enter


def load(
    name: str,
    *,
    binarize: str | None = None,
    scale: str = "unit",
    dequantize: bool = False,
    pca: int | None = None,
    validation_size: int | None = None,
    labels: float | None = None,
    seed: int = 0,
    root: str | Path | None = None,
    download: bool = True,
) -> Dataset:
    """Load a data set by name, on the CPU.

    Its files are looked for below `root`, `$PYROVAE_DATA` and the cache folder (`$PYROVAE_CACHE`, else
    `$XDG_CACHE_HOME/pyrovae`, else `~/.cache/pyrovae`), in this order, and are otherwise downloaded into the cache.
    The same arguments give the same tensors.

    Args:
        name: see `available`; `-` and `_` are the same.
        binarize: "static" draws every pixel once from a Bernoulli distribution, "dynamic" draws training minibatches
            anew each time.
        scale: "unit" for [0, 1], "symmetric" for [-1, 1].
        dequantize: spread the 256 values of bytes over [0, 1] with uniform noise.
        pca: replace every row by so many principal components, see `principal_components`; None leaves it as it is.
        validation_size: rows to hold out for validation, at least 1; they are taken from the training rows.
        labels: keep the labels of a share (up to 1) or a number of training rows, of every class as many, see
            `hide_labels`; None keeps them as they are.
        seed: fixes random splits, the rows that keep their labels, draws of validation and test rows, and synthetic
            data.
        root: folder laid out like the cache, to look in first.
        download: whether to fetch what is not on this machine.

    Raises:
        ValueError: for an unknown name, and for options that contradict each other or the data.
        DataError: if the files are not to be had or are damaged.

    >>> dataset = load("digits", binarize="dynamic")
    >>> dataset.shape, dataset.kind, len(dataset.train.x)
    (torch.Size([1, 8, 8]), 'binary', 1200)
    """
    entry = _entry(name)
    if scale not in ("unit", "symmetric"):
        raise ValueError(f"scale must be 'unit' or 'symmetric', not {scale!r}")
    if binarize is not None and dequantize:
        raise ValueError("binarize and dequantize exclude each other: binary values have no intervals to fill")
    if binarize is not None and scale == "symmetric":
        raise ValueError("binarize and scale='symmetric' exclude each other: binary values are 0 and 1")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1, not {seed!r}")
    files = provide(entry.name, entry.subfolder, entry.files, root, download)
    splits = entry.loader(files, _validation_size(entry, validation_size), seed)
    options = {
        "name": entry.name,
        "binarize": binarize,
        "scale": scale,
        "dequantize": dequantize,
        "pca": pca,
        "validation_size": validation_size,
        "labels": labels,
        "seed": seed,
    }
    dataset = Dataset(
        name=entry.name,
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        kind=entry.kind,
        evidence=splits.evidence,
        options=options,
    )
    if binarize is not None:
        dataset = binarized(dataset, binarize, seed)
    if dequantize:
        dataset = dequantized(dataset, seed)
    if scale == "symmetric":
        dataset = rescale_symmetric(dataset)
    if pca is not None:
        dataset = principal_components(dataset, pca)
    if labels is not None:
        dataset = hide_labels(dataset, labels, seed)
    return dataset


def available(root: str | Path | None = None) -> list[DatasetInfo]:
    """List the data sets that `load` knows, by name, with where each is on this machine. Nothing is read or fetched.

    >>> [info.name for info in available() if info.location == "embedded"]
    ['digits', 'linear-gaussian']

    Args:
        root: folder to look in first, as for `load`.

    Raises:
        DataError: if `root` is not a folder.
    """
    return [
        DatasetInfo(
            name=entry.name,
            summary=entry.summary,
            shape=entry.shape,
            sizes=entry.sizes,
            kind=entry.kind,
            source=entry.source,
            location=_location(entry, root),
        )
        for _, entry in sorted(_ENTRIES.items())
    ]


def _entry(name: str) -> _Entry:
    entry = _ENTRIES.get(name.replace("_", "-").lower())
    if entry is None:
        raise ValueError(f"there is no data set {name!r}; known are {', '.join(sorted(_ENTRIES))}")
    return entry


def _validation_size(entry: _Entry, wanted: int | None) -> int:
    if wanted is None:
        return entry.sizes[1]
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise ValueError(f"validation_size must be a whole number of at least 1, not {wanted!r}")
    if entry.fixed_splits and wanted != entry.sizes[1]:
        raise ValueError(f"the splits of {entry.name} are given: its validation_size is {entry.sizes[1]}, not {wanted}")
    return wanted


def _location(entry: _Entry, root: str | Path | None) -> str:
    if not entry.files:
        return "embedded"
    folder = find(entry.subfolder, entry.files, root)
    if folder is not None:
        return str(folder)
    if all(file.url is not None for file in entry.files):
        return "to be downloaded"
    names = " and ".join(file.name for file in entry.files)
    return f"not here: {names} wanted in {entry.subfolder}/ below $PYROVAE_DATA or the cache folder"
