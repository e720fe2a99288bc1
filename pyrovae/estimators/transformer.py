"""The transformer: latents of tables of mixed types, densities and new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.utils.validation import check_array, check_is_fitted

from pyrovae.data.rows import slices
from pyrovae.estimators.table_estimator import TableEstimator, latent_dim
from pyrovae.estimators.table_model import TableModel
from pyrovae.estimators.table_options import check_frame, raw_columns
from pyrovae.infer.imputation import Mixture
from pyrovae.pairs import table_defaults as defaults

_ROWS_AT_ONCE = 4096


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TableEstimator):
    """A transformer for scikit-learn that turns rows of tables of mixed types into a few real numbers, and back.

    Use it for tables of numbers, categories, ordered levels, bools and dates, complete or not: to see or cluster rows,
    as features of another model, to find unlikely rows by their density, or to draw new rows. To complete a table, use
    `VAEImputer`.

    Parameters
    ----------
    n_components : int, default 10
        Size of the latent: the number of columns that `transform` returns. Take 2 for a picture.
    hidden : sequence of int, default (128, 128)
        Sizes of the hidden layers of encoder and decoder.
    kinds : mapping of str to str, optional
        Kinds of columns by name, where they are not to be inferred, see `Schema.infer`.
    levels : mapping of str to sequence, optional
        Levels of columns by name, in their order.
    ranges : mapping of str to tuple of two, optional
        Ranges of columns by name. Values of new rows stay within; by default, within the observed range.
    likelihoods : mapping of str to str, optional
        Likelihoods by the name or the kind of columns: "normal", "student-t", "log-normal", "gamma", "poisson",
        "negative-binomial", "bernoulli", "categorical", "ordered".
    parameterization : {"natural", "canonical"}, default "canonical"
        Which parameters of its families the decoder gives.
    kl_weight : float, default 1.0
        Weight of the KL divergence in training. At 1 a bound on the log-density is maximised, so that densities and
        draws are those of one model. Below 1 the latent holds more of the row, as suits `inverse_transform`.
    num_particles : int, default 10
        Draws of the latent for each row in training. More make the bound tighter, so that densities and conditional
        draws are nearer to the data, and training slower. 1 is the evidence lower bound.
    encoder : {"dense", "set"}, default "dense"
        Dense layers on entries and mask, or a sum over the observed entries.
    prior : {"standard-normal", "mixture", "vamp"}, default "standard-normal"
        Prior of the latent.
    scaling : {"standardize", "normalize", "none"}, default "standardize"
        How numbers are scaled.
    scale_floor : float, default 0.02
        Smallest standard deviation of a number, in units of its column's.
    epochs : int, optional
        Passes over the rows. None chooses them by the number of rows.
    lr : float, default 0.002
        Learning rate at the start. It falls to 0 as a cosine.
    batch_size : int, default 256
        Rows per step.
    random_state : int, RandomState or None, default None
        Seed of training, densities and draws. None gives another result each time.
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
    The latent of a row is the mean of q(z|x), given its observed entries. It does not depend on the other rows, and is
    computed in float64. Columns without any observed value, or with a single one, count for nothing.

    In training, observed entries are hidden from the encoder, and scored. With one draw of the latent the bound is then
    loose, and numbers get too large a spread. Hence the importance-weighted bound, with doubly reparameterised
    gradients.

    `score_samples` is the density under the prior of the latent. `sample` without given values draws latents from a
    mixture of normals that is fitted to those of the training rows, which is nearer to the table than the prior.

    References
    ----------
    P.-A. Mattei and J. Frellsen (2019), "MIWAE: deep generative modelling and imputation of incomplete data sets".
    G. Tucker et al. (2019), "Doubly reparameterized gradient estimators for Monte Carlo objectives". A. Nazabal et al.
    (2020), "Handling incomplete heterogeneous data using VAEs".

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"size": [1.2, 3.4, None, 2.2] * 20, "colour": ["red", None, "blue", "red"] * 20})
    >>> transformer = VAETransformer(n_components=2, hidden=(16,), epochs=5, random_state=0).fit(frame)
    >>> transformer.transform(frame).shape, transformer.inverse_transform([[0.0, 1.0]]).columns.tolist()
    ((80, 2), ['size', 'colour'])
    >>> transformer.sample(3, given={"colour": "blue"})["colour"].tolist()
    ['blue', 'blue', 'blue']
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden: Sequence[int] = (128, 128),
        kinds: Mapping[str, str] | None = None,
        levels: Mapping[str, Sequence[Any]] | None = None,
        ranges: Mapping[str, tuple[Any, Any]] | None = None,
        likelihoods: Mapping[str, str] | None = None,
        parameterization: str = defaults.PARAMETERIZATION,
        kl_weight: float = 1.0,
        num_particles: int = 10,
        encoder: str = defaults.ENCODER,
        prior: str = defaults.PRIOR,
        scaling: str = "standardize",
        scale_floor: float = defaults.SCALE_FLOOR,
        epochs: int | None = None,
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
        self.num_particles = num_particles
        self.encoder = encoder
        self.prior = prior
        self.scaling = scaling
        self.scale_floor = scale_floor
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Find the latents of rows. Nothing is fitted again.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows, of the columns that `fit` saw, with missing entries. A frame may have them in another order. A
            level that `fit` did not see counts as missing.

        Returns
        -------
        ndarray, shape ``[N, n_components]``
            Means of the latents. `set_output(transform="pandas")` makes a DataFrame of them.
        """
        check_is_fitted(self)
        return self.model_.latents(*self.model_.encoded(check_frame(self, X, reset=False), unseen="missing"))

    def inverse_transform(self, Z: ArrayLike) -> Any:
        """Find the rows that belong to latents.

        Parameters
        ----------
        Z : array-like, shape ``[N, n_components]``
            Latents.

        Returns
        -------
        DataFrame or ndarray, shape ``[N, D]``
            The mean of numbers, the median of ordered levels and the most probable of other levels. It is a frame with
            the dtypes of `fit` if its columns had names, else an array.
        """
        check_is_fitted(self)
        z = check_array(Z, dtype=np.float64, estimator=self, input_name="Z")
        if z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z must have shape [N, {self._n_features_out}], one column for each latent, got {z.shape}"
            )
        frame = self.schema_.decode(_decoded(self.model_, z))
        return frame if hasattr(self, "feature_names_in_") else raw_columns(frame)

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log-density of the observed entries of rows, see `score_samples`. Higher is better.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows.
        y : None
            Not used.

        Returns
        -------
        float
            In nats for each row.
        """
        return float(self.score_samples(X).mean())

    @property
    def _n_features_out(self) -> int:
        return latent_dim(self.model_)


@torch.no_grad()
def _decoded(model: TableModel, latents: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best single values of all columns of the schema at latents, ``[N, D]``, in their units."""
    pair: Any = model.vae.model
    z, ordered, found = torch.tensor(latents, device=model.vae.device), model.codec.ordered, []
    for part in slices(len(z), _ROWS_AT_ONCE):
        raw = pair.decoder(z[part]).unsqueeze(0)
        found.append(Mixture(pair.likelihood, raw, raw.new_ones(raw.shape[:2])).points(ordered.to(raw.device)))
    return model.codec.complete(torch.cat(found).cpu().numpy())
