"""The verb `sample`: data from the model of a run, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch

from pyrovae import plotting, programs
from pyrovae.cli.using import fixed
from pyrovae.cli.writing import check_new, write_arrays
from pyrovae.data.dataset import TABLE
from pyrovae.metrics.classification import class_site
from pyrovae.rng import begin
from pyrovae.runs import Run, pick_device
from pyrovae.storage import write_atomically
from pyrovae.vae import VAE

_FORMATS = (".png", ".csv", ".npz")


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
        from pyrovae.cli.imputing import sample_table  # which knows tables

        if options.of_class is not None:
            raise ValueError("--class is for pairs that infer a class; --given COLUMN=VALUE fixes a column of a table")
        sample_table(options)
        return
    if options.given is not None:
        raise ValueError(
            "--given is for runs of tables; --condition fixes latents of all data, --like takes covariates"
        )
    kind = options.out.suffix.lower()
    if kind not in _FORMATS:
        raise ValueError(f"--out must end in .png, .csv or .npz, got {options.out}")
    check_new(options.out, options.overwrite)
    if options.data is not None and options.like is None:
        raise ValueError(
            "--data is for --like, which takes what the model needs from its rows; leave it out without it"
        )
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
    if options.of_class is not None:
        arguments["y"] = torch.full((options.num,), _class_number(run, vae, options.of_class), device=vae.device)
    begin(options.seed)
    values = vae.sample(options.num, options.output, condition=fixed(options, vae.device), **arguments)
    _check_samples(values, options.out)
    if not isinstance(values, torch.Tensor):
        if kind != ".npz":
            raise ValueError(
                f"this model observes several sites, {', '.join(values)}; give --out FILE.npz for all, or write the "
                "pair with VAE(..., observed=NAME) to sample one"
            )
        write_arrays({name: value.cpu().numpy() for name, value in values.items()}, options.out)
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
        write_arrays({"x": values.numpy()}, options.out)
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


def _class_number(run: Run, vae: VAE, text: str) -> int:
    """The number of a class that was typed, as a number or by its name.

    Raises
    ------
    ValueError
        If the pair draws no class, or there is no such one.
    """
    site = class_site(vae)
    if site is None or not programs.accepts(vae.model, "y"):
        raise ValueError(
            f"--class is for pairs that infer a class, such as semi-supervised; {run.folder.path} is a run of the pair "
            f"{run.pair.name or 'given in Python'}, whose latents are {', '.join(vae.sites.latent)}"
        )
    count, names = run.spec.num_classes or 0, [str(name) for name in run.config["data"].get("classes") or ()]
    if text in names:
        return names.index(text)
    if not text.isdecimal() or int(text) >= count:
        known = ", ".join(names) if names else f"the numbers from 0 to {count - 1}"
        raise ValueError(f"--class {text}: the classes of {run.folder.path} are {known}")
    return int(text)
