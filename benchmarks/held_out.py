"""Common parts of the benchmarks of images: a training that resumes, and the record of a held-out likelihood."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor

from pyrovae import VAE
from pyrovae.data import Dataset
from pyrovae.training import RunFolder, Trainer


def train(vae: VAE, dataset: Dataset, run: RunFolder, options: argparse.Namespace, **settings: Any) -> None:
    """Train with a cosine learning rate, from where the run stopped, and print how it ended.

    `options` are the scripts' common options on the command line. `settings` are further arguments of the `Trainer`.
    """
    trainer = Trainer(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        lr_schedule="cosine",
        seed=options.seed,
        progress=not options.quiet,
        **settings,
    )
    history = trainer.fit(vae, dataset, run=run, resume=run.state_path.exists())
    print(history.reason, "best epoch", history.best_epoch, history.rows[-1])


def likelihood_record(vae: VAE, rows: Tensor, number: int, num_samples: int, device: str) -> dict[str, Any]:
    """Measure the importance-sampled log-likelihood of `number` rows, with its errors and its cost.

    The rows are spread evenly over all rows, because the rows of a file may be grouped. Those of statically binarised
    MNIST are grouped by digit.
    """
    x = rows[torch.linspace(0, len(rows) - 1, min(number, len(rows))).long()].to(device)
    start = time.monotonic()
    torch.manual_seed(1)
    result = vae.log_likelihood(x, num_samples, return_details=True)
    return {
        "log_likelihood": result.value.mean().item(),
        "standard_error_of_the_sampling": (result.standard_error.square().mean() / len(x)).sqrt().item(),
        "median_effective_sample_size": result.effective_sample_size.median().item(),
        "num_samples": num_samples,
        "rows": len(x),
        "seconds": round(time.monotonic() - start, 1),
    }
