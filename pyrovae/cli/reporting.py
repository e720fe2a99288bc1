"""`pyrovae report`: a page on a run, or on several."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyrovae.reporting import report as write_report
from pyrovae.runs import Run, pick_device
from pyrovae.training.checkpoint import RunFolder


def report(options: argparse.Namespace) -> None:
    """Write one HTML page on a run, or one that compares several, and print where it is."""
    device, changed = pick_device(options.device), options.allow_changed_data
    runs = [
        Run.open(path, options.pair if _is_own(path) else None, options.data, allow_changed_data=changed)
        for path in options.run
    ]
    condition = {name: value.to(device) for name, value in options.condition or ()}
    steps = options.fit_steps
    print(write_report(runs, options.out, device=device, seed=options.seed, condition=condition, fit_steps=steps))


def _is_own(path: Path) -> bool:
    """Whether the run in a folder needs its pair again."""
    name = str(RunFolder(path).read_config().get("pair", ""))
    return not name or ":" in name
