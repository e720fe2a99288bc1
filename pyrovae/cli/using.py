"""The verbs that use a run: `evaluate`, `sample` and `plot`."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pyrovae import plotting, programs
from pyrovae.cli.gaps import evaluate_gap
from pyrovae.cli.imputing import sample_table
from pyrovae.cli.missing import curves_of, evaluate_missing
from pyrovae.cli.options import flag, given
from pyrovae.data.dataset import TABLE
from pyrovae.metrics import known_figures
from pyrovae.runs import Run, pick_device, posteriors
from pyrovae.runs.own_data import is_function
from pyrovae.storage import write_atomically


def evaluate(options: argparse.Namespace) -> None:
    """Print the held-out likelihood and other figures of a run."""
    if options.inference_gap:
        if options.missing is not None:
            raise ValueError("--inference-gap and --missing are two evaluations; ask for one of them")
        evaluate_gap(options)
        return
    if options.missing is not None:
        evaluate_missing(options)
        return
    for name in ("missing_pattern", "refine"):
        if getattr(options, name):
            raise ValueError(f"{flag(name)} is for evaluate --missing; give --missing too, or leave it out")
    device, changed = pick_device(options.device), options.allow_changed_data
    run = Run.open(options.run, options.pair, options.data, allow_changed_data=changed)
    settings = given(vars(options), ["num_samples", "num_rows", "chunk_size", "seed", "baselines", "fit_steps"])
    # Figures of other data, and at latents of the caller's choice, are not those of the run.
    settings["keep"] = not options.condition and (options.data is None or is_function(options.data))
    record = run.evaluate(options.split, device=device, progress=bar, condition=_condition(options, device), **settings)
    if options.json:
        print(json.dumps(record))
    else:
        print_evaluation(record)


def sample(options: argparse.Namespace) -> None:
    """Draw data from the model of a run into a file.

    Raises
    ------
    ValueError
        For a number below 1, and for another ending of the file than .png, .csv and .npz.
    """
    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}")
    run = Run.open(options.run, options.pair, allow_changed_data=options.allow_changed_data)
    if run.spec.kind == TABLE:
        sample_table(options)
        return
    if options.given is not None:
        raise ValueError(
            "--given is for runs of tables; --condition fixes latents of all data, --like takes covariates"
        )
    kind = options.out.suffix.lower()
    if kind not in (".png", ".csv", ".npz"):
        raise ValueError(f"--out must end in .png, .csv or .npz, got {options.out}")
    run = run if options.data is None else run.on(options.data)
    vae = run.load_vae(pick_device(options.device))
    arguments: dict[str, Any] = {}
    if options.like is not None:
        rows = getattr(run.dataset(), options.like)
        if options.num > len(rows):
            raise ValueError(f"--num {options.num} is more than the {len(rows)} {options.like} rows of --like")
        rows = rows.take(slice(options.num)).to(vae.device)
        arguments = {"data": rows.x, **programs.keywords(vae.model, **rows.fields())}
    elif needed := programs.required_arguments(vae.model)[1:]:
        raise ValueError(
            f"{programs.describe(vae.model)} needs the argument {needed[0]!r}; give --like test to take it from the "
            "test rows of the run, a sample for each"
        )
    torch.manual_seed(options.seed)
    values = vae.sample(options.num, options.output, condition=_condition(options, vae.device), **arguments)
    _check_samples(values, options.out)
    if not isinstance(values, torch.Tensor):
        if kind != ".npz":
            raise ValueError(
                f"this model observes several sites, {', '.join(values)}; give --out FILE.npz for all, or write the "
                "pair with VAE(..., observed=NAME) to sample one"
            )
        content = io.BytesIO()
        arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in values.items()}
        np.savez_compressed(content, **arrays)
        write_atomically(options.out, content.getvalue())
        print(f"{options.num} samples of {', '.join(values)} in {options.out}")
        return
    values = values.cpu()
    if kind == ".png":
        pixels = (values + 1) / 2 if run.spec.kind == "symmetric" else values
        title = plotting.SAMPLES[options.output]
        plotting.save_figure(plotting.sample_grid(pixels, title=title), options.out)
    elif kind == ".csv":
        rows = values.reshape(len(values), -1).tolist()
        lines = [",".join(f"x{i}" for i in range(len(rows[0]))), *(",".join(map(str, row)) for row in rows)]
        write_atomically(options.out, "\n".join(lines) + "\n")
    else:
        content = io.BytesIO()
        np.savez_compressed(content, x=values.numpy())
        write_atomically(options.out, content.getvalue())
    print(f"{options.num} samples in {options.out}")


def _check_samples(values: Any, path: Any) -> None:
    """Refuse samples that are no numbers, before a file is written.

    Raises
    ------
    ValueError
        Naming the first of them.
    """
    for name, value in values.items() if isinstance(values, Mapping) else [("", values)]:
        wrong = (~value.reshape(len(value), -1).isfinite()).any(1).nonzero()[:, 0].tolist()
        if wrong:
            of_site = f" of {name!r}" if name else ""
            raise ValueError(
                f"{len(wrong)} of {len(value)} samples{of_site} are not finite (the first is sample {wrong[0]}), so "
                f"{path} is not written; look at the weights of the run, and at latents that are far off"
            )


def plot(options: argparse.Namespace) -> None:
    """Draw the figures of a run into its folder, and print where they are."""
    run = Run.open(options.run, options.pair, options.data, allow_changed_data=options.allow_changed_data)
    dataset, vae = run.dataset(), run.load_vae(pick_device(options.device))
    torch.manual_seed(options.seed)
    vae, dataset = posteriors.shown(vae, dataset, options.fit_steps)
    condition = _condition(options, vae.device)
    rows, finished = run.folder.read_metrics(), run.load_finished(str(vae.device))
    figures = plotting.run_figures(vae, dataset, rows, condition=condition, finished=finished)
    if curves := curves_of(run.folder.path):
        figures["missing_errors"] = plotting.missing_errors(curves)
    for name, figure in figures.items():
        path = run.folder.figures_path / f"{name}.{options.format}"
        plotting.save_figure(figure, path)
        print(path)


def _condition(options: argparse.Namespace, device: torch.device | str) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in options.condition or ()}


def bar(batches: Sequence[Any]) -> Any:
    """Batches or imputers with a progress bar, which is shown when they take over two seconds."""
    names = bool(batches) and isinstance(batches[0], str)
    desc, unit = ("other imputers", "imputer") if names else ("evaluating", "batch")
    return tqdm(batches, desc=desc, unit=unit, delay=2, leave=False)


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
