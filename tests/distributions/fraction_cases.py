"""Fractions of every kind, and the precisions that they are tried in."""

import torch

from pyrovae.distributions import Beta, GammaComposition, Kumaraswamy, LogitNormal

DTYPES = [torch.float64, torch.float32]


def fractions(shape, dtype=torch.float32, **kwargs):
    """One distribution of each kind, with concentrations that reach both ends of the interval."""
    a, b = torch.full(shape, 0.05, dtype=dtype), torch.full(shape, 0.3, dtype=dtype)
    return [
        Kumaraswamy(a, b, **kwargs),
        Beta(a, b, **kwargs),
        GammaComposition(a, b, **kwargs),
        LogitNormal(-a, 50 * b, **kwargs),
    ]
