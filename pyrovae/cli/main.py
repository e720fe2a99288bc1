"""The command line: `pyrovae train | evaluate | sample | plot | datasets | models`."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pyrovae import data, plotting
from pyrovae.cli.arguments import DATA, TRAINING, described, flag, given, make_parser, named_pair, pair_dest
from pyrovae.metrics import known_figures
from pyrovae.pairs.registry import pairs
from pyrovae.runs import Run, pick_device
from pyrovae.runs.growing import needs_sticks
from pyrovae.storage import CheckpointError, write_atomically
from pyrovae.training import TrainingInterrupted
from pyrovae.training.callbacks import TensorBoard

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("pyrovae").setLevel(logging.INFO)
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        options, unknown = make_parser(named_pair(words)).parse_known_args(words)
        if unknown:
            raise ValueError(f"unknown arguments: {' '.join(unknown)} (see {options.prog} --help)")
        with warnings.catch_warnings():
            # Pyro's, of what raises an error all the same, or makes none.
            warnings.filterwarnings("ignore", "TraceMeanField_ELBO only")
            warnings.filterwarnings("ignore", "Encountered")  # Pyro's, of losses that the Trainer stops at anyway
            _VERBS[options.verb](options)
    except KeyboardInterrupt as interrupt:
        print(f"pyrovae: {interrupt}" if str(interrupt) else "pyrovae: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CheckpointError, data.DataError, RuntimeError, ValueError, TypeError, OSError, ImportError) as error:
        # torch raises RuntimeError where a user's pair does not fit the data, and where memory runs out.
        if os.environ.get("PYROVAE_DEBUG"):
            raise
        print(f"pyrovae: {_in_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    # Pyro adds tensors and the shapes of all sites.
    text = re.split(r":?\s+tensor\(|\s*Trace Shapes:", str(error), maxsplit=1)[0]
    more = "" if text == str(error) else " (PYROVAE_DEBUG=1 shows more)"
    return " ".join(text.split()) + more or type(error).__name__


def _train(options: argparse.Namespace) -> None:
    device = pick_device(options.device)
    vae = None
    if options.resume is not None:
        _leave_out(options, "--resume", ["grow", "sticks", "out"])
        run = Run.open(options.resume, options.own_pair)
    elif options.grow is not None:
        _leave_out(options, "--grow", ["own_pair"])
        short = Run.open(options.grow)
        run, vae = short.with_more_sticks(10 if options.sticks is None else options.sticks, options.out)
        if not _needs_sticks(short, device):
            print(f"the validation rows need no more sticks than {options.grow} has; nothing to do")
            return
    else:
        run = _new_run(options)
    callbacks = [TensorBoard(run.folder.path / "tensorboard")] if options.tensorboard else []
    try:
        history = run.train(
            resume=options.resume is not None, device=device, progress=not options.quiet, callbacks=callbacks, vae=vae
        )
    except TrainingInterrupted as interrupt:
        again = f" --pair {run.pair.name}" if run.pair.own else ""
        raise TrainingInterrupted(f"{interrupt}{again}") from None
    best = history.rows[history.best_epoch - 1]
    figures = ", ".join(
        f"{name.replace('_', ' ')} {best[name]:.4f}"
        for name in best
        if name == "loss" or name.startswith("validation_")
    )
    print(f"{history.reason}; best epoch {history.best_epoch} ({figures}); run folder {run.folder.path}")
    if options.evaluate:
        _print_evaluation(run.evaluate(device=device, progress=None if options.quiet else _bar))


def _leave_out(options: argparse.Namespace, wanted: str, others: Sequence[str]) -> None:
    """Refuse options that a run has had since it was made."""
    names = ["pair", "data", *others, *TRAINING, "compile", *DATA, "dequantize", "data_seed"]
    extra = given(vars(options), names)
    if extra:
        flags = ", ".join({"pair": "PAIR", "own_pair": "--pair"}.get(name, flag(name)) for name in extra)
        raise ValueError(f"{wanted} goes on with the run as it was configured; leave out {flags}")


def _needs_sticks(run: Run, device: str) -> bool:
    rows = run.dataset().validation
    return needs_sticks(run.load_vae(device), rows.x, mask=rows.mask)


def _new_run(options: argparse.Namespace) -> Run:
    values, pair = vars(options), options.builder
    if options.sticks is not None:
        raise ValueError("--sticks goes with --grow RUN")
    if pair is None or options.data is None:
        raise ValueError("say what to train on what: pyrovae train PAIR --data NAME, or pyrovae train --resume RUN")
    if options.own_pair is not None:
        raise ValueError("--pair goes with --resume; a new training has its pair as the first word: pyrovae train PAIR")
    pair_options = {o.name: values[pair_dest(o)] for o in pair.options if values[pair_dest(o)] is not None}
    data_options = {"name": options.data, **given(values, [*DATA, "dequantize"])}
    if options.data_seed is not None:
        data_options["seed"] = options.data_seed
    name = f"{pair.name.replace(':', '.')}-{options.data.replace('_', '-')}"
    return Run.create(
        options.out or Path("runs") / name, pair.name, pair_options, data_options, given(values, [*TRAINING, "compile"])
    )


def _evaluate(options: argparse.Namespace) -> None:
    run, device = Run.open(options.run, options.pair), pick_device(options.device)
    settings = given(vars(options), ["num_samples", "num_rows", "chunk_size", "seed"])
    record = run.evaluate(options.split, device=device, progress=_bar, **settings)
    if options.json:
        print(json.dumps(record))
    else:
        _print_evaluation(record)


def _bar(batches: Sequence[Any]) -> Any:
    return tqdm(batches, desc="evaluating", unit="batch", delay=2, leave=False)


def _print_evaluation(record: Mapping[str, Any]) -> None:
    known = known_figures()
    for name, value in record.items():
        unit = known[name].unit if name in known else ""
        shown = " ".join(map(_shown, value)) if isinstance(value, list | tuple) else _shown(value)
        print(f"{name.replace('_', ' '):22} {shown:>10}  {unit}".rstrip())


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _sample(options: argparse.Namespace) -> None:
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    kind = options.out.suffix.lower()
    if kind not in (".png", ".csv", ".npz"):
        raise ValueError(f"--out must end in .png, .csv or .npz, got {options.out}")
    run = Run.open(options.run, options.pair)
    vae = run.load_vae(pick_device(options.device))
    torch.manual_seed(options.seed)
    values = vae.sample(options.num, options.output).cpu()
    if kind == ".png":
        pixels = (values + 1) / 2 if run.spec.kind == "symmetric" else values
        plotting.save_figure(plotting.sample_grid(pixels), options.out)
    elif kind == ".csv":
        rows = values.flatten(1).tolist()
        lines = [",".join(f"x{i}" for i in range(len(rows[0]))), *(",".join(map(str, row)) for row in rows)]
        write_atomically(options.out, "\n".join(lines) + "\n")
    else:
        content = io.BytesIO()
        np.savez_compressed(content, x=values.numpy())
        write_atomically(options.out, content.getvalue())
    print(f"{options.num} samples in {options.out}")


def _plot(options: argparse.Namespace) -> None:
    run = Run.open(options.run, options.pair)
    vae, dataset = run.load_vae(pick_device(options.device)), run.dataset()
    torch.manual_seed(options.seed)
    figures = plotting.run_figures(vae, dataset, run.folder.read_metrics())
    for name, figure in figures.items():
        path = run.folder.figures_path / f"{name}.{options.format}"
        plotting.save_figure(figure, path)
        print(path)


def _datasets(options: argparse.Namespace) -> None:
    found = data.available()
    if options.json:
        print(json.dumps([dataclasses.asdict(info) for info in found]))
        return
    print(f"{'name':17} {'a datum':9} {'train/val/test':18} values")
    for info in found:
        shape, sizes = "x".join(map(str, info.shape)), "/".join(map(str, info.sizes))
        print(f"{info.name:17} {shape:9} {sizes:18} {info.kind:6} {info.summary}")
        print(f"{'':17} {info.location}")


def _models(options: argparse.Namespace) -> None:
    if options.json:
        listed = [
            {
                "name": pair.name,
                "summary": pair.summary,
                "options": {o.name: {"default": o.default, "help": o.help, "choices": o.choices} for o in pair.options},
            }
            for pair in pairs()
        ]
        print(json.dumps(listed))
        return
    for pair in pairs():
        print(f"{pair.name}: {pair.summary}\n")
        for option in pair.options:
            text = textwrap.wrap(described(option), 72, break_on_hyphens=False)
            print(f"  {flag(option.name):24}", f"\n{'':27}".join(text))
    print("\nA pair of your own: pyrovae train mymodule:make_vae --data NAME")


_VERBS = {
    "train": _train,
    "evaluate": _evaluate,
    "sample": _sample,
    "plot": _plot,
    "datasets": _datasets,
    "models": _models,
}
