"""Streams of random numbers by seed, and for a block of code that leaves the caller's numbers as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def mixed(*numbers: int) -> int:
    """A seed for streams that have nothing to do with each other, from whole numbers that tell them apart."""
    text = " ".join(map(str, map(int, numbers))).encode()  # 0.0 and False are 0
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


def begin(seed: int) -> None:
    """Begin the stream of a seed in torch's generators.

    It is another one than that of `torch.manual_seed`. Whoever makes data after ``torch.manual_seed(0)`` and trains
    with ``seed=0`` would otherwise have the data as draws of the latents, and losses that are too low.

    Parameters
    ----------
    seed : int
        The seed.
    """
    torch.manual_seed(mixed(seed))


def generator(seed: int) -> torch.Generator:
    """A generator at the beginning of the stream of a seed, which is that of `begin` on the CPU."""
    return torch.Generator().manual_seed(mixed(seed))


@contextmanager
def forked() -> Iterator[None]:
    """Put the state of torch's generators back after a block, with those of all GPUs."""
    several = torch.cuda.device_count() > 1  # of which torch warns unless they are named
    with torch.random.fork_rng(range(torch.cuda.device_count()) if several else None):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Begin the stream of a seed for a block, as `begin` does, and put the state of the generators back afterwards.

    Parameters
    ----------
    seed : int
        The seed of the block.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.rand(2)
    >>> with seeded(0):
    ...     again = torch.rand(2)
    >>> torch.equal(first, again)
    True
    """
    with forked():
        begin(seed)
        yield
