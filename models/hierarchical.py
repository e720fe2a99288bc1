"""The model with several layers of Gaussian latents."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import layer_names, num_rows, observe


class HierarchicalVAE(PyroModule):
    """Layers of vector latents from the top down: p(z_L) p(z_{L-1}|z_L) ... p(z_1|z_2) p(x|z_1).

    Sites: `z1` (closest to the data) to `zL`, or `z` where there is one layer, and `x`, all in the plate "data",
    dimension -1.

    Args:
        prior: a module whose forward returns p(z_L): `StandardNormal`, `MixturePrior`, `VampPrior`, or your own.
        layers: the modules of p(z_1|z_2), p(z_2|z_3) and so on, from the data upwards, each from a latent to the
            distribution of the one below, such as `GaussianLayer`.
        decoder: a module from `z1` `[..., size]` to `[..., *likelihood.raw_shape]`.
        likelihood: the likelihood of a datum.
        skip: the decoder sees all latents side by side, `z1` first: p(x|z_1, ..., z_L).

    References: Burda, Grosse and Salakhutdinov (2016), Importance Weighted Autoencoders, section 5; Tomczak and Welling
    (2018), equation 12, for `skip`.

    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder, GaussianLayer
    >>> from pyrovae.priors import StandardNormal
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> decoder = DenseDecoder(3, likelihood.raw_shape, (8,))
    >>> HierarchicalVAE(StandardNormal(2), [GaussianLayer(2, (8,), 3)], decoder, likelihood)(size=5).shape
    torch.Size([5, 1, 4, 4])
    """

    def __init__(
        self,
        prior: nn.Module,
        layers: Sequence[nn.Module],
        decoder: nn.Module,
        likelihood: Likelihood,
        *,
        skip: bool = False,
    ) -> None:
        super().__init__()
        self.names = layer_names((1,) * (len(layers) + 1))
        self.prior = prior
        self.downward = nn.ModuleList(layers)
        self.decoder = decoder
        self.likelihood = likelihood
        self.skip = skip

    def forward(
        self,
        x: Tensor | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
        index: Tensor | None = None,
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample(self.names[-1], self.prior())
            seen = [z]
            for name, layer in zip(self.names[-2::-1], list(self.downward)[::-1], strict=True):
                z = pyro.sample(name, layer(z))
                seen.insert(0, z)
            raw = self.decoder(torch.cat(seen, -1) if self.skip else z)
            return observe(self.likelihood, raw, x, mask)
