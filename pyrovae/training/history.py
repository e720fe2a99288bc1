"""What a training did, and how it may end early."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the message says in which epoch, batch and site."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training, after everything was saved."""


class History(NamedTuple):
    """What a training did."""

    rows: list[dict[str, float]]
    """A row of metrics for each epoch."""
    best_epoch: int
    """The epoch, counted from 1, whose weights the VAE now has; 0 if none was better than the start."""
    reason: str
    """Why the training ended."""

    def frame(self) -> pd.DataFrame:
        """The metrics as a DataFrame, indexed by epoch."""
        return pd.DataFrame(self.rows).set_index("epoch")
