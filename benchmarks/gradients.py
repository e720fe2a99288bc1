"""Mean gradients of every estimator against exact ones, in standard errors, with many draws.

The pairs are those of tests/infer. Discrete latents are enumerated, and continuous ones are integrated by quadrature. A
row of the table is an estimator. "worst" is the largest distance of any entry of any parameter, of model and guide,
from the exact gradient of the objective that the estimator claims. The last column is what an unbiased estimator would
typically have there, by the number of entries.

    python benchmarks/gradients.py
    python benchmarks/gradients.py --draws 1000000 --only vimco
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from statistics import NormalDist

import torch

# The pairs and the oracle are the tests' own.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "infer"))
from estimators import comparisons


def expected_worst(entries: int) -> float:
    """The median of the largest of `entries` independent distances."""
    return NormalDist().inv_cdf((1 + 0.5 ** (1 / entries)) / 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200_000, help="draws of K particles for each datum")
    parser.add_argument("--only", default="", help="part of the names of the estimators to try")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows: dict[str, list[tuple[float, int, str]]] = {}
    start = time.perf_counter()
    for index, comparison in enumerate(comparisons()):
        if arguments.only in comparison.estimator:
            torch.manual_seed(1000 * arguments.seed + index)  # so that no two share their draws
            scores = torch.cat([score.flatten() for score in comparison.z_scores(arguments.draws).values()])
            found = (float(scores.max()), len(scores), comparison.name)
            rows.setdefault(comparison.estimator, []).append(found)
    if not rows:
        parser.error(f"no estimator has {arguments.only!r} in its name")
    print("| estimator | comparisons | entries | worst | where | expected worst |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        entries, (worst, _, where) = sum(count for _, count, _ in found), max(found)
        where = where.removeprefix(f"{name}, ")
        print(f"| {name} | {len(found)} | {entries} | {worst:.2f} | {where} | {expected_worst(entries):.2f} |")
    total = sum(count for found in rows.values() for _, count, _ in found)
    worst = max(max(found)[0] for found in rows.values())
    print(f"\n{arguments.draws} draws, seed {arguments.seed}: worst {worst:.2f} of {total} entries", end="")
    print(f" (expected {expected_worst(total):.2f}), {math.ceil(time.perf_counter() - start)} s")
    return 0 if worst <= 4 else 1


if __name__ == "__main__":
    sys.exit(main())
