"""Losses of batches, which stay on the device until many of them are read by one call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

AT_ONCE = {"cpu": 1, "cuda": 64}
"""Losses that are read at once, by device: a processor reads one at no cost, another device is waited for."""


class Waiting(NamedTuple):
    """A loss that nobody has looked at yet, and where it comes from."""

    loss: Tensor
    batch: int
    """Number of the batch in its epoch, from 1."""
    x: Tensor
    data: Mapping[str, Tensor]


class Losses:
    """The losses of the last batches.

    After a loss that is not finite, `skip` is 1. Fused optimizers then do nothing, so that the parameters are still
    those which gave this loss when it is read.

    Parameters
    ----------
    device : device
        Where the losses are.
    at_once : int
        How many are read at once.
    """

    def __init__(self, device: torch.device, at_once: int) -> None:
        self.at_once = at_once
        self.skip = torch.zeros((), dtype=torch.float32, device=device)  # whatever the dtype of the pair
        self._waiting: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, loss: Tensor, batch: int, x: Tensor, data: Mapping[str, Tensor]) -> None:
        """Put a loss, a scalar, to the others."""
        self._waiting.append(Waiting(loss, batch, x, data))

    @torch.no_grad()
    def mark(self, loss: Tensor) -> None:
        """Let `skip` be 1 if a loss is not finite, before the step of the optimizer."""
        torch.maximum(self.skip, loss.isfinite().logical_not().to(self.skip), out=self.skip)

    def read(self) -> tuple[list[float], Waiting | None]:
        """The losses since the last time, in their order, up to the first one that is not finite; and that one."""
        waiting, self._waiting = self._waiting, []
        values = torch.stack([one.loss for one in waiting]).tolist() if waiting else []
        for number, value in enumerate(values):
            if not math.isfinite(value):
                return values[: number + 1], waiting[number]
        return values, None
