"""`pyrovae report`: a page on a run, or on several."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyrovae.cli.using import bar_of_figures, fixed
from pyrovae.cli.writing import check_new
from pyrovae.reporting import report as write_report
from pyrovae.runs import Run, pick_device
from pyrovae.training.checkpoint import RunFolder


def report(options: argparse.Namespace) -> None:
    """Write one HTML page on a run, or one that compares several, and print where it is.

    Raises
    ------
    ValueError
        For a page that exists, and is not that of the run.
    """
    if options.out is not None or len(options.run) > 1:
        check_new(options.out or Path("report.html"), options.overwrite)
    elif options.overwrite:
        raise ValueError("--overwrite is for --out FILE; the page in the folder of the run is always replaced")
    if options.pair is not None and len(options.run) == 1 and not _is_own(options.run[0]):
        raise ValueError("--pair is for runs of a pair of your own, and this one knows its pair; leave it out")
    device, changed = pick_device(options.device), options.allow_changed_data
    runs = [
        Run.open(path, options.pair if _is_own(path) else None, options.data, allow_changed_data=changed)
        for path in options.run
    ]
    how = {"condition": fixed(options, device), "fit_steps": options.fit_steps, "overwrite": options.overwrite}
    print(write_report(runs, options.out, device=device, seed=options.seed, progress=bar_of_figures, **how))


def _is_own(path: Path) -> bool:
    """Whether the run in a folder needs its pair again."""
    name = str(RunFolder(path).read_config().get("pair", ""))
    return not name or ":" in name
