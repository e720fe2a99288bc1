"""Where the batches of an epoch come from: rows that are held, or a stream of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Protocol

import torch

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data.dataset import Rows, RowStream
from pyrovae.distributed import ALONE
from pyrovae.training.data import Stream, TrainingData
from pyrovae.training.forms import arguments_of, rows_from
from pyrovae.training.parallel import Parallel
from pyrovae.training.state import TrainingState
from pyrovae.vae import VAE

Batch = tuple[Rows, int]
"""Rows as the programs get them, and how many they are."""
VALIDATION_ROWS = 1000
_GATHERED = 4_000_000  # bytes, which the allocator keeps from one time to the next


class Batches(Protocol):
    """The batches of the data."""

    resumes_within_epochs: bool
    """Whether a training can be resumed in the middle of an epoch."""

    @property
    def total(self) -> int | None:
        """Rows of all data, where known."""
        ...

    @property
    def num_batches(self) -> int | None:
        """Batches of an epoch, where known."""
        ...

    @property
    def generator(self) -> torch.Generator | None:
        """Random numbers of their own, which belong to the state of the training."""
        ...

    def first(self) -> Rows:
        """The first batch, to try the pair on."""
        ...

    def epoch(self, state: TrainingState) -> Iterator[Batch]:
        """The batches of the present epoch, from that on where the state stands."""
        ...

    def in_order(self) -> Iterator[Batch]:
        """All rows as they are, for validation."""
        ...


class HeldBatches:
    """Minibatches cut from tensors on the device of the pair, shuffled anew in each epoch.

    A batch that holds all rows is not shuffled, because latents by row of guides like AutoNormal stand in their order.

    Parameters
    ----------
    vae : VAE
        The pair.
    rows : Rows
        The rows.
    data : TrainingData
        What is done to the rows.
    batch_size : int
        Rows of a batch.
    drop_last : bool, default False
        Leave out the last batch of an epoch if it is a smaller one.
    parallel : Parallel, optional
        Which rows of a batch are those of this process, where several share a training.

    Raises
    ------
    ValueError
        If there are no rows, or no full batch of them and `drop_last`.
    """

    resumes_within_epochs = True
    generator = None

    def __init__(
        self,
        vae: VAE,
        rows: Rows,
        data: TrainingData,
        batch_size: int,
        *,
        drop_last: bool = False,
        parallel: Parallel | None = None,
    ) -> None:
        if not len(rows):
            raise ValueError("there are no rows to train or validate on")
        self.vae, self.rows, self.data, self.batch_size = vae, rows.to(vae.device), data, batch_size
        self.parallel = parallel or Parallel(ALONE, vae, None)
        self.total = len(rows)
        self.num_batches = self.total // batch_size if drop_last else math.ceil(self.total / batch_size)
        if not self.num_batches:
            raise ValueError(f"drop_last leaves nothing of {self.total} rows in batches of {batch_size}")
        self._first_name = next(iter(programs.argument_names(vae.model, positional=True)), "x")

    @property
    def smallest(self) -> int:
        """Rows of the smallest batch, or of the part of it that this process has."""
        left = self.total - (self.num_batches - 1) * self.batch_size
        return max(1, self.parallel.most(min(left, self.batch_size)))

    def first(self) -> Rows:
        """The first rows, as training gives them."""
        count = self.parallel.most(min(self.batch_size, self.total))
        return self._passed(self._seen(self.rows.take(slice(max(1, count)))))

    def some(self, index: torch.Tensor) -> Rows:
        """The rows of these numbers, as training gives them."""
        return self._passed(self._seen(self.rows.take(index.to(self.vae.device))))

    def epoch(self, state: TrainingState) -> Iterator[Batch]:
        """The minibatches of an epoch, in the order that the state holds; a new one before its first batch."""
        order = self._order(state)
        at_once, held, waiting = self._batches_at_once(), self.rows, [0]
        for number in range(state.batch, self.num_batches):
            if len(waiting) == 1:  # the next batches are gathered together
                following = order[number * self.batch_size :][: at_once * self.batch_size]
                parts = [self.parallel.part(index, self.rows) for index in following.split(self.batch_size)]
                held = self.rows.gathered(torch.cat(parts) if self.parallel.several else following)
                waiting = [0, *accumulate(len(part) for part in parts)]
            self.parallel.reseed(state.epoch, number)
            start = waiting.pop(0)
            rows = held.take(slice(start, waiting[0]))
            yield self._passed(self._seen(rows)) if len(rows) else rows, len(rows)

    def next(self, state: TrainingState) -> Batch:
        """The next minibatch alone, where one process trains."""
        rows = self.rows.gathered(self._order(state)[state.batch * self.batch_size :][: self.batch_size])
        return self._passed(self._seen(rows)), len(rows)

    def full(self, state: TrainingState) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        """The next full minibatches as arguments of the programs, where one process trains and nobody changes rows."""
        size, at_once, order = self.batch_size, self._batches_at_once(), self._order(state)
        for start in range(state.batch, self.total // size, at_once):
            held = self.rows.gathered(order[start * size :][: at_once * size])
            x, data = arguments(self.vae, held)
            parts = {name: value.split(size) for name, value in data.items() if name not in held.whole}
            for number, part in enumerate(x.split(size)):
                if len(part) == size:
                    yield part, {name: parts[name][number] if name in parts else data[name] for name in data}

    @property
    def changes_rows(self) -> bool:
        """Whether a function of the user sees each batch."""
        return self.data.transform is not None or self.data.collate is not None

    def _order(self, state: TrainingState) -> torch.Tensor:
        """The order of the rows in this epoch; a new one before its first batch."""
        if state.permutation is None:
            whole = self.total <= self.batch_size
            orders = self.parallel.orders
            state.permutation = torch.arange(self.total) if whole else torch.randperm(self.total, generator=orders)
        return state.permutation.to(self.vae.device)

    def _batches_at_once(self) -> int:
        """How many batches are gathered by one call, which takes less time than a call for each."""
        tensors = [self.rows.x, *(value for value in self.rows.fields().values() if isinstance(value, torch.Tensor))]
        of_row = sum(value.element_size() * value.numel() // max(1, len(value)) for value in tensors)
        return max(1, _GATHERED // max(1, of_row * self.batch_size))

    def in_order(self) -> Iterator[Batch]:
        """All rows of this process, in parts of 1000, untransformed."""
        for part in self.rows.take(self.parallel.processes.share(self.total)).batches(VALIDATION_ROWS):
            yield self._passed(part), len(part)

    def _seen(self, rows: Rows) -> Rows:
        return rows if self.data.transform is None else self.data.transform(rows)

    def _passed(self, rows: Rows) -> Rows:
        return passed(self.vae, self.data, self._first_name, rows)


def passed(vae: VAE, data: TrainingData, first_name: str, rows: Rows) -> Rows:
    """What `collate` makes of some rows; their index stays with them."""
    if data.collate is None:
        return rows
    given = arguments_of(rows, data.form, first_name)
    made = rows_from(vae, data.collate(given), "what collate gives")
    keeps = made.index is None and rows.index is not None and "index" not in made.fields()
    return made.replace(index=rows.index) if keeps else made


class StreamedBatches:
    """The batches of a loader, as they come. An epoch ends with the loader.

    Parameters
    ----------
    stream : Stream
        The loader.
    hide_labels : bool, default False
        Give the programs unknown labels.
    """

    resumes_within_epochs = False

    def __init__(self, stream: Stream, *, hide_labels: bool = False) -> None:
        self.stream, self.hide_labels = stream, hide_labels
        self.total, self.num_batches, self.generator = stream.num_rows, stream.num_batches, stream.generator

    def first(self) -> Rows:
        """The first batch; the random numbers of the loader stay where they were.

        Raises
        ------
        ValueError
            If there is none.
        """
        own = self.generator
        before = torch.get_rng_state() if own is None else own.get_state()
        with torch.random.fork_rng():
            rows = next(iter(self.stream), None)
        if own is not None:
            own.set_state(before)
        if rows is None or not len(rows):
            raise ValueError("the stream gave no batch; a loader must have one, and begin anew whenever it is iterated")
        return rows

    def epoch(self, state: TrainingState) -> Iterator[Batch]:
        """The batches of an epoch.

        Raises
        ------
        ValueError
            If there are none, as from a generator that is used up.
        """
        count = 0
        for rows in self.stream:
            if len(rows):
                count += 1
                yield (rows.without_labels() if self.hide_labels else rows), len(rows)
        if not count:
            raise ValueError(
                f"the stream gave no batch in epoch {state.epoch + 1}; a loader must begin anew whenever it is iterated"
            )

    def in_order(self) -> Iterator[Batch]:
        """The batches as they come."""
        return self.epoch(TrainingState())


def streamed(
    stream: Stream, parallel: Parallel | None, *, name: str = "training", hide_labels: bool = False
) -> Batches:
    """The batches of a loader, or the parts of this process in them where several share a training."""
    if parallel is None or not parallel.several:
        return StreamedBatches(stream, hide_labels=hide_labels)
    from pyrovae.training.loaders import SharedLoader  # which stands on this module

    return SharedLoader(stream, parallel, name=name, hide_labels=hide_labels)


def batches_of(
    vae: VAE,
    rows: Rows | Stream | RowStream,
    data: TrainingData,
    batch_size: int,
    *,
    drop_last: bool,
    seed: int | None = None,
    parallel: Parallel | None = None,
) -> Batches:
    """The batches of training rows. The seed tells the order of a `RowStream`.

    Raises
    ------
    ValueError
        For `drop_last` of a stream, which is for its loader to do.
    """
    if isinstance(rows, Rows):
        return HeldBatches(vae, rows, data, batch_size, drop_last=drop_last, parallel=parallel)
    if not isinstance(rows, Stream):
        from pyrovae.training.row_streams import SeededBatches  # which stands on this module

        return SeededBatches(vae, rows, data, batch_size, seed=seed or 0, drop_last=drop_last, parallel=parallel)
    if drop_last:
        raise ValueError("drop_last is for rows that are held; give it to the loader, DataLoader(..., drop_last=True)")
    return streamed(rows, parallel)
