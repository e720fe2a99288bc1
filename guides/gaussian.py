"""The guide of the Gaussian VAE."""

from __future__ import annotations

from torch import nn

from pyrovae.guides.amortized import Amortized
from pyrovae.nn import GaussianHead
from pyrovae.nn.encoders import num_features


def AmortizedGaussian(encoder: nn.Module, latent_dim: int) -> Amortized:
    """The guide q(z|x) of a real vector latent: a diagonal Gaussian with mean and scale from an encoder.

    Use it with `GaussianVAE`.

    Site: `z` (event shape ``[latent_dim]``) in the plate "data", dimension -1.

    Parameters
    ----------
    encoder : Module
        As for `Amortized`, with the attribute `out_features`.
    latent_dim : int
        Size of the latent, at least 1.

    Returns
    -------
    Amortized
        The guide.

    Raises
    ------
    ValueError
        The size is below 1.

    References
    ----------
    D. Kingma and M. Welling (2014), "Auto-encoding variational Bayes", equation 9.

    Examples
    --------
    >>> import torch
    >>> from pyrovae.nn import DenseEncoder
    >>> guide = AmortizedGaussian(DenseEncoder((1, 4, 4), (8,)), 2)
    >>> guide(torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 2])
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
    return Amortized(encoder, GaussianHead(num_features(encoder), latent_dim))
