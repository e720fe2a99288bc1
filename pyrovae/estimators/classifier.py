"""VAEs as scikit-learn estimators."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyrovae.data import Dataset, Rows
from pyrovae.data.arrays import without_mask
from pyrovae.metrics import latent_means, stick_weights
from pyrovae.metrics.classification import class_probabilities
from pyrovae.pairs.registry import find_pair
from pyrovae.rng import forked
from pyrovae.runs import pick_device
from pyrovae.training import Trainer, TrainingData
from pyrovae.vae import VAE


class VAEClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):
    """A classifier for scikit-learn that also learns from rows without a label: the pair `semi-supervised`.

    Use it for real-valued columns where few rows have a label. The likelihood is normal, with a learned scale for each
    column. The classifier is kept from changing its answer around every row, labelled or not, so that classes change
    where there are few rows.

    Where rows of a class lie close together in the columns as they are, and nothing but classes is wanted, also try
    `sklearn.semi_supervised.LabelSpreading`, which needs a hundredth of the time: on scikit-learn's digits with 5 % of
    the labels it makes as many errors, on iris fewer, on pictures of Fashion-MNIST more. Where columns have other units
    each, or most do not tell the class, also try a tree, such as `sklearn.ensemble.ExtraTreesClassifier`, on the
    labelled rows. Compare them by cross-validation.

    Parameters
    ----------
    n_components : int, default 10
        Size of the latent. With sticks, the number of weights without the last one, the remainder of the stick.
    hidden : sequence of int, default (100,)
        Sizes of the hidden layers of each net.
    latent : {"gaussian", "stick-breaking"}, default "gaussian"
        Kind of the latent.
    concentration : float, default 5.0
        Concentration of the stick-breaking prior.
    classification_weight : float, default 1.0
        Weight of log q(y|x) of a labelled row, in units of number of rows / number of labelled rows.
    consistency_weight : float, default 1.0
        Weight of keeping q(y|x) the same around every row, in nats. 0 leaves it out. Many columns may need more than 1.
    consistency_radius : float, default 0.5
        Distance within which, in units of the median distance of a row to its fifth nearest other row.
    dropout : float, default 0.0
        Probability of dropping a hidden unit of the classifier in training.
    num_nets : int, default 3
        Number of VAEs that are trained, each from weights and draws of its own. The probabilities are the means of
        theirs: fewer errors, and less certain ones, in so many times the time.
    epochs : int, default 100
        Passes over the rows.
    lr : float, default 0.003
        Learning rate at the start. It falls to 0 as a cosine.
    batch_size : int, default 100
        Rows per step.
    unlabelled : Any, default -1
        The entry of `y` that means an unknown label, such as a number, None or NaN. It is not a class.
    random_state : int, RandomState or None, default None
        Seed of initial weights and training. None gives another result each time.
    verbose : bool, default False
        Whether to show a progress bar for each VAE.
    device : str, default "cpu"
        "cpu", "cuda" or "auto".

    Attributes
    ----------
    classes_ : array
        The classes, sorted.
    vaes_ : list of VAE
        The trained VAEs, in float64.
    vae_ : VAE
        The first of them, whose latents `transform` returns.
    n_iter_ : int
        Number of epochs that were run, of each.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : array of str
        Names of the columns, if the data had names.

    Raises
    ------
    ValueError
        In `fit`: scikit-learn refuses the data, no row has a label, all labels are the same, or an option is out of
        range.

    Notes
    -----
    Probabilities are means of q(y|x) over the VAEs, computed in float64. The answer for a row does not depend on the
    other rows.

    Columns are centred, and divided by their standard deviation or by a quarter of their range, whichever is larger.
    So a column that is nearly always the same, as a pixel at the margin of a picture, does not count as much as others.

    References
    ----------
    D. Kingma, D. Rezende, S. Mohamed and M. Welling (2014), "Semi-supervised learning with deep generative models". T.
    Miyato, S. Maeda, M. Koyama and S. Ishii (2018), "Virtual adversarial training: a regularization method for
    supervised and semi-supervised learning".

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(90, centers=3, random_state=0, cluster_std=0.5)
    >>> some = np.where(np.arange(90) < 12, y, -1)
    >>> classifier = VAEClassifier(n_components=2, hidden=(16,), lr=0.02, num_nets=1, random_state=0).fit(X, some)
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
        consistency_weight: float = 1.0,
        consistency_radius: float = 0.5,
        dropout: float = 0.0,
        num_nets: int = 3,
        epochs: int = 100,
        lr: float = 3e-3,
        batch_size: int = 100,
        unlabelled: Any = -1,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        device: str = "cpu",
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.latent = latent
        self.concentration = concentration
        self.classification_weight = classification_weight
        self.consistency_weight = consistency_weight
        self.consistency_radius = consistency_radius
        self.dropout = dropout
        self.num_nets = num_nets
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.unlabelled = unlabelled
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike) -> VAEClassifier:
        """Learn from labelled and unlabelled rows.

        Parameters
        ----------
        X : array-like, shape ``[N, D]``
            The rows, at least 2.
        y : array-like, shape ``[N]``
            Their labels, `unlabelled` where there is none.

        Returns
        -------
        VAEClassifier
            This classifier.
        """
        X, labels = self._check(X, y)
        self._scaler = StandardScaler().fit(X)
        self._scaler.scale_ = np.maximum(self._scaler.scale_, np.ptp(X, axis=0) / 4)
        x = torch.as_tensor(self._scaler.transform(X), dtype=torch.float32)
        split = Rows(x, torch.as_tensor(labels))
        dataset = Dataset("rows", split, split, split, "real")
        if not isinstance(self.num_nets, numbers.Integral) or self.num_nets < 1:
            raise ValueError(f"num_nets must be a whole number, at least 1, got {self.num_nets!r}")
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=self.num_nets)
        self.vaes_: list[VAE] = [self._trained(dataset, int(seed)) for seed in seeds]
        self.vae_: VAE = self.vaes_[0]
        return self

    def _trained(self, dataset: Dataset, seed: int) -> VAE:
        with forked():
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
            progress=self.verbose,
        )
        self.n_iter_ = len(trainer.fit(vae, TrainingData(dataset.train)).rows)
        return vae.double()

    def predict(self, X: ArrayLike) -> NDArray:
        """Return the most probable class of every row, shape ``[N]``."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of the classes, in the order of `classes_`, shape ``[N, num_classes]``."""
        x = self._rows(X)
        return torch.stack([class_probabilities(vae, x) for vae in self.vaes_]).mean(0).numpy()

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of rows whose class is predicted.

        Parameters
        ----------
        X : array-like, shape ``[N, D]``
            The rows.
        y : array-like, shape ``[N]``
            Their labels.
        sample_weight : array-like, shape ``[N]``, optional
            Weights of the rows.

        Raises
        ------
        ValueError
            If a row has no label, because nothing tells whether its prediction is right.
        """
        if y is not None:
            y = without_mask(y)
            given = column_or_1d(np.asarray(y, dtype=object) if isinstance(y, list | tuple) else np.asarray(y))
            missing = int(self._unknown(given).sum())
            if missing:
                raise ValueError(
                    f"{missing} of {len(given)} rows have no label ({self.unlabelled!r}), so nothing tells whether "
                    "their prediction is right; leave these rows out of score"
                )
        return float(super().score(X, y, sample_weight))

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the mean of the latent of every row given its most probable class, shape ``[N, n_components]``.

        With sticks it is the mean of the weights, without the last one, which is 1 minus the others.
        """
        label = torch.as_tensor(self.predict_proba(X).argmax(1))
        x = self._rows(X)
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
            consistency_weight=self.consistency_weight,
            consistency_radius=self.consistency_radius,
            dropout=self.dropout,
            **size[self.latent],
        )

    def _check(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray, NDArray[np.int64]]:
        """Rows and class numbers, -1 where there is no label."""
        if y is None:
            raise ValueError("VAEClassifier requires y to be passed, but the target y is None")
        rows: NDArray = validate_data(self, without_mask(X), dtype=np.float64, ensure_min_samples=2)
        y = without_mask(y)
        if isinstance(y, list | tuple) and any(isinstance(label, str) for label in y):
            y = np.asarray(y, dtype=object)  # numpy would make texts of what is none, such as -1 and NaN
        elif isinstance(kind := getattr(y, "dtype", None), pd.api.extensions.ExtensionDtype) and kind.kind in "biu":
            y = np.asarray(y, dtype=object)  # scikit-learn would make floats of integers and booleans of pandas
        given: NDArray = column_or_1d(y, warn=True)
        if len(given) != len(rows):
            raise ValueError(
                f"X has {len(rows)} rows and y {len(given)} labels; found input variables of inconsistent lengths"
            )
        unknown = self._unknown(given)
        known = given[~unknown]
        if known.dtype == object:
            known = _of_one_type(known)
        assert_all_finite(known, input_name="y")
        if not len(known):
            raise ValueError(f"no row has a label: all entries of y are {self.unlabelled!r}")
        check_classification_targets(known)
        encoder = LabelEncoder().fit(known)
        self.classes_ = encoder.classes_
        if len(self.classes_) < 2:
            raise ValueError(f"the labels must be of at least 2 classes, got one class: {self.classes_[0]!r}")
        labels = np.full(len(given), -1, dtype=np.int64)
        labels[~unknown] = encoder.transform(known)
        return rows, labels

    def _unknown(self, y: NDArray) -> NDArray[np.bool_]:
        missing = self.unlabelled
        if missing is None or pd.isna(missing):
            return np.asarray(pd.isna(y), dtype=bool)
        if y.dtype.kind in "US" and not isinstance(missing, str):  # texts are never equal to a number
            if str(missing) in y:
                raise ValueError(
                    f"y is an array of texts and holds {str(missing)!r}, which is no {missing!r}; give an array of "
                    f"objects, np.array(labels, dtype=object), or unlabelled={str(missing)!r}"
                )
            return np.zeros(len(y), dtype=bool)
        return np.array([not pd.isna(label) and label == missing for label in y], dtype=bool)

    def _rows(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        return torch.as_tensor(
            self._scaler.transform(validate_data(self, without_mask(X), dtype=np.float64, reset=False))
        )


def _of_one_type(labels: NDArray) -> NDArray:
    """Labels that were objects, as texts, numbers or booleans, whichever they are.

    Raises
    ------
    ValueError
        If they are of several types, or of another one, or one is missing.
    """
    if pd.isna(labels).any():
        raise ValueError(
            f"Input y contains NaN: {labels[pd.isna(labels)][0]!r} is among the labels; say unlabelled=None if that "
            "means that a row has none"
        )
    kinds: dict[str, Any] = {"texts": str, "booleans": (bool, np.bool_), "numbers": Real}
    for kind, types in kinds.items():
        if all(isinstance(label, types) and (kind != "numbers" or not isinstance(label, bool)) for label in labels):
            return np.array(labels.tolist())
    found = sorted({type(label).__name__ for label in labels})
    raise ValueError(f"the labels must be all texts, all numbers or all booleans, got {' and '.join(found)}")
