"""The model of the variational autoencoder with a vector latent."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import Independent
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood


class GaussianVAE(PyroModule):
    """p(z) p(x|z) with a vector latent `z` and conditionally independent entries of `x`.

    Sites: `z` (latent, event shape `[latent_dim]`) and `x` (data), both in the plate "data", dimension -1.

    Args:
        prior: a module whose forward returns p(z): `StandardNormal`, `MixturePrior`, `VampPrior`, or your own.
        decoder: a module from `[..., latent_dim]` to `[..., *likelihood.raw_shape]`.
        likelihood: the likelihood of a datum.

    Reference: Kingma and Welling (2014), Auto-Encoding Variational Bayes; Rezende, Mohamed and Wierstra (2014).

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
        *,
        size: int | None = None,
    ) -> Tensor:
        """Run the program; see the contract of pairs. `y` and `index` are not used."""
        likelihood = self.likelihood
        with pyro.plate("data", num_rows(x, size), dim=-1):
            z = pyro.sample("z", self.prior())
            return observe("x", likelihood(self.decoder(z)), x, mask, likelihood.fill_value)


def num_rows(x: Tensor | None, size: int | None) -> int:
    """The number of rows of a call, from the data or from `size`.

    Raises:
        ValueError: if neither is given, or both.
    """
    if (x is None) == (size is None):
        raise ValueError("give either data x or the number of rows to draw, size=")
    return len(x) if x is not None else size


def observe(name: str, fn: Independent, x: Tensor | None, mask: Tensor | None, fill_value: float) -> Tensor:
    """The data site: scored on the observed entries of `x`, or drawn where `x` is None.

    Missing entries are filled with a value of the support before scoring, because a NaN under a mask still gives NaN
    gradients.
    """
    if x is not None and mask is not None:
        x = torch.where(mask, x, fill_value)
        fn = fn.base_dist.mask(mask).to_event(fn.reinterpreted_batch_ndims)
    return pyro.sample(name, fn, obs=x)
