"""Arrays of NumPy, frames of pandas and 64-bit numbers as the tensors that programs take, where nothing is lost."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.dataset import DataSpec
from pyrovae.data.kinds import MEANING, find_kind
from pyrovae.data.rounding import in_double, rounded
from pyrovae.data.rows import Rows
from pyrovae.data.stored import Stored

logger = logging.getLogger(__name__)


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy, or a frame or series of pandas."""
    if isinstance(value, np.ndarray):
        return True
    pandas = sys.modules.get("pandas")  # who holds a frame has imported it
    return pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series)


def tensor_of(value: Any, what: str = "the data", dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of an array, a frame, a series or a tensor.

    Parameters
    ----------
    value : ndarray, DataFrame, Series or Tensor
        The values. Numbers of NumPy and pandas become floating-point numbers, truth values stay such. A tensor keeps
        its type, but for floating-point numbers of another precision than `dtype`.
    what : str, default "the data"
        What they are, for messages.
    dtype : torch.dtype, optional
        The precision of the result. None takes torch's default for arrays, and leaves tensors as they are.

    Returns
    -------
    Tensor
        The values; those of an array in memory of their own.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If `dtype` cannot hold a value, or its rounding would blur what an entry says.

    Examples
    --------
    >>> tensor_of(np.array([[1, 2], [3, 5]]))
    tensor([[1., 2.],
            [3., 5.]])
    """
    if isinstance(value, Tensor):
        if dtype is None or not value.is_floating_point() or value.dtype == dtype:
            return value
        return rounded(value, dtype, what)
    array = _numbers(value, what)
    if array.dtype == bool:
        return torch.from_numpy(array.copy())
    given = torch.from_numpy(np.ascontiguousarray(in_double(array, what)))
    return rounded(given, torch.get_default_dtype() if dtype is None else dtype, what)


def rows_of(value: Any, what: str = "the data", dtype: torch.dtype | None = None) -> Rows:
    """Rows of an array or a frame; NaN are missing entries. See `tensor_of`.

    Examples
    --------
    >>> rows_of(np.array([[1.0, np.nan]])).mask
    tensor([[ True, False]])
    """
    x = tensor_of(value, what, dtype)
    if isinstance(value, Tensor) or not x.is_floating_point() or not bool(x.isnan().any()):
        return Rows(x)
    return Rows(torch.nan_to_num(x, nan=0.0), mask=~x.isnan())


def labels_of(value: Any, what: str = "y") -> Tensor:
    """Labels as whole numbers, of an array or a series.

    Raises
    ------
    TypeError, ValueError
        If they are no whole numbers.
    """
    numbers = tensor_of(value, what, torch.float64)
    if not bool((numbers == numbers.round()).all()):
        raise ValueError(f"{what} must be whole numbers, -1 where a label is unknown")
    return numbers.long()


def described(value: Any) -> tuple[DataSpec, Rows]:
    """What a builder needs to know of rows that are given as they are: their kind is found from the values.

    Parameters
    ----------
    value : Rows, Tensor, ndarray or DataFrame
        Training rows.

    Returns
    -------
    spec : DataSpec
        What they are; a line of the log says of which kind.
    rows : Rows
        The rows.

    Raises
    ------
    TypeError
        If they have none of these forms.
    ValueError
        If they are no rows, or bytes.
    """
    if not isinstance(value, Rows | Tensor) and not is_array(value):
        raise TypeError(
            "a pair is built for a Dataset, a DataSpec, or the training rows: Rows, a tensor, an array of NumPy or a "
            f"frame of pandas, got {type(value).__name__}"
        )
    rows = value if isinstance(value, Rows) else rows_of(value)
    if rows.x.dim() < 2 or not len(rows):
        raise ValueError(f"the data must be rows, one for each datum, got shape {tuple(rows.x.shape)}")
    if rows.x.dtype == torch.uint8:
        raise ValueError("the data are bytes; divide them by 255 here and for the training: x / 255")
    kind, how = kind_of(rows)
    logger.info("the data are taken as %s, %s (%s); give a DataSpec for another kind", kind, MEANING[kind], how)
    labelled = rows.labelled
    known = int(labelled.sum())
    classes = int(rows.y.max()) + 1 if rows.y is not None and known else None
    return DataSpec("data", tuple(rows.x.shape[1:]), kind, len(rows), known if rows.y is not None else 0, classes), rows


def kind_of(rows: Rows) -> tuple[str, str]:
    """The kind of rows, found from their values, and why, see `find_kind`."""
    x = rows.x.detach().cpu()
    mask = None if rows.mask is None or rows.mask.shape != x.shape else rows.mask.cpu().numpy()
    return find_kind([Stored("the data", (x if x.is_floating_point() else x.float()).numpy(), mask=mask)])


def without_mask(value: Any) -> Any:
    """A masked array of NumPy with NaN where it is masked, or None beside texts; anything else as it is."""
    if not isinstance(value, np.ma.MaskedArray):
        return value
    if not np.ma.is_masked(value):
        return value.data
    if value.dtype.kind == "f":
        return value.filled(np.nan)
    data, mask = value.data, np.ma.getmaskarray(value)
    whole = data.dtype.kind in "iub"
    found = in_double(data, "a masked array", seen=~mask).copy() if whole else data.astype(object)
    found[mask] = np.nan if whole else None
    return found


def _numbers(value: Any, what: str) -> np.ndarray:
    if hasattr(value, "dtypes") and hasattr(value, "columns"):  # a frame
        if not value.columns.is_unique:
            twice = value.columns[value.columns.duplicated()][0]
            raise ValueError(f"{what} have two columns {twice!r}; give every column a name of its own")
        for place, name in enumerate(value.columns):
            if value[name].dtype.kind in "iu":  # of an extension, too, which may have holes
                known = value[name].dropna()
                in_double(known.to_numpy(dtype=known.dtype.kind + "8"), what, first=place)
            if value[name].dtype.kind not in "fiub":
                raise TypeError(
                    f"the column {name!r} of {what} holds {value[name].dtype}, no numbers; VAEImputer, VAETransformer "
                    "and pyrovae train tabular take columns of any kind"
                )
        return np.asarray(value.to_numpy(dtype=np.float64, na_value=np.nan))
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    array = np.asarray(without_mask(value))
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} hold {array.dtype}, no numbers")
    return array
