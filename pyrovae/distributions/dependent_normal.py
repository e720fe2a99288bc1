"""A normal distribution for latents in a guide whose divergence to the model is not in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import Normal
from torch import Tensor


class DependentNormal(Normal):
    """A normal distribution whose divergence from another one is estimated by draws, never in closed form.

    It is for a latent in a guide that others, drawn later, depend on, while the model draws those others first. The
    model's distribution is then a function of what was drawn here, and the closed form, which takes it as given, is
    not the expectation of log q - log p. `kl_divergence` raises NotImplementedError, at which the mean-field objective
    and `VAE.forward` use the draw.

    Shapes, arguments, support and units are those of `Normal`.

    >>> DependentNormal(0.0, 2.0).expand((3,))
    DependentNormal(loc: torch.Size([3]), scale: torch.Size([3]))
    """

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Reparameterised draws, `[*sample_shape, *batch_shape]`; unlike those of `Normal` they pass `torch.vmap`."""
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + noise * self.scale

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws without gradient, `[*sample_shape, *batch_shape]`."""
        with torch.no_grad():
            return self.rsample(sample_shape)
