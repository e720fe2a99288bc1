"""Tables as pandas DataFrames, and the values of their columns: numbers, days, levels."""

from __future__ import annotations

import importlib
import re
import reprlib
from typing import Any, NoReturn

import numpy as np
import pandas as pd

DAY = 86_400_000_000
"""Microseconds of a day."""
_HELD = {"b": "bool", "i": "number", "u": "number", "f": "number", "M": "date", "U": "text"}
_HELD_BY_OBJECTS = {
    "boolean": "bool",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "string": "text",
    "empty": "empty",
}
_DECIMAL = re.compile(r"(decimal\d+)\((\d+), (-?\d+)\)\[pyarrow\]")
_DICTIONARY = re.compile(r"dictionary<values=((?:large_)?string), indices=(u?int\d+), ordered=([01])>\[pyarrow\]")
_OF_ARROW = {_DECIMAL: "number", _DICTIONARY: "text"}  # which pandas has no names for


def as_frame(table: Any) -> pd.DataFrame:
    """A table as a DataFrame, whose columns have names that differ.

    Parameters
    ----------
    table : DataFrame, array `[N, D]`, or anything with the Arrow interface
        The table. Columns of an array, and those numbered 0, 1, ..., are called x0, x1, ... Tables of polars and
        others come through pyarrow.

    Returns
    -------
    DataFrame
        The table; the same object if nothing was to be changed.

    Raises
    ------
    ImportError
        If pyarrow is needed and not installed.
    TypeError
        For anything else, and for names that are no texts.
    ValueError
        If it has no columns, or two of the same name.
    """
    if isinstance(table, np.ndarray):
        if table.ndim != 2:
            raise ValueError(f"an array must have two dimensions, rows and columns, not the shape {table.shape}")
        table = pd.DataFrame(table)
        table = table.infer_objects() if table.dtypes.eq(object).any() else table
    elif not isinstance(table, pd.DataFrame):
        if not hasattr(table, "__arrow_c_stream__"):
            raise TypeError(f"a table must be a DataFrame or an array of rows and columns, not {type(table).__name__}")
        table = from_arrow(import_pyarrow(f"a table of type {type(table).__name__}").table(table))
    if not len(table.columns):
        raise ValueError("the table has no columns")
    if list(table.columns) == list(range(table.shape[1])):
        table = table.set_axis([f"x{number}" for number in range(table.shape[1])], axis=1)
    for name in table.columns:
        if not isinstance(name, str):
            raise TypeError(f"names of columns must be texts, not {name!r}; give them with frame.columns = [...]")
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise ValueError(f"the table has two columns {twice!r}; give every column a name of its own")
    return table


def import_pyarrow(what: str, module: str = "pyarrow") -> Any:
    """The module pyarrow, or one inside of it.

    Raises
    ------
    ImportError
        If it is not installed; the message says what needs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f"{what} needs pyarrow: pip install 'pyrovae[parquet]'") from None


def from_arrow(table: Any) -> pd.DataFrame:
    """A pyarrow Table as a DataFrame: dates as datetimes, whole numbers and bools with holes as nullable ones.

    Decimal numbers stay what they are.
    """
    try:
        frame = table.to_pandas(date_as_object=False)
    except TypeError:  # a dtype that pandas has written down and cannot read
        index = [
            name for name in (table.schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)
        ]
        frame = table.replace_schema_metadata(None).to_pandas(date_as_object=False)
        frame = frame.set_index(index).rename_axis([None] * len(index)) if index else frame
    if frame.columns.is_unique:
        for name in table.column_names:
            kind, column = str(table.schema.field(name).type), table.column(name)
            if column.null_count and name in frame and (kind == "bool" or kind.startswith(("int", "uint"))):
                nullable = "boolean" if kind == "bool" else kind.replace("ui", "UI").replace("int", "Int")
                frame[name] = pd.Series(pd.api.types.pandas_dtype(nullable).__from_arrow__(column), index=frame.index)
            elif kind.startswith("decimal") and name in frame:
                frame[name] = pd.Series(pd.arrays.ArrowExtensionArray(column), index=frame.index)
    return frame


def held_by(series: pd.Series) -> str:
    """What a column holds: "number", "bool", "text", "date", "category" or, if it has neither value nor dtype, "empty".

    Raises
    ------
    TypeError
        If it holds anything else, or types that are mixed.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category"
    if isinstance(series.dtype, pd.StringDtype):
        return "text"
    held = None if isinstance(series.dtype, pd.SparseDtype) else _HELD.get(series.dtype.kind)
    if isinstance(series.dtype, pd.ArrowDtype):
        held = next((what for form, what in _OF_ARROW.items() if form.fullmatch(str(series.dtype))), held)
    if held is None and series.dtype == object:
        held = _HELD_BY_OBJECTS.get(pd.api.types.infer_dtype(series, skipna=True))
        if held is None:
            _refuse_objects(series)
    if held is None:
        raise TypeError(
            f"column {series.name!r} has the dtype {series.dtype}, which a table cannot have; make it a column of "
            "numbers, bools, texts, categories or datetimes"
        )
    return held


def numbers_of(series: pd.Series) -> np.ndarray:
    """The numbers of a column as float64 `[N]`, NaN where they are missing.

    Raises
    ------
    ValueError
        For an infinite one.
    """
    numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.isinf(numbers)
    if infinite.any():
        raise ValueError(
            f"column {series.name!r} has the value {numbers[infinite][0]} in row {row_of(series, infinite)!r}; "
            "replace infinite values, by NaN if they are missing"
        )
    return numbers


def times_of(series: pd.Series) -> np.ndarray:
    """The times of a column in UTC, as `datetime64[us]` `[N]`, NaT where they are missing."""
    times = pd.to_datetime(series, utc=True).dt.tz_localize(None).to_numpy()
    return times.astype("datetime64[us]")


def days_between(times: np.ndarray, origin: np.datetime64) -> np.ndarray:
    """Days from a time as float64, NaN for NaT."""
    days = (times - origin).astype("timedelta64[us]").astype(np.int64) / DAY
    return np.where(np.isnat(times), np.nan, days)


def values_of(series: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """The distinct values of a column in Python's types, and which of them each row has.

    Returns
    -------
    positions : ndarray `[N]`
        Positions in the list, -1 where the value is missing.
    values : list
        The values; for a category its categories.
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series.cat.codes.to_numpy(), _plain(series.cat.categories)
    positions, values = pd.factorize(series)
    return positions, _plain(pd.Index(values))


def row_of(series: pd.Series, where: np.ndarray) -> Any:
    """The label of the first row at which an array is True."""
    label = series.index[int(np.argmax(where))]
    return label.item() if isinstance(label, np.generic) else label


def dtype_name(dtype: Any) -> str:
    """The name from which `named_dtype` makes a dtype.

    Raises
    ------
    TypeError
        If there is none.
    """
    if isinstance(dtype, pd.CategoricalDtype):
        own = dtype.categories.dtype
        same = (
            pd.Index(_plain(dtype.categories)).dtype == own
            if len(dtype.categories)
            else pd.api.types.is_object_dtype(own)
        )
        return "category" if same else f"category[{dtype_name(own)}]"
    if isinstance(dtype, pd.StringDtype):
        other = dtype.storage == "python" and dtype.na_value is pd.NA and dtype != pd.StringDtype()
        return "string[python]" if other else str(dtype)
    name = str(dtype)
    if isinstance(dtype, pd.ArrowDtype) and any(form.fullmatch(name) for form in _OF_ARROW):
        return name
    try:
        known = named_dtype(name) == dtype
    except (TypeError, ValueError, NotImplementedError):
        known = False
    if not known:
        raise TypeError(f"a column of the dtype {name} cannot be given back; convert it, to category for example")
    return name


def named_dtype(name: str, levels: tuple[Any, ...] | None = None, ordered: bool = False) -> Any:
    """The dtype of a name that `dtype_name` gave, for a category with its levels.

    Raises
    ------
    ImportError
        If the dtype needs pyarrow, and pyarrow is not installed.
    TypeError
        For an unknown name.
    """
    if name == "category" or name.startswith("category["):
        inner = name.removeprefix("category").strip("[]")
        inner_dtype = named_dtype(inner) if inner else None if levels else object
        return pd.CategoricalDtype(pd.Index(list(levels or ()), dtype=inner_dtype), ordered=ordered)
    if name.endswith("[pyarrow]"):
        pyarrow = import_pyarrow(f"the dtype {name}")
        if name == "string[pyarrow]":  # pandas would take it for a StringDtype
            return pd.ArrowDtype(pyarrow.string())
        if found := _DECIMAL.fullmatch(name):
            return pd.ArrowDtype(getattr(pyarrow, found[1])(int(found[2]), int(found[3])))
        if found := _DICTIONARY.fullmatch(name):
            values, indices = (getattr(pyarrow, found[place])() for place in (1, 2))
            return pd.ArrowDtype(pyarrow.dictionary(indices, values, ordered=found[3] == "1"))
    if name == "str" and pd.api.types.pandas_dtype("str").kind == "U":
        return np.dtype(object)  # pandas 2 has no such dtype
    return pd.api.types.pandas_dtype(name)


def _plain(values: pd.Index) -> list[Any]:
    return [value.item() if isinstance(value, np.generic) else value for value in values.tolist()]


def _refuse_objects(series: pd.Series) -> NoReturn:
    """Say which values a column of objects cannot hold, or not together."""
    seen: dict[str, tuple[Any, Any]] = {}
    for label, value in series[series.notna()].items():
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        group = "texts" if isinstance(value, str) else "numbers" if number else f"{type(value).__name__} objects"
        group = "bools" if isinstance(value, bool | np.bool_) else group
        seen.setdefault(group, (value, label))
        if group not in ("bools", "numbers", "texts"):
            raise TypeError(
                f"column {series.name!r} holds {type(value).__name__} objects, for example {reprlib.repr(value)} in "
                f"row {label!r}; make it a column of numbers, bools, texts, categories or datetimes"
            )
        if len(seen) > 1:
            break
    places = " and ".join(f"{reprlib.repr(value)} in row {label!r}" for value, label in seen.values())
    raise TypeError(f"column {series.name!r} mixes {' and '.join(seen)}: {places}; make them all of one type")
