"""The four mixed-type tables of HI-VAE with their published masks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pyrovae.data.files import DataFile, provide

TABLES = ("adult", "breast", "default_credit", "letter")
PERCENTS = (10, 20, 30, 40, 50)
_KINDS = {"real": "real", "pos": "positive", "count": "count", "cat": "categorical", "ordinal": "ordinal"}


class HIVAETable(NamedTuple):
    """A table, the kinds of its columns, and the entries that a published mask hides."""

    values: np.ndarray
    """The whole table, ``[N, D]``: raw numbers, levels as codes of the file, NaN where nobody knows the value."""
    kinds: tuple[str, ...]
    """The kind of each column: "real", "positive", "count", "categorical" or "ordinal"."""
    num_levels: np.ndarray
    """The declared number of levels of each column, 1 for numbers, ``[D]``. Not all of them need occur."""
    hidden: np.ndarray
    """True where the mask hides an entry, ``[N, D]``. Of some of these nobody knows the value."""


def load_hivae(name: str, percent: int, folder: str | Path | None = None) -> HIVAETable:
    """Load one of the tables that HI-VAE was published with, and its first mask of some rate.

    Use it to compare imputers on the protocol of that paper: fit and fill the rows of the masked table, then ask for
    `pyrovae.metrics.hivae_error` on the hidden entries.

    Parameters
    ----------
    name : {"adult", "breast", "default_credit", "letter"}
        The table.
    percent : {10, 20, 30, 40, 50}
        Share of hidden entries, in percent.
    folder : str or Path, optional
        Place to look in first. Then come ``$PYROVAE_DATA`` and the cache. The files lie in ``hivae/<name>/`` below it.

    Returns
    -------
    HIVAETable
        Values, kinds, numbers of levels, and what is hidden.

    Raises
    ------
    ValueError
        There is no such table or rate.
    DataError
        The files are not on this machine, or are damaged.

    References
    ----------
    A. Nazabal, P. M. Olmos, Z. Ghahramani and I. Valera (2020), "Handling incomplete heterogeneous data using VAEs",
    section 5; github.com/probabilistic-learning/HI-VAE.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}; known are {', '.join(TABLES)}")
    if percent not in PERCENTS:
        raise ValueError(f"there is no mask of {percent} %; known are {', '.join(map(str, PERCENTS))} %")
    mask = f"Missing{percent}_1.csv.gz"
    wanted = tuple(DataFile(file) for file in ("data.csv", "data_types.csv", mask))
    files = provide(name, f"hivae/{name}", wanted, folder, fetch=False)
    values = files.read("data.csv", _numbers)
    kinds, num_levels = files.read("data_types.csv", lambda content: _types(content, values.shape[1]))
    hidden = np.zeros(values.shape, dtype=bool)
    places = files.read(mask, lambda content: _places(content, values.shape))
    hidden[places[:, 0], places[:, 1]] = True
    return HIVAETable(values, kinds, num_levels, hidden)


def _lines(content: bytes) -> list[str]:
    """The lines that are not empty, whichever way they end: one table ends them with a bare carriage return."""
    return [line for line in content.decode("ascii").splitlines() if line.strip()]


def _numbers(content: bytes) -> np.ndarray:
    return pd.DataFrame([line.split(",") for line in _lines(content)]).to_numpy(dtype=float)


def _places(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    places = _numbers(content).astype(int) - 1
    if (places < 0).any() or (places >= shape).any():
        raise ValueError(f"a place lies outside of the table of shape {shape}")
    return places


def _types(content: bytes, columns: int) -> tuple[tuple[str, ...], np.ndarray]:
    cells = [line.split(",") for line in _lines(content)[1:]]
    cells = [row for row in cells if row[0].strip()]
    if len(cells) != columns:
        raise ValueError(f"{len(cells)} types for {columns} columns")
    if unknown := sorted({row[0].strip() for row in cells} - set(_KINDS)):
        raise ValueError(f"unknown types {', '.join(unknown)}")
    kinds = tuple(_KINDS[row[0].strip()] for row in cells)
    return kinds, np.array([int(row[2]) if row[2].strip() else 1 for row in cells])
