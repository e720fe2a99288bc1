"""Seconds from building a compiled step to its first result, of the 784-200-50 Bernoulli VAE at batch 128.

    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python benchmarks/first_step.py    # nothing of it in the cache
    python benchmarks/first_step.py                                         # and again: its code is there

torch's headers are compiled once a machine. They lie in `precompiled_headers` of inductor's own cache folder, whatever
the variable says; without that folder the first figure is that of a new machine.
"""

from __future__ import annotations

import argparse
import time

_BEGUN = time.perf_counter()

import torch  # noqa: E402 - its import is timed
from pyro.infer import Trace_ELBO  # noqa: E402
from speed_families import FAMILIES  # noqa: E402

from pyrovae.infer import CompiledLoss  # noqa: E402


def main() -> None:
    """Measure once."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    family = FAMILIES["gaussian"]
    vae, x = family.pair(), family.data()[:128]
    vae.prepare(x)
    built = time.perf_counter()
    CompiledLoss(vae, Trace_ELBO(), per_row=True).prepare(x)
    print(f"imports and pair {built - _BEGUN:.1f} s, step {time.perf_counter() - built:.1f} s")


if __name__ == "__main__":
    main()
