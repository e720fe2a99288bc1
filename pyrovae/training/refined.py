"""Training of an amortised guide whose answers are refined by gradient in every step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae import programs
from pyrovae.guides.row_sites import RowSites, raw_parameters
from pyrovae.infer.fitting import guide_sites
from pyrovae.infer.refining import Refinement, RowBounds, held_fixed, refine
from pyrovae.nn.row_table import RowTable
from pyrovae.vae import VAE


class RefinedTraining:
    """Refines the answers of a guide for the batches of a training.

    The model learns at the refined posteriors, the guide on its own bound with the model held fixed.

    Parameters
    ----------
    vae : VAE
        The pair, prepared.
    how : Refinement
        How answers are refined.
    x, data : Tensor and mapping
        The first batch.

    Raises
    ------
    ValueError
        If the guide gives no answer that could be refined.
    """

    def __init__(self, vae: VAE, how: Refinement, x: Tensor, data: Mapping[str, Any]) -> None:
        if any(isinstance(module, RowTable) for module in vae.modules()):
            raise ValueError(
                "refine_steps refines the answer of an encoder, and a guide PerDatum has none; leave it out"
            )
        self.vae, self.how = vae, how
        self.sites = RowSites(guide_sites(vae, x, data)).to(x.device)
        vectorize = how.num_particles == 1 or vae.vectorizes(x, **data)
        self.bounds = RowBounds(vae.model, self.sites, vae.layout, vectorize=vectorize)
        self.of_model = vae.parameter_groups()["model"]
        self.rows: Tensor | None = None
        self.own: Any = None

        # One program for all batches, because objectives look at a program that they see for the first time.
        def guide(x: Tensor, **data: Any) -> Any:
            return self.sites.sample(self.rows, len(x)) if self.rows is not None else None

        self.guide: programs.Program = guide

    def refine(self, x: Tensor, data: Mapping[str, Any], beta: float = 1.0) -> None:
        """Refine the posteriors of a batch, by the bound at a KL weight; `guide` then has them as constants.

        Call it outside of a `KLWeightMessenger`, which would weigh the KL twice.
        """
        with torch.no_grad():
            answer = self.vae.posterior(x, **data)
            rows = torch.cat([raw_parameters(site, answer[site.name]) for site in self.sites], 1)
        with fixed(self.vae.parameters()):
            self.rows = refine(self.bounds, rows, x, data, replace(self.how, kl_weight=beta)).rows

    def loss_and_grads(self, objective: Any, model: programs.Program, x: Tensor, data: Mapping[str, Any]) -> Any:
        """The loss at the refined posteriors; gradients of the model there, and of the guide at its own answers.

        Call `refine` before.
        """
        loss = objective.loss_and_grads(model, self.guide, x, **data)
        if self.own is None:
            self.own = copy.copy(objective)  # which keeps what it found out about the other guide
        with fixed(self.of_model):
            self.own.loss_and_grads(model, self.vae.guide, x, **data)
        return loss

    def loss(self, objective: Any, x: Tensor, data: Mapping[str, Any]) -> Any:
        """The loss at the refined posteriors."""
        self.refine(x, data)
        return objective.loss(self.vae.model, self.guide, x, **data)


@contextmanager
def fixed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """A context in which parameters take no gradient, and nothing is said of it."""
    with warnings.catch_warnings():
        # `pyro.module` mentions every parameter of a training module that takes no gradient.
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        with held_fixed(parameters):
            yield
