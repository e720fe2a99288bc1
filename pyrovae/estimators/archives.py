"""Arrays in an ``.npz`` file, written whole and read without pickle: how parts of estimators of tables are stored."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pyrovae.data.stored import first_line
from pyrovae.storage import write_atomically


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name to one ``.npz`` file. A file of this name is replaced."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(Path(path), content.getvalue())


@contextmanager
def stored_arrays(path: str | Path) -> Iterator[Any]:
    """The arrays of a file that `write_arrays` wrote, by name.

    Raises
    ------
    ValueError
        The file cannot be read or is damaged, or what the block makes of it fails.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            yield stored
    except Exception as error:  # a damaged archive raises nearly anything
        raise ValueError(f"{path} is damaged: {first_line(error)}; save the model again") from error
