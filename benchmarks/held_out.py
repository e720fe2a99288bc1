"""What the benchmarks of images share: the record of a held-out likelihood."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from pyrovae import VAE


def likelihood_record(vae: VAE, rows: Tensor, number: int, num_samples: int, device: str) -> dict[str, Any]:
    """Importance-sampled log-likelihood of so many rows, spread over all of them, with what it rests on.

    They are spread because the rows of a file may be grouped, as those of statically binarised MNIST are by digit.
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
