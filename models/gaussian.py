"""The model of the variational autoencoder with a vector latent."""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.parts import num_rows, observe


class GaussianVAE(PyroModule):
    """A VAE with one vector latent, p(z) p(x|z).

    Use it with `AmortizedGaussian` as guide.

    Sites: `z` (latent, event shape ``[latent_dim]``) and `x` (data), both in the plate "data", dimension -1.

    Parameters
    ----------
    prior : Module
        Its forward returns p(z): `StandardNormal`, `MixturePrior`, `VampPrior`, or your own.
    decoder : Module
        From ``[..., latent_dim]`` to ``[..., *likelihood.raw_shape]``.
    likelihood : Likelihood
        The likelihood of a datum.

    References
    ----------
    D. Kingma and M. Welling (2014), "Auto-encoding variational Bayes". D. Rezende, S. Mohamed and D. Wierstra (2014),
    "Stochastic backpropagation and approximate inference in deep generative models".

    Examples
    --------
    >>> from pyrovae.likelihoods import BernoulliLikelihood
    >>> from pyrovae.nn import DenseDecoder
    >>> from pyrovae.priors import StandardNormal
    >>> likelihood = BernoulliLikelihood((1, 4, 4))
    >>> model = GaussianVAE(StandardNormal(2), DenseDecoder(2, likelihood.raw_shape, (8,)), likelihood)
    >>> model(size=3).shape
    torch.Size([3, 1, 4, 4])
    """

    def __init__(self, prior: nn.Module, decoder: nn.Module, likelihood: Likelihood) -> None:
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
        """Run the program. See the contract of pairs. `y` and `index` are not used.

        All entries under `mask` are scored, whatever `seen` says, which is for the guide.
        """
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample("z", self.prior())
            return observe(self.likelihood, self.decoder(z), x, mask)
