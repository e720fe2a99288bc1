"""The processes that train together: those that torchrun starts, or whatever sets the same environment variables."""

from __future__ import annotations

import os
import pickle  # of what the processes of a training say to each other, never of files
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import eq
from typing import TYPE_CHECKING, Any, TypeVar

from pyrovae.joining import LostProcessError, finish, forget_groups, join, local_rank, store

__all__ = [
    "ALONE",
    "LostProcessError",
    "Processes",
    "in_parts",
    "is_restart",
    "launch",
    "local_rank",
    "processes",
]

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where it is needed, since the help of the command line comes without it.

T = TypeVar("T")
_PATIENCE = 10.0
"""Seconds that a process waits for a word of another one before it ends."""


_PARTED = "the processes of this training have parted; start them anew"


class Processes:
    """The processes that work together, and how they speak to each other. `processes` gives them.

    Parameters
    ----------
    rank : int, default 0
        The number of this process, from 0.
    size : int, default 1
        How many there are. One alone never speaks.
    group : object, optional
        The group of `torch.distributed` for tensors and objects in main memory; None is the default group.
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank, self.size, self._group = rank, size, group
        self._turns, self._left = 0, False

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of so many rows are those of this process: together all of them, in order, sizes at most 1 apart."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.several:
            import torch.distributed as dist

            self._together(dist.all_reduce, tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if not self.several:
            return [value]
        import torch
        import torch.distributed as dist

        # all_gather_object does not wait for its thread, see `finish`.
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        lengths = [torch.empty(1, dtype=torch.int64, device="cpu") for _ in range(self.size)]
        self._together(dist.all_gather, lengths, torch.tensor([len(own)], device="cpu"))
        longest = int(max(lengths))
        found = [torch.empty(longest, dtype=torch.uint8, device="cpu") for _ in range(self.size)]
        self._together(dist.all_gather, found, torch.nn.functional.pad(own, (0, longest - len(own))))
        return [pickle.loads(of_one[:length].numpy().data) for of_one, length in zip(found, lengths, strict=True)]

    def same(self, value: T) -> T:
        """The value of the first process."""
        return self.gather(value)[0] if self.several else value

    def spread(self, tensor: Tensor) -> None:
        """Give a tensor the values that it has in the first process, in place."""
        if self.several:
            import torch
            import torch.distributed as dist

            given = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.contiguous()
            self._together(dist.broadcast, given, src=0)
            tensor.copy_(given)

    def agree(self, what: str, value: Any, advice: str, *, same: Callable[[Any, Any], bool] = eq) -> None:
        """Refuse processes that were given different things.

        Parameters
        ----------
        what : str
            What the value is, such as "seed".
        value : object
            What this process was given. Short ones are shown.
        advice : str
            What to do.
        same : callable, optional
            Whether two values are the same.

        Raises
        ------
        ValueError
            In every process with the same line, naming the first that differs.
        """
        values = self.gather(value)
        for rank, other in enumerate(values):
            if not same(values[0], other):
                short = all(isinstance(v, int | float | str | None) for v in (values[0], other))
                shown = f" ({other!r}, not {values[0]!r})" if short else ""
                raise ValueError(f"process {rank} has another {what} than process 0{shown}; {advice}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """A context of work that each process does by itself; if it fails in one of them, it fails in all.

        Raises
        ------
        ValueError
            With the line of the first process that failed.
        """
        if not self.several:
            yield
            return
        problem: Exception | None = None
        try:
            yield
        except LostProcessError:
            raise
        except Exception as error:
            problem = error
        lines = self.gather(None if problem is None else _line(problem))
        if problem is not None:
            raise problem
        for rank, line in enumerate(lines):
            if line is not None:
                raise ValueError(f"process {rank}: {line}")

    def on_first(self, work: Callable[[], T]) -> T | None:
        """Let the first process do something alone, while the others wait, however long it takes.

        Returns
        -------
        object or None
            What `work` gives; None in the other processes.
        """
        if not self.several:
            return work()
        self._turns += 1
        key = f"pyrovae.turn.{self._turns}"
        if self.first:
            try:
                with _by_itself():
                    found = work()
            except BaseException as error:
                self.leave(error)
                raise
            store().set(key, "done")
            return found
        while not self._speak(lambda: store().check([key])):
            if self._speak(lambda: store().check(["pyrovae.error.0"])):
                raise self._lost()
            time.sleep(0.05)
        return None

    def check_others(self, ended: bool = False) -> None:
        """Raise if another process has left the work, or is known to have ended.

        Raises
        ------
        LostProcessError
            With what it said.
        """
        if self._left:
            raise LostProcessError(_PARTED)
        keys = [f"pyrovae.error.{rank}" for rank in range(self.size) if rank != self.rank]
        try:
            if not ended and not any(store().check([key]) for key in keys):
                return
        except RuntimeError:  # the store of a process that has ended
            pass
        raise self._lost()

    def leave(self, problem: BaseException) -> None:
        """End the work with the others because of a problem of this process, which they are told."""
        if not self.several or self._left or isinstance(problem, LostProcessError):
            return
        with suppress(RuntimeError):
            store().set(f"pyrovae.error.{self.rank}", _line(problem))
        self._left, self._group = True, None
        store()  # which is still needed
        forget_groups()

    def last_word(self, line: str, say: Callable[[str], None]) -> None:
        """Say why the processes end with an error, once: the first one speaks for all, unless it cannot.

        Parameters
        ----------
        line : str
            The error in one line.
        say : callable
            Prints a line.
        """
        if self.first:
            say(line)
        if not self.several:
            return
        told = self.first
        with suppress(RuntimeError):
            shared = store()
            if self.first:
                shared.set("pyrovae.told", "yes")
            else:
                shared.set(f"pyrovae.error.{self.rank}", line)
                self._left, self._group = True, None
                forget_groups()
                told = self._wait(lambda: shared.check(["pyrovae.told"]))
            shared.add("pyrovae.ended", 1)
            if self.first:  # since a launcher stops the others as soon as one has ended
                self._wait(lambda: shared.add("pyrovae.ended", 0) >= self.size)
        if not told:
            say(f"process {self.rank}: {line}")

    @staticmethod
    def _wait(there: Callable[[], bool], seconds: float = _PATIENCE) -> bool:
        end = time.monotonic() + seconds
        while not there():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def _together(self, operation: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Do an operation of `torch.distributed` with the other processes, on main memory or on their devices."""
        if any(getattr(given, "is_cuda", False) for given in args):
            self._speak(operation, *args, **options)
        else:
            self._speak(finish, operation, *args, group=self._group, **options)

    def _speak(self, operation: Callable[..., T], *args: Any, **options: Any) -> T:
        if self._left:
            raise LostProcessError(_PARTED)
        try:
            return operation(*args, **options)
        except RuntimeError as error:
            # Without its frames, which hold the group: whoever keeps the error would keep the threads of the group.
            raise self._lost() from error.with_traceback(None)

    def _lost(self) -> LostProcessError:
        """Why another process has ended, as far as it said."""
        keys = {rank: f"pyrovae.error.{rank}" for rank in range(self.size) if rank != self.rank}
        with suppress(RuntimeError):
            self._wait(lambda: any(store().check([key]) for key in keys.values()), 2.0)
            for rank, key in keys.items():
                if store().check([key]):
                    return LostProcessError(f"process {rank}: {store().get(key).decode()}")
        return LostProcessError("another process of the training has ended, killed perhaps")


ALONE = Processes()
_joined: Processes | None = None
_by_itself_depth = 0


def processes() -> Processes:
    """The processes that this one works with. It joins them in the first call.

    Without the environment variables, or where one process is all, nothing is joined.

    Returns
    -------
    Processes
        The processes; this one alone where there are no others.

    Raises
    ------
    ValueError
        For environment variables that are none.
    """
    global _joined
    if _by_itself_depth:
        return ALONE
    if _joined is None:
        found = join()
        _joined = None if found is None else Processes(*found)
    return ALONE if _joined is None else _joined


def in_parts(work: Callable[[Any], T], rows: Any) -> list[T]:
    """Let each process work on a part of some rows, and give all of them what all found.

    Use it to encode or complete many rows under torchrun. What is found of a row must not depend on the other rows.

    Parameters
    ----------
    work : callable
        From some of the rows to what is found of them.
    rows : Tensor, array or list
        All rows, the same in every process. `work` gets parts of them, cut by slices; of a table, its ``iloc``.

    Returns
    -------
    list
        What was found, in the order of the rows: an entry for each process that had rows, of one process alone a
        single one.

    Raises
    ------
    ValueError
        If the work failed in one of the processes.

    Examples
    --------
    >>> import torch
    >>> in_parts(lambda part: part * 2, torch.arange(3))
    [tensor([0, 2, 4])]
    """
    ranks = processes()
    share = ranks.share(len(rows))
    found: list[T] = []
    with ranks.together():
        if share.stop > share.start or not ranks.several:
            found = [work(getattr(rows, "iloc", rows)[share])]
    return [part for parts in ranks.gather(found) for part in parts]


def launch() -> str | None:
    """What tells this start of torchrun from others, its restarts of processes included; None without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name is None else f"{name} {socket.gethostname()} {os.getppid()}"


def is_restart() -> bool:
    """Whether torchrun has started this process because another one had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def _by_itself() -> Iterator[None]:
    global _by_itself_depth
    _by_itself_depth += 1
    try:
        yield
    finally:
        _by_itself_depth -= 1


def _line(problem: BaseException) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__
