"""The verbs `evaluate` and `plot`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from pyrovae import plotting
from pyrovae.cli.gaps import evaluate_gap
from pyrovae.cli.missing import evaluate_missing
from pyrovae.cli.options import CHUNK_SIZE, flag, given
from pyrovae.cli.writing import check_new
from pyrovae.distributed import processes
from pyrovae.metrics import known_figures
from pyrovae.rng import begin
from pyrovae.runs import Run, measured, pick_device, posteriors
from pyrovae.runs.own_data import is_function


def evaluate(options: argparse.Namespace) -> None:
    """Print the held-out likelihood and other figures of a run."""
    if processes().several and (options.inference_gap or options.missing is not None):
        raise ValueError("--inference-gap and --missing are the work of one process; start it without torchrun")
    if options.inference_gap and options.missing is not None:
        raise ValueError("--inference-gap and --missing are two evaluations; ask for one of them")
    _check_idle(options)
    if options.inference_gap:
        evaluate_gap(options)
        return
    if options.missing is not None:
        evaluate_missing(options)
        return
    device, changed = pick_device(options.device), options.allow_changed_data
    run = Run.open(options.run, options.pair, options.data, allow_changed_data=changed)
    names = ["num_samples", "num_rows", "chunk_size", "seed", "baselines", "fit_steps", "compile"]
    settings = given(vars(options), names)
    # Figures of other data, and at latents of the caller's choice, are not those of the run.
    settings["keep"] = not options.condition and (options.data is None or is_function(options.data))
    record = run.evaluate(options.split, device=device, progress=bar, condition=fixed(options, device), **settings)
    if options.json:
        print(json.dumps(record))
    else:
        print_evaluation(record)


def _check_idle(options: argparse.Namespace) -> None:
    """Refuse options that the evaluation which was asked for does not read.

    Raises
    ------
    ValueError
        Naming the first of them, and what it is for.
    """
    steps = {"fit_steps": posteriors.FIT_STEPS}
    usual: dict[str, Any] = {"missing_pattern": None, "refine": 0, "missing_mode": "random"}
    idle, way = usual, "for evaluate --missing; give --missing too, or leave it out"
    if options.inference_gap:
        idle = {"compile": None, "condition": None, "baselines": None, **steps, **usual}
        way = "not for --inference-gap; leave out one of them"
    elif options.missing is not None:
        idle = {"compile": None, "condition": None, "baselines": None, "chunk_size": CHUNK_SIZE}
        way = "not for --missing; leave out one of them"
    for name, value in idle.items():
        if getattr(options, name) not in (value, None):
            raise ValueError(f"{flag(name)} is {way}")


def plot(options: argparse.Namespace) -> None:
    """Draw the figures of a run into its folder, or another one, and print where they are.

    Raises
    ------
    ValueError
        If the folder holds such a figure already, and is not that of the run.
    """
    if options.overwrite and options.out is None:
        raise ValueError("--overwrite is for --out DIR; the figures in the folder of the run are always replaced")
    run = Run.open(options.run, options.pair, options.data, allow_changed_data=options.allow_changed_data)
    dataset, vae = run.dataset(), run.load_vae(pick_device(options.device))
    posteriors.check_steps(vae, options.fit_steps)
    begin(options.seed)
    vae, dataset = posteriors.shown(vae, dataset, options.fit_steps)
    condition = fixed(options, vae.device)
    rows, finished = run.folder.read_metrics(), run.load_finished(str(vae.device))
    how: dict[str, Any] = {"condition": condition, "finished": finished, "progress": bar_of_figures}
    figures = plotting.run_figures(vae, dataset, rows, **how)
    curves = measured.errors_of(run.folder)
    if curves.fresh:
        figures["missing_errors"] = plotting.missing_errors(curves.fresh)
    for way in curves.stale:
        print(measured.STALE.format(way=way), file=sys.stderr)
    folder = run.folder.figures_path if options.out is None else options.out
    paths = {name: folder / f"{name}.{options.format}" for name in figures}
    for path in paths.values() if options.out is not None else ():
        check_new(path, options.overwrite)
    for name, figure in figures.items():
        path = paths[name]
        plotting.save_figure(figure, path)
        print(path)


def fixed(options: argparse.Namespace, device: torch.device | str) -> dict[str, torch.Tensor]:
    """The values of --condition by site: a number or a vector."""
    given = options.condition or ()
    return {name: torch.tensor(value[0] if len(value) == 1 else value, device=device) for name, value in given}


def bar(batches: Sequence[Any]) -> Any:
    """Batches or imputers with a progress bar, which is shown when they take over two seconds."""
    names = bool(batches) and isinstance(batches[0], str)
    desc, unit = ("other imputers", "imputer") if names else ("evaluating", "batch")
    return tqdm(batches, desc=desc, unit=unit, delay=2, leave=False)


def bar_of_figures(names: Sequence[str]) -> Any:
    """Names of figures with a progress bar, which is shown when they take over two seconds."""
    return tqdm(names, desc="drawing", unit="figure", delay=2, leave=False)


def print_evaluation(record: Mapping[str, Any]) -> None:
    """Print figures with their units, a line each."""
    known = known_figures()
    for name, value in record.items():
        unit = known[name].unit if name in known else ""
        if isinstance(value, Mapping) and value and all(isinstance(part, Mapping) for part in value.values()):
            _print_table(f"{name.replace('_', ' ')}, {unit}", value)
            continue
        shown = " ".join(map(_shown, value)) if isinstance(value, list | tuple) else _shown(value)
        print(f"{name.replace('_', ' '):22} {shown:>10}  {unit}".rstrip())


def _print_table(title: str, value: Mapping[str, Mapping[str, Any]]) -> None:
    """Print figures by two names, in rows and columns."""
    names = list(dict.fromkeys(name for part in value.values() for name in part))
    widths = [max(10, len(name)) for name in names]
    first = max(22, *map(len, value))
    print(f"{title}\n{'':{first}} " + "  ".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)))
    for row, part in value.items():
        cells = "  ".join(f"{_shown(part.get(n)):>{w}}" for n, w in zip(names, widths, strict=True))
        print(f"  {row:{first - 2}} {cells}")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
