"""Priors over a vector latent: modules whose forward returns p(z).

Each has `latent_dim`, the size of z, `features(z)`, what it means, of size `num_features`, and `decoder_input(z)`, the
features in the scale in which decoders learn them: z itself for the Gaussian ones, the weights of the stick for
`StickBreakingPrior`. So one model takes either.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from pyro.distributions import Independent, Normal, TorchDistribution
from torch import Tensor, nn

from pyrovae.distributions.gaussian_mixture import DiagonalGaussianMixture
from pyrovae.distributions.sticks import Beta
from pyrovae.distributions.transforms import log_stick_weights


class GaussianPrior(nn.Module):
    """What the priors on real vectors share: the features are the latent as it is."""

    latent_dim: int

    @property
    def num_features(self) -> int:
        """The size of the features."""
        return self.latent_dim

    def features(self, z: Tensor) -> Tensor:
        """The latent itself, `[..., latent_dim]`."""
        return z

    def decoder_input(self, z: Tensor) -> Tensor:
        """The latent itself, `[..., latent_dim]`."""
        return z


class StandardNormal(GaussianPrior):
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


class MixturePrior(GaussianPrior):
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


class VampPrior(GaussianPrior):
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

    @property
    def latent_dim(self) -> int:
        """The size of the latent, found with one run of the encoder."""
        with torch.no_grad(), torch.random.fork_rng():
            return self.posterior(self.pseudo_inputs[:1]).event_shape[0]

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


class StickBreakingPrior(nn.Module):
    r"""The weights of a stick broken at random: the Dirichlet process prior of a latent on the simplex, truncated.

    The latent is the `truncation` - 1 fractions, each Beta(1, `concentration`) and independent; the weights, on the
    simplex, are their `features`. The larger the concentration, the more weights matter: about `concentration` log 100
    of them hold 99 % of the stick.

    Args:
        truncation: number of weights K, at least 2.
        concentration: concentration of the Dirichlet process, positive; where it is learned, its initial value.
        learn: make the concentration a parameter, held as its logarithm.
        gain: factor on the weights that a decoder sees; by default `3 sqrt(truncation (1 + concentration))`. Most
            weights are far below 1, and a linear layer of the usual initial values hardly hears them: on 5000 digits of
            MNIST the bound after 12 epochs was -192 nats with a gain of 1, -168 with 7 and -152 with 50. The default
            gives all weights together three times the length of as many standard normal latents.

    Raises:
        ValueError: for fewer than two weights, and a concentration or gain that is not positive.

    Reference: Nalisnick and Smyth (2017), Stick-Breaking Variational Autoencoders, section 2.1.

    >>> prior = StickBreakingPrior(50, 5.0)
    >>> weights = prior.features(prior().sample((3,)))
    >>> weights.shape, bool(weights.sum(-1).allclose(torch.ones(3)))
    (torch.Size([3, 50]), True)
    """

    def __init__(
        self, truncation: int, concentration: float = 1.0, *, learn: bool = False, gain: float | None = None
    ) -> None:
        super().__init__()
        if truncation < 2:
            raise ValueError(f"truncation is the number of weights and must be at least 2, got {truncation}")
        if not 0 < concentration < math.inf:
            raise ValueError(f"concentration must be a positive number, got {concentration}")
        gain = 3 * math.sqrt(truncation * (1 + concentration)) if gain is None else gain
        if not 0 < gain < math.inf:
            raise ValueError(f"gain must be a positive number, got {gain}")
        self.latent_dim, self.num_features = truncation - 1, truncation
        self.register_buffer("gain", torch.tensor(float(gain)))
        initial = torch.tensor(math.log(concentration))
        if learn:
            self.log_concentration = nn.Parameter(initial)
        else:
            self.register_buffer("log_concentration", initial, persistent=False)

    @property
    def concentration(self) -> Tensor:
        """The concentration, a scalar."""
        return self.log_concentration.exp()

    def forward(self, concentration: Tensor | None = None) -> Independent:
        """The prior of the fractions, at another concentration `[...]` if one is given."""
        concentration = self.concentration if concentration is None else concentration
        shape = (*concentration.shape, self.latent_dim)
        return Beta(1.0, concentration.unsqueeze(-1)).expand(shape).to_event(1)

    def features(self, z: Tensor) -> Tensor:
        """The weights `[..., truncation]` of fractions `[..., truncation - 1]`; finite whatever the fractions."""
        info = torch.finfo(z.dtype)
        z = z.clamp(info.tiny, 1 - info.eps / 2)
        return log_stick_weights(torch.log(z), torch.log1p(-z)).exp()

    def decoder_input(self, z: Tensor) -> Tensor:
        """The weights times `gain`, `[..., truncation]`."""
        return self.gain * self.features(z)
