"""The processes that train together: those that torchrun starts, or whatever sets the same environment variables."""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import eq
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

# torch is imported where it is needed, since the help of the command line comes without it.

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables of a process that is one of several, as torchrun sets them."""
_PATIENCE = 10.0
"""Seconds that a process waits for a word of another one before it ends."""
_JOINING = 600.0
"""Seconds that a process waits for all others to come."""


class LostProcessError(RuntimeError):
    """Another process of a training has ended; the message is one line."""


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

            self._speak(dist.all_reduce, tensor, group=None if tensor.is_cuda else self._group)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if not self.several:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        self._speak(dist.all_gather_object, found, value, group=self._group)
        return found

    def same(self, value: T) -> T:
        """The value of the first process."""
        return self.gather(value)[0] if self.several else value

    def spread(self, tensor: Tensor) -> None:
        """Give a tensor the values that it has in the first process, in place."""
        if self.several:
            import torch
            import torch.distributed as dist

            given = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor.contiguous()
            self._speak(dist.broadcast, given, src=0, group=None if tensor.is_cuda else self._group)
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
            _store().set(key, "done")
            return found
        while not self._speak(lambda: _store().check([key])):
            if self._speak(lambda: _store().check(["pyrovae.error.0"])):
                raise self._lost()
            time.sleep(0.05)
        return None

    def leave(self, problem: BaseException) -> None:
        """End the work with the others because of a problem of this process, which they are told."""
        if not self.several or self._left or isinstance(problem, LostProcessError):
            return
        with suppress(RuntimeError):
            _store().set(f"pyrovae.error.{self.rank}", _line(problem))
        self._left, self._group = True, None
        _leave()

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
            store = _store()
            if self.first:
                store.set("pyrovae.told", "yes")
            else:
                store.set(f"pyrovae.error.{self.rank}", line)
                self._left, self._group = True, None
                _forget_groups()
                told = self._wait(lambda: store.check(["pyrovae.told"]))
            store.add("pyrovae.ended", 1)
            if self.first:  # since a launcher stops the others as soon as one has ended
                self._wait(lambda: store.add("pyrovae.ended", 0) >= self.size)
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

    def _speak(self, operation: Callable[..., T], *args: Any, **options: Any) -> T:
        if self._left:
            raise LostProcessError("the processes of this training have parted; start them anew")
        try:
            return operation(*args, **options)
        except RuntimeError as error:
            # Without its frames, which hold the group: whoever keeps the error would keep the threads of the group.
            raise self._lost() from error.with_traceback(None)

    def _lost(self) -> LostProcessError:
        """Why another process has ended, as far as it said."""
        keys = {rank: f"pyrovae.error.{rank}" for rank in range(self.size) if rank != self.rank}
        with suppress(RuntimeError):
            self._wait(lambda: any(_store().check([key]) for key in keys.values()), 2.0)
            for rank, key in keys.items():
                if _store().check([key]):
                    return LostProcessError(f"process {rank}: {_store().get(key).decode()}")
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
        _joined = _join()
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


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _join() -> Processes | None:
    launched = all(os.environ.get(name) for name in VARIABLES)
    if not launched and "torch" not in sys.modules:
        return None
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        return None
    if not dist.is_initialized():
        if not launched:
            return None
        try:
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        except ValueError:
            rank = size = -1
        if not 0 <= rank < size:
            raise ValueError(
                f"RANK={os.environ['RANK']} and WORLD_SIZE={os.environ['WORLD_SIZE']} are the number of a process and "
                "how many there are; let torchrun set them, or unset them to train in one process"
            )
        if size == 1:
            return None
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        if cuda and local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(local_rank())
        # Functions of this module have the group that is there when it is imported as a default. Imported later, as a
        # training does, they would hold the group when it is closed; its threads would then run on until the
        # interpreter ends, and one that still lets go of a tensor aborts the process.
        import torch.distributed.nn.functional

        store = _fresh(*_meeting_place())
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=size)
        atexit.register(_forget_groups)
    if dist.get_world_size() == 1:
        return None
    in_memory = "gloo" in str(dist.get_backend_config())
    return Processes(dist.get_rank(), dist.get_world_size(), None if in_memory else dist.new_group(backend="gloo"))


def _meeting_place() -> tuple[Any, int, int]:
    """The store that the launcher has for all processes, the number of this one, and how many there are."""
    from torch.distributed.rendezvous import rendezvous

    return next(iter(rendezvous("env://")))


def _fresh(store: Any, rank: int, size: int) -> Any:
    """A part of a store that only the processes of this start know, without keys of those before a restart.

    torchrun may keep its store when it starts processes again, and an address of a process that was killed is then
    taken for that of its successor. So each process says a number that nobody else has, and the first one answers
    with a name for the part until all have heard it.

    Raises
    ------
    LostProcessError
        If not all processes come.
    """
    from torch.distributed import PrefixStore

    own, end = uuid.uuid4().hex, time.monotonic() + _JOINING
    store.set(f"pyrovae.hello.{rank}", own)
    name, known = own, None
    while time.monotonic() < end:
        if rank == 0:
            here = [r for r in range(size) if store.check([f"pyrovae.hello.{r}"])]
            heard = {str(r): store.get(f"pyrovae.hello.{r}").decode() for r in here}
            if heard != known:
                store.set("pyrovae.answer", json.dumps({"name": name, "heard": heard}))
                known = heard
            if all(store.check([f"pyrovae.heard.{name}.{r}"]) for r in range(1, size)):
                return PrefixStore(name, store)
        elif store.check(["pyrovae.answer"]):
            answer = json.loads(store.get("pyrovae.answer"))
            if answer["heard"].get(str(rank)) == own:
                store.set(f"pyrovae.heard.{answer['name']}.{rank}", "yes")
                return PrefixStore(answer["name"], store)
        time.sleep(0.02)
    raise LostProcessError(f"process {rank} of {size} has waited {_JOINING:.0f} seconds for the others to come")


def _store() -> Any:
    """The keys and values that all processes see, which outlive a process that does not hold them."""
    global _kept
    if _kept is None:
        from torch.distributed import distributed_c10d

        _kept = distributed_c10d._get_default_store()
    return _kept


_kept: Any = None


def _leave() -> None:
    _store()  # which is still needed
    _forget_groups()


def _forget_groups() -> None:
    """Close the connections to the other processes, so that they notice at once."""
    import torch.distributed as dist

    with suppress(RuntimeError, AssertionError, ValueError):
        if dist.is_initialized():
            dist.destroy_process_group()


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
