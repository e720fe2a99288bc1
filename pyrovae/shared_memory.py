"""Sums over processes of one machine through memory that they share, which need no socket and no thread."""

from __future__ import annotations

import mmap
import os
import platform
import secrets
import select
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pyrovae.distributed import Processes

_LINE = 64  # bytes of a line of the cache: no two processes write to the same one
_MOST = 1 << 28
"""Bytes up to which memory is shared."""
_POLLS = 1000
_NAP = 5e-5
_LOOK = 0.1
"""Seconds between two looks at whether the others still live."""
_PATIENCE = 1800.0
"""Seconds that a process waits for others that live, as gloo does."""


class SharedMemory:
    """Numbers of each process that all of them see, with a counter for each. `shared_memory` makes one.

    Parameters
    ----------
    memory : mmap
        The memory: a line for each counter, then the numbers. All zero at first.
    processes : Processes
        The processes.
    count : int
        Numbers of each process.
    dtype : dtype
        Their type.
    lives : sequence of int
        File descriptors of the other processes, which can be read once a process has ended.

    Notes
    -----
    Each process has two places and uses them in turn, so that one wait a sum is enough: who fills a place again has
    seen that all have counted the sum in between, and so have read the place. Counters are written after the numbers,
    and x86 shows stores to the other processors in their order. All processes add in the order of the ranks.
    """

    def __init__(
        self, memory: mmap.mmap, processes: Processes, count: int, dtype: torch.dtype, lives: Sequence[int]
    ) -> None:
        size = processes.size
        self._processes, self._lives, self._step = processes, lives, 0
        self._counters = memoryview(memory)[: size * _LINE].cast("q")[:: _LINE // 8]
        numbers = torch.frombuffer(memory, dtype=dtype, offset=size * _LINE, count=2 * size * count)
        self._places = numbers.view(2, size, count)
        self.own = [places[processes.rank] for places in self._places]
        """The two places of this process."""
        self.total = torch.empty(count, dtype=dtype)
        """The sum that was asked for last."""
        weakref.finalize(self, _close, lives)

    @property
    def turn(self) -> int:
        """In which of its places this process writes for the next sum."""
        return self._step % 2

    def sum(self) -> None:
        """Sum what all processes have written.

        Raises
        ------
        LostProcessError
            If another process has ended.
        """
        parts = self._places[self._step % 2]
        self._step += 1
        self._counters[self._processes.rank] = self._step
        self._wait()
        torch.add(parts[0], parts[1], out=self.total)
        for part in parts[2:]:
            self.total.add_(part)

    def _wait(self) -> None:
        counters, step = self._counters, self._step
        for _ in range(_POLLS):
            if min(counters) >= step:
                return
            os.sched_yield()
        begun = looked = time.monotonic()
        while min(counters) < step:
            time.sleep(_NAP)
            now = time.monotonic()
            if now - looked > _LOOK:
                ended = bool(select.select(self._lives, [], [], 0)[0])
                if min(counters) >= step:  # whoever has ended had given its numbers before
                    return
                self._processes.check_others(ended or now - begun > _PATIENCE)
                looked = now


def shared_memory(processes: Processes, count: int, dtype: torch.dtype) -> SharedMemory | None:
    """Memory that all processes share; None where they are not of one machine, or it does not allow it.

    The memory has no name, so nothing is left behind, however the processes end. All processes call this together.

    Parameters
    ----------
    processes : Processes
        The processes.
    count : int
        Numbers of each process.
    dtype : dtype
        Their type.

    Returns
    -------
    SharedMemory or None
        The memory.
    """
    size = processes.size * (_LINE + 2 * count * dtype.itemsize) + _LINE
    can = sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64") and size <= _MOST
    offer: tuple[Any, ...] | None = None
    made, key = -1, secrets.token_bytes(_LINE)
    with suppress(OSError, AttributeError):
        if can:
            if processes.first:
                made = os.memfd_create("pyrovae")
                os.posix_fallocate(made, 0, size)
                os.pwrite(made, key, size - _LINE)
            machine = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
            offer = os.getpid(), made, machine, key
    offers: list[Any] = processes.gather(offer)
    memory: mmap.mmap | None = None
    lives: list[int] = []
    if None not in offers:
        with suppress(OSError, AttributeError, ValueError):
            pid, number, machine, key = offers[0]
            if all(theirs == machine for _, _, theirs, _ in offers):
                opened = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    same = os.pread(opened, _LINE, size - _LINE) == key
                    memory = mmap.mmap(opened, size) if same else None
                finally:
                    os.close(opened)
                for rank, (other, *_) in enumerate(offers):
                    if rank != processes.rank:
                        lives.append(os.pidfd_open(other))
    complete = processes.gather(memory is not None and len(lives) == processes.size - 1)
    if made >= 0:
        os.close(made)
    if memory is None or not all(complete):
        _close(lives)
        return None
    return SharedMemory(memory, processes, count, dtype, lives)


def _close(numbers: Sequence[int]) -> None:
    for number in numbers:
        with suppress(OSError):
            os.close(number)
