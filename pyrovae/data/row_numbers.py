"""Rows drawn by a hash of their number, so that a stream can tell which they are without holding them all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 20


def hashed(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A hash of row numbers: 64 random-looking bits, other ones for another seed, and no two alike for one seed.

    Parameters
    ----------
    numbers : ndarray of int
        Row numbers from 0.
    seed : int
        The seed, from 0.

    Notes
    -----
    It is the output function of SplitMix64, which maps 64-bit numbers one to one.

    References
    ----------
    G. Steele, D. Lea and C. Flood (2014), "Fast splittable pseudorandom number generators".
    """
    start = np.random.default_rng(seed).integers(2**63, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = (numbers.astype(np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def draw_rows(rows: int, counts: tuple[int, ...], seed: int) -> list[NDArray[np.int64]]:
    """Groups of rows drawn at random, none in two groups: those of the smallest hashes, then the next ones, and so on.

    A group does not depend on the later ones. Memory is that of the drawn rows.

    Parameters
    ----------
    rows : int
        How many rows there are.
    counts : tuple of int
        How many each group gets; the last one gets what is left, if that is less.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of ndarray of int64
        The row numbers of each group, increasing.

    Examples
    --------
    >>> test, rest = draw_rows(10, (2, 100), seed=0)
    >>> len(test), len(rest), sorted({*test.tolist(), *rest.tolist()}) == list(range(10))
    (2, 8, True)
    """
    wanted = min(rows, sum(counts))
    hashes, numbers = np.empty(0, np.uint64), np.empty(0, np.int64)
    for start in range(0, rows if wanted else 0, _AT_ONCE):
        more = np.arange(start, min(start + _AT_ONCE, rows), dtype=np.int64)
        hashes, numbers = np.concatenate((hashes, hashed(more, seed))), np.concatenate((numbers, more))
        if len(hashes) > wanted:
            kept = np.argpartition(hashes, wanted - 1)[:wanted]
            hashes, numbers = hashes[kept], numbers[kept]
    numbers = numbers[np.argsort(hashes)]
    ends = np.minimum(np.cumsum((0, *counts)), wanted)
    return [np.sort(numbers[a:b]) for a, b in pairwise(ends)]


def hidden_entries(numbers: NDArray[np.int64], columns: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Entries drawn at random, each with the same probability, by a hash of the number of their row and column.

    Parameters
    ----------
    numbers : ndarray of int64, shape ``[N]``
        Row numbers.
    columns : int
        How many columns there are.
    share : float
        The probability, below 1.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of bool, shape ``[N, columns]``
        True for the drawn entries.

    Examples
    --------
    >>> drawn = hidden_entries(np.arange(1000), 3, 0.2, seed=0)
    >>> (drawn[500:] == hidden_entries(np.arange(500, 1000), 3, 0.2, seed=0)).all(), 0.15 < drawn.mean() < 0.25
    (np.True_, np.True_)
    """
    entries = numbers[:, None] * columns + np.arange(columns)
    return hashed(entries, seed) < np.uint64(share * 2**64)


def within(numbers: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Which of increasing row numbers lie in a chunk, counted from its start."""
    first, last = np.searchsorted(numbers, (start, stop))
    return numbers[first:last] - start
