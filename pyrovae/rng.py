"""Random numbers for a block of code that leave the caller's as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators for a block, and put their state back afterwards.

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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
