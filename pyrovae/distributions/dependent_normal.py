"""A normal distribution for latents of a guide whose divergence from the model has no closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import Normal
from torch import Tensor


class DependentNormal(Normal):
    """Normal distribution whose divergence from another normal is estimated from draws, never in closed form.

    Use it in a guide, for a latent that comes before the latents that it depends on in the model.

    Parameters
    ----------
    loc : Tensor or float
        Mean, as in `Normal`.
    scale : Tensor or float
        Standard deviation, positive.
    validate_args : bool, optional
        Whether to check parameters and values. None follows torch's global setting.

    Notes
    -----
    In such a guide, later latents depend on the draw of this one. The model draws those latents first, so its
    distribution of this latent is a function of them. The closed form of the divergence treats the model's distribution
    as given. It is then not the expectation of log q - log p. `kl_divergence` raises `NotImplementedError` for this
    class. The mean-field objective and `VAE.forward` then use the draw.

    Examples
    --------
    >>> DependentNormal(0.0, 2.0).expand((3,))
    DependentNormal(loc: torch.Size([3]), scale: torch.Size([3]))
    """

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Reparameterised draws, shape ``[*sample_shape, *batch_shape]``.

        Unlike those of `Normal`, they work in `torch.vmap`.
        """
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.loc + noise * self.scale

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws without gradients, shape ``[*sample_shape, *batch_shape]``."""
        with torch.no_grad():
            return self.rsample(sample_shape)
