"""Fetch a file from a public source, complete and with the right checksum, or not at all."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import urllib.error
import urllib.request
import uuid
import zlib
from pathlib import Path
from typing import IO

from tqdm import tqdm

from pyrovae._version import __version__

_CHUNK = 1 << 18


class DataError(Exception):
    """A data set is not available: not found, no network, or damaged. The message is one line that says what to do."""


def download(url: str, path: Path, digest: str, *, timeout: float = 30.0) -> None:
    """Fetch a file, and keep it only if it is complete and has the right checksum.

    Parameters
    ----------
    url : str
        Address of the file.
    path : Path
        Where the file goes. Folders are made, and an existing file is replaced.
    digest : str
        "sha256:..." or "md5:...". If the name of `path` ends in ``.gz``, it is the digest of the decompressed content,
        because another program compresses the same content to other bytes.
    timeout : float, default 30.0
        Seconds without an answer until it gives up.

    Raises
    ------
    DataError
        There is no network, the server answers with an error, the body is incomplete, the checksum is wrong or the disk
        is full.

    Notes
    -----
    The file is first written to a temporary file beside `path`, which is removed if anything fails. A progress bar is
    shown on standard error if that is a terminal.
    """
    by_hand = f"put the file at {path} by hand"
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as target:
            _receive(url, target, timeout, description=path.name)
        with part.open("rb") as content:
            found = _digest_of(content, digest.partition(":")[0], compressed=path.suffix == ".gz")
        if found != digest:
            raise DataError(
                f"{url} has the wrong checksum ({found} instead of {digest}) and was not kept: try again later, "
                f"or {by_hand}"
            )
        os.replace(part, path)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(
            f"cannot download {url}: the server answered {error.code} {error.reason}; try again later, or {by_hand}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        # URLError hides the cause (no route, refused, timed out) in `reason`.
        reason = getattr(error, "reason", error) or type(error).__name__
        raise DataError(f"cannot download {url}: {reason}; check the network connection, or {by_hand}") from error
    finally:
        with contextlib.suppress(OSError):  # a part that cannot be removed must not hide what went wrong
            part.unlink()


def verify(content: bytes, digest: str) -> None:
    """Compare the checksum of content with a digest.

    Parameters
    ----------
    content : bytes
        The content, decompressed.
    digest : str
        "sha256:..." or "md5:...".

    Raises
    ------
    ValueError
        They differ.

    Examples
    --------
    >>> verify(b"", "md5:d41d8cd98f00b204e9800998ecf8427e")
    """
    algorithm = digest.partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()}"
    if found != digest:
        raise ValueError(f"wrong checksum: {found} instead of {digest}")


def _receive(url: str, target: IO[bytes], timeout: float, description: str) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"pyrovae/{__version__}"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        length = response.headers.get("Content-Length")
        expected = int(length) if length is not None else None
        received = 0
        with tqdm(total=expected, unit="B", unit_scale=True, desc=description, disable=None) as bar:
            while chunk := response.read(_CHUNK):
                target.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
    # `read` with a size takes a connection that breaks off for the end of the body.
    if expected is not None and received != expected:
        raise DataError(f"{url} broke off after {received} of {expected} bytes and was not kept: load again")


def _digest_of(file: IO[bytes], algorithm: str, compressed: bool) -> str:
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with gzip.open(file) if compressed else file as content:
            while chunk := content.read(_CHUNK):
                hasher.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        return f"no {algorithm}, because {error}"
    return f"{algorithm}:{hasher.hexdigest()}"
