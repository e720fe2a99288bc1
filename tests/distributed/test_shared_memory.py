"""Sums through memory that processes share: each is that of all, and nobody waits for one that has ended."""

import json
import mmap
import os
import platform
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pairs_of_processes as together
import pytest
import torch

from pyrovae import shared_memory
from pyrovae.distributed import LostProcessError, Processes
from pyrovae.shared_memory import SharedMemory

SHARES = sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


class Told(Processes):
    """One of several, which knows of itself what the others say."""

    def check_others(self, ended=False):
        if ended:
            raise LostProcessError("another process has ended")

    def gather(self, value):
        return [value] * self.size


def of_each(size, count, lives=()):
    memory = mmap.mmap(-1, size * (shared_memory._LINE + 2 * count * 4))
    return [SharedMemory(memory, Told(rank, size), count, torch.float32, list(lives)) for rank in range(size)]


def test_every_sum_is_that_of_what_all_have_written():
    size, steps = 3, 300

    def work(rank, memory):
        chance, found = random.Random(rank), []
        for step in range(steps):
            memory.own[memory.turn].fill_(step * 10**rank)
            if chance.random() < 0.1:
                time.sleep(0.002)
            memory.sum()
            found.append(memory.total.unique().tolist())
        return found

    with ThreadPoolExecutor(size) as pool:
        for found in pool.map(work, range(size), of_each(size, 1000)):
            assert found == [[111.0 * step] for step in range(steps)]


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells that a process has ended by a file")
def test_a_process_that_has_ended_is_waited_for_no_longer():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    life = os.pidfd_open(process.pid)
    first, _ = of_each(2, 5, [life])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first.sum)
        time.sleep(0.3)
        assert not waiting.done()
        process.kill()
        with pytest.raises(LostProcessError):
            waiting.result(timeout=30)
    process.communicate()


def test_what_a_process_has_given_before_it_ended_counts():
    read, write = os.pipe()
    os.close(write)  # so that it can be read, as if the other one had ended
    first, second = of_each(2, 5, [read])
    for memory, value in ((second, 2.0), (first, 1.0)):
        memory.own[memory.turn].fill_(value)
    second._counters[1] = 1
    first.sum()
    assert first.total.tolist() == [3.0] * 5
    with pytest.raises(LostProcessError):
        first.sum()


def test_a_process_that_stands_still_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(shared_memory, "_PATIENCE", 0.2)
    first, _ = of_each(2, 5)
    with pytest.raises(LostProcessError):
        first.sum()


@pytest.mark.parametrize("case", ["processor", "size", "other", "memory"])
def test_no_memory_is_shared_where_it_cannot_be(case, monkeypatch):
    processes = Told(0, 2)
    if case == "processor":
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    elif case == "size":
        monkeypatch.setattr(shared_memory, "_MOST", 100)
    elif case == "other":
        monkeypatch.setattr(processes, "gather", lambda value: [value, (1, 2, "another machine", b"")])
    else:
        monkeypatch.setattr(os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError("no memory")))
    before = len(os.listdir("/proc/self/fd")) if SHARES else 0
    assert shared_memory.shared_memory(processes, 1000, torch.float32) is None
    assert not SHARES or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not SHARES, reason="memory is shared on Linux and x86 alone")
def test_no_file_stays_open_when_the_memory_is_given_up():
    before = len(os.listdir("/proc/self/fd"))
    memory = shared_memory.shared_memory(Told(0, 2), 1000, torch.float32)
    assert memory is not None
    del memory
    assert len(os.listdir("/proc/self/fd")) == before


def test_processes_sum_through_memory_what_they_sum_over_sockets(tmp_path):
    for output, status in together.work(3, "sums", str(tmp_path)):
        assert status == 0, output
    first, *others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3))
    assert all(found == first for found in others), "bit for bit"
    (shares, memory), (no, sockets) = first["memory"], first["sockets"]
    assert (shares, no) == (SHARES, False)
    assert memory == pytest.approx(sockets, rel=1e-5, abs=1e-4)
