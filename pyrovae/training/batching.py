"""Where the batches of an epoch come from: rows that are held, or a stream of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch

from pyrovae import programs
from pyrovae.batches import arguments
from pyrovae.data.dataset import Rows, RowStream
from pyrovae.data.rows import refuse_lists
from pyrovae.distributed import ALONE
from pyrovae.infer.bound_loss import known_labels
from pyrovae.rng import forked
from pyrovae.training.data import Stream, TrainingData
from pyrovae.training.forms import arguments_of, rows_from
from pyrovae.training.parallel import Parallel
from pyrovae.training.state import TrainingState
from pyrovae.vae import VAE

Batch = tuple[Rows, int]
"""Rows as the programs get them, and how many they are."""
VALIDATION_ROWS = 1000
_GATHERED = 16_000_000  # bytes; the allocator keeps as many from one time to the next, and long groups of steps fit in


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


class _Chunk(NamedTuple):
    """Batches whose rows were gathered together."""

    permutation: torch.Tensor
    """The order of all rows in this epoch."""
    order: torch.Tensor
    """The same on the device of the pair, which is waited for once an epoch."""
    numbers: range
    """Which batches of the epoch they are."""
    rows: Rows
    starts: list[int]
    """Where each of them begins, and the end of the last one."""

    def part(self, number: int) -> slice:
        """Where the rows of a batch are."""
        place = number - self.numbers.start
        return slice(self.starts[place], self.starts[place + 1])


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
        refuse_lists(rows.whole, len(rows), batch_size)
        self.vae, self.data, self.batch_size = vae, data, batch_size
        self.rows = rows.to(vae.device).contiguous()  # so that the first batch lies in memory as the others do
        self.parallel = parallel or Parallel(ALONE, vae, None)
        self.total = len(rows)
        self.num_batches = self.total // batch_size if drop_last else math.ceil(self.total / batch_size)
        if not self.num_batches:
            raise ValueError(f"drop_last leaves nothing of {self.total} rows in batches of {batch_size}")
        self._first_name = next(iter(programs.argument_names(vae.model, positional=True)), "x")
        self._held: _Chunk | None = None

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
        for number in range(state.batch, self.num_batches):
            self.parallel.reseed(state.epoch, number)
            yield self._batch(state, number)

    def next(self, state: TrainingState) -> Batch:
        """The next minibatch alone, where one process trains."""
        return self._batch(state, state.batch)

    def full(self, state: TrainingState) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
        """The next full minibatches as arguments of the programs, where one process trains and nobody changes rows.

        The state tells each time which one is the next.
        """
        chunk = None
        while (number := state.batch) < self.total // self.batch_size:
            if chunk is None or number not in chunk.numbers:
                chunk = self._chunk(state, number)
                x, data = arguments(self.vae, chunk.rows)
            part = chunk.part(number)
            yield x[part], {name: value if name in chunk.rows.whole else value[part] for name, value in data.items()}

    def together(self, state: TrainingState) -> Together:
        """The full minibatches from the next one on that lie one behind the other in memory, as `full` has them."""
        chunk = self._chunk(state, state.batch)
        x, data = arguments(self.vae, chunk.rows)
        count = min(chunk.numbers.stop, self.total // self.batch_size) - state.batch
        cut = [True, *(name not in chunk.rows.whole for name in data)]
        labels = None if "y" in chunk.rows.whole else data.get("y")
        return Together([x, *data.values()], cut, labels, chunk.part(state.batch).start, self.batch_size, count)

    @property
    def known_labels(self) -> tuple[bool, ...] | None:
        """What `known_labels` tells of every batch, whichever rows it has; None if batches differ in that."""
        labels = self.rows.y
        if labels is None or self.changes_rows:
            return None
        told = known_labels(labels)
        return told if told in ((True, True), (False, False)) else None

    @property
    def changes_rows(self) -> bool:
        """Whether a function of the user sees each batch."""
        return self.data.transform is not None or self.data.collate is not None

    def _batch(self, state: TrainingState, number: int) -> Batch:
        chunk = self._chunk(state, number)
        rows = chunk.rows.take(chunk.part(number))
        return self._passed(self._seen(rows)) if len(rows) else rows, len(rows)

    def _chunk(self, state: TrainingState, number: int) -> _Chunk:
        """The batches that are gathered together with this one.

        They are always the same ones, wherever a training was resumed: the products of some libraries round by the
        place of a row in memory.
        """
        chunk = self._held
        if chunk is not None and chunk.permutation is state.permutation:
            if number in chunk.numbers:
                return chunk
            permutation, order = chunk.permutation, chunk.order
        else:
            chunk = self._held = None  # whose memory the next one may need
            permutation = self._permutation(state)
            order = permutation.to(self.vae.device)
        first = number // self._at_once * self._at_once
        numbers = range(first, min(first + self._at_once, self.num_batches))
        positions = order[first * self.batch_size : numbers.stop * self.batch_size]
        parts = [self.parallel.part(index, self.rows) for index in positions.split(self.batch_size)]
        rows = self.rows.gathered(torch.cat(parts) if self.parallel.several else positions)
        self._held = _Chunk(permutation, order, numbers, rows, [0, *accumulate(map(len, parts))])
        return self._held

    def _permutation(self, state: TrainingState) -> torch.Tensor:
        """The order of all rows in this epoch; a new one before its first batch."""
        if state.permutation is None:
            whole = self.total <= self.batch_size
            orders = self.parallel.orders
            state.permutation = (
                torch.arange(self.total, device="cpu")
                if whole
                else torch.randperm(self.total, generator=orders, device="cpu")
            )
        return state.permutation

    @cached_property
    def _at_once(self) -> int:
        """How many batches are gathered by one call, which takes less time than a call for each."""
        fields = {name: value for name, value in self.rows.fields().items() if name not in self.rows.whole}
        tensors = [self.rows.x, *(value for value in fields.values() if isinstance(value, torch.Tensor))]
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


class Together(NamedTuple):
    """Batches that lie one behind the other in memory."""

    arguments: list[torch.Tensor]
    """Of the programs. Some have the rows of all batches."""
    is_cut: list[bool]
    """Which of them those are."""
    labels: torch.Tensor | None
    """Of all batches, if they have some."""
    first: int
    """The first row of the first batch."""
    size: int
    """Rows of a batch."""
    number: int
    """How many batches they are."""

    def labelled(self, most: int, labels: tuple[bool, ...]) -> int:
        """How many batches from the first one on are alike in what `known_labels` tells of them, which is `labels`."""
        if labels and self.labels is not None:
            for number in range(1, most):
                start = self.first + number * self.size
                if known_labels(self.labels[start : start + self.size]) != labels:
                    return number
        return most


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
        with forked():
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
