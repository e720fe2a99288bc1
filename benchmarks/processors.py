"""How far two processors are from each other: nanoseconds for a word of memory to go from one to the other and back.

    python benchmarks/processors.py    # twenty seconds, a figure each half second

A virtual machine may be given two processors that share a cache in one second, and two that do not in the next. Then
steps of two threads take up to three times as long, so timings from both are no timings of one machine.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NEAR = 2.0  # times the least distance of a run: processors count as near up to here

# Two threads hand a word to each other, on the processors that are given. The least of ten means, since a thread may be
# interrupted.
_SOURCE = """
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>
#define TURNS 2000
typedef struct { int first, second; double least; } Pair;
static _Alignas(128) atomic_int turn;
static void on(int processor) {
  cpu_set_t set; CPU_ZERO(&set); CPU_SET(processor, &set); pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}
static void *answer(void *given) {
  on(((Pair *)given)->second);
  for (int i = 0; i < 10 * TURNS; i++) { while (atomic_load(&turn) == 0) {} atomic_store(&turn, 0); }
  return 0;
}
static void *ask(void *given) {
  Pair *pair = given; on(pair->first); pair->least = 1e9;
  for (int round = 0; round < 10; round++) {
    struct timespec from, to; clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < TURNS; i++) { atomic_store(&turn, 1); while (atomic_load(&turn)) {} }
    clock_gettime(CLOCK_MONOTONIC, &to);
    double mean = ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / TURNS;
    if (mean < pair->least) pair->least = mean;
  }
  return 0;
}
double distance(int first, int second) {
  Pair pair = {first, second, 0}; pthread_t one, two; atomic_store(&turn, 0);
  pthread_create(&two, 0, answer, &pair); pthread_create(&one, 0, ask, &pair);
  pthread_join(one, 0); pthread_join(two, 0);
  return pair.least;
}
"""


@functools.cache
def _compiled() -> Callable[[int, int], float] | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "distance.c"), Path(folder, "distance.so")
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-pthread", source, "-o", library], check=True)
        found = ctypes.CDLL(str(library)).distance
    found.restype, found.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_int]
    return found


def distance() -> float:
    """Nanoseconds there and back between two processors of this process; NaN with one, or without a compiler."""
    processors, measure = sorted(os.sched_getaffinity(0)), _compiled()
    return measure(*processors[:2]) if measure is not None and len(processors) > 1 else math.nan


def is_near(found: float, least: float) -> bool:
    """Whether a distance is like the least of the run. One that is not known counts as near."""
    return math.isnan(found) or found <= NEAR * least


if __name__ == "__main__":
    for _ in range(40):
        print(f"{distance():.0f}", end=" ", flush=True)
        time.sleep(0.5)
    print()
