"""All example programs with data for them, and log weights of them by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine

from examples import air, cevae, cvae, dmm, prodlda, scanvi
from pyrovae import VAE


class Example(NamedTuple):
    make_vae: Callable[[], VAE]
    data: Callable[[int], dict[str, torch.Tensor]]
    """Rows as arguments by name, so many of them."""


EXAMPLES = {
    "cvae": Example(cvae.make_vae, cvae.halves),
    "dmm": Example(dmm.make_vae, dmm.melodies),
    "dmm-flow": Example(partial(dmm.make_vae, num_flows=1), dmm.melodies),
    "air": Example(air.make_vae, lambda num: {"x": air.scenes(num)[0]}),
    "prodlda": Example(prodlda.make_vae, lambda num: {"x": prodlda.documents(num)}),
    "scanvi": Example(scanvi.make_vae, lambda num: scanvi.cells(num)[0]),
    "cevae": Example(cevae.make_vae, cevae.patients),
}


def split(data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The rows and the other arguments."""
    return data["x"], {name: value for name, value in data.items() if name != "x"}


def hand_weights(vae: VAE, data: dict[str, Any], num_particles: int, *, training: bool) -> torch.Tensor:
    """Log weights `[K, B]` from Pyro's own traces, one particle after the other.

    In training what the guide observes counts as in `Trace_ELBO`, in held-out figures it does not.
    """
    found = []
    with vae.scope():
        for _ in range(num_particles):
            of_guide = poutine.trace(vae.guide).get_trace(**data)
            of_model = poutine.trace(poutine.replay(vae.model, trace=of_guide)).get_trace(**data)
            total = torch.zeros(len(data["x"]))
            for sign, trace in ((1, of_model), (-1, of_guide)):
                trace.compute_log_prob()
                for site in trace.nodes.values():
                    counts = "log_prob" in site and (sign > 0 or training or not site["is_observed"])
                    if counts and site["log_prob"].dim():
                        total = total + sign * site["log_prob"]
            found.append(total)
    return torch.stack(found)
