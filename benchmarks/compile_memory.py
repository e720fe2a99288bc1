"""Memory of a process that compiles the steps of many pairs, one after the other, and forgets them.

    python benchmarks/compile_memory.py --count 200           # five pairs in two batch shapes, by turns
    python benchmarks/compile_memory.py --count 40 --new      # pairs of another size each time, so new code for all

What is printed is the memory in use, the tensors and the recorded graphs that are alive, and the time of a compilation.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from typing import Any

import torch
from speed_families import ROWS, table, table_spec
from torch.fx import GraphModule

from pyrovae.data.dataset import DataSpec
from pyrovae.infer import CompiledLoss, make_objective
from pyrovae.pairs import find_pair

PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussian": ("elbo", {"latent_dim": 3}),
    "stick-breaking": ("mean-field", {"truncation": 5}),
    "sbn": ("vimco", {"sizes": (6,)}),
    "categorical": ("vimco", {"num_variables": 3}),
    "tabular": ("mean-field", {"latent_dim": 3}),
}


def compile_one(name: str, batch: int, hidden: int) -> None:
    """Compile a step, run it, and forget it."""
    objective, options = PAIRS[name]
    spec, x = DataSpec("bits", (20,), "binary", num_rows=ROWS), torch.bernoulli(torch.full((batch, 20), 0.5))
    if name == "tabular":
        spec, x = table_spec(), table()[:batch]
    torch.manual_seed(0)
    vae = find_pair(name).builder(spec, hidden=(hidden,), **options).prepare(x)
    CompiledLoss(vae, make_objective(objective, max_plate_nesting=1))(x)


def in_use() -> float:
    """Memory of this process that is in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def alive() -> tuple[int, int]:
    """Tensors and recorded graphs that are alive. The list of all objects is not, or it would hold the one before."""
    gc.collect()
    found = gc.get_objects()
    return sum(isinstance(one, torch.Tensor) for one in found), sum(isinstance(one, GraphModule) for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--new", action="store_true", help="new code for each")
    options = parser.parse_args()
    begun = time.process_time()
    for number in range(options.count):
        hidden = 8 + number // 10 if options.new else 8
        compile_one(list(PAIRS)[number % 5], 16 + number // 5 % 2, hidden)
        if number % 10 == 9:
            tensors, graphs = alive()
            seconds = (time.process_time() - begun) / 10
            print(
                f"{number + 1}: {in_use():.0f} MB, {tensors} tensors, {graphs} graphs, {seconds:.1f} s each", flush=True
            )
            begun = time.process_time()


if __name__ == "__main__":
    main()
