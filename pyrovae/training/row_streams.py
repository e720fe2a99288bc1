"""The batches of rows that are too many to be held, in an order that is known, so that a training can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pyrovae import programs
from pyrovae.data.dataset import Rows, RowStream
from pyrovae.distributed import ALONE
from pyrovae.training.batching import Batch, passed
from pyrovae.training.data import TrainingData
from pyrovae.training.parallel import Parallel
from pyrovae.training.state import TrainingState
from pyrovae.vae import VAE


class SeededBatches:
    """The batches of a `RowStream`. Seed, epoch and number of the batch tell which rows come.

    Parameters
    ----------
    vae : VAE
        The pair.
    stream : RowStream
        The rows.
    data : TrainingData
        What is done to the rows.
    batch_size : int
        Rows of a batch.
    seed : int
        Seed of the order.
    drop_last : bool, default False
        Leave out the last batch of a pass if it is a smaller one.
    parallel : Parallel, optional
        Which rows of a batch are those of this process, where several share a training.

    Raises
    ------
    ValueError
        If there is no full batch, and `drop_last`.

    Notes
    -----
    An epoch takes about `RowStream.epoch_rows` rows, and goes on where the one before it stopped. All rows come once
    before one comes again.
    """

    resumes_within_epochs = True
    generator = None

    def __init__(
        self,
        vae: VAE,
        stream: RowStream,
        data: TrainingData,
        batch_size: int,
        *,
        seed: int = 0,
        drop_last: bool = False,
        parallel: Parallel | None = None,
    ) -> None:
        self.vae, self.stream, self.data, self.batch_size, self.seed = vae, stream, data, batch_size, seed
        self.parallel = parallel or Parallel(ALONE, vae, None)
        self.total = stream.num_rows
        self.of_pass = self.total // batch_size if drop_last else math.ceil(self.total / batch_size)
        if not self.of_pass:
            raise ValueError(f"drop_last leaves nothing of {self.total} rows in batches of {batch_size}")
        whole = stream.epoch_rows >= self.total
        self.num_batches = self.of_pass if whole else max(1, min(self.of_pass, stream.epoch_rows // batch_size))
        self._first_name = next(iter(programs.argument_names(vae.model, positional=True)), "x")
        self._open: tuple[int, Iterator[Rows]] = (-1, iter(()))

    def first(self) -> Rows:
        """The first batch, as training gives it."""
        rows = next(self.stream.batches(self.seed, 0, self.batch_size))
        return self._given(rows.take(slice(max(1, self.parallel.most(len(rows))))) if self.parallel.several else rows)

    def epoch(self, state: TrainingState) -> Iterator[Batch]:
        """The batches of an epoch, from that on where the state stands."""
        place = state.epoch * self.num_batches + state.batch
        for number in range(place, (state.epoch + 1) * self.num_batches):
            rows = self._batch(number)
            self.parallel.reseed(state.epoch, number - state.epoch * self.num_batches)
            yield self._given(rows) if len(rows) else rows, len(rows)

    def in_order(self) -> Iterator[Batch]:
        """The batches of the first pass, untransformed."""
        for rows in self.stream.batches(self.seed, 0, self.batch_size):
            yield self._passed(rows.to(self.vae.device)), len(rows)

    def _batch(self, number: int) -> Rows:
        """The rows of this process in a batch of the training. What follows one is read where that one ended."""
        at, rest = self._open
        which, start = divmod(number, self.of_pass)
        if at != number or not start:
            ranks = self.parallel.processes
            how: dict[str, Any] = {"share": (ranks.rank, ranks.size)} if ranks.several else {}
            rest = self.stream.batches(self.seed, which, self.batch_size, start, **how)
        rows = next(rest).copied()  # so that a resumed training has them at the same place, by which products may round
        self.parallel.start = self.parallel.processes.share(
            min(self.batch_size, self.total - start * self.batch_size)
        ).start
        self._open = (number + 1, rest)
        return rows

    def _given(self, rows: Rows) -> Rows:
        rows = rows.to(self.vae.device)
        return self._passed(rows if self.data.transform is None else self.data.transform(rows))

    def _passed(self, rows: Rows) -> Rows:
        return passed(self.vae, self.data, self._first_name, rows)
