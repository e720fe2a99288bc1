"""Synthetic data with a known evidence, to measure how tight a bound is."""

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
    """The linear-Gaussian model, or probabilistic principal component analysis.

    Use it as data with a known answer. Called with x, it gives log p(x) in nats.

    Parameters
    ----------
    loading : Tensor of float64, shape ``[D, L]``
        Matrix from latents to data.
    loc : Tensor of float64, shape ``[D]``
        Mean of the data.
    scale : float
        Standard deviation of the noise, positive.

    Notes
    -----
    With z ~ N(0, I) and e ~ N(0, I), x = `loading` z + `loc` + `scale` e. So x ~ N(`loc`, C) with C = `loading`
    `loading`^T + `scale`^2 I.

    References
    ----------
    M. Tipping and C. Bishop (1999), "Probabilistic principal component analysis", equations 4 and 6.

    Examples
    --------
    >>> model = LinearGaussian(torch.zeros(1, 1).double(), torch.zeros(1).double(), scale=1.0)
    >>> model(torch.zeros(2, 1))
    tensor([-0.9189, -0.9189])
    """

    loading: Tensor
    loc: Tensor
    scale: float

    @classmethod
    def random(cls, dimension: int, latent: int, generator: torch.Generator, scale: float = 0.5) -> LinearGaussian:
        """Draw `loading` and `loc` from standard normal distributions.

        Parameters
        ----------
        dimension : int
            Size D of the data.
        latent : int
            Size L of the latent.
        generator : torch.Generator
            Source of the random numbers.
        scale : float, default 0.5
            Standard deviation of the noise.

        Returns
        -------
        LinearGaussian
            The model.
        """
        loading = torch.randn(dimension, latent, generator=generator, dtype=torch.float64)
        return cls(loading, torch.randn(dimension, generator=generator, dtype=torch.float64), scale)

    def sample(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Draw rows of data.

        Parameters
        ----------
        num_rows : int
            Number of rows.
        generator : torch.Generator
            Source of the random numbers.

        Returns
        -------
        Tensor of float32
            The rows, shape ``[num_rows, D]``.
        """
        dimension, latent = self.loading.shape
        z = torch.randn(num_rows, latent, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_rows, dimension, generator=generator, dtype=torch.float64)
        return (z @ self.loading.T + self.loc + self.scale * noise).float()

    def __call__(self, x: Tensor) -> Tensor:
        """Compute log p(x). The arithmetic is in float64.

        Parameters
        ----------
        x : Tensor, shape ``[..., D]``
            The data.

        Returns
        -------
        Tensor
            log p(x) in nats, shape ``[...]``, in the dtype of x.
        """
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
    """Draw a linear-Gaussian model and its rows from a seed.

    Parameters
    ----------
    files : Files
        Not used.
    validation_size : int
        Number of validation rows.
    seed : int
        Seed of the model and of the rows. The test rows do not depend on `validation_size`.

    Returns
    -------
    Splits
        Rows ``[N, 10]`` and the model as `evidence`.

    Raises
    ------
    ValueError
        `validation_size` leaves no training rows.
    """
    model = LinearGaussian.random(_DIMENSION, _LATENT, seeded_generator(seed, stream=0))
    num_learning = _SIZES[0] + _SIZES[1]
    if validation_size >= num_learning:
        raise ValueError(f"validation must be below the {num_learning} training rows, not {validation_size}")
    x = model.sample(num_learning, seeded_generator(seed, stream=1))
    test = model.sample(_SIZES[2], seeded_generator(seed, stream=2))
    return Splits(Rows(x[:-validation_size]), Rows(x[-validation_size:]), Rows(test), evidence=model)
