"""VAEs as scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyrovae.data import Dataset, Rows
from pyrovae.metrics import latent_means, stick_weights
from pyrovae.metrics.classification import class_probabilities
from pyrovae.pairs.registry import find_pair
from pyrovae.runs import pick_device
from pyrovae.training import Trainer, TrainingData
from pyrovae.vae import VAE


class VAEClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):
    """A classifier that also learns from rows without a label: the pair `semi-supervised` on real-valued columns.

    Columns are standardised and given the pair a normal likelihood with a learned scale for each; everything is as in
    `pyrovae train semi-supervised`, whose options the parameters are. Probabilities are those of q(y|x), in float64;
    the answer for a row does not depend on other rows.

    Args:
        n_components: size of the latent; with sticks the number of weights beside the remainder of the stick.
        hidden: hidden layers of each net.
        latent: "gaussian" or "stick-breaking".
        concentration: of the stick-breaking prior.
        classification_weight: weight of log q(y|x) of a labelled row, times the number of rows over that of labelled
            ones.
        dropout: probability of dropping a hidden unit of the classifier in training.
        epochs: passes over the rows.
        lr: learning rate.
        batch_size: rows a step.
        unlabelled: the entry of `y` that says that a label is unknown: a number, None or NaN. It is no class.
        random_state: seed of initial weights and training: a number, a `RandomState`, or None for another each time.
        device: "cpu", "cuda" or "auto".

    Attributes:
        classes_: the classes, sorted.
        vae_: the trained VAE, in float64.
        n_features_in_: number of columns.
        feature_names_in_: names of the columns, where the data have had some.

    Raises:
        ValueError: for data that scikit-learn refuses, and if no row has a label or all have the same one.

    Reference: Kingma, Rezende, Mohamed and Welling (2014), Semi-supervised Learning with Deep Generative Models.

    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(90, centers=3, random_state=0, cluster_std=0.5)
    >>> some = np.where(np.arange(90) < 12, y, -1)
    >>> classifier = VAEClassifier(n_components=2, hidden=(16,), lr=0.02, random_state=0).fit(X, some)
    >>> classifier.predict(X).shape, classifier.transform(X).shape, float(classifier.score(X, y)) > 0.9
    ((90,), (90, 2), True)
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden: Sequence[int] = (100,),
        latent: str = "gaussian",
        concentration: float = 5.0,
        classification_weight: float = 1.0,
        dropout: float = 0.0,
        epochs: int = 100,
        lr: float = 3e-3,
        batch_size: int = 100,
        unlabelled: Any = -1,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.latent = latent
        self.concentration = concentration
        self.classification_weight = classification_weight
        self.dropout = dropout
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.unlabelled = unlabelled
        self.random_state = random_state
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike) -> VAEClassifier:
        """Learn from rows `[N, D]` and their labels `[N]`, `unlabelled` where there is none."""
        X, labels = self._check(X, y)
        self._scaler = StandardScaler().fit(X)
        x = torch.as_tensor(self._scaler.transform(X), dtype=torch.float32)
        split = Rows(x, torch.as_tensor(labels))
        dataset = Dataset("rows", split, split, split, "real")
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            vae = self._pair(dataset).to(pick_device(self.device))
        trainer = Trainer(
            objective="enum",
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            lr_schedule="cosine",
            monitor="loss",
            seed=seed,
            progress=False,
        )
        self.n_iter_ = len(trainer.fit(vae, TrainingData(split)).rows)
        self.vae_ = vae.double()
        return self

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class of every row, `[N]`."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """The probabilities of the classes, in the order of `classes_`, `[N, classes]`."""
        x = self._rows(X)
        return class_probabilities(self.vae_, x).numpy()

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """The mean of the latent, or of the weights of the stick, of every row given its most probable class.

        `[N, n_components]`; the remainder of the stick, which is 1 less the other weights, is left out.
        """
        x = self._rows(X)
        label = class_probabilities(self.vae_, x).argmax(1)
        if self.latent == "stick-breaking":
            return stick_weights(self.vae_, x, y=label)[:, :-1].numpy()
        # Behind the probabilities of the classes, which are one for the given label.
        return latent_means(self.vae_, x, y=label)[:, len(self.classes_) :].numpy()

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def _pair(self, dataset: Dataset) -> VAE:
        size = {
            "gaussian": {"latent_dim": self.n_components},
            "stick-breaking": {"truncation": self.n_components + 1},
        }
        if self.latent not in size:
            raise ValueError(f"latent must be one of {', '.join(size)}, got {self.latent!r}")
        return find_pair("semi-supervised").build(
            dataset,
            latent=self.latent,
            hidden=tuple(self.hidden),
            concentration=self.concentration,
            classification_weight=self.classification_weight,
            dropout=self.dropout,
            **size[self.latent],
        )

    def _check(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray, NDArray[np.int64]]:
        """Rows and class numbers, -1 where there is no label."""
        if y is None:
            raise ValueError("VAEClassifier requires y to be passed, but the target y is None")
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        if isinstance(y, list | tuple) and any(isinstance(label, str) for label in y):
            y = np.asarray(y, dtype=object)  # numpy would make texts of what is none, such as -1 and NaN
        y = column_or_1d(y, warn=True)
        if len(y) != len(X):
            raise ValueError(
                f"X has {len(X)} rows and y {len(y)} labels; found input variables of inconsistent lengths"
            )
        unknown = self._unknown(y)
        known = y[~unknown]
        assert_all_finite(known, input_name="y")
        if not len(known):
            raise ValueError(f"no row has a label: all entries of y are {self.unlabelled!r}")
        if known.dtype == object and type_of_target(known) == "unknown":
            known = known.astype(str)
        check_classification_targets(known)
        encoder = LabelEncoder().fit(known)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(f"the labels must be of at least 2 classes, got one class: {self.classes_[0]!r}")
        labels = np.full(len(y), -1, dtype=np.int64)
        labels[~unknown] = encoder.transform(known)
        return X, labels

    def _unknown(self, y: NDArray) -> NDArray[np.bool_]:
        missing = self.unlabelled
        if missing is None or pd.isna(missing):
            return np.asarray(pd.isna(y), dtype=bool)
        if y.dtype.kind in "US" and not isinstance(missing, str):
            return np.zeros(len(y), dtype=bool)  # texts are never equal to a number
        return np.array([not pd.isna(label) and label == missing for label in y], dtype=bool)

    def _rows(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        return torch.as_tensor(self._scaler.transform(validate_data(self, X, dtype=np.float64, reset=False)))
