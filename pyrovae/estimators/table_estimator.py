"""What estimators of incomplete tables share: training, densities, new rows, and folders."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_scalar

from pyrovae.data.schema import Schema
from pyrovae.data.tables import TableCodec
from pyrovae.estimators.chunk_training import ChunkTraining
from pyrovae.estimators.prediction import Sampling
from pyrovae.estimators.table_model import TableModel
from pyrovae.estimators.table_options import as_plain, check_frame, fit_options, raw_columns
from pyrovae.estimators.table_training import train_table
from pyrovae.runs import pick_device
from pyrovae.training import History

_NOT_WRITTEN = ("random_state", "verbose", "device")
_OF_ANSWERS = ("num_samples", "weights")


class TableEstimator(TransformerMixin, BaseEstimator, ABC):
    """An estimator of tables of mixed types with missing entries. A class of its own has options and `transform`."""

    schema_: Schema
    model_: TableModel
    history_: History | None
    n_iter_: int
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    random_state: Any
    device: str
    _seed: int
    _chunks: ChunkTraining | None
    _begun_with: dict[str, Any]

    @abstractmethod
    def transform(self, X: ArrayLike) -> Any:
        """What the estimator makes of rows."""

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn the joint distribution of the columns from the observed entries.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows, at least 2, with missing entries (NaN, None, `pd.NA`).
        y : None
            Not used. Give a target as a column of `X`.

        Returns
        -------
        Self
            This estimator.
        """
        self._chunks = None
        frame = check_frame(self, X, reset=True)
        self._seed = seed_of(self.random_state)
        schema, options = fit_options(self, frame)
        self.schema_ = schema.without_unobserved()
        self.model_ = train_table(
            frame, self.schema_, seed=self._seed, device=pick_device(self.device), settings=self._settings(), **options
        )
        self.history_ = self.model_.history
        self.n_iter_ = 0 if self.history_ is None else len(self.history_.rows)
        return self

    def partial_fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Learn from a chunk of rows, and go on with what was learned from the chunks before.

        Use it for rows that do not fit into memory, or that come over time. Chunks of some thousand rows, each a random
        part of the table, suit it. `fit` begins anew.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows of the chunk, at least 2 in the first one.
        y : None
            Not used.

        Returns
        -------
        Self
            This estimator, which can be used after every call.

        Raises
        ------
        ValueError, TypeError
            For rows that do not suit the schema (see below), and options that are for `fit` alone (`patience`,
            `balance`, and more nets than one). Nothing has changed then.

        Warns
        -----
        UserWarning
            After `fit` or `load`, which did not keep what it takes to go on: it begins anew then.

        Notes
        -----
        The first chunk tells the schema and the scaling, unless `kinds`, `levels` and `ranges` declare more than it
        holds. A later chunk with another level, with another value of a column that was constant or without any, or
        with a number that the kind of a column cannot have, is refused. Ranges that were not declared grow with the
        values; dates may be earlier ones too, unless their likelihood is one of positive numbers. The first chunk needs
        a value of each column that is declared to hold numbers. Options of the training cannot change later.

        A call does `epochs` passes over its rows; None does as many as make about 500 steps, at least 1 and at most 20.
        The optimizer keeps its state, and the learning rate falls from `lr` to 0 in each call.

        Up to 20 000 rows, drawn at random from all chunks, are kept. On them trees are fitted again in each call, if
        `trees` is set, which takes most of its time; on their entries that no training saw trees are weighed and
        spreads calibrated, as `fit` does on all rows.
        """
        chunks = getattr(self, "_chunks", None)
        if chunks is None and hasattr(self, "model_"):
            warnings.warn("partial_fit begins anew: what fit or load left is dropped", UserWarning, stacklevel=2)
        frame = check_frame(self, X, reset=chunks is None)
        if chunks is None:
            seed = seed_of(self.random_state)
            schema, options = fit_options(self, frame)
            device = pick_device(self.device)
            chunks = ChunkTraining(frame, schema, options, seed=seed, ranges=self.ranges or {}, device=device)
            self._seed, self._begun_with = seed, self._of_training()
        now = self._of_training()
        if changed := [name for name, value in self._begun_with.items() if now[name] != value]:
            raise ValueError(
                f"{', '.join(changed)} cannot change after the first chunk; begin anew with fit or a clone"
            )
        chunks.add(frame)
        self._chunks, self.schema_, self.model_ = chunks, chunks.codec.schema, chunks.model(self._settings())
        self.history_, self.n_iter_ = chunks.history, len(chunks.history.rows)
        return self

    def score_samples(self, X: ArrayLike, num_samples: int = 500) -> NDArray[np.float64]:
        """Log-density of the observed entries of each row, in nats and in the units of the table.

        Parameters
        ----------
        X : DataFrame or array-like, shape ``[N, D]``
            The rows. A level that `fit` did not see counts as missing; a row with a number that its column cannot have,
            such as a negative count, has the density 0.
        num_samples : int, default 500
            Importance samples for each row.

        Returns
        -------
        ndarray, shape ``[N]``
            Estimates of the log-densities, which are lower bounds on average over seeds; 0 for a row without any
            observed entry. They are those of the first net alone, under the prior of its latent, also if other nets and
            trees complete rows with it. The noise of a row depends on what the row holds, so that an estimate depends
            on no other row, and errors of unlike rows are independent. After a training with a small `kl_weight` the
            guide is too narrow, so wider draws are mixed in; estimates stay low by some nats for tables of many
            columns, also with many samples. Take 1 if densities matter.

        Notes
        -----
        The likelihood of positive and count columns is normal unless `likelihoods` says otherwise. Part of its density
        lies on values that such a column cannot have, so that the rest integrates to less than 1, and at a count it is
        a density and no probability. With ``{"positive": "log-normal", "count": "negative-binomial"}`` densities
        integrate to 1 and counts have probabilities.
        """
        check_is_fitted(self)
        check_scalar(num_samples, "num_samples", Integral, min_val=1)
        frame = check_frame(self, X, reset=False)
        x, mask = self.model_.encoded(frame, unseen="missing")
        missing = self.model_.never_recorded(frame)
        found = self.model_.log_prob(x, mask, Sampling(num_samples, seed=self._seed), missing)
        found[impossible_rows(self.model_.codec, frame, mask.cpu().numpy())] = -np.inf
        return found

    def sample(
        self,
        num_samples: int,
        given: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw new rows, perhaps with given values of some columns.

        Parameters
        ----------
        num_samples : int
            How many.
        given : mapping of str to object, optional
            Values of columns by name; the columns of an array are x0, x1, ... The other columns are drawn from their
            joint distribution given these values.
        random_state : int, RandomState or None, default None
            Seed of the draws. None takes that of the training, so that calls repeat.

        Returns
        -------
        DataFrame or ndarray, shape ``[num_samples, D]``
            A frame with the dtypes of `fit` if its columns had names, else an array. Rows are those of the first net
            alone, whose latents are drawn from where those of the training rows lie, and not from the prior.

        Raises
        ------
        ValueError, TypeError
            For a number below 1, an unknown column, and a value that its column cannot have.
        """
        check_is_fitted(self)
        seed = self._seed if random_state is None else seed_of(random_state)
        return sample_rows(self.model_, num_samples, given, seed, as_frame=hasattr(self, "feature_names_in_"))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the estimator to a folder that `load` and the command line read. No pickle.

        Parameters
        ----------
        folder : str or Path
            The folder, made if it does not exist.
        overwrite : bool, default False
            Whether a run that it holds is replaced.

        Raises
        ------
        CheckpointError
            The folder holds a run, and `overwrite` is False.
        """
        check_is_fitted(self)
        self.model_.save(folder, overwrite=overwrite, settings=self._settings())

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Self:
        """Read an estimator that `save` wrote, or a run of the pair `tabular`.

        Parameters
        ----------
        folder : str or Path
            The folder.
        device : str, default "cpu"
            "cpu", "cuda" or "auto".

        Returns
        -------
        Self
            The fitted estimator. It has no training history.

        Raises
        ------
        CheckpointError
            The folder holds no run, or a damaged one.
        ValueError
            It holds a pair that is for no table.
        """
        model, settings = TableModel.load(folder, pick_device(device))
        # A run of the command line writes no settings.
        found = {"n_components": latent_dim(model), "trees": model.predictor.trees is not None, **settings}
        options = cls._get_param_names()
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items() if name in options}
        estimator = cls(**given)
        estimator._seed = int(settings.get("seed", 0))
        estimator.schema_, estimator.model_, estimator.history_ = model.codec.schema, model, None
        estimator.n_features_in_ = len(model.codec.schema)
        if settings.get("has_names", True):
            estimator.feature_names_in_ = model.codec.schema.feature_names
        return estimator

    def _of_training(self) -> dict[str, Any]:
        """Options that the training has used, as JSON has them."""
        given = self.get_params(deep=False).items()
        return {name: as_plain(value) for name, value in given if name not in (*_NOT_WRITTEN, *_OF_ANSWERS)}

    def _settings(self) -> dict[str, Any]:
        """Arguments of the constructor, ready for JSON, and the seed."""
        given = {name: value for name, value in self.get_params(deep=False).items() if name not in _NOT_WRITTEN}
        return {**as_plain(given), "seed": self._seed, "has_names": hasattr(self, "feature_names_in_")}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """A seed of what scikit-learn takes for random states."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def latent_dim(model: TableModel) -> int:
    """The size of the latent of a model."""
    prior: Any = model.vae.model.prior
    return int(prior.latent_dim)


def impossible_rows(codec: TableCodec, frame: pd.DataFrame, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows hold a number that its column cannot have, ``[N]``: those that `encode` took for missing."""
    columns = [codec.schema.columns[position] for position in codec.modelled]
    given = np.stack([frame[column.name].notna().to_numpy(dtype=bool) for column in columns], 1)
    numbers = np.array([column.levels is None for column in columns])
    return (given & ~mask & numbers).any(1)


def sample_rows(
    model: TableModel, num_samples: int, given: Mapping[str, Any] | None, seed: int, *, as_frame: bool
) -> Any:
    """Draw new rows of a table, see `TableModel.sample`.

    Parameters
    ----------
    model : TableModel
        The model.
    num_samples : int
        How many.
    given : mapping of str to object or None
        Values of columns by name.
    seed : int
        Seed of the draws.
    as_frame : bool
        Whether to return a DataFrame; an ndarray otherwise.

    Raises
    ------
    ValueError, TypeError
        For a number below 1, an unknown column, and a value that its column cannot have.
    """
    check_scalar(num_samples, "num_samples", Integral, min_val=1)
    drawn = model.sample(int(num_samples), given, seed)
    return drawn if as_frame else raw_columns(drawn)
