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
    """A VAE with layers of vector latents, from the top down: p(z_L) p(z_{L-1}|z_L) ... p(z_1|z_2) p(x|z_1).

    Use it with `HierarchicalGaussian` as guide.

    Sites: `z1` (closest to the data) to `zL`, or `z` where there is one layer; and `x`. All are in the plate "data",
    dimension -1.

    Parameters
    ----------
    prior : Module
        Its forward returns p(z_L): `StandardNormal`, `MixturePrior`, `VampPrior`, or your own.
    layers : sequence of Module
        The modules of p(z_1|z_2), p(z_2|z_3) and so on, from the data upwards. Each maps a latent to the distribution
        of the latent below it, as `GaussianLayer` does. An empty sequence gives a model with one layer.
    decoder : Module
        From `z1`, or with `skip` from all latents, to ``[..., *likelihood.raw_shape]``.
    likelihood : Likelihood
        The likelihood of a datum.
    skip : bool, default False
        Whether the decoder sees all latents side by side, `z1` first. The last factor is then p(x|z_1, ..., z_L).

    References
    ----------
    Y. Burda, R. Grosse and R. Salakhutdinov (2016), "Importance weighted autoencoders", section 5. J. Tomczak and M.
    Welling (2018), "VAE with a VampPrior", equation 12, for `skip`.

    Examples
    --------
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
        """Run the program. See the contract of pairs. `y` and `index` are not used."""
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample(self.names[-1], self.prior())
            seen = [z]
            for name, layer in zip(self.names[-2::-1], list(self.downward)[::-1], strict=True):
                z = pyro.sample(name, layer(z))
                seen.insert(0, z)
            raw = self.decoder(torch.cat(seen, -1) if self.skip else z)
            return observe(self.likelihood, raw, x, mask)
