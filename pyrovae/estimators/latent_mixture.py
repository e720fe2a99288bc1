"""Where the latents of training rows lie: a mixture of normals, stored without pickle."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from pyrovae.estimators.archives import stored_arrays, write_arrays

COMPONENTS = (1, 2, 3, 5, 10, 20)
"""Numbers of components that are tried."""
ROWS_PER_COMPONENT = 20
ENOUGH_ROWS = 1000
"""From so many rows on, the largest number is taken untried."""
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

    Examples
    --------
    >>> latents = np.random.default_rng(0).normal(size=(200, 3))
    >>> mixture = LatentMixture.fit(latents, np.random.RandomState(0))
    >>> mixture.means.shape, mixture.sample(5, np.random.RandomState(1)).shape
    ((1, 3), (5, 3))
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    factors: NDArray[np.float64]

    @classmethod
    def fit(cls, latents: NDArray[np.float64], generator: np.random.RandomState) -> LatentMixture:
        """Fit a mixture to the latents of rows.

        Parameters
        ----------
        latents : ndarray, shape ``[N, latent_dim]`` or ``[S, N, latent_dim]``
            Latents of at least 2 rows, or several draws of the latent of each row.
        generator : RandomState
            For the starting points, and for which rows are held out.

        Returns
        -------
        LatentMixture
            Of a table below 1000 rows, with that one of `COMPONENTS` under which the latents of held-out rows, a fifth,
            are most probable; a component has at least 20 rows. Of a longer table, with the most.
        """
        draws = latents if latents.ndim == 3 else latents[None]
        rows = draws.shape[1]
        candidates = [count for count in COMPONENTS if count == 1 or count * ROWS_PER_COMPONENT <= rows]
        if rows >= ENOUGH_ROWS or len(candidates) == 1:
            return cls._of(draws, candidates[-1], generator)
        held, kept = np.split(generator.permutation(rows), [rows // 5])
        scores = [
            cls._of(draws[:, kept], count, generator).log_prob(_flat(draws[:, held])).mean() for count in candidates
        ]
        return cls._of(draws, candidates[int(np.argmax(scores))], generator)

    @classmethod
    def _of(cls, draws: NDArray[np.float64], components: int, generator: np.random.RandomState) -> LatentMixture:
        """A mixture of so many components."""
        mixture = GaussianMixture(components, reg_covar=1e-4, max_iter=50, random_state=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a rough fit will do, also of rows that are alike
            fitted = mixture.fit(_flat(draws))
        return cls(fitted.weights_, fitted.means_, np.linalg.cholesky(fitted.covariances_))

    def sample(self, num_samples: int, generator: np.random.RandomState) -> NDArray[np.float64]:
        """Draw latents, ``[num_samples, latent_dim]``."""
        weights = self.weights / self.weights.sum()
        chosen = generator.choice(len(weights), size=num_samples, p=weights)
        noise = generator.standard_normal((num_samples, self.means.shape[1], 1))
        return self.means[chosen] + (self.factors[chosen] @ noise)[..., 0]

    def log_prob(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        """The log-density of latents ``[N, latent_dim]``, ``[N]`` in nats."""
        found = np.empty((len(self.weights), len(latents)))
        for component, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            standard = np.linalg.solve(factor, (latents - mean).T)
            found[component] = -0.5 * np.square(standard).sum(0) - np.log(np.diag(factor)).sum()
        found += np.log(self.weights / self.weights.sum())[:, None] - 0.5 * latents.shape[1] * np.log(2 * np.pi)
        return np.logaddexp.reduce(found, axis=0)

    def save(self, path: str | Path) -> None:
        """Write the mixture to an npz file."""
        write_arrays(path, {name: getattr(self, name) for name in _NAMES})

    @classmethod
    def load(cls, path: str | Path) -> LatentMixture:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            The file is damaged.
        """
        with stored_arrays(path) as stored:
            weights, means, factors = (np.asarray(stored[name], dtype=np.float64) for name in _NAMES)
        if means.ndim != 2 or not means.size or factors.shape != (*means.shape, means.shape[1]):
            raise ValueError(f"{path} is damaged: its arrays do not fit together; save the model again")
        if weights.shape != means.shape[:1] or not (weights >= 0).all() or not weights.sum() > 0:
            raise ValueError(
                f"{path} is damaged: its weights are none of {len(means)} components; save the model again"
            )
        if not all(np.isfinite(array).all() for array in (weights, means, factors)):
            raise ValueError(f"{path} is damaged: some of its numbers are not finite; save the model again")
        return cls(weights, means, factors)


def _flat(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """All draws ``[S, N, latent_dim]`` in one list."""
    return draws.reshape(-1, draws.shape[-1])
