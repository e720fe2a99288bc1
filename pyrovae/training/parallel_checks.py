"""What several processes would train another way than one does, refused before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pyrovae import programs
from pyrovae.data.dataset import Rows
from pyrovae.distributed import Processes
from pyrovae.infer.mean_field import MeanField
from pyrovae.infer.nvil import Baseline
from pyrovae.infer.objective import Objective
from pyrovae.likelihoods.tables import TableLikelihood
from pyrovae.nn.row_table import RowTable
from pyrovae.nn.tables import RowFeatures
from pyrovae.rng import forked
from pyrovae.sites import latent_sites
from pyrovae.training.checks import by_row
from pyrovae.training.data import Stream, TrainingData
from pyrovae.training.loaders import check_loader
from pyrovae.training.options import TrainingOptions
from pyrovae.vae import VAE

_BY_DATUM = (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, MeanField)
"""Objectives of Pyro whose loss of a batch is the sum of those of its parts."""


def check_options(options: TrainingOptions, data: TrainingData, processes: Processes) -> None:
    """Refuse options and data that cannot be cut into as many parts as there are processes.

    Raises
    ------
    ValueError
        Naming the option, or the data.
    """
    if not processes.several:
        return
    size = processes.size
    if options.seed is None:
        raise ValueError("seed=None takes random numbers that the processes of a training do not share; give a seed")
    for name, given in (("training", data.train), ("validation", data.validation)):
        if isinstance(given, Stream):
            check_loader(given, name, size)
    if isinstance(data.train, Stream):
        return
    if options.batch_size < size:
        raise ValueError(
            f"batch_size={options.batch_size} is the number of rows of all processes together, and there are {size} "
            f"processes; give at least {size}"
        )
    rows = len(data.train) if isinstance(data.train, Rows) else data.train.num_rows
    if rows < size:
        raise ValueError(f"there are {size} processes and {rows} training rows; start at most {rows} processes")


def check_parallel(
    vae: VAE, objective: Any, options: TrainingOptions, x: Tensor, data: Mapping[str, Any], size: int
) -> None:
    """Refuse a pair or an objective that learns something else from parts of a batch than from the batch.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    objective : ELBO
        The objective.
    options : TrainingOptions
        The options of the training.
    x, data : Tensor and mapping
        The first batch.
    size : int
        Number of processes.

    Raises
    ------
    ValueError
        Naming the layer, the site, the parameter or the objective.
    """
    if size == 1:
        return
    for name, layer in vae.named_modules():
        if isinstance(layer, _BatchNorm):
            raise ValueError(
                f"the BatchNorm layer {name!r} would take its statistics from the rows of one process of {size}; take "
                "another layer such as LayerNorm, or train in one process"
            )
        if isinstance(layer, RowFeatures | TableLikelihood) and layer.by_batch:
            raise ValueError(
                f"{name!r} scales columns by the rows of a batch, and each of {size} processes has a part of it alone; "
                "scale by all rows, or train in one process"
            )
    found = by_row(vae, x, data)
    if found is not None:
        raise ValueError(
            f"{found} has a value for each of the {len(x)} rows of a batch, by its place in it, and a batch is cut "
            f"into {size} parts; compute it from x or look it up by the argument 'index', or train in one process"
        )
    _check_objective(vae, objective, x, data, size)
    if options.compile:
        _check_compiled(vae, size)
    _check_buffers(vae, x, data, size)


def _check_objective(vae: VAE, objective: Any, x: Tensor, data: Mapping[str, Any], size: int) -> None:
    name = type(objective).__name__
    if isinstance(objective, Objective):
        learned = objective.module
        for part in () if learned is None else learned.modules():
            if any(True for _ in part.buffers(recurse=False)) and not isinstance(part, Baseline):
                raise ValueError(
                    f"{name} keeps figures of batches in a {type(part).__name__}, and each of {size} processes has a "
                    "part of a batch alone; train in one process"
                )
        return
    if type(objective) not in _BY_DATUM:
        raise ValueError(
            f"{name} may weigh the rows of a batch together, and a batch is cut into {size} parts; take an "
            "objective of this library such as 'iwae', 'renyi' or 'rws', or train in one process"
        )
    if isinstance(objective, TraceGraph_ELBO):
        with forked(), programs.evaluating(vae), vae.scope():
            trace = programs.trace(vae.guide, (x,), programs.keywords(vae.guide, **data))
        for site_name, site in latent_sites(trace).items():
            baseline = site["infer"].get("baseline", {})
            if baseline.get("use_decaying_avg_baseline"):
                raise ValueError(
                    f"the decaying-average baseline of site {site_name!r} has a number for each row of a batch, and a "
                    f"batch is cut into {size} parts; leave it out, take 'nvil', or train in one process"
                )


def _check_compiled(vae: VAE, size: int) -> None:
    what = ""
    if vae.sites.shared:
        what = f"latents of all data, {', '.join(vae.sites.shared)}, are drawn by all of them alike"
    elif any(isinstance(module, RowTable) for module in vae.modules()):
        what = "each has as many rows of a batch as it owns, and compiled steps are for one number of rows"
    if what:
        raise ValueError(f"{size} processes do not compile this pair, because {what}; leave out compile=True")


def _check_buffers(vae: VAE, x: Tensor, data: Mapping[str, Any], size: int) -> None:
    """Refuse a pair that keeps figures of the batches it has seen."""
    before = {name: buffer.clone() for name, buffer in vae.named_buffers()}
    modes = {part: part.training for part in vae.modules()}
    vae.train()
    try:
        with forked(), torch.no_grad(), vae.scope():
            programs.trace_pair(vae.model, vae.guide, (x,), programs.keywords(vae.model, vae.guide, **data))
        changed = [name for name, b in vae.named_buffers() if name in before and not _equal(before[name], b)]
    finally:
        with torch.no_grad():
            for name, buffer in vae.named_buffers():
                if name in before and before[name].shape == buffer.shape:
                    buffer.copy_(before[name])
        for part, mode in modes.items():
            part.training = mode
    if changed:
        raise ValueError(
            f"{changed[0]!r} changes with the rows that the pair sees in training, and each of {size} processes sees "
            "others; learn it as a parameter, or train in one process"
        )


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
