"""Several imputations of a table, new rows, and pooled means: what draws are worth.

* `forest-imputation`: after Forest-Diffusion. Four fifths of the rows of iris, wine and breast cancer, 20 % of their
  predictors hidden at random, five imputations each. MinMAE is the error of the nearest of the five, row by row; AvgMAE
  that of all; W1 the Wasserstein distance of the imputed rows to the complete ones and to the other fifth.
* `forest-generation`: the same rows, complete. W1 of new rows to the other fifth, the macro F1 there of classifiers
  that were trained on new rows, and the share of its rows that have a new row nearby (coverage). Method "real" takes
  the training rows for new ones.
* `pooled-means`: letter of HI-VAE, 30 % hidden at random. The share of columns whose 95 % interval of the mean, pooled
  over 20 imputations by Rubin's rules, holds the mean of the complete table.
* `pooled-normal`: small tables of correlated normal columns, 25 % hidden at random. The shares of 95 % intervals that
  hold the true mean of a column, and the true slope of a regression, beside the mean slope.

Distances are those of Gower: numbers are scaled to [0, 1] over the training rows, two unlike levels are 1 apart. The
published figures took XGBoost for the fourth classifier; here it is scikit-learn's histogram boosting.

A. Jolicoeur-Martineau, K. Fatras and T. Kachman (2024), "Generating and imputing tabular data via diffusion and flow
XGBoost models", sections 5.1 and 5.2. M. Naeem et al. (2020), "Reliable fidelity and diversity metrics".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import ot
import pandas as pd
import torch
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, pairwise_distances
from sklearn.model_selection import train_test_split
from table_tasks import Cell

from pyrovae.data.hivae import load_hivae
from pyrovae.data.missing import mcar
from pyrovae.estimators import VAEImputer, VAETransformer, pool

LOADERS = {"iris": load_iris, "wine": load_wine, "breast": load_breast_cancer}
ROW_METHODS = {
    "forest-imputation": ("vae", "miceforest"),
    "forest-generation": ("vae", "transformer", "real"),
    "pooled-means": ("vae",),
    "pooled-normal": ("vae", "complete-rows"),
}
"""The methods of each protocol. `vae` is `VAEImputer` and `transformer` is `VAETransformer`, with arguments."""
REPEATS = 5
"""Imputations, and tables of new rows."""
DRAWS = 20
ENOUGH = 0.95
TABLES = 20
"""Small tables of `pooled-normal` for each seed."""


class Rows(NamedTuple):
    """Rows to learn from, and rows that are kept back; the last column is the class."""

    train: np.ndarray
    test: np.ndarray
    num_classes: int


def row_cells(protocol: str, names: Sequence[str] | None, seeds: Sequence[int] | None) -> list[Cell]:
    """The cells of a protocol."""
    if protocol == "pooled-means":
        return [Cell(protocol, "letter", 30, seed) for seed in seeds or [0]]
    if protocol == "pooled-normal":
        return [Cell(protocol, "normal", 25, seed) for seed in seeds or [0]]
    hidden = 20 if protocol == "forest-imputation" else 0
    return [Cell(protocol, name, hidden, seed) for name in names or LOADERS for seed in seeds or range(3)]


def measure_rows(cell: Cell, name: str, options: dict[str, Any]) -> dict[str, float]:
    """The figures of a method."""
    measure: dict[str, Callable[..., dict[str, float]]] = {
        "forest-imputation": _imputation,
        "forest-generation": _generation,
        "pooled-means": _pooled_means,
        "pooled-normal": _pooled_normal,
    }
    return measure[cell.protocol](cell, name, options)


def _split(name: str, seed: int) -> Rows:
    x, y = LOADERS[name](return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    train, test = np.column_stack([train_x, train_y]), np.column_stack([test_x, test_y])
    return Rows(train, test, len(np.unique(y)))


def _frame(rows: np.ndarray) -> pd.DataFrame:
    """A frame whose numbers have fractions to a VAE, and whose last column has levels."""
    frame = pd.DataFrame(rows, columns=[f"x{column}" for column in range(rows.shape[1])])
    return frame.astype({frame.columns[-1]: int}).astype({frame.columns[-1]: "category"})


def _options(rows: np.ndarray, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    return {"random_state": seed, "kinds": {f"x{column}": "real" for column in range(rows.shape[1] - 1)}, **options}


def gower(rows: np.ndarray, train: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows whose sums of absolute differences are distances of Gower."""
    low, high = train[:, :-1].min(0), train[:, :-1].max(0)
    classes = 0.5 * (rows[:, -1:] == np.arange(num_classes))
    return np.column_stack([(rows[:, :-1] - low) / np.where(high > low, high - low, 1.0), classes])


def wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """The W1 distance of two sets of rows, of the sum of absolute differences."""
    costs = ot.dist(first, second, metric="cityblock")
    return float(ot.emd2(ot.unif(len(first)), ot.unif(len(second)), costs))


def coverage(real: np.ndarray, new: np.ndarray) -> float:
    """The share of real rows that have a new row within reach of their nearest real neighbours.

    The number of neighbours is, as in Forest-Diffusion, one more than the least at which real rows cover themselves to
    95 %. That is always 2.
    """
    reach = np.sort(pairwise_distances(real, metric="cityblock"), axis=1)[:, 2]
    return float((pairwise_distances(real, new, metric="cityblock").min(1) < reach).mean())


def _imputation(cell: Cell, name: str, options: dict[str, Any]) -> dict[str, float]:
    data = _split(cell.data, cell.seed)
    torch.manual_seed(cell.seed)  # the masks of the published figures
    hidden = torch.rand(data.train[:, :-1].shape, dtype=torch.float64).numpy() < cell.percent / 100
    some = ~hidden.all(1)
    train, hidden = data.train[some], np.column_stack([hidden[some], np.zeros(some.sum(), dtype=bool)])
    holes = np.where(hidden, np.nan, train)
    if name == "miceforest":
        imputed = _miceforest(holes, cell.seed)
    else:
        frame = _frame(holes)
        imputer = VAEImputer(**_options(holes, cell.seed, options)).fit(frame)
        imputed = [draw.to_numpy(dtype=float) for draw in imputer.impute_draws(frame, REPEATS)]
    true, test, *found = (gower(rows, train, data.num_classes) for rows in (train, data.test, *imputed))
    errors = np.abs(np.stack(found) - true).sum(2)
    return {
        "min_mae": float(errors.min(0).sum() / hidden.sum()),
        "avg_mae": float(errors.mean(0).sum() / hidden.sum()),
        "w1_train": float(np.mean([wasserstein(true, rows) for rows in found])),
        "w1_test": float(np.mean([wasserstein(test, rows) for rows in found])),
    }


def _miceforest(holes: np.ndarray, seed: int) -> list[np.ndarray]:
    import miceforest

    frame = _frame(holes)
    kernel = miceforest.ImputationKernel(frame, num_datasets=REPEATS, save_all_iterations_data=False, random_state=seed)
    kernel.mice(5)
    return [kernel.complete_data(dataset=number).to_numpy(dtype=float) for number in range(REPEATS)]


def _generation(cell: Cell, name: str, options: dict[str, Any]) -> dict[str, float]:
    data = _split(cell.data, cell.seed)
    if name == "real":
        made = [data.train]
    else:
        model = {"vae": VAEImputer, "transformer": VAETransformer}[name]
        model = model(**_options(data.train, cell.seed, options)).fit(_frame(data.train))
        drawn = [model.sample(len(data.train), random_state=cell.seed * REPEATS + i) for i in range(REPEATS)]
        made = [rows.to_numpy(dtype=float) for rows in drawn]
    test, *found = (gower(rows, data.train, data.num_classes) for rows in (data.test, *made))
    return {
        "w1_test": float(np.mean([wasserstein(test, rows) for rows in found])),
        "f1": float(np.mean([_f1(rows, data.test) for rows in made])),
        "coverage": float(np.mean([coverage(test, rows) for rows in found])),
    }


def _f1(train: np.ndarray, test: np.ndarray) -> float:
    """The macro F1 of four classifiers, 0 where a class is missing among the training rows."""
    if not np.isin(test[:, -1], train[:, -1]).all():
        return 0.0
    classifiers = [
        LogisticRegression(C=np.inf, max_iter=500),
        AdaBoostClassifier(random_state=0),
        RandomForestClassifier(max_depth=28, random_state=0),
        HistGradientBoostingClassifier(random_state=0),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = [each.fit(train[:, :-1], train[:, -1]).predict(test[:, :-1]) for each in classifiers]
    return float(np.mean([f1_score(test[:, -1], each, average="macro") for each in found]))


def _pooled_means(cell: Cell, name: str, options: dict[str, Any]) -> dict[str, float]:
    values, _, _, _ = load_hivae(cell.data, 20)
    names = [f"x{column}" for column in range(values.shape[1])]
    hidden = ~mcar(values.shape, cell.percent / 100, cell.seed)
    hidden[:, -1] = False  # the letter
    frame = pd.DataFrame(np.where(hidden, np.nan, values), columns=names)
    imputer = VAEImputer(random_state=cell.seed, kinds=dict.fromkeys(names[:-1], "real"), **options).fit(frame)
    draws = np.stack([draw.to_numpy(dtype=float)[:, :-1] for draw in imputer.impute_draws(frame, DRAWS)])
    pooled = pool(draws.mean(1), draws.var(1, ddof=1) / len(values), num_rows=len(values))
    low, high = pooled.interval(0.95)
    truth = values[:, :-1].mean(0)
    errors = np.abs(pooled.estimate - truth) / values[:, :-1].std(0)
    return {"coverage": float(((low <= truth) & (truth <= high)).mean()), "error_in_sd": float(errors.mean())}


def _pooled_normal(cell: Cell, name: str, options: dict[str, Any]) -> dict[str, float]:
    """Five columns with two common factors, 300 rows; the first is regressed on the others."""
    rng = np.random.default_rng(1234)
    loadings = rng.normal(size=(5, 2))
    covariance = loadings @ loadings.T + 0.5 * np.eye(5)
    covariance /= np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    slopes = np.linalg.solve(covariance[1:, 1:], covariance[1:, 0])
    means, inside, found = [], [], []
    for number in range(TABLES):
        rng = np.random.default_rng([cell.seed, number])
        rows = rng.multivariate_normal(np.zeros(5), covariance, size=300)
        holes = np.where(mcar(rows.shape, cell.percent / 100, rng), rows, np.nan)
        if name == "complete-rows":
            complete = holes[~np.isnan(holes).any(1)]
            estimate, variance = _slopes(complete)
            reach = norm.ppf(0.975) * np.sqrt(variance)
            low, high = estimate - reach, estimate + reach
            mean, error = np.nanmean(holes, 0), np.nanstd(holes, 0, ddof=1) / np.sqrt((~np.isnan(holes)).sum(0))
            means.append(np.abs(mean) <= norm.ppf(0.975) * error)
        else:
            imputer = VAEImputer(random_state=number, **options).fit(holes)
            draws = imputer.impute_draws(holes, DRAWS)
            both = [_slopes(draw) for draw in draws]
            pooled = pool([each[0] for each in both], [each[1] for each in both], num_rows=len(rows) - 4)
            estimate, (low, high) = pooled.estimate, pooled.interval(0.95)
            of_means = pool([d.mean(0) for d in draws], [d.var(0, ddof=1) / len(d) for d in draws], num_rows=len(rows))
            ends = of_means.interval(0.95)
            means.append((ends[0] <= 0) & (ends[1] >= 0))
        inside.append((low <= slopes) & (slopes <= high))
        found.append(estimate)
    share = float(np.mean(found, axis=0) @ slopes / (slopes @ slopes))
    return {"slopes_inside": float(np.mean(inside)), "means_inside": float(np.mean(means)), "mean_slope": share}


def _slopes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the first column on the others, and their variances."""
    design = np.column_stack([np.ones(len(rows)), rows[:, 1:]])
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ rows[:, 0]
    noise = np.square(rows[:, 0] - design @ found).sum() / (len(rows) - design.shape[1])
    return found[1:], noise * np.diag(inverse)[1:]
