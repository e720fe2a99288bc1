"""Files that verbs write: whether they may be, before the work begins, and tables in several formats."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyrovae.storage import write_atomically

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".csv.gz", ".parquet")
"""Endings of tables that can be written."""


def check_out(paths: Sequence[Path], overwrite: bool, formats: Sequence[str], what: str = "") -> None:
    """Refuse files that cannot be written, before the work begins.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    overwrite : bool
        Whether they may be there already.
    formats : sequence of str
        The endings that are known.
    what : str, default ""
        What they are for, behind the endings in the message.

    Raises
    ------
    ValueError
        Naming the file, and what to do.
    """
    for path in paths:
        name = path.name.lower()
        if not name.endswith(tuple(formats)):
            raise ValueError(f"--out must end in {', '.join(formats[:-1])} or {formats[-1]}{what}, got {path}")
        if name.endswith(".parquet") and find_spec("pyarrow") is None:
            raise ValueError(f"{path} needs pyarrow: pip install pyarrow, or write a .csv file")
        check_new(path, overwrite)


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse a file that is there already, or cannot be made.

    Raises
    ------
    ValueError
        Naming the file, and what to do.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; give another --out, or --overwrite to replace it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{path} cannot be written; give another --out")


def has_index(frame: pd.DataFrame) -> bool:
    """Whether a frame has names of rows, which are written too."""
    import pandas as pd

    return not isinstance(frame.index, pd.RangeIndex)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as the ending of the file says, whole or not at all."""
    if not path.name.lower().endswith(".parquet"):
        write_text(frame.to_csv(index=has_index(frame)), path)
        return
    content = io.BytesIO()
    frame.to_parquet(content, index=has_index(frame))
    write_atomically(path, content.getvalue())


def write_text(text: str, path: Path) -> None:
    """Write lines, compressed if the name of the file ends in .gz, whole or not at all."""
    write_atomically(path, gzip.compress(text.encode(), mtime=0) if path.name.lower().endswith(".gz") else text)


def write_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    """Write arrays by name into an .npz file, whole or not at all."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, **dict(arrays))
    write_atomically(path, content.getvalue())
