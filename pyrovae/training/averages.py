"""Pyro's decaying averages of the cost downstream of a site, which stand in its parameter store and are not trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
from pyro.infer import TraceGraph_ELBO
from torch import Tensor

from pyrovae import programs
from pyrovae.rng import forked
from pyrovae.sites import latent_sites
from pyrovae.training.batching import Batches, HeldBatches
from pyrovae.vae import VAE

_PREFIX = "__baseline_avg_downstream_cost_"  # as Pyro calls them


def is_running_average(name: str) -> bool:
    """Whether an entry of Pyro's parameter store is such an average."""
    return name.startswith(_PREFIX)


def running_averages() -> dict[str, Tensor]:
    """The averages in Pyro's parameter store as it is now, by name."""
    store = pyro.get_param_store()
    return {name: store[name].detach().clone() for name in store.keys() if is_running_average(name)}  # noqa: SIM118


def restore_averages(averages: Mapping[str, Tensor]) -> None:
    """Put averages back into Pyro's parameter store."""
    for name, value in averages.items():
        pyro.get_param_store()[name] = value


def check_averages(vae: VAE, objective: Any, batches: Batches, x: Tensor, data: Mapping[str, Any]) -> None:
    """Refuse such a baseline where batches are of several sizes, since it has a number for each place in a batch.

    Parameters
    ----------
    vae : VAE
        The pair, prepared and within its scope.
    objective : ELBO
        The objective.
    batches : Batches
        The training data.
    x, data : Tensor and mapping
        The first batch.

    Raises
    ------
    ValueError
        Naming the site.
    """
    if not isinstance(objective, TraceGraph_ELBO) or not isinstance(batches, HeldBatches):
        return
    if batches.smallest == len(x):
        return
    with forked():
        trace = programs.trace(vae.guide, (x,), programs.keywords(vae.guide, **data))
    for name, site in latent_sites(trace).items():
        if site["infer"].get("baseline", {}).get("use_decaying_avg_baseline"):
            raise ValueError(
                f"the decaying-average baseline of site {name!r} has a number for each of the {len(x)} rows of a "
                f"batch, and the last batch has {batches.smallest}; leave it out, drop_last=True, or take a batch_size "
                f"that divides {batches.total}"
            )
