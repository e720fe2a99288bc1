"""Synthetic data whose evidence is known exactly, to measure how tight a bound is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyrovae.data.dataset import Rows
from pyrovae.data.files import Files
from pyrovae.data.preprocessing import seeded_generator
from pyrovae.data.registry import Splits, register

_DIMENSION = 10
_LATENT = 3
_SIZES = (5000, 1000, 1000)


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The linear-Gaussian model, or probabilistic principal component analysis; called, it gives log p(x) in nats.

    Formula: z ~ N(0, I), x = `loading` z + `loc` + `scale` e with e ~ N(0, I), hence
    x ~ N(`loc`, `loading` `loading`^T + `scale`^2 I).

    Shapes: x `[..., D]` gives `[...]`, in the dtype of x; the arithmetic is in float64.

    Reference: Tipping and Bishop (1999), equations 4 and 6.

    Args:
        loading: `[D, L]` float64.
        loc: `[D]` float64.
        scale: standard deviation of the noise.

    >>> model = LinearGaussian(torch.zeros(1, 1).double(), torch.zeros(1).double(), scale=1.0)
    >>> model(torch.zeros(2, 1))
    tensor([-0.9189, -0.9189])
    """

    loading: Tensor
    loc: Tensor
    scale: float

    @classmethod
    def random(cls, dimension: int, latent: int, generator: torch.Generator, scale: float = 0.5) -> LinearGaussian:
        """Draw `loading` and `loc` from standard normal distributions."""
        loading = torch.randn(dimension, latent, generator=generator, dtype=torch.float64)
        return cls(loading, torch.randn(dimension, generator=generator, dtype=torch.float64), scale)

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Draw rows `[num_rows, D]`, float32."""
        dimension, latent = self.loading.shape
        z = torch.randn(num_rows, latent, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_rows, dimension, generator=generator, dtype=torch.float64)
        return (z @ self.loading.T + self.loc + self.scale * noise).float()

    def __call__(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, `[..., D]` to `[...]`."""
        covariance = self.loading @ self.loading.T + self.scale**2 * torch.eye(len(self.loc), dtype=torch.float64)
        marginal = MultivariateNormal(self.loc.to(x.device), covariance.to(x.device))
        return marginal.log_prob(x.double()).to(x.dtype)


@register(
    "linear-gaussian",
    summary="synthetic: linear-Gaussian model with 3 latent dimensions, exact evidence known",
    shape=(_DIMENSION,),
    sizes=_SIZES,
    kind="real",
    source="drawn from the seed, parameters too",
)
def linear_gaussian(files: Files, validation_size: int, seed: int) -> Splits:
    """Draw a linear-Gaussian model and its rows from `seed`; the test rows do not depend on `validation_size`."""
    model = LinearGaussian.random(_DIMENSION, _LATENT, seeded_generator(seed, stream=0))
    num_learning = _SIZES[0] + _SIZES[1]
    if validation_size >= num_learning:
        raise ValueError(f"validation must be below the {num_learning} training rows, not {validation_size}")
    x = model.sample(num_learning, seeded_generator(seed, stream=1))
    test = model.sample(_SIZES[2], seeded_generator(seed, stream=2))
    return Splits(Rows(x[:-validation_size]), Rows(x[-validation_size:]), Rows(test), evidence=model)
