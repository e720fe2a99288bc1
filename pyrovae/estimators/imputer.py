"""The imputer: completes tables of mixed types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted, check_scalar
from torch import Tensor

from pyrovae.data.frames import as_frame
from pyrovae.estimators.prediction import Sampling
from pyrovae.estimators.table_estimator import TableEstimator, seed_of
from pyrovae.estimators.table_model import draws_for
from pyrovae.estimators.table_options import as_given, check_frame, is_arrow, raw_columns
from pyrovae.metrics.imputed_rows import NUM_DRAWS
from pyrovae.pairs import table_defaults as defaults

MOST_DRAWS = 20_000
"""Draws of each entry for an interval, unless more are asked for."""


class VAEImputer(OneToOneFeatureMixin, TableEstimator):
    """An imputer for scikit-learn that completes tables of mixed types by a variational autoencoder.

    Use it for tables of numbers, categories, ordered levels, bools and dates with missing values. It fits one joint
    model of all columns, from incomplete rows. A row is completed by what the model says of it given its observed
    entries, so it can also draw several completions, and give intervals.

    Parameters
    ----------
    n_components : int, default 20
        Size of the latent.
    hidden : sequence of int, default (256, 256)
        Sizes of the hidden layers of encoder and decoder.
    kinds : mapping of str to str, optional
        Kinds of columns by name, where they are not to be inferred, see `Schema.infer`.
    levels : mapping of str to sequence, optional
        Levels of columns by name, in their order.
    ranges : mapping of str to tuple of two, optional
        Ranges of columns by name. Completed values stay within; by default, within the observed range.
    likelihoods : mapping of str to str, optional
        Likelihoods by the name or the kind of columns: "normal", "student-t", "log-normal", "gamma", "poisson",
        "negative-binomial", "bernoulli", "categorical", "ordered".
    parameterization : {"natural", "canonical"}, default "canonical"
        Which parameters of its families the decoder gives.
    kl_weight : float, default 0.02
        Weight of the KL divergence in training. Below 1 the latent holds more of the row, and imputation is better.
    encoder : {"dense", "set"}, default "dense"
        Dense layers on entries and mask, or a sum over the observed entries.
    prior : {"standard-normal", "mixture", "vamp"}, default "standard-normal"
        Prior of the latent.
    scaling : {"standardize", "normalize", "none"}, default "standardize"
        How numbers are scaled.
    scale_where : {"outside", "inside", "batch"}, default "outside"
        Where numbers are scaled: before they reach the nets; within the likelihood, whose densities are then in the
        units of the table; or there by the mean and standard deviation of each batch in training, with the scaling
        "standardize". The first two are the same up to rounding, and
        scores up to the noise of their samples.
    marginals : {"none", "quantile"}, default "none"
        "quantile" gives numbers the likelihood of that name, where `likelihoods` gives none: a normal seen through an
        increasing map of each column's own, with values that hold more than 5 % of the column, such as zeros, kept
        discrete. It suits skewed columns, and draws and intervals of them.
    balance : {"none", "lipschitz"}, default "none"
        "lipschitz" weighs the columns in training so that none outweighs others by the steepness of its likelihood.
    scale_floor : float, default 0.02
        Smallest standard deviation of a number, in units of its column's.
    layer : {"plain", "gated", "residual"}, default "plain"
        Kind of the hidden layers.
    dropout : float, default 0.0
        Probability of dropping a hidden unit of the encoder in training.
    num_nets : int, optional
        Nets that are trained, one after the other. A row is completed by their mixture. More are more accurate, and
        take so many times as long; `num_samples` is shared out among them. None takes five for small tables and one for
        large ones: about 7000 steps for all together.
    variants : sequence of mapping, default ({}, {"dropout": 0.2}, {"layer": "residual", "dropout": 0.2})
        Options that the nets differ in: `n_components`,
        `hidden`, `encoder`, `layer`, `dropout`, `kl_weight`, `lr`, `epochs`. The nets take them in turn. What the nets
        of a variant count is found on the entries that the training does not see.
    num_particles : int, default 1
        Draws of the latent for each row in training, which is then for the importance-weighted bound of MIWAE. 1 is the
        evidence lower bound. Take 20, with `kl_weight` 1, `weights="importance"` and 1000 `num_samples` or more.
    objective : {"mean-field", "iwae", "iwae-dreg"}, optional
        What training maximises. None takes "mean-field" for one particle, else "iwae-dreg", whose gradients of the
        encoder do not lose their signal with many particles.
    missingness : str or mapping of str to str, default "ignorable"
        What a missing entry depends on: for all columns, or by their names. "ignorable" is values missing at random.
        "self-masking" is for values that are missing because of what they are, such as large incomes;
        "self-masking-high" and "self-masking-low" where it is known that large, or small, numbers are missing more
        often. Needs `trees=False`, `num_nets=1`, and normal likelihoods of these numbers. See the notes.
    hiding : bool, optional
        Whether training hides observed entries from the encoder, and scores them all the same. None hides if all
        columns are ignorable.
    trees : bool, default True
        Whether boosted trees, one model a column, and a factor analyser of all columns count beside the VAE where they
        predict held-out entries better. More accurate on most tables, and slower. False is the VAE alone.
    num_samples : int, default 50
        Draws of the latent for each row.
    weights : {"none", "importance"}, default "none"
        Whether these draws count alike, or by their importance weights. Importance weights suit `kl_weight` 1.
    epochs : int, optional
        Passes over the rows. None chooses them by the number of rows.
    patience : int, optional
        Stop after so many epochs without a smaller error of the entries that the training does not see, and keep the
        weights of the best epoch. None trains for all epochs.
    lr : float, default 0.002
        Learning rate at the start. It falls to 0 as a cosine.
    batch_size : int, default 256
        Rows per step.
    random_state : int, RandomState or None, default None
        Seed of training and draws. None gives another result each time.
    verbose : bool, default False
        Whether to show a progress bar.
    device : str, default "cpu"
        "cpu", "cuda" or "auto".

    Attributes
    ----------
    schema_ : Schema
        What the columns hold. `schema_.report()` says why.
    model_ : TableModel
        The trained pair and its codec.
    history_ : History
        Loss of each epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : array of str
        Names of the columns, if the data had names.

    Notes
    -----
    A column without any observed value stays missing, and one with a single value gets that value. The answer for a
    row does not depend on the other rows: inference is in float64, and the draws of the latent use the same noise for
    every row.

    With `missingness`, the model also says how likely each entry is to be missing given its value: by a probit for
    numbers, by level for levels. What is imputed is moved accordingly, and may lie beyond the observed range. Whether
    an entry is missing because of its value cannot be seen in the data alone. It rests on the form of the model, so
    state a direction that you know. Nothing is held out to calibrate, and spreads are those of the model.

    For a number the imputed value is the mean, for an ordered level the median, for another level the most probable
    one. These minimise the squared error, the distance of levels, and the share of wrong levels.

    References
    ----------
    P.-A. Mattei and J. Frellsen (2019), "MIWAE: deep generative modelling and imputation of incomplete data sets",
    section 3. A. Nazabal et al. (2020), "Handling incomplete heterogeneous data using VAEs". A. Gorla et al. (2025),
    "CACTI" (copy masking). N. B. Ipsen, P.-A. Mattei and J. Frellsen (2021), "not-MIWAE" (`missingness`).

    Examples
    --------
    >>> frame = pd.DataFrame({"size": [1.2, 3.4, None, 2.2] * 20, "colour": ["red", None, "blue", "red"] * 20})
    >>> imputer = VAEImputer(n_components=2, hidden=(16,), epochs=5, random_state=0)
    >>> imputer.fit_transform(frame).isna().sum().sum()
    np.int64(0)
    """

    def __init__(
        self,
        n_components: int = defaults.LATENT_DIM,
        *,
        hidden: Sequence[int] = defaults.HIDDEN,
        kinds: Mapping[str, str] | None = None,
        levels: Mapping[str, Sequence[Any]] | None = None,
        ranges: Mapping[str, tuple[Any, Any]] | None = None,
        likelihoods: Mapping[str, str] | None = None,
        parameterization: str = defaults.PARAMETERIZATION,
        kl_weight: float = defaults.KL_WEIGHT,
        encoder: str = defaults.ENCODER,
        prior: str = defaults.PRIOR,
        scaling: str = "standardize",
        scale_where: str = "outside",
        marginals: str = "none",
        balance: str = "none",
        scale_floor: float = defaults.SCALE_FLOOR,
        layer: str = defaults.LAYER,
        dropout: float = defaults.DROPOUT,
        num_nets: int | None = defaults.NUM_NETS,
        variants: Sequence[Mapping[str, Any]] = defaults.VARIANTS,
        num_particles: int = 1,
        objective: str | None = None,
        missingness: str | Mapping[str, str] = "ignorable",
        hiding: bool | None = None,
        trees: bool = True,
        num_samples: int = 50,
        weights: str = "none",
        epochs: int | None = None,
        patience: int | None = None,
        lr: float = defaults.LR,
        batch_size: int = defaults.BATCH_SIZE,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        device: str = "cpu",
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.kinds = kinds
        self.levels = levels
        self.ranges = ranges
        self.likelihoods = likelihoods
        self.parameterization = parameterization
        self.kl_weight = kl_weight
        self.encoder = encoder
        self.prior = prior
        self.scaling = scaling
        self.scale_where = scale_where
        self.marginals = marginals
        self.balance = balance
        self.scale_floor = scale_floor
        self.layer = layer
        self.dropout = dropout
        self.num_nets = num_nets
        self.variants = variants
        self.num_particles = num_particles
        self.objective = objective
        self.missingness = missingness
        self.hiding = hiding
        self.trees = trees
        self.num_samples = num_samples
        self.weights = weights
        self.epochs = epochs
        self.patience = patience
        self.lr = lr
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def transform(self, X: ArrayLike) -> Any:
        """Complete rows: a copy in which missing entries have a value. Nothing is fitted again.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows, of the columns that `fit` saw. A frame may have them in another order.

        Returns
        -------
        DataFrame or ndarray, shape ``[N, D]``
            Of the kind of `X`, with its index and dtypes, and the columns in the order of `fit`. Observed entries are
            untouched. A level that `fit` did not see, and a number that its column cannot have, stay too, and count as
            missing when other entries are predicted.
            A table of polars or pyarrow comes back as one, unless `set_output` asks for another kind.
        """
        frame, x, mask, missing = self._encoded(X)
        values = self.model_.points(x, mask, Sampling(self.num_samples, self.weights, self._seed), missing)
        return self._filled(X, frame, values)

    def impute_draws(
        self, X: ArrayLike, num_draws: int = 20, random_state: int | np.random.RandomState | None = None
    ) -> list[Any]:
        """Several completions of the same rows, for multiple imputation; see `pool`.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows.
        num_draws : int, default 20
            How many.
        random_state : int, RandomState or None, default None
            Seed of the draws. None takes that of the training, so that calls repeat.

        Returns
        -------
        list of DataFrame or ndarray
            The completed tables. Missing entries of a row are drawn together: each from what is predicted of it, and
            all so that they go together as a factor analyser of the columns says (a Gaussian copula, which holds for
            numbers, ordered levels and levels of two). Rows are drawn independently of each other.
        """
        check_scalar(num_draws, "num_draws", Integral, min_val=1)
        check_is_fitted(self)
        seed = self._seed if random_state is None else seed_of(random_state)
        frame, x, mask, missing = self._encoded(X)
        drawn = self.model_.draws(x, mask, num_draws, Sampling(self.num_samples, self.weights, seed), missing=missing)
        return [self._filled(X, frame, values) for values in drawn]

    def intervals(self, X: ArrayLike, coverage: float = 0.9, num_draws: int | None = None) -> tuple[Any, Any]:
        """Intervals of the missing entries that hold the true value with some probability.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows.
        coverage : float, default 0.9
            That probability, in (0, 1).
        num_draws : int, optional
            Draws of each entry, of which two are the ends. None takes 200, or as many as a coverage beyond 0.99 needs:
            2 / (1 - coverage). More give ends that vary less. A draw takes one of `num_samples` latents, of which such
            coverages need more, too.

        Returns
        -------
        low, high : DataFrame or ndarray, shape ``[N, D]``
            The ends. They are the entry itself where it is observed. Levels without an order have no interval: they
            are missing.

        Raises
        ------
        ValueError
            For a coverage outside of (0, 1), one that so few draws do not have, and one that needs more than 20 000.
        """
        if not (isinstance(coverage, Real) and 0 < coverage < 1):
            raise ValueError(f"coverage must be between 0 and 1, got {coverage!r}")
        count = max(NUM_DRAWS, draws_for(coverage)) if num_draws is None else num_draws
        if num_draws is None and count > MOST_DRAWS:
            raise ValueError(
                f"coverage {coverage:g} needs {count} draws of each entry, which take long; give num_draws={count}"
            )
        check_scalar(count, "num_draws", Integral, min_val=2)
        frame, x, mask, missing = self._encoded(X)
        sampling = Sampling(self.num_samples, self.weights, self._seed)
        (ends,) = self.model_.intervals(x, mask, [coverage], count, sampling, missing)
        nominal = [c.kind in ("categorical", "binary") for c in self.schema_.columns]
        ends[:, :, nominal] = np.nan
        low, high = (self._filled(X, frame, end) for end in ends)
        return low, high

    def _encoded(self, X: ArrayLike) -> tuple[pd.DataFrame, Tensor, Tensor, Tensor | None]:
        """Rows as a frame, and scaled with their mask, and where nothing was recorded."""
        check_is_fitted(self)
        frame = check_frame(self, X, reset=False)
        return frame, *self.model_.encoded(frame, unseen="missing"), self.model_.never_recorded(frame)

    def _filled(self, X: Any, frame: pd.DataFrame, values: NDArray) -> Any:
        filled = self.schema_.fill(frame, values)
        if not isinstance(X, pd.DataFrame) and not is_arrow(X):
            return raw_columns(filled)
        names = list(X.columns) if isinstance(X, pd.DataFrame) else as_frame(X).columns
        by_place = not hasattr(self, "feature_names_in_") or set(names) != set(self.feature_names_in_)
        filled = filled.set_axis(names, axis=1) if by_place else filled
        wanted = _get_output_config("transform", self)["dense"]
        return as_given(filled, X) if is_arrow(X) and wanted == "default" else filled
