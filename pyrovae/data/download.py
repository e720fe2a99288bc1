"""Fetching a file from a public source: complete and with the right checksum, or not at all."""

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
    """A data set cannot be had: not found, no network, damaged. The message is one line that says what to do."""


def download(url: str, path: Path, digest: str, *, timeout: float = 30.0) -> None:
    """Fetch `url` into `path`, through a temporary file beside it that is removed when anything goes wrong.

    A progress bar is shown on standard error when that is a terminal.

    Args:
        url: where the file is.
        path: where it goes; folders are made, an existing file is replaced.
        digest: "sha256:..." or "md5:...", of the decompressed content if the name of `path` ends in `.gz`, because
            compressing the same content with another program gives other bytes.
        timeout: seconds without an answer after which to give up.

    Raises:
        DataError: no network, an error answer of the server, an incomplete body, a wrong checksum, a full disk.
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
    """Compare `content`, already decompressed, with `digest` ("sha256:..." or "md5:...").

    >>> verify(b"", "md5:d41d8cd98f00b204e9800998ecf8427e")

    Raises:
        ValueError: when they differ.
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
