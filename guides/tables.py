"""The guide of heterogeneous tables."""

from __future__ import annotations

import pyro
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn


class TabularGuide(PyroModule):
    """The guide q(z|x) of a row of a table, which may be shown less than what is observed.

    Use it with `TabularVAE`. In training, entries that it does not see are scored all the same, so that the pair learns
    to predict them.

    Sites: `z` in the plate "data", dimension -1.

    Parameters
    ----------
    encoder : Module
        From rows ``[B, D]`` and their mask to features ``[B, out_features]``, such as `TableEncoder`.
    head : Module
        From features to the distribution of `z`, such as `GaussianHead`.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def posterior(self, x: Tensor, mask: Tensor | None = None) -> TorchDistribution:
        """Return the distribution q(z|x) of the observed entries of rows ``[B, D]``."""
        return self.head(self.encoder(x, mask))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        seen: Tensor | None = None,
        recorded: Tensor | None = None,
    ) -> Tensor:
        """Run the program. See the contract of pairs. `seen` is True where the guide may look, under the mask.

        `recorded` is for the model.
        """
        if seen is not None:
            mask = seen if mask is None else mask & seen
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x, mask))
