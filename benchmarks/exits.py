"""Exits of processes that worked together, while the threads of gloo are held up: none of them may abort.

    python benchmarks/exits.py --count 70 --size 3

The threads get the processor only when nothing else wants it, so that they still let go of the tensors of the last
message when the interpreter ends, if they live that long. Linux alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path

import torch

from pyrovae.distributed import processes


def hold_up(name: str) -> None:
    """Let the threads of this name run on one processor with this process, and after it."""
    os.sched_setaffinity(0, {0})
    for number in os.listdir("/proc/self/task"):
        if Path("/proc/self/task", number, "comm").read_text().strip() == name:
            os.sched_setaffinity(int(number), {0})
            os.sched_setscheduler(int(number), os.SCHED_IDLE, os.sched_param(0))


def work(rank: int, size: int, port: int) -> None:
    """What a process does before it ends."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_PORT": str(port)}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    ranks = processes()
    importlib.import_module("torch.distributed.nn.functional")  # as some trainings do
    ranks.sum(torch.zeros(3))
    hold_up("pt_gloo_runloop")
    ranks.gather(rank)


def main() -> None:
    """Start processes again and again, and count how they end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=70)
    parser.add_argument("--size", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ends: Counter[int] = Counter()
    for _ in range(options.count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = []
        for rank in range(options.size):
            started.append(os.fork())
            if not started[-1]:
                work(rank, options.size, port)
                sys.exit(0)
        ends.update(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in started)
    print(json.dumps({"exits": ends.total(), "by status": dict(ends)}))


if __name__ == "__main__":
    main()
