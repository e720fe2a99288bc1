"""The model of heterogeneous tables."""

from __future__ import annotations

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods.missingness import SelfMasking
from pyrovae.likelihoods.tables import TableLikelihood
from pyrovae.models.parts import num_rows, observe


class TabularVAE(PyroModule):
    """A VAE of rows of a table, p(z) p(x|z), with a likelihood of its own for each column.

    Use it with `TabularGuide`.

    Sites: `z` (latent, event shape ``[latent_dim]``) and `x` (a row), both in the plate "data", dimension -1. With a
    model of what is missing there is the site `mask` beside them, 1 where an entry is observed. Missing entries are
    integrated out of it, and entries that were recorded and are not shown, see `forward`.

    Parameters
    ----------
    prior : Module
        Its forward returns p(z): `StandardNormal`, `MixturePrior`, `VampPrior`, or your own.
    decoder : Module
        From ``[..., latent_dim]`` to ``[..., *likelihood.raw_shape]``.
    likelihood : TableLikelihood
        The likelihood of a row.
    missingness : SelfMasking, optional
        The probability that an entry is missing given its value. None takes the mask as given: values missing at
        random.

    References
    ----------
    A. Nazabal, P. Olmos, Z. Ghahramani and I. Valera (2020), "Handling incomplete heterogeneous data using VAEs".
    N. B. Ipsen, P.-A. Mattei and J. Frellsen (2021), "not-MIWAE".
    """

    def __init__(
        self,
        prior: nn.Module,
        decoder: nn.Module,
        likelihood: TableLikelihood,
        missingness: SelfMasking | None = None,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.missingness = missingness

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        seen: Tensor | None = None,
        recorded: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. All entries under `mask` are scored, whatever `seen` says.

        `recorded` is True for entries that were not missing, where some of them are left out of `mask`.
        """
        self.likelihood.see(x, mask)
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample("z", self.prior())
            raw = self.decoder(z)
            row = observe(self.likelihood, raw, x, mask)
            if self.missingness is not None:
                known, there = (None, None) if x is None else (mask, mask if recorded is None else recorded)
                found = None if x is None else torch.ones_like(row) if there is None else there.to(row.dtype)
                pyro.sample("mask", self.missingness(self.likelihood.elementwise(raw), row, known), obs=found)
            return row
