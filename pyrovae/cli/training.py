"""The verbs that train: `train`, `resume` and `grow`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyrovae.cli.options import DATA, TABLES, TRAINING, flag, given, pair_dest
from pyrovae.cli.using import bar, print_evaluation
from pyrovae.data.registry import find_entry
from pyrovae.distributed import processes
from pyrovae.pairs.registry import Pair, find_pair
from pyrovae.runs import Run, needs_sticks, pick_device, with_more_sticks
from pyrovae.runs.configuration import free_folder
from pyrovae.runs.own_data import FUNCTION, dataset_of, is_function
from pyrovae.training import TrainingInterrupted
from pyrovae.training.callbacks import TensorBoard
from pyrovae.vae import VAE


def train(options: argparse.Namespace) -> None:
    """Train a pair into a new run folder."""
    device = pick_device(options.device)
    _fit(new_run(options), options, device)


def new_run(options: argparse.Namespace, pair: Pair | None = None) -> Run:
    """The run that options of `train` ask for, not trained yet; of `pair`, where it is at hand.

    Raises
    ------
    ValueError
        If the pair or the data are not given.
    """
    values = vars(options)
    if options.builder is None or options.data is None:
        raise ValueError("train needs a pair and data: pyrovae train PAIR --data FILE_OR_NAME")
    pair = find_pair(options.builder.name) if pair is None else pair
    pair_options = {o.name: values[pair_dest(o)] for o in pair.options if values[pair_dest(o)] is not None}
    data_options = {"name": options.data, **given(values, [*DATA, *TABLES, "dequantize", "stream"])}
    for option, key in (("column_kind", "column_kinds"), ("likelihood", "likelihoods")):
        if values.get(option) is not None:
            data_options[key] = _by_name(option, values[option])
    if options.data_seed is not None:
        data_options["seed"] = options.data_seed
    if is_function(options.data):
        if len(data_options) > 1:
            wrong = next(key for key in data_options if key != "name")
            raise ValueError(f"{flag(wrong)} is for data that pyrovae reads; {options.data} makes the data as it wants")
        made: Any = dataset_of(options.data)
        label = options.data.replace(":", ".")
    else:
        entry = find_entry(options.data)
        if entry is None and pair.data_kind is not None:
            data_options.setdefault("kind", pair.data_kind)
        made, label = data_options, Path(options.data).resolve().stem if entry is None else entry.name
    training = given(values, [*TRAINING, "compile", "drop_last"])
    if options.out is None and processes().several:
        raise ValueError("several processes write one run folder; name it with --out")
    usual = Path("runs") / f"{pair.name.replace(':', '.')}-{label}"
    folder = options.out or (usual if options.overwrite else free_folder(usual))
    follows = () if pair.finishing is None else pair.finishing.options
    finishing = {o.name: values[pair_dest(o)] for o in follows if values[pair_dest(o)] is not None}
    return Run.create(folder, pair.name, pair_options, made, training, finishing, overwrite=options.overwrite)


def _by_name(option: str, given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Values by name.

    Raises
    ------
    ValueError
        If a name stands twice.
    """
    found: dict[str, str] = {}
    for name, value in given:
        if name in found:
            raise ValueError(f"{flag(option)} names {name!r} twice")
        found[name] = value
    return found


def resume(options: argparse.Namespace) -> None:
    """Go on with a training from where it stopped."""
    device = pick_device(options.device)
    if options.data is not None and not is_function(options.data):
        raise ValueError(f"--data is for a run on data of a function of your own, module:function, got {options.data}")
    changed = options.allow_changed_data
    _fit(Run.open(options.run, options.pair, options.data, allow_changed_data=changed), options, device, resume=True)


def grow(options: argparse.Namespace) -> None:
    """Add sticks to a finished run, if its validation rows need them, and train the result into a new run folder.

    Raises
    ------
    ValueError
        If there are no validation rows.
    """
    device = pick_device(options.device)
    old = Run.open(options.run)
    new, vae = with_more_sticks(old, options.sticks, options.out, overwrite=options.overwrite)
    rows = old.dataset().validation
    if not len(rows):
        raise ValueError("whether more sticks are needed is seen on validation rows, and there are none")
    if not needs_sticks(old.load_vae(device), rows.x, mask=rows.mask):
        print(f"the validation rows need no more sticks than {options.run} has; nothing to do")
        return
    _fit(new, options, device, vae=vae)


def _fit(run: Run, options: argparse.Namespace, device: str, *, resume: bool = False, vae: VAE | None = None) -> None:
    callbacks = [TensorBoard(run.folder.path / "tensorboard")] if options.tensorboard else []
    how: dict[str, Any] = {"resume": resume, "vae": vae, "overwrite": not resume and options.overwrite}
    if resume:
        how |= {"epochs": options.epochs, "patience": options.patience}
    try:
        history = run.train(device=device, progress=not options.quiet, callbacks=callbacks, **how)
    except TrainingInterrupted as interrupt:
        again = f" --pair {run.pair.name}" if run.pair.own else ""
        again += f" --data {run.given.options[FUNCTION]}" if run.given and FUNCTION in run.given.options else ""
        raise TrainingInterrupted(f"{interrupt}{again}") from None
    best = history.rows[history.best_epoch - 1]
    shown = [name for name in best if name == "loss" or name.startswith("validation_")]
    figures = ", ".join(f"{name.replace('_', ' ')} {best[name]:.4f}" for name in shown)
    print(f"{history.reason}; best epoch {history.best_epoch} ({figures}); run folder {run.folder.path}")
    if options.evaluate:
        print_evaluation(run.evaluate(device=device, progress=None if options.quiet else bar, keep=True))
