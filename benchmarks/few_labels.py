"""Classifiers with few labels: `VAEClassifier` as it is, without consistency, and others of scikit-learn.

    python benchmarks/few_labels.py mnist-8 fashion-8 fashion-14 wine breast-cancer iris    # for the choice of defaults
    python benchmarks/few_labels.py digits                                                  # the figure that is claimed

Rows are split at random into 500 test rows (a third of small tables) and the others, of which 5 % keep their labels (15
of small tables). A line of JSON for each method has the mean of errors and of -log p of the test labels, in nats, over
the splits, all errors, and the mean seconds of processor time of a fit. `PYROVAE_DATA` has MNIST and Fashion-MNIST, of
which 1797 training rows are taken, as many as digits has, reduced to 8 x 8 or 14 x 14 means of pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from pyrovae import data
from pyrovae.estimators import VAEClassifier

TABLES: dict[str, Callable[..., Any]] = {
    "breast-cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}
PICTURES = {"fashion-8": ("fashion-mnist", 8), "fashion-14": ("fashion-mnist", 14), "mnist-8": ("mnist", 8)}
METHODS: dict[str, Callable[[int], Any]] = {
    "VAEClassifier": lambda seed: VAEClassifier(random_state=seed),
    "VAEClassifier, consistency_weight=0": lambda seed: VAEClassifier(consistency_weight=0, random_state=seed),
    "LabelSpreading": lambda seed: LabelSpreading(kernel="knn", n_neighbors=7, max_iter=200),
    "LabelSpreading, standardised": lambda seed: make_pipeline(StandardScaler(), METHODS["LabelSpreading"](seed)),
    "LogisticRegression": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "ExtraTreesClassifier": lambda seed: ExtraTreesClassifier(200, random_state=seed),
}


def rows(name: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All rows of a table, or some pictures."""
    if name in TABLES:
        return TABLES[name](return_X_y=True)
    source, side = PICTURES[name]
    whole = data.load(source).train
    some = np.random.default_rng(10 + seed).permutation(len(whole.x))[:1797]
    small = F.adaptive_avg_pool2d(whole.x[some], side).flatten(1)
    return small.double().numpy(), whole.y[some].numpy()


def split(name: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray]:
    """Training rows with few labels, and test rows with theirs."""
    x, y = rows(name, seed)
    order = np.random.default_rng(1000 + seed).permutation(len(x))
    held = 500 if len(x) > 1000 else len(x) // 3
    test, train = order[:held], order[held:]
    known = max(round(0.05 * len(train)), 0 if len(x) > 500 else 15)
    few = np.where(np.arange(len(train)) < known, y[train], -1)
    return x[train], few, x[test], y[test]


def measure(name: str, method: str, splits: int) -> dict[str, Any]:
    """Errors, nats and time of a method on a data set."""
    errors, nats, seconds = [], [], []
    for seed in range(splits):
        x, few, test, truth = split(name, seed)
        model, known = METHODS[method](seed), few >= 0
        learns_from_all = method.startswith(("VAE", "LabelSpreading"))
        begun = time.process_time()
        model.fit(x, few) if learns_from_all else model.fit(x[known], few[known])
        seconds.append(time.process_time() - begun)
        errors.append(float((model.predict(test) != truth).mean()))
        probabilities = np.nan_to_num(model.predict_proba(test)).clip(1e-6)
        told = np.isin(truth, model.classes_)  # a class without any label has no probability
        probabilities = probabilities[told] / probabilities[told].sum(1, keepdims=True)
        nats.append(float(log_loss(truth[told], probabilities, labels=model.classes_)))
    means = {"error": np.mean(errors), "nats": np.mean(nats), "seconds": np.mean(seconds)}
    return {"data": name, "method": method, **{key: round(float(v), 3) for key, v in means.items()}, "errors": errors}


def main() -> None:
    """Print a line for each data set and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=[*TABLES, *PICTURES])
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.data:
        for method in arguments.methods:
            print(json.dumps(measure(name, method, arguments.splits)), flush=True)


if __name__ == "__main__":
    main()
