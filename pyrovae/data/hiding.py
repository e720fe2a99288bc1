"""Transforms that hide entries of training rows from the encoder, so that a model learns to predict them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.data.rows import Rows


@dataclass(frozen=True)
class HideAtRandom:
    """Hide entries of each minibatch from the encoder at random, at a rate of its own for each row.

    Use it as the transform of training data, so that a model learns to predict entries from the others.

    Parameters
    ----------
    rate : tuple of float, default (0.0, 0.9)
        Range that the rate of each row is drawn from, uniformly.

    Notes
    -----
    Calling it with `Rows` puts a tensor ``seen`` of bools, of the shape of `x`, into `Rows.more`. It is True where the
    encoder may look, and never where an entry is missing. `Rows.mask` stays as it is, so hidden entries are still
    scored. A row may end with nothing seen. Draws come from the global generator of PyTorch.

    Examples
    --------
    >>> rows = HideAtRandom()(Rows(torch.zeros(2, 3)))
    >>> rows.more["seen"].shape
    torch.Size([2, 3])
    """

    rate: tuple[float, float] = (0.0, 0.9)

    def __post_init__(self) -> None:
        _check_range("rate", self.rate)

    def __call__(self, rows: Rows) -> Rows:
        """The same rows with ``seen``."""
        mask = _mask_of(rows)
        return _with_seen(rows, mask & _random_mask(mask, self.rate))


@dataclass(frozen=True)
class HideLikeOtherRows:
    """Hide entries of each minibatch from the encoder as they are missing in practice: copy masking.

    Each row loses what another row of the minibatch, drawn at random, lacks. So the model practises on the patterns
    that the data have. Some rows are hidden at random instead.

    Parameters
    ----------
    random_rate : tuple of float, default (0.0, 0.9)
        Range that the rate of a row hidden at random is drawn from, uniformly.
    random_share : float, default 0.5
        Probability that a row is hidden at random instead.
    few_missing : float, default 0.02
        If a smaller share of the minibatch is missing, there is little to copy, and all rows are hidden at random.

    Notes
    -----
    The result is that of `HideAtRandom`.

    References
    ----------
    A. Gorla et al. (2025), "CACTI: leveraging copy masking and contextual information to improve tabular data
    imputation".

    Examples
    --------
    >>> mask = torch.tensor([[True, False], [False, True]])
    >>> HideLikeOtherRows(random_share=0.0)(Rows(torch.zeros(2, 2), mask=mask)).more["seen"]
    tensor([[False, False],
            [False, False]])
    """

    random_rate: tuple[float, float] = (0.0, 0.9)
    random_share: float = 0.5
    few_missing: float = 0.02

    def __post_init__(self) -> None:
        _check_range("random_rate", self.random_rate)

    def __call__(self, rows: Rows) -> Rows:
        """The same rows with ``seen``."""
        mask = _mask_of(rows)
        at_random, size = _random_mask(mask, self.random_rate), len(mask)
        if size < 2 or (~mask).float().mean() < self.few_missing:
            return _with_seen(rows, mask & at_random)
        device = mask.device
        other = (torch.arange(size, device=device) + torch.randint(1, size, (size,), device=device)) % size
        takes_random = (torch.rand(size, device=device) < self.random_share).reshape(-1, *[1] * (mask.dim() - 1))
        return _with_seen(rows, mask & torch.where(takes_random, at_random, mask[other]))


def _mask_of(rows: Rows) -> Tensor:
    return torch.ones_like(rows.x, dtype=torch.bool) if rows.mask is None else rows.mask


def _with_seen(rows: Rows, seen: Tensor) -> Rows:
    return rows.replace(more={**rows.more, "seen": seen})


def _random_mask(like: Tensor, rate: tuple[float, float]) -> Tensor:
    """True for entries that stay, where each row draws its own rate."""
    low, high = rate
    rates = low + (high - low) * torch.rand(len(like), *[1] * (like.dim() - 1), device=like.device)
    return torch.rand(like.shape, device=like.device) >= rates


def _check_range(name: str, rate: tuple[float, float]) -> None:
    low, high = rate
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{name} must be a range within 0 and 1, got {rate}")
