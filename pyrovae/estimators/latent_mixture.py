"""Where the latents of training rows lie: a mixture of normals, stored without pickle."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from pyrovae.storage import write_atomically

MOST_COMPONENTS = 20
_NAMES = ("weights", "means", "factors")


@dataclass(frozen=True)
class LatentMixture:
    """A mixture of normals over latents, to draw new rows from.

    A pair that was trained with a small KL weight has latents that do not lie as its prior says; drawn from the prior,
    rows would be unlike those of the table.

    Parameters
    ----------
    weights : ndarray, shape ``[C]``
        Weights of the components.
    means : ndarray, shape ``[C, latent_dim]``
        Their means.
    factors : ndarray, shape ``[C, latent_dim, latent_dim]``
        Lower Cholesky factors of their covariances.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    factors: NDArray[np.float64]

    @classmethod
    def fit(cls, latents: NDArray[np.float64], generator: np.random.RandomState) -> LatentMixture:
        """Fit a mixture to draws of latents ``[N, latent_dim]``, with a component for each 50 of them, at most 20."""
        components = int(np.clip(len(latents) // 50, 1, MOST_COMPONENTS))
        fitted = GaussianMixture(components, reg_covar=1e-4, max_iter=50, random_state=generator).fit(latents)
        return cls(fitted.weights_, fitted.means_, np.linalg.cholesky(fitted.covariances_))

    def sample(self, num_samples: int, generator: np.random.RandomState) -> NDArray[np.float64]:
        """Draw latents, ``[num_samples, latent_dim]``."""
        weights = self.weights / self.weights.sum()
        chosen = generator.choice(len(weights), size=num_samples, p=weights)
        noise = generator.standard_normal((num_samples, self.means.shape[1], 1))
        return self.means[chosen] + (self.factors[chosen] @ noise)[..., 0]

    def save(self, path: str | Path) -> None:
        """Write the mixture to an npz file."""
        content = io.BytesIO()
        np.savez_compressed(content, **{name: getattr(self, name) for name in _NAMES})
        write_atomically(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> LatentMixture:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                weights, means, factors = (np.asarray(stored[name], dtype=np.float64) for name in _NAMES)
        except Exception as error:  # a damaged archive raises nearly anything
            raise ValueError(f"{path} is damaged: {error}; save the model again") from error
        size = means.shape[-1]
        if means.shape != (len(weights), size) or factors.shape != (len(weights), size, size):
            raise ValueError(f"{path} is damaged: its arrays do not fit together; save the model again")
        return cls(weights, means, factors)
