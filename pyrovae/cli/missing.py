"""`pyrovae evaluate RUN --missing`: the error of entries that are hidden, against the share that is hidden."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae import plotting
from pyrovae.cli.options import flag
from pyrovae.data import DataError, Dataset, Rows
from pyrovae.data.dataset import TABLE
from pyrovae.data.fingerprints import changed_splits
from pyrovae.data.hdf5 import HDF5_FORMATS, ratios_of, read_missing
from pyrovae.data.patterns import random_mask
from pyrovae.metrics.missing import MissingError, missing_errors
from pyrovae.runs import Run, evaluations, measured, pick_device, posteriors


def evaluate_missing(options: argparse.Namespace) -> None:
    """Print and write the errors at several shares of missing entries, and draw them.

    Raises
    ------
    ValueError
        For a run of a table, options that do not suit, and files with holes that are not there.
    """
    device, changed = pick_device(options.device), options.allow_changed_data
    run = Run.open(options.run, options.pair, options.data, allow_changed_data=changed)
    if run.spec.kind == TABLE:
        raise ValueError(
            f"{options.run} is a run of a table; pyrovae evaluate hides entries of tables as it is, without --missing"
        )
    for name in ("refine", "fit_steps", "num_samples", "num_rows"):
        value, least = getattr(options, name), 0 if name in ("refine", "fit_steps") else 1
        if value is not None and value < least:
            raise ValueError(f"{flag(name)} must be at least {least}, got {value}")
    weights = evaluations.weights_digest(run.folder)  # before they are loaded: newer ones would not be these
    dataset, vae = run.dataset(), run.load_vae(device)
    posteriors.check_steps(vae, options.fit_steps)
    rows = dataset.seen(options.split)
    if not len(rows):
        raise ValueError(f"{dataset.name} has no {options.split} rows; choose others with --split")
    generator = torch.Generator().manual_seed(options.seed)
    if options.missing_mode == "fixed":
        rows, masks = _from_files(options, run)
    else:
        pattern = options.missing_pattern or "entries"
        masks = {r: random_mask(dataset.shape, len(rows), r, pattern, generator) for r in options.missing}
    if options.num_rows is not None and options.num_rows < len(rows):
        which = torch.randperm(len(rows), generator=generator, device="cpu")[: options.num_rows]
        rows, masks = rows.take(which), {ratio: mask[which] for ratio, mask in masks.items()}
    found = missing_errors(
        vae,
        Rows(rows.x, mask=rows.mask).to(device),
        masks,
        train=dataset.train.to(device),
        refine=options.refine,
        steps=options.fit_steps,
        num_samples=100 if options.num_samples is None else options.num_samples,
        seed=options.seed,
        progress=partial(tqdm, desc="shares of missing entries", disable=options.json),
    )
    path = measured.keep_errors(run.folder, _way(options, run, dataset), options.split, weights, found)
    figure = run.folder.figures_path / "missing_errors.png"
    plotting.save_figure(plotting.missing_errors(measured.errors_of(run.folder).fresh), figure)
    if options.json:
        print(json.dumps([error._asdict() for error in found]))
        return
    _print(found)
    print(f"{path}, {figure}")


def _from_files(options: argparse.Namespace, run: Run) -> tuple[Rows, dict[float, Tensor]]:
    """Rows and masks of the files with holes beside the data of a run.

    Raises
    ------
    ValueError
        If the data of the run are no HDF5 file, a share has no file, or the rows of the files differ.
    """
    if options.split != "test" or options.missing_pattern is not None:
        raise ValueError("--missing-mode fixed takes test rows and masks of files, so leave out the other options")
    name = options.data or run.config["data"].get("name")
    if name is None or Path(name).suffix.lower() not in HDF5_FORMATS:
        raise ValueError(
            "--missing-mode fixed reads PREFIX_r.h5 beside the data of the run, PREFIX.h5, and these are "
            f"{name or 'given in Python'}; give --data PREFIX.h5"
        )
    files = ratios_of(name)
    truth: Rows | None = None
    masks = {}
    for ratio in options.missing:
        file = next((file for known, file in files.items() if abs(known - ratio) < 1e-6), None)
        if file is None:
            listed = ", ".join(f"{known:g}" for known in files) or "no share"
            raise ValueError(f"there is no file with a share of {ratio:g} missing beside {name}, only of {listed}")
        complete, holes = read_missing(file)
        dataset = run.dataset()
        x = torch.as_tensor(complete.x)
        x = x.float() / 255 if x.dtype == torch.uint8 and dataset.kind != "real" else x.float()
        if tuple(x.shape[1:]) != tuple(dataset.shape):
            raise ValueError(f"{file} has rows of shape {tuple(x.shape[1:])}, and the run {tuple(dataset.shape)}")
        if truth is not None and not torch.equal(truth.x, x):
            raise ValueError(f"{file} has other rows in test_y_true than the files before it")
        truth = Rows(x, mask=None if complete.mask is None else torch.as_tensor(complete.mask))
        masks[ratio] = torch.ones_like(x, dtype=torch.bool) if holes.mask is None else torch.as_tensor(holes.mask)
    if truth is None:
        raise DataError(f"there are no files with holes beside {name}")
    return truth, masks


def _way(options: argparse.Namespace, run: Run, dataset: Dataset) -> str:
    """How errors were measured, in the name of their file; test rows of the run's own data are not named."""
    parts = [options.missing_mode]
    parts += [options.missing_pattern] if options.missing_pattern not in (None, "entries") else []
    parts += [f"refined-{options.refine}"] if options.refine else []
    parts += [options.split] if options.split != "test" else []
    if options.split in changed_splits(dataset, run.config.get("fingerprints") or {}):
        parts.append(re.sub(r"[^\w.=+-]+", "-", str(Path(dataset.name).with_suffix(""))).strip("-."))
    return "-".join(parts)


def named(all_curves: Mapping[str, Mapping[str, list[MissingError]]]) -> dict[str, list[MissingError]]:
    """The errors of several runs in one, by the name of the run and how they were measured."""
    several = len({way for curves in all_curves.values() for way in curves}) > 1
    return {
        f"{name}, {way}" if several else name: errors
        for name, curves in all_curves.items()
        for way, errors in curves.items()
    }


def _print(found: Sequence[MissingError]) -> None:
    columns: dict[str, Any] = {
        "share": "ratio",
        "missing": "share_missing",
        "error, all": "error_all",
        "error, missing": "error_missing",
        "+-": "standard_error",
        "error, observed": "error_observed",
        "mean filled in": "error_of_mean",
    }
    print("  ".join(f"{name:>15}" for name in columns))
    for error in found:
        print("  ".join(f"{getattr(error, field):15.6g}" for field in columns.values()))
