"""Time of the held-out likelihood of a 784-200-50 Bernoulli VAE: processor time on one thread, 5000 samples per row.

Rounds of separate processes in an order that is drawn anew, and medians over the rounds. "by hand" is the estimate as a
user of torch writes it, in chunks that fit the caches; "products" are its products of matrices alone, by `torch.addmm`.
`--before PYTHON` also measures `vae.log_likelihood(x, 5000)` of another version, installed for that interpreter.

    python benchmarks/evaluation_time.py
    python benchmarks/evaluation_time.py --before ../before/.venv/bin/python --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from speed_families import HIDDEN, LATENT, PIXELS, Gaussian, gaussian, pictures
from torch import Tensor, nn

SAMPLES, AT_ONCE = 5000, 2048


@torch.no_grad()
def by_hand(x: Tensor) -> None:
    """The estimate of each row, written by hand."""
    net = Gaussian()
    hidden = net.encoder(x)
    loc, scale = net.loc(hidden), net.scale(hidden).exp()
    count = AT_ONCE // len(x)
    for _ in range(SAMPLES // count):
        noise = torch.randn(count, *loc.shape)
        z = loc + scale * noise
        log_q = (-0.5 * noise.square() - scale.log()).sum(-1)
        log_p = -0.5 * z.square().sum(-1)
        logits = net.decoder(z)
        scored = nn.functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        (log_p - log_q - scored.sum(-1)).logsumexp(0)


def products(x: Tensor) -> None:
    """The products of matrices of the decoder."""
    first, second, bias = torch.randn(LATENT, HIDDEN), torch.randn(HIDDEN, PIXELS), torch.randn(PIXELS)
    z, hidden = torch.randn(AT_ONCE, LATENT), torch.randn(AT_ONCE, HIDDEN)
    for _ in range(SAMPLES * len(x) // AT_ONCE):
        torch.addmm(bias[:HIDDEN], z, first)
        torch.addmm(bias, hidden, second)


made = cache(gaussian)


def ours(x: Tensor, **settings: bool | str) -> None:
    """The figure of this library."""
    made().eval().log_likelihood(x, SAMPLES, **settings)


KINDS: dict[str, Callable[[Tensor], None]] = {
    "before": ours,
    "programs run for all samples": lambda x: ours(x, compile=False),
    "by default": ours,
    "compile=True": lambda x: ours(x, compile=True),
    "by hand": by_hand,
    "products": products,
}


def measure(kind: str, number: int) -> float:
    """Milliseconds per row of the second batch of an evaluation; imports and the first batch are not timed."""
    torch.set_num_threads(1)
    rows = pictures()
    with nullcontext() if kind == "before" else sharing_recordings(made()):
        KINDS[kind](rows[-number:])
        start = time.process_time()
        KINDS[kind](rows[:number])
        return (time.process_time() - start) * 1000 / number


def sharing_recordings(vae: Any) -> AbstractContextManager[None]:
    """The batches of an evaluation share what is recorded."""
    from pyrovae.infer.recorded import sharing_recordings

    return sharing_recordings(vae)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=128, help="rows of a batch")
    parser.add_argument("--before", help="interpreter of an environment with another version of this library")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        print(json.dumps(measure(options.worker, options.rows)))
        return
    kinds = [kind for kind in KINDS if kind != "before" or options.before is not None]
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in random.sample(kinds, len(kinds)):
            python = options.before if kind == "before" else sys.executable
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [python, __file__, "--worker", kind, "--rows", str(options.rows)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            found[kind].append(json.loads(done.stdout.strip().splitlines()[-1]))
    reference = statistics.median(found[kinds[0]])
    print(f"ms of processor time a row, {options.rows} rows, one thread, medians of {options.rounds} rounds\n")
    print(f"| | ms per row | {kinds[0]} is so many times as slow |")
    print("|---|---|---|")
    for kind in kinds:
        median = statistics.median(found[kind])
        print(f"| {kind} | {median:.1f} | {reference / median:.2f} |")


if __name__ == "__main__":
    main()
