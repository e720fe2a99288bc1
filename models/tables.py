"""The model of heterogeneous tables."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods.tables import TableLikelihood
from pyrovae.models.parts import num_rows, observe


class TabularVAE(PyroModule):
    """A VAE of rows of a table, p(z) p(x|z), with a likelihood of its own for each column.

    Use it with `TabularGuide`.

    Sites: `z` (latent, event shape ``[latent_dim]``) and `x` (a row), both in the plate "data", dimension -1.

    Parameters
    ----------
    prior : Module
        Its forward returns p(z): `StandardNormal`, `MixturePrior`, `VampPrior`, or your own.
    decoder : Module
        From ``[..., latent_dim]`` to ``[..., *likelihood.raw_shape]``.
    likelihood : TableLikelihood
        The likelihood of a row.

    References
    ----------
    A. Nazabal, P. Olmos, Z. Ghahramani and I. Valera (2020), "Handling incomplete heterogeneous data using VAEs".
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, likelihood: TableLikelihood) -> None:
        super().__init__()
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        seen: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. All entries under `mask` are scored, whatever `seen` says."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample("z", self.prior())
            return observe(self.likelihood, self.decoder(z), x, mask)
