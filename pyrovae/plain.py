"""Options as Python values: numbers of NumPy are those of Python, so that a configuration can hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """The value with numbers of Python in place of NumPy's, also inside of lists, tuples and mappings.

    Examples
    --------
    >>> plain({"epochs": np.int64(3), "hidden": (np.int32(8), 4)})
    {'epochs': 3, 'hidden': (8, 4)}
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if isinstance(value, Mapping) and type(value) is dict:
        return {name: plain(part) for name, part in value.items()}
    return value
