"""Incomplete tables whose truth is known, after published protocols: what an imputer gets, and how it is scored.

* `hivae`: the tables and masks that HI-VAE was published with. An imputer is fitted on the rows that it fills. The
  figure is the average error over columns.
* `vaem`: nine tenths of the rows to fit on, half of the entries hidden there and in the rest. Numbers are scaled to
  [0, 1] over the whole table. The figure is (1/D) sqrt(sum MSE_d).
* `breast-mcar`: scikit-learn's breast cancer table, standardised, half of all entries hidden. Mask 0 is that of MIWAE's
  notebook. The figure is the mean squared error.
* `breast-mnar`: the same table, with values above the mean hidden in the first half of the columns, the protocol of
  not-MIWAE. The figure is the root mean squared error.

The first figure of a score is the one that methods are compared by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

from pyrovae.data.hivae import load_hivae
from pyrovae.data.missing import mcar, mnar_self_masking
from pyrovae.metrics.imputation import hivae_error, mse, vaem_rmse

VAEM_NOMINAL = {"avocado": ("type", "year", "region"), "boston": ("CHAS",), "energy": ("X6", "X7", "X8"), "bank": None}
"""Columns of levels; None: those that are not numbers."""
VAEM_SEEDS = {"avocado": 2, "bank": 2, "boston": 5, "energy": 5}
MASKS = 5
MIWAE_SEED = 1234


class Task(NamedTuple):
    """Rows to fit on, rows to fill, and the truth."""

    train: np.ndarray
    rows: np.ndarray
    kinds: Sequence[str]
    num_levels: np.ndarray
    truth: np.ndarray
    hidden: np.ndarray
    score: Callable[[np.ndarray], dict[str, float]]


class Cell(NamedTuple):
    """Which task of which protocol. The seed is that of the method, and of masks that are drawn."""

    protocol: str
    data: str
    percent: int
    seed: int


def hivae_cells(names: Sequence[str], percents: Sequence[int], seeds: Sequence[int] | None) -> Iterator[Cell]:
    return (Cell("hivae", name, percent, seed) for name in names for percent in percents for seed in seeds or [0])


def vaem_cells(names: Sequence[str], seeds: Sequence[int] | None) -> Iterator[Cell]:
    return (Cell("vaem", name, 50, seed) for name in names for seed in seeds or range(VAEM_SEEDS[name]))


def breast_cells(protocol: str, seeds: Sequence[int] | None) -> Iterator[Cell]:
    usual = range(MASKS) if protocol == "breast-mcar" else [0]
    return (Cell(protocol, "breast-cancer", 50, seed) for seed in seeds or usual)


def make_task(cell: Cell) -> Task:
    """Load the data of a cell and hide its entries."""
    if cell.protocol == "hivae":
        return _hivae(cell.data, cell.percent)
    if cell.protocol == "vaem":
        return _vaem(cell.data, cell.seed)
    return _breast(cell)


def _hivae(name: str, percent: int) -> Task:
    values, kinds, num_levels, hidden = load_hivae(name, percent)
    train = np.where(hidden, np.nan, values)

    def score(filled: np.ndarray) -> dict[str, float]:
        return hivae_error(values, filled, hidden, kinds, num_levels)._asdict()

    return Task(train, train, kinds, num_levels, values, hidden, score)


def _vaem(name: str, seed: int) -> Task:
    frame = _read_frame(name)
    names = VAEM_NOMINAL[name]
    nominal = np.array([c in names if names else not pd.api.types.is_numeric_dtype(frame[c]) for c in frame])
    kinds = np.where(nominal, "categorical", "real").tolist()
    for column in frame.columns[nominal]:
        frame[column] = pd.factorize(frame[column], sort=True)[0]
    values = frame.to_numpy(dtype=float)
    num_levels = np.where(nominal, values.max(axis=0) + 1, 1).astype(int)
    low, ranges = values.min(axis=0), np.maximum(np.ptp(values, axis=0), 1e-12)
    values = np.where(nominal, values, (values - low) / ranges)

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(values))
    held_out, fitted = np.split(order, [len(order) // 10])
    train = np.where(mcar((len(fitted), len(kinds)), 0.5, rng), values[fitted], np.nan)
    truth = values[held_out]
    hidden = ~mcar(truth.shape, 0.5, rng)

    def score(filled: np.ndarray) -> dict[str, float]:
        return vaem_rmse(truth, filled, hidden, kinds, ranges=np.ones(len(kinds)))._asdict()

    return Task(train, np.where(hidden, np.nan, truth), kinds, num_levels, truth, hidden, score)


def _read_frame(name: str) -> pd.DataFrame:
    folder = os.environ.get("PYROVAE_DATA")
    if not folder:
        raise SystemExit("set PYROVAE_DATA to the folder of the data sets")
    frame = pd.read_csv(Path(folder, "tabular", f"{name}.csv"), sep=";" if name == "bank" else ",")
    frame.columns = frame.columns.str.strip()
    # The first column of avocado counts the rows, and its dates are no column of the protocol.
    return frame.iloc[:, 1:].drop(columns="Date") if name == "avocado" else frame


def _breast(cell: Cell) -> Task:
    raw = load_breast_cancer().data
    truth = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    if cell.protocol == "breast-mnar":
        observed = mnar_self_masking(truth, range(truth.shape[1] // 2))
    elif cell.seed == 0:
        observed = np.ones(truth.size, dtype=bool)
        observed[np.random.RandomState(MIWAE_SEED).choice(truth.size, truth.size // 2, replace=False)] = False
        observed = observed.reshape(truth.shape)
    else:
        observed = mcar(truth.shape, 0.5, cell.seed)
    train = np.where(observed, truth, np.nan)
    kinds, num_levels = ["real"] * truth.shape[1], np.ones(truth.shape[1], dtype=int)
    score = partial(_breast_score, cell.protocol, truth, ~observed)
    return Task(train, train, kinds, num_levels, truth, ~observed, score)


def _breast_score(protocol: str, truth: np.ndarray, hidden: np.ndarray, filled: np.ndarray) -> dict[str, float]:
    error = mse(truth, filled, hidden)
    return {"rmse": error**0.5} if protocol == "breast-mnar" else {"mse": error}
