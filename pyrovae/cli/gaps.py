"""`pyrovae evaluate RUN --inference-gap`: what family and encoder of a guide cost."""

from __future__ import annotations

import argparse
import json
import logging

import torch

from pyrovae import plotting
from pyrovae.batches import arguments
from pyrovae.data.fingerprints import changed_splits
from pyrovae.metrics import inference_gap
from pyrovae.metrics.evaluation import GREY, scores_grey
from pyrovae.rng import begin
from pyrovae.runs import Run, evaluations, measured, pick_device, posteriors

logger = logging.getLogger(__name__)

NUM_ROWS, NUM_SAMPLES = 1000, 1000


def evaluate_gap(options: argparse.Namespace) -> None:
    """Print the approximation and the amortisation gap of a run, and draw them into its folder.

    Raises
    ------
    ValueError
        If there are no such rows, the guide answers nothing that could be refined, or its family cannot be.
    """
    changed = options.allow_changed_data
    run, device = (
        Run.open(options.run, options.pair, options.data, allow_changed_data=changed),
        pick_device(options.device),
    )
    weights = evaluations.weights_digest(run.folder)  # before they are loaded: newer ones would not be these
    dataset, vae = run.dataset(), run.load_vae(device)
    if posteriors.has_rows(vae):
        raise ValueError(f"{run.folder.path} has no encoder, so there is no inference gap to measure")
    begin(options.seed)
    rows = dataset.seen(options.split)
    if not len(rows):
        raise ValueError(f"{dataset.name} has no {options.split} rows; choose others with --split")
    count = NUM_ROWS if options.num_rows is None else options.num_rows
    if count < 1:
        raise ValueError(f"--num-rows must be at least 1, got {count}")
    rows = rows.take(torch.randperm(len(rows))[:count])
    x, data = arguments(vae, rows)
    samples = NUM_SAMPLES if options.num_samples is None else options.num_samples
    p, *_ = vae.bound_terms(x, **data)
    if scores_grey(p, vae.observed_values(x, **data), data.get("mask")):
        logger.info(GREY)
    settings = {"num_samples": samples, "chunk_size": options.chunk_size, "seed": options.seed}
    gap = inference_gap(vae, x, **settings, **data)
    path = run.folder.figures_path / "inference_gap.png"
    if options.split in changed_splits(dataset, run.config.get("fingerprints") or {}):
        path = path.with_stem("inference_gap_of_other_data")
    else:
        measured.keep_gap(run.folder, options.split, weights, gap)
    plotting.save_figure(plotting.inference_gaps(gap), path)
    found = {"run": str(run.folder.path), "data": dataset.name, "split": options.split, "num_rows": len(rows)}
    if options.json:
        print(json.dumps({**found, **gap.means()}))
        return
    for name, value in found.items():
        print(f"{name.replace('_', ' '):22} {value:>10}")
    for name, value in gap.means().items():
        print(f"{name.replace('_', ' '):22} {value:>10.4f}  nats per datum")
    print(path)
