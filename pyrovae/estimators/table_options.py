"""What the estimators of tables share: frames from what users give, and options of pair and training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import _check_feature_names, _check_n_features, check_array, check_scalar

from pyrovae.data.arrays import without_mask
from pyrovae.data.columns import NUMBERS
from pyrovae.data.frames import as_frame, import_pyarrow
from pyrovae.data.scaling import METHODS
from pyrovae.data.schema import Schema
from pyrovae.data.tables import MARGINALS, WHERE
from pyrovae.estimators.missing_ranges import check_missingness, without_observed_ranges
from pyrovae.estimators.nets import check_variants
from pyrovae.infer.imputation import WEIGHTS
from pyrovae.likelihoods.balance import BALANCES
from pyrovae.likelihoods.tables import PARAMETERIZATIONS
from pyrovae.pairs import table_defaults as defaults

_CHOICES = {
    "encoder": ("dense", "set"),
    "layer": ("plain", "gated", "residual"),
    "prior": ("standard-normal", "mixture", "vamp"),
    "parameterization": PARAMETERIZATIONS,
    "scaling": METHODS,
    "weights": WEIGHTS,
    "marginals": MARGINALS,
    "scale_where": WHERE,
    "balance": BALANCES,
    "objective": (None, "mean-field", "iwae", "iwae-dreg"),
    "hiding": (None, True, False),
}
_COUNTS = ("n_components", "num_samples", "batch_size", "epochs", "num_particles", "num_nets", "patience")
_OR_NONE = ("epochs", "patience", "num_nets")
_AMOUNTS = {"lr": "neither", "scale_floor": "neither", "kl_weight": "left"}
_BY_NAME = ("kinds", "levels", "ranges", "likelihoods")


def check_options(estimator: Any) -> None:
    """Check options of an estimator that nobody else names to the user as they are called here.

    Raises
    ------
    TypeError, ValueError
        The message names the option, its value and what it should be.
    """
    options = estimator.get_params(deep=False)
    _check_values(options)
    for name in _BY_NAME:
        if not isinstance(options.get(name), Mapping | None):
            raise TypeError(f"{name} must be a dictionary by the name of columns, got {options[name]!r}")
    if "missingness" in options:
        check_missingness(options)
    if "variants" in options:
        check_variants(options["variants"])
        for variant in options["variants"]:
            try:
                _check_values(variant)
                if empty := [name for name, value in variant.items() if value is None]:
                    raise ValueError(f"{empty[0]} must be given, got None; leave it out")
            except (TypeError, ValueError) as error:
                raise type(error)(f"variants: {error}") from None


def _check_values(options: Mapping[str, Any]) -> None:
    """Check options that are there, each for itself."""
    for name, known in _CHOICES.items():
        if name in options and options[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {options[name]!r}")
    for name in _COUNTS:
        if name in options and not (name in _OR_NONE and options[name] is None):
            check_scalar(options[name], name, Integral, min_val=1)
    for name, ends in _AMOUNTS.items():
        if name in options and not isinstance(options[name], str):  # a text is a schedule
            check_scalar(options[name], name, Real, min_val=0, include_boundaries=ends)
    if "dropout" in options:
        check_scalar(options["dropout"], "dropout", Real, min_val=0, max_val=1, include_boundaries="left")
    hidden = options.get("hidden", (1,))
    sizes = list(hidden) if np.iterable(hidden) and not isinstance(hidden, str) else []
    if not sizes or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ValueError(f"hidden must hold the size of at least one layer, such as (256, 256), got {hidden!r}")


def check_frame(estimator: Any, X: Any, *, reset: bool) -> pd.DataFrame:
    """A frame of what a user gives, whose columns are those of `fit`.

    Frames keep their dtypes. Tables with the Arrow interface, such as those of polars, become frames. Columns whose
    names are no texts, and those of arrays, are called x0, x1, ... in `fit`. Later ones without such names are matched
    by their places, of which scikit-learn warns.

    Raises
    ------
    ValueError, TypeError
        As scikit-learn's estimators do: empty data, infinite values, another number or other names of columns.
    """
    X = as_frame(X) if is_arrow(X) else without_mask(X)
    if isinstance(X, pd.DataFrame):
        if X.shape[0] == 0 or X.shape[1] == 0:
            raise ValueError(
                f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s) while a minimum of 1 is required."
            )
        if not X.columns.is_unique:
            twice = X.columns[X.columns.duplicated()][0]
            raise ValueError(f"two columns are called {twice!r}; give every column a name of its own")
        if not reset:
            X = _in_order(estimator, X)
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, X, reset=reset)
        frame = X if reset and hasattr(estimator, "feature_names_in_") else _named(estimator, X, reset)
    else:
        array = check_array(X, dtype=None, ensure_all_finite="allow-nan", estimator=estimator)
        if array.dtype.kind not in "bifuO":
            array = array.astype(object)
        if array.dtype.kind == "O":
            array = _numbers(array)
        _check_feature_names(estimator, X, reset=reset)
        _check_n_features(estimator, array, reset=reset)
        frame = _named(estimator, pd.DataFrame(array), reset)
    if reset and len(frame) < 2:
        raise ValueError(
            f"Found array with {len(frame)} sample(s) (shape={frame.shape}) while a minimum of 2 is required."
        )
    if reset and frame.isna().to_numpy().all():
        raise ValueError("all entries are missing, so there is nothing to learn from")
    return frame


def _in_order(estimator: Any, X: pd.DataFrame) -> pd.DataFrame:
    """The columns of `fit` in their order. A frame without texts for names is left as it is."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or not any(isinstance(name, str) for name in X.columns):
        return X
    wrong = [f"{name!r} is missing" for name in names if name not in X.columns]
    wrong += [f"{name!r} is new" for name in X.columns if name not in set(names)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"the columns must be those of fit: {', '.join(wrong[:3])}{more}")
    return X[list(names)]


def _named(estimator: Any, frame: pd.DataFrame, reset: bool) -> pd.DataFrame:
    """The frame with the names that its columns have in the schema, by their places."""
    names = [f"x{i}" for i in range(frame.shape[1])] if reset else list(estimator.schema_.names)
    return frame if list(frame.columns) == names else frame.set_axis(names, axis=1)


def _numbers(array: np.ndarray) -> np.ndarray:
    """An array of objects as numbers where all are some."""
    if np.iscomplexobj(array):
        raise ValueError("Complex data not supported")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        return array


def is_arrow(X: Any) -> bool:
    """Whether this is a table of another library with the Arrow interface."""
    return hasattr(X, "__arrow_c_stream__") and not isinstance(X, pd.DataFrame | pd.Series)


def as_given(frame: pd.DataFrame, X: Any) -> Any:
    """A frame as the kind of table that `X` is, of polars or pyarrow, with the types that its columns have there.

    Tables of other libraries stay frames.
    """
    arrow = import_pyarrow(f"a table of type {type(X).__name__}")
    given = arrow.table(X).schema
    made = arrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    for place, name in enumerate(made.column_names):
        known = given.field(name).type
        if made.column(name).type != known:
            try:
                made = made.set_column(place, name, made.column(name).cast(known))
            except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):
                continue  # such as levels that the given dictionary does not have
    if isinstance(X, arrow.Table):
        return made
    if type(X).__module__.split(".")[0] != "polars":
        return frame
    result = type(X)(made)
    # Arrow has no Enum, so that its columns came as categories.
    enums = {name: X[name].dtype for name in result.columns if type(X[name].dtype).__name__ == "Enum"}
    inside = [name for name, dtype in enums.items() if result[name].drop_nulls().is_in(list(dtype.categories)).all()]
    return result.cast({name: enums[name] for name in inside}) if inside else result


def raw_columns(frame: pd.DataFrame) -> np.ndarray:
    """The values of a completed array."""
    return frame.to_numpy()


def fit_options(estimator: Any, frame: pd.DataFrame) -> tuple[Schema, dict[str, Any]]:
    """The schema of the rows, and options of `train_table`.

    Raises
    ------
    TypeError, ValueError
        An option of the estimator does not suit.
    """
    check_options(estimator)
    schema = Schema.infer(frame, kinds=estimator.kinds, levels=estimator.levels, ranges=estimator.ranges)
    given = estimator.get_params(deep=False)
    missingness = given.get("missingness", "ignorable")
    schema = without_observed_ranges(schema, missingness, estimator.ranges or ())
    particles = int(given.get("num_particles", 1))
    options = {
        "pair": {
            "latent_dim": int(estimator.n_components),
            "hidden": tuple(int(size) for size in estimator.hidden),
            "encoder": estimator.encoder,
            "prior": estimator.prior,
            "parameterization": estimator.parameterization,
            "scale_floor": float(estimator.scale_floor),
            "layer": given.get("layer", defaults.LAYER),
            "dropout": float(given.get("dropout", defaults.DROPOUT)),
            "missingness": missingness,
        },
        "training": {
            "epochs": estimator.epochs,
            "lr": estimator.lr,
            "lr_schedule": defaults.LR_SCHEDULE,
            "batch_size": estimator.batch_size,
            "kl_weight": estimator.kl_weight,
            "objective": given.get("objective") or ("mean-field" if particles == 1 else "iwae-dreg"),
            "num_particles": particles,
            "patience": given.get("patience"),
            "progress": estimator.verbose,
        },
        "num_nets": given.get("num_nets", 1),
        "variants": tuple(given.get("variants", ({},))),
        "trees": given.get("trees", False),
        "hiding": given.get("hiding"),
        "likelihoods": _likelihoods(estimator.likelihoods, given.get("marginals", "none")),
        "scaling": estimator.scaling,
        "scale_where": given.get("scale_where", "outside"),
        "balance": given.get("balance", "none"),
    }
    return schema, options


def _likelihoods(given: Mapping[str, str] | None, marginals: str) -> Mapping[str, str] | None:
    """Likelihoods by name and kind; with quantile marginals, that of all numbers for which none is given."""
    if marginals == "none":
        return given
    return {**dict.fromkeys(NUMBERS, "quantile"), **(given or {})}


def as_plain(value: Any) -> Any:
    """An option as JSON has it: dates as texts, arrays and tuples as lists, numbers of NumPy as Python's."""
    if isinstance(value, Mapping):
        return {str(name): as_plain(part) for name, part in value.items()}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind != "M":
        return as_plain(value.tolist())
    if isinstance(value, date | np.datetime64):
        return pd.Timestamp(value).isoformat()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [as_plain(part) for part in value]
    return value
