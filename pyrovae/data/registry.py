"""Data sets by name: which are `available`, and where their files are. Loaders enter themselves with `register`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pyrovae.data.dataset import TABLE, Dataset, Rows, RowStream, Transform
from pyrovae.data.files import DataFile, find, provide


class Splits(NamedTuple):
    """What a loader returns."""

    train: Rows
    validation: Rows
    test: Rows
    evidence: Callable[[Tensor], Tensor] | None = None
    transform: Transform | None = None
    schema: Mapping[str, Any] | None = None
    stream: RowStream | None = None


Loader = Callable[..., Splits]


@dataclass(frozen=True)
class DatasetInfo:
    """A data set in words.

    Parameters
    ----------
    name : str
        What `load` calls it.
    summary : str
        One line.
    shape : tuple of int
        Shape of one datum.
    sizes : tuple of int
        Rows for training, validation and test when nothing else is asked for.
    kind : str
        What the values are, see `Dataset`.
    source : str
        Where it is from and under which licence.
    location : str
        The folder it was found in, "embedded", "to be downloaded", or "not here: " and what is missing.
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

    A loader is called with the `Files` of the set, the number of validation rows to hold out, and the seed. That of a
    table gets the number as it was asked for, and the options of tables of `load` as keywords.

    Parameters
    ----------
    name : str
        Lower case, words joined by ``-``.
    summary, shape, sizes, kind, source
        See `DatasetInfo`. The second of `sizes` is the default number of validation rows.
    subfolder : str, default ""
        Folder of the files below the root.
    files : tuple of DataFile, default ()
        What is read from there; empty for sets that need none.
    fixed_splits : bool, default False
        Whether the splits are given, so that the number of validation rows cannot be chosen.

    Returns
    -------
    callable
        A decorator of the loader.

    Raises
    ------
    ValueError
        If the name is taken.
    """

    def enter(loader: Loader) -> Loader:
        if name in _ENTRIES:
            raise ValueError(f"there is a data set {name!r} already")
        _ENTRIES[name] = _Entry(name, summary, shape, sizes, kind, source, loader, subfolder, files, fixed_splits)
        return loader

    return enter


def load_named(
    name: str,
    *,
    validation: float | None = None,
    seed: int = 0,
    root: str | Path | None = None,
    download: bool = True,
    **table: Any,
) -> Dataset:
    """Load a registered data set as it is, without binarisation, scale and so on; `load` does those too.

    Parameters
    ----------
    name : str
        See `available`; ``-`` and ``_`` are the same.
    validation : float, optional
        Rows to hold out of the training rows, a share of them or a number, see `load`. None holds out the usual number.
    seed : int, default 0
        Fixes random splits and synthetic data.
    root : str or Path, optional
        Folder laid out like the cache, to look in first.
    download : bool, default True
        Whether to fetch what is not on this machine.
    **table
        For a table: `test`, `column_kinds`, `likelihoods`, `scaling`, `missing_words` of `load`, and `codec`.

    Returns
    -------
    Dataset
        On the CPU. It has no `options` yet.

    Raises
    ------
    ValueError
        For an unknown name, and for an impossible number of validation rows.
    DataError
        If the files are not to be had or are damaged.

    Examples
    --------
    >>> len(load_named("digits", validation=0.1).validation)
    150
    """
    entry = find_entry(name)
    if entry is None:
        raise ValueError(f"there is no data set {name!r}; known are {', '.join(sorted(_ENTRIES))}")
    files = provide(entry.name, entry.subfolder, entry.files, root, download)
    if entry.kind == TABLE:
        splits = entry.loader(files, validation, seed, **table)
    elif table:
        raise ValueError(f"{next(iter(table))} is for tables, and {entry.name} is none")
    else:
        splits = entry.loader(files, _validation_size(entry, validation), seed)
    return Dataset(
        name=entry.name,
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        kind=entry.kind,
        transform=splits.transform,
        evidence=splits.evidence,
        schema=splits.schema,
    )


def find_entry(name: str) -> _Entry | None:
    """The registered data set of a name, in which ``-`` and ``_`` are the same; None if there is none.

    Examples
    --------
    >>> find_entry("Frey_Faces").kind, find_entry("./digits")
    ('8-bit', None)
    """
    return _ENTRIES.get(name.replace("_", "-").lower())


def available(root: str | Path | None = None) -> list[DatasetInfo]:
    """List the data sets that `load` knows, by name, with where each is on this machine. Nothing is read or fetched.

    Parameters
    ----------
    root : str or Path, optional
        Folder to look in first, as for `load`.

    Returns
    -------
    list of DatasetInfo
        Sorted by name.

    Raises
    ------
    DataError
        If `root` is not a folder.

    Examples
    --------
    >>> [info.name for info in available() if info.location == "embedded"]
    ['breast-cancer', 'clinic', 'diabetes', 'digits', 'iris', 'landmarks', 'linear-gaussian', 'wine']
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


def _validation_size(entry: _Entry, wanted: float | None) -> int:
    if wanted is None:
        return entry.sizes[1]
    rows = wanted
    if isinstance(wanted, float) and 0 < wanted < 1:
        rows = round(wanted * (entry.sizes[0] + entry.sizes[1]))
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ValueError(
            f"validation of {entry.name} must be a share between 0 and 1, or a whole number of at least 1, "
            f"not {wanted!r}"
        )
    if entry.fixed_splits and rows != entry.sizes[1]:
        raise ValueError(f"the splits of {entry.name} are given: validation is {entry.sizes[1]} rows, not {rows}")
    return rows


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
