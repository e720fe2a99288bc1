"""The verb `encode`: the latents of data under a run, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pyrovae.cli.writing import TABLES, check_out, write_arrays, write_frame
from pyrovae.data.dataset import Rows
from pyrovae.distributed import in_parts, processes
from pyrovae.metrics import encodings
from pyrovae.rng import begin, forked
from pyrovae.runs import Run, pick_device, posteriors
from pyrovae.vae import VAE


def encode(options: argparse.Namespace) -> None:
    """Write what the guide of a run says of the latents of rows into a file.

    Raises
    ------
    ValueError
        For a file that cannot be written, no such rows, and latents that are no numbers.
    """
    ranks = processes()
    with ranks.together():
        check_out([options.out], options.overwrite, (*TABLES, ".npz"))
    if options.fit_steps < 0:
        raise ValueError(f"--fit-steps must be at least 0, got {options.fit_steps}")
    device, changed = pick_device(options.device), options.allow_changed_data
    run = Run.open(options.run, options.pair, options.data, allow_changed_data=changed)
    dataset, vae = run.dataset(), run.load_vae(device)
    posteriors.check_steps(vae, options.fit_steps)
    begin(0)  # of binarisation, say
    names = list(dataset.splits()) if options.split == "all" else [options.split]
    numbers: list[int] = []
    labels: list[int] = []
    splits: list[str] = []
    parts: dict[str, list[torch.Tensor]] = {}
    for name in names:
        rows = dataset.seen(name)
        if not len(rows):
            continue
        with forked():
            fitted = posteriors.fitted(vae, rows.to(device), options.fit_steps)
        for found_of_part in in_parts(partial(_encodings, fitted, rows), range(len(rows))):
            for key, value in found_of_part.items():
                parts.setdefault(key, []).append(value)
        numbers += range(len(rows))
        splits += [name] * len(rows)
        labels += [-1] * len(rows) if rows.y is None else rows.y.tolist()
    if not numbers:
        held = " and ".join(name for name, part in dataset.splits().items() if len(part))
        raise ValueError(f"{dataset.name} has no {options.split} rows, only {held} rows; choose others with --split")
    found = {key: torch.cat(values).numpy() for key, values in parts.items()}
    _check_finite(found, options.out)
    about = {"row": np.array(numbers)}
    about |= {"split": np.array(splits)} if len(names) > 1 else {}
    about |= {"label": np.array(labels)} if max(labels) >= 0 else {}
    if not ranks.first:
        return
    if options.out.name.lower().endswith(".npz"):
        write_arrays({**about, **found}, options.out)
    else:
        _write_table(about, found, options.out)
    shown = ", ".join(f"{key} [{len(value)}, {value.shape[1]}]" for key, value in found.items())
    print(f"latents of {len(numbers)} {options.split} rows in {options.out}: {shown}".replace("all rows", "rows"))


def _encodings(vae: VAE, rows: Rows, some: range) -> dict[str, torch.Tensor]:
    """The encodings of some of the rows."""
    return encodings(vae, rows.take(slice(some.start, some.stop)).to(vae.device))


def _check_finite(found: Mapping[str, np.ndarray], path: Path) -> None:
    for name, value in found.items():
        wrong = np.flatnonzero(~np.isfinite(value).all(1))
        if len(wrong):
            raise ValueError(
                f"{name} of {len(wrong)} of {len(value)} rows is not finite (the first is row {wrong[0]}), so {path} "
                "is not written; look at these rows, and at the weights of the run"
            )


def _write_table(about: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], path: Path) -> None:
    import pandas as pd

    columns = dict(about)
    if "label" in columns:
        columns["label"] = pd.array(about["label"], dtype="Int64")
        columns["label"][about["label"] < 0] = pd.NA
    for name, value in found.items():
        first = 0 if name.endswith("_probability") else 1  # classes are numbered from 0, as labels are
        columns |= {f"{name}_{first + number}": value[:, number] for number in range(value.shape[1])}
    write_frame(pd.DataFrame(columns), path)
