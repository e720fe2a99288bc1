"""Find the files of a data set and read their formats. Nothing here unpickles."""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pyrovae.data.download import DataError, download, verify

logger = logging.getLogger(__name__)
T = TypeVar("T")
Images = NDArray[np.uint8]
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    Parameters
    ----------
    name : str
        Its name in the folder of the data set.
    contents : str, default ""
        What is in it, for the person who has to supply it.
    url : str, optional
        Where to fetch it. None if no lasting public source is known.
    digest : str, optional
        "sha256:..." or "md5:..." of the content, decompressed for ``.gz``. A file without it is never downloaded.
    """

    name: str
    contents: str = ""
    url: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Files:
    """The files of one data set, all present in one folder.

    Parameters
    ----------
    folder : Path
        The folder.
    files : tuple of DataFile
        The files.
    verified : bool
        Whether `read` compares checksums. It is True for the cache, which holds only published bytes. A folder that the
        user supplies may hold other encodings of the same data.
    """

    folder: Path
    files: tuple[DataFile, ...]
    verified: bool

    def read(self, name: str, parse: Callable[[bytes], T]) -> T:
        """Read and parse one file.

        Parameters
        ----------
        name : str
            Name of the file, one of `files`.
        parse : callable
            From the content as bytes, decompressed for ``.gz``, to the result.

        Returns
        -------
        object
            What `parse` returns.

        Raises
        ------
        DataError
            The file cannot be read, is damaged, or has other contents than it should.
        """
        path = self.folder / name
        file = next(file for file in self.files if file.name == name)
        try:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            if self.verified and file.digest is not None:
                verify(content, file.digest)
            elif path.suffix == ".mat" and file.digest is not None:
                _tell_other(path, content, file.digest)
            return parse(content)
        except DataError:
            raise
        except (OSError, ImportError) as error:
            if isinstance(error, gzip.BadGzipFile):
                raise self._damaged(path, file, error) from error
            if isinstance(error, ImportError):
                raise
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        except Exception as error:  # a damaged file raises whatever its parser trips over
            raise self._damaged(path, file, error) from error

    def _damaged(self, path: Path, file: DataFile, error: Exception) -> DataError:
        advice = "delete it and load again" if file.url else "put an intact copy in its place"
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        return DataError(f"{path} is damaged or incomplete ({reason}): {advice}")


def _tell_other(path: Path, content: bytes, digest: str) -> None:
    """Say that a file of the user's own is not the published one; a damaged .mat may be read as something else."""
    try:
        verify(content, digest)
    except ValueError:
        logger.warning("%s is not the published file (its checksum differs): it may be damaged", path)


def cache_folder() -> Path:
    """Return the folder that downloads go to.

    Returns
    -------
    Path
        ``$PYROVAE_CACHE`` if it is set, else ``$XDG_CACHE_HOME/pyrovae``, else ``~/.cache/pyrovae``.
    """
    if own := os.environ.get("PYROVAE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pyrovae"


def find(subfolder: str, files: Sequence[DataFile], root: str | Path | None = None) -> Path | None:
    """Find the first folder that holds all files of a data set.

    Parameters
    ----------
    subfolder : str
        Folder of the data set below each place.
    files : sequence of DataFile
        The files.
    root : str or Path, optional
        Place to look in first. Then come ``$PYROVAE_DATA`` and the cache.

    Returns
    -------
    Path or None
        The folder, or None if no folder has all files.

    Raises
    ------
    DataError
        `root` is not a folder.
    """
    if root is not None and not Path(root).expanduser().is_dir():
        raise DataError(f"root {str(root)!r} is not a folder")
    places = (root, os.environ.get("PYROVAE_DATA") or None, cache_folder())
    folders = (Path(place).expanduser() / subfolder for place in places if place is not None)
    return next((folder for folder in folders if all((folder / file.name).is_file() for file in files)), None)


def provide(name: str, subfolder: str, files: Sequence[DataFile], root: str | Path | None, fetch: bool) -> Files:
    """Find the files of a data set, or download them into the cache.

    Parameters
    ----------
    name : str
        Name of the data set, for the errors.
    subfolder : str
        Folder of the data set below each place.
    files : sequence of DataFile
        The files.
    root : str or Path or None
        Place to look in first.
    fetch : bool
        Whether to download missing files that have a source.

    Returns
    -------
    Files
        The files, all present.

    Raises
    ------
    DataError
        The files are neither on this machine nor to be downloaded. The message says where to put them.
    """
    cache = cache_folder() / subfolder
    folder = find(subfolder, files, root)
    if folder is None:
        missing = [file for file in files if not (cache / file.name).is_file()]
        wanted = ", ".join(file.name + (f" ({file.contents})" if file.contents else "") for file in missing)
        place = f"put {wanted} into {cache} or into {subfolder}/ below root or $PYROVAE_DATA"
        sources = []
        for file in missing:
            if file.url is None or file.digest is None:
                raise DataError(f"{name} is not on this machine and has no public source to download from: {place}")
            if not fetch:
                raise DataError(f"{name} is not on this machine and downloading is switched off: {place}")
            sources.append((file.url, cache / file.name, file.digest))
        for url, path, digest in sources:
            download(url, path, digest)
        folder = cache
    return Files(folder, tuple(files), verified=folder == cache)


def parse_idx(content: bytes, shape: Shape) -> Images:
    """Read an IDX file of unsigned bytes.

    Parameters
    ----------
    content : bytes
        The decompressed file.
    shape : tuple of int or None
        Expected shape. None stands for any number.

    Returns
    -------
    ndarray of uint8
        The values, read-only.

    Raises
    ------
    ValueError
        The header is wrong, or does not agree with the length or with `shape`.

    Notes
    -----
    The format is two zero bytes, the type 8, the number of dimensions, the dimensions as big-endian 32-bit numbers, and
    the values.

    Examples
    --------
    >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 7, 9]), shape=(None, 1)).tolist()
    [[7], [9]]
    """
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise ValueError("this is not an IDX file of unsigned bytes")
    start = 4 + 4 * content[3]
    stored = tuple(int(size) for size in np.frombuffer(content, ">u4", content[3], offset=4))
    if len(content) - start != math.prod(stored):
        raise ValueError(f"it holds {len(content) - start} values, its header says {math.prod(stored)}")
    return _checked(np.frombuffer(content, np.uint8, offset=start).reshape(stored), "content", shape)


def parse_npz(content: bytes, shapes: Mapping[str, Shape]) -> dict[str, Images]:
    """Read arrays of bytes from an ``.npz`` file.

    Parameters
    ----------
    content : bytes
        The file.
    shapes : mapping of str to tuple
        Names of the arrays with their expected shapes. None stands for any number.

    Returns
    -------
    dict of str to ndarray of uint8
        The arrays by name.

    Raises
    ------
    ValueError
        The file is not an ``.npz`` file, or an array is missing, is not of bytes or has another shape.
    zipfile.BadZipFile
        The file is damaged.
    """
    if not content.startswith(b"PK"):
        raise ValueError("this is not an .npz file")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: _checked(_entry(stored, name), name, shape) for name, shape in shapes.items()}


# In a process of its own, because a damaged file can crash scipy's reader.
_READ_MAT = """
import io, sys
import numpy, scipy.io
try:
    content = io.BytesIO(sys.stdin.buffer.read())
    found = scipy.io.loadmat(content, variable_names=sys.argv[1:])
    arrays = {name: found[name] for name in sys.argv[1:] if name in found}
    if any(array.dtype.hasobject for array in map(numpy.asarray, arrays.values())):
        raise ValueError("it holds other things than numbers")
    numpy.savez(sys.stdout.buffer, **arrays)
except BaseException as error:
    sys.exit(" ".join(f"{type(error).__name__}: {error}".split())[:200])
"""


def parse_mat(content: bytes, shapes: Mapping[str, Shape]) -> dict[str, Images]:
    """Read arrays of bytes from a MATLAB 5 file.

    Parameters
    ----------
    content : bytes
        The file.
    shapes : mapping of str to tuple
        Names of the arrays with their expected shapes. None stands for any number.

    Returns
    -------
    dict of str to ndarray of uint8
        The arrays by name.

    Raises
    ------
    ValueError
        The file is damaged, or an array is missing, is not of bytes or has another shape.
    """
    command = [sys.executable, "-I", "-c", _READ_MAT, *shapes]
    result = subprocess.run(command, input=content, capture_output=True, check=False)
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip().splitlines()
        reason = (
            f"its reader crashed with signal {-result.returncode}"
            if result.returncode < 0
            else said[-1]
            if said
            else ""
        )
        raise ValueError(f"not a readable MATLAB 5 file: {reason}")
    with np.load(io.BytesIO(result.stdout), allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    return {name: _checked(_entry(stored, name), name, shape) for name, shape in shapes.items()}


def _entry(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in stored:
        raise ValueError(f"it has no array {name!r}")
    return stored[name]


def _checked(array: np.ndarray, name: str, shape: Shape) -> Images:
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype != np.uint8 or not fits:
        wanted = ", ".join("N" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected uint8 of shape ({wanted})")
    return array
