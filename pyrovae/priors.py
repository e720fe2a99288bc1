"""Priors over a vector latent: modules whose forward returns p(z)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, Normal, TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions.gaussian_mixture import DiagonalGaussianMixture


class StandardNormal(nn.Module):
    """The standard normal prior N(0, I) on vectors of size `latent_dim`.

    >>> StandardNormal(3)().event_shape
    torch.Size([3])
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        # A buffer, so that the distribution follows the module's device and type.
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Independent:
        """The prior."""
        return Normal(self.loc, torch.ones_like(self.loc)).to_event(1)


class MixturePrior(nn.Module):
    """A learned mixture of diagonal Gaussians.

    Args:
        latent_dim: size of the latent.
        num_components: number of components.
        spread: standard deviation of the initial means; the initial scales are 1.

    >>> MixturePrior(3, 10)().event_shape
    torch.Size([3])
    """

    def __init__(self, latent_dim: int, num_components: int, *, spread: float = 1.0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.loc = nn.Parameter(spread * torch.randn(num_components, latent_dim))
        self.raw_scale = nn.Parameter(torch.full((num_components, latent_dim), 0.5413))  # softplus gives 1

    def forward(self) -> DiagonalGaussianMixture:
        """The prior."""
        return DiagonalGaussianMixture(self.logits, self.loc, F.softplus(self.raw_scale) + 1e-4)


class VampPrior(nn.Module):
    """The variational mixture of posteriors, `1/K sum_k q(z | u_k)`, at K learned pseudo-inputs `u_k`.

    The prior uses the encoder but does not own it: its parameters belong to the guide.

    Args:
        posterior: from data `[K, ...]` to a diagonal Gaussian of event dimension 1, such as
            `AmortizedGaussian.posterior`.
        pseudo_inputs: their initial values `[K, ...]`: data drawn from the training set, or noise around its mean.
        learn_weights: give the components learned weights instead of 1/K.

    Reference: Tomczak and Welling (2018), VAE with a VampPrior, equation 9. The pseudo-inputs are not confined to the
    range of the data.

    >>> posterior = lambda x: Normal(x, torch.ones_like(x)).to_event(1)
    >>> VampPrior(posterior, torch.randn(7, 3))().event_shape
    torch.Size([3])
    """

    def __init__(
        self,
        posterior: Callable[[Tensor], TorchDistribution],
        pseudo_inputs: Tensor,
        *,
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(posterior, nn.Module):
            posterior = posterior.forward  # a bound method is not registered as a submodule
        self.posterior = posterior
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())
        logits = torch.zeros(len(pseudo_inputs))
        if learn_weights:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    def forward(self) -> DiagonalGaussianMixture:
        """The prior.

        Raises:
            TypeError: if the posterior is no diagonal Gaussian.
        """
        q = self.posterior(self.pseudo_inputs)
        base = getattr(q, "base_dist", None)
        if not isinstance(base, Normal) or len(q.event_shape) != 1:
            raise TypeError(f"VampPrior needs a diagonal Gaussian posterior Normal(...).to_event(1), got {q}")
        return DiagonalGaussianMixture(self.logits, base.loc, base.scale)
