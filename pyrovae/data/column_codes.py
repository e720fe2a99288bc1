"""Values of a column as numbers, and numbers as values of a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pyrovae.data.columns import Column, listed
from pyrovae.data.frames import DAY, days_between, held_by, named_dtype, numbers_of, row_of, times_of, values_of

UNSEEN = ("raise", "missing")
"""What may become of a value that a column cannot have."""


def encode_column(column: Column, series: pd.Series, unseen: str = "raise") -> np.ndarray:
    """The values of a column as float64 `[N]`: numbers, days or codes of levels; NaN where they are missing.

    Parameters
    ----------
    column : Column
        The column.
    series : Series
        Its values.
    unseen : {"raise", "missing"}, default "raise"
        What becomes of a level that the column does not have, and of a number that its kind cannot have. Dates may be
        earlier than those that the schema was inferred from.

    Raises
    ------
    TypeError
        If it holds other types than the column.
    ValueError
        For an infinite value, and for an unseen one with `unseen="raise"`.
    """
    if column.kind == "missing" or not series.notna().any():
        return np.full(len(series), np.nan)
    held = held_by(series)
    if column.levels is not None:
        return _codes(column, series, unseen)
    if (held == "date") != (column.origin is not None) or held in ("text", "category"):
        expected = "numbers" if column.origin is None else "dates"
        wrong = series.notna().to_numpy()
        if column.origin is None and held in ("text", "category"):
            no_number = wrong & pd.to_numeric(series.astype(object), errors="coerce").isna().to_numpy()
            if no_number.any():  # texts of numbers beside one are as they should be
                wrong = no_number
        value, row = series[wrong].iloc[0], row_of(series, wrong)
        raise TypeError(f"column {column.name!r} must hold {expected}, not {value!r} in row {row!r}")
    if column.origin is not None:
        days = days_between(times_of(series), np.datetime64(column.origin, "us"))
        return days if column.kind == "positive" else check_support(column.kind, series, days, unseen)
    return check_support(column.kind, series, numbers_of(series), unseen)


def check_support(kind: str, series: pd.Series, numbers: np.ndarray, unseen: str = "raise") -> np.ndarray:
    """The numbers, NaN for those that a kind cannot have if `unseen` is "missing".

    Raises
    ------
    ValueError
        If `unseen` is "raise", and there is one.
    """
    if kind == "positive":
        wrong, hold = numbers <= 0, "values above 0"
    elif kind == "count":
        wrong, hold = (numbers < 0) | (numbers != np.rint(numbers)) & ~np.isnan(numbers), "whole numbers from 0"
    else:
        return numbers
    if not wrong.any():
        return numbers
    if unseen == "missing":
        return np.where(wrong, np.nan, numbers)
    value, row = series.iloc[int(np.argmax(wrong))], row_of(series, wrong)
    if isinstance(value, pd.Timestamp):
        hold = "dates that are not a day before the earliest one"
    raise ValueError(f"column {series.name!r} is of kind {kind} and holds {hold}, not {value} in row {row!r}")


def _codes(column: Column, series: pd.Series, unseen: str) -> np.ndarray:
    levels = column.levels or ()
    known = {level: code for code, level in enumerate(levels)}
    positions, values = values_of(series)
    texts = bool(levels) and isinstance(levels[0], str)
    if any(isinstance(value, float) and np.isinf(value) for value in values):
        numbers_of(series)  # refuses it
    codes = np.array([*(known.get(value, -1) if isinstance(value, str) == texts else -1 for value in values), -1])
    result = codes[positions]
    wrong = (result < 0) & (positions >= 0)
    if wrong.any() and unseen == "raise":
        value = values[positions[int(np.argmax(wrong))]]
        raise ValueError(
            f"column {column.name!r} has the value {value!r} in row {row_of(series, wrong)!r}, which is none of its "
            f"levels {listed(map(repr, levels), 'levels')}; unseen='missing' takes it as missing"
        )
    return np.where(result < 0, np.nan, result)


def dtype_of(column: Column) -> Any:
    """The dtype that a column had."""
    return named_dtype(column.dtype, column.levels, column.ordered)


def decode_column(column: Column, values: np.ndarray, dtype: Any = None) -> pd.Series:
    """Values of a column from numbers.

    Parameters
    ----------
    column : Column
        The column.
    values : ndarray `[N]`
        What `encode_column` gives. Numbers are clipped to the range, rounded where the column holds whole ones, and
        codes are rounded to one of the levels. NaN is a missing value.
    dtype : dtype, optional
        The dtype of the result. None takes that of the column.

    Returns
    -------
    Series
        The values. Where one is missing and the dtype is one of NumPy that has no missing values, it is the nullable
        one: `UInt8` for `uint8`, `boolean` for `bool`.
    """
    dtype = dtype_of(column) if dtype is None else dtype
    missing = np.isnan(values)
    dtype = _with_missing(dtype) if missing.any() else dtype
    if column.levels is not None:
        return _from_codes(column, values, missing, dtype)
    numbers = values if column.low is None else np.maximum(values, column.low)
    numbers = numbers if column.high is None else np.minimum(numbers, column.high)
    if column.integer:
        numbers = np.rint(numbers)
    return _from_days(column, numbers, dtype) if column.origin is not None else _from_numbers(numbers, dtype)


def _from_codes(column: Column, values: np.ndarray, missing: np.ndarray, dtype: Any) -> pd.Series:
    levels = column.levels or ()
    if not levels:
        return pd.Series([None] * len(values), dtype=dtype)
    low, high = (0.0, len(levels) - 1.0) if column.low is None or column.high is None else (column.low, column.high)
    codes = np.rint(np.clip(np.where(missing, low, values), low, high)).astype(np.int64)
    if isinstance(dtype, pd.CategoricalDtype):
        of_levels = dtype.categories.get_indexer(pd.Index(list(levels), dtype=dtype.categories.dtype))
        return pd.Series(pd.Categorical.from_codes(np.where(missing, -1, of_levels[codes]), dtype=dtype))
    objects = np.empty(len(levels), dtype=object)
    objects[:] = levels
    chosen = objects[codes]
    chosen[missing] = None
    return pd.Series(chosen, dtype=dtype)


def _from_numbers(numbers: np.ndarray, dtype: Any) -> pd.Series:
    if pd.api.types.is_object_dtype(dtype):
        whole = numbers == np.rint(numbers)
        values = [None if np.isnan(n) else int(n) if w else float(n) for n, w in zip(numbers, whole, strict=True)]
        return pd.Series(values, dtype=object)
    if dtype.kind in "iub":
        numbers = np.rint(numbers)
    if isinstance(dtype, np.dtype):
        if dtype.kind in "iu":
            largest = float(np.iinfo(dtype).max)
            exact = int(largest) == np.iinfo(dtype).max
            numbers = np.clip(numbers, float(np.iinfo(dtype).min), largest if exact else np.nextafter(largest, 0.0))
        return pd.Series(numbers.astype(dtype))
    if dtype.kind == "b":
        return pd.Series(numbers > 0).astype(dtype).mask(np.isnan(numbers))
    return pd.Series(pd.array(numbers, dtype=dtype))


def _from_days(column: Column, days: np.ndarray, dtype: Any) -> pd.Series:
    """Dates, to the microsecond."""
    missing = np.isnan(days)
    passed = np.rint(np.where(missing, 0.0, days) * DAY).astype(np.int64).astype("timedelta64[us]")
    times = np.datetime64(column.origin, "us") + passed
    times[missing] = np.datetime64("NaT")
    series = pd.Series(times)
    if "tz=" in str(dtype) or isinstance(dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_localize("UTC")
    return series.astype(dtype)


def fill_column(column: Column, series: pd.Series, values: np.ndarray) -> pd.Series:
    """A column with its missing entries replaced, and the others as they are.

    Parameters
    ----------
    column : Column
        The column.
    series : Series
        Its values.
    values : ndarray `[N]`
        Values as `encode_column` gives them; read only where entries are missing.

    Returns
    -------
    Series
        The values, of the dtype that `series` has. A category gets the levels that it lacks, and a column without any
        value the dtype of the schema, unless its own holds the same.
    """
    missing = series.isna().to_numpy()
    if not missing.any():
        return series
    dtype = _dtype_to_fill(column, series, bool(missing.all()))
    filled = decode_column(column, values[missing], dtype)
    result = series.astype(dtype) if dtype != series.dtype else series.copy()
    result.iloc[missing] = filled.array
    return result


def _dtype_to_fill(column: Column, series: pd.Series, empty: bool) -> Any:
    own = dtype_of(column)
    if isinstance(series.dtype, pd.CategoricalDtype) and column.levels is not None:
        if isinstance(own, pd.CategoricalDtype) and set(series.cat.categories) <= set(own.categories):
            same = len(series.cat.categories) == len(own.categories)
            return series.dtype if same else own
        known = series.cat.categories
        lacking = pd.Index([level for level in column.levels if level not in known], dtype=known.dtype)
        return pd.CategoricalDtype(known.append(lacking), series.cat.ordered) if len(lacking) else series.dtype
    if empty and column.kind != "missing":
        return series.dtype if _is_numeric(own) and _is_numeric(series.dtype) else _with_missing(own)
    return series.dtype


def _is_numeric(dtype: Any) -> bool:
    return not isinstance(dtype, pd.CategoricalDtype) and dtype.kind in "iuf"


def _with_missing(dtype: Any) -> Any:
    """The dtype, or the nullable one if it has no missing values."""
    if isinstance(dtype, np.dtype) and dtype.kind in "iub":
        name = "boolean" if dtype.kind == "b" else dtype.name.replace("ui", "UI").replace("int", "Int")
        return pd.api.types.pandas_dtype(name)
    return dtype
