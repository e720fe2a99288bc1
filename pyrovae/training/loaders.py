"""The batches of a `DataLoader` that several processes share: each of them reads its own part of every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

from pyrovae.data.fingerprints import fingerprint
from pyrovae.data.rows import Rows
from pyrovae.nn.row_table import RowTable
from pyrovae.rng import forked
from pyrovae.training.batching import Batch
from pyrovae.training.data import Stream
from pyrovae.training.parallel import Parallel
from pyrovae.training.state import TrainingState

_SHARED_ORDER = (
    "let the sampler of the DataLoader draw from torch's random numbers, or from a torch.Generator that has one seed "
    "in all of them"
)


class SharedLoader:
    """The batches of a loader, of which this process reads its part. An epoch ends with the loader.

    Parameters
    ----------
    stream : Stream
        The loader, which `check_loader` lets pass.
    parallel : Parallel
        Which rows of a batch are those of this process.
    name : {"training", "validation"}, default "training"
        What the rows are for.
    hide_labels : bool, default False
        Give the programs unknown labels.

    Raises
    ------
    ValueError
        For training rows of a pair that has parameters for each row.

    Notes
    -----
    The sampler of the loader runs in every process, and takes the random numbers that it takes in one process alone.
    The batches are compared and cut, and a second loader with the same data set, `collate_fn` and workers reads the
    parts of this process. What the data set itself draws comes from the stream of the process.
    """

    resumes_within_epochs = False

    def __init__(
        self, stream: Stream, parallel: Parallel, *, name: str = "training", hide_labels: bool = False
    ) -> None:
        self.parallel, self.name, self.hide_labels = parallel, name, hide_labels
        self.total, self.num_batches, self.generator = stream.num_rows, stream.num_batches, stream.generator
        size = parallel.processes.size
        if name == "training" and any(isinstance(module, RowTable) for module in parallel.vae.modules()):
            raise ValueError(
                f"each of {size} processes moves the parameters of its own rows, and whose the rows of a DataLoader "
                "are is not known before they are read; give the rows themselves, or train in one process"
            )
        self._loader: Any = stream.loader
        self._beginning = b""
        self._parts, self._random = _Parts(), torch.Generator()
        self._stream = replace(stream, loader=_second(self._loader, self._parts, self._random))

    def first(self) -> Rows:
        """The first rows of the first batch, as many as this process has; random numbers stay where they were.

        Raises
        ------
        ValueError
            If there is no batch.
        """
        before = None if self.generator is None else self.generator.get_state()
        with forked():
            batch = next(iter(self._loader.batch_sampler), None)
            batch = None if batch is None else _listed(batch)
            some = [] if batch is None else batch[: max(1, self.parallel.most(len(batch)))]
            self._beginning = _digest([] if batch is None else [batch])
            self._parts.found = [some] if len(some) else []
            self._random.manual_seed(self.parallel.workers_seed(0))
            rows = next(iter(list(self._stream)), None)
        if self.generator is not None and before is not None:
            self.generator.set_state(before)
        if rows is None or not len(rows):
            raise ValueError(f"the DataLoader of the {self.name} rows gave no batch; it must have one")
        return rows

    def epoch(self, state: TrainingState) -> Iterator[Batch]:
        """The parts of this process in the batches of an epoch; in a small batch it may have none.

        Raises
        ------
        ValueError
            In every process with the same line, if their samplers give different batches.
        """
        orders: Any = self.parallel.orders
        batches = self._batches(orders)
        given = self._reading(batches, self.parallel.workers_seed(state.epoch))
        for number, batch in enumerate(batches):
            self.parallel.reseed(state.epoch, number)
            self.parallel.start = self.parallel.processes.share(len(batch)).start
            rows = next(given) if self.parallel.most(len(batch)) else Rows(torch.empty(0))
            yield rows, len(rows)

    def in_order(self) -> Iterator[Batch]:
        """The parts of this process in all batches, for validation."""
        batches = self._batches(self.parallel.validation_orders())
        for rows in self._reading(batches, self.parallel.validation_seed()):
            if len(rows):
                yield (rows.without_labels() if self.hide_labels else rows), len(rows)

    def _batches(self, orders: torch.Generator) -> list[Any]:
        """All batches of an epoch as one process would draw them, rows by their place in the data set."""
        loader = self._loader
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(orders.get_state())
            batches = iter(loader.batch_sampler)
            if not loader.persistent_workers:  # a loader draws a seed for its workers, and begins anew for them
                torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
                batches = iter(loader.batch_sampler) if loader.num_workers else batches
            found = [_listed(batch) for batch in batches]
            orders.set_state(torch.get_rng_state())
        self.parallel.processes.agree(f"order of the {self.name} rows", _digest(found), _SHARED_ORDER)
        most, size = max(map(len, found), default=0), self.parallel.processes.size
        if self.name == "training" and most < size:
            raise ValueError(too_small(most, size))
        return found

    def agree(self) -> None:
        """Refuse processes whose loaders have other lengths or begin with other rows, after `first`.

        Raises
        ------
        ValueError
            In every process with the same line.
        """
        agree = self.parallel.processes.agree
        agree(f"number of {self.name} batches", self.num_batches, "give all of them the same DataLoader")
        agree(f"order of the {self.name} rows", self._beginning, _SHARED_ORDER)

    def _reading(self, batches: list[Any], seed: int) -> Iterator[Rows]:
        """What this process has of the batches, where it has some."""
        parts = [batch[self.parallel.processes.share(len(batch))] for batch in batches]
        self._parts.found = [part for part in parts if len(part)]
        self._random.manual_seed(seed)
        return iter(self._stream)


class _Parts:
    """A sampler that gives the batches which it was told."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def _second(loader: Any, parts: _Parts, generator: torch.Generator) -> DataLoader[Any]:
    """A loader that reads other batches the way in which a loader reads its own."""
    how = {name: getattr(loader, name) for name in ("collate_fn", "pin_memory", "timeout", "worker_init_fn")}
    if loader.num_workers:
        names = ("num_workers", "prefetch_factor", "persistent_workers", "multiprocessing_context")
        how |= {name: getattr(loader, name) for name in names}
    if loader.pin_memory_device:
        how["pin_memory_device"] = loader.pin_memory_device
    return DataLoader(loader.dataset, batch_sampler=parts, generator=generator, **how)


def _digest(batches: list[Any]) -> bytes:
    """What tells batches from others, by the numbers of their rows."""
    plain = (b.tolist() if isinstance(b, Tensor) else [_number(place) for place in b] for b in batches)
    return hashlib.blake2b(repr(list(plain)).encode()).digest()


def _number(place: Any) -> Any:
    return place.tolist() if isinstance(place, Tensor) else place


def _listed(batch: Any) -> Any:
    return batch if isinstance(batch, list | tuple | Tensor) else list(batch)


def too_small(rows: int, size: int) -> str:
    """What is said of a loader whose batches have fewer rows than there are processes."""
    return (
        f"the batches of the DataLoader have {rows} rows for all processes together, and there are {size} processes; "
        f"give batch_size={size} or more to the loader"
    )


def check_loader(stream: Stream, name: str, size: int) -> None:
    """Refuse a loader whose batches several processes cannot cut.

    Parameters
    ----------
    stream : Stream
        The loader.
    name : str
        What its rows are for, "training" or "validation".
    size : int
        Number of processes.

    Raises
    ------
    ValueError
        Saying why not, and what to give.
    """
    loader: Any = stream.loader
    begin = f"{size} processes train, and the batches of the {name} rows"
    other = "give a DataLoader over a data set with __getitem__, the rows themselves or a Parquet file"
    alone = "or train in one process"
    kind = type(loader)
    if not isinstance(loader, DataLoader):
        raise ValueError(f"{begin} come from a {kind.__name__} and cannot be cut; {other}, {alone}")
    if isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"{begin} come from a DataLoader over the stream {type(loader.dataset).__name__} and cannot be cut; "
            f"{other}, {alone}"
        )
    own = [n for n in ("__iter__", "_get_iterator") if getattr(kind, n) is not getattr(DataLoader, n)]
    if own:
        raise ValueError(
            f"{begin} come from a {kind.__name__}, whose own {own[0]} tells them, and cannot be cut; give a DataLoader "
            f"of torch, {alone}"
        )
    sampler: Any = loader.batch_sampler
    if sampler is None:
        raise ValueError(
            f"{begin} are made by the data set itself (batch_size=None) and cannot be cut; give a batch_size, {alone}"
        )
    if any(isinstance(part, DistributedSampler) for part in (loader.sampler, getattr(sampler, "sampler", None))):
        raise ValueError(
            f"{begin} are cut here, and a DistributedSampler has cut them already and repeats rows; give the "
            "DataLoader without it, with shuffle=True and the batch_size of all processes together"
        )
    if stream.num_batches is None:
        raise ValueError(f"{begin} come from a sampler that does not say how many they are; give it a __len__, {alone}")
    if name == "training":
        batch_size = loader.batch_size or getattr(sampler, "batch_size", None)
        if isinstance(batch_size, int) and batch_size < size:
            raise ValueError(too_small(batch_size, size))
        rows = stream.num_rows
        if stream.num_batches == 1 and rows is not None and rows < size:
            raise ValueError(f"there are {size} processes and {rows} training rows; start at most {rows} processes")


def print_of(stream: Stream) -> dict[str, Any] | None:
    """The fingerprint of rows that a loader has in tensors; None where they are made only when they are read."""
    data: Any = getattr(stream.loader, "dataset", None)
    tensors = (data,) if isinstance(data, Tensor) else data.tensors if type(data) is TensorDataset else ()
    if not tensors:
        return None
    return fingerprint(Rows(tensors[0], more={str(number): part for number, part in enumerate(tensors[1:])}))
