"""The amortised Gaussian guide."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.nn import GaussianHead


class AmortizedGaussian(PyroModule):
    """q(z|x), a diagonal Gaussian whose mean and scale an encoder gives; missing entries enter as zeros.

    Site: `z` (event shape `[latent_dim]`) in the plate "data", dimension -1.

    Args:
        encoder: a module from data `[B, ...]` to features `[B, out_features]`, with that attribute.
        latent_dim: size of the latent.

    Reference: Kingma and Welling (2014), Auto-Encoding Variational Bayes, equation 9.

    >>> from pyrovae.nn import DenseEncoder
    >>> guide = AmortizedGaussian(DenseEncoder((1, 4, 4), (8,)), 2)
    >>> guide(torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(self, encoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.encoder = encoder
        self.head = GaussianHead(encoder.out_features, latent_dim)

    def posterior(self, x: Tensor) -> TorchDistribution:
        """The distribution q(z|x) of complete data `[B, ...]`."""
        return self.head(self.encoder(x))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        if mask is not None:
            x = torch.where(mask, x, 0.0)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x))
