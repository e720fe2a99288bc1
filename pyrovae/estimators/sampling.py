"""New rows of a table from a trained pair, with given values of some columns or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.data.rows import slices
from pyrovae.data.tables import TableCodec
from pyrovae.estimators.latent_mixture import LatentMixture
from pyrovae.infer.imputation import Mixture
from pyrovae.rng import forked
from pyrovae.vae import VAE

_ROWS_AT_ONCE = 4096


@dataclass
class RowSampler:
    """Draws scaled rows.

    Parameters
    ----------
    codec : TableCodec
        The columns.
    vae : VAE
        A trained pair of the kind `tabular`, in float64.
    density : LatentMixture or None
        The distribution of the latents. None takes the prior of the pair.
    """

    codec: TableCodec
    vae: VAE
    density: LatentMixture | None

    @torch.no_grad()
    def sample(
        self, num_samples: int, given: Mapping[str, Any], seed: int, num_particles: int = 1000
    ) -> NDArray[np.float64]:
        """Draw scaled rows, ``[num_samples, D]``.

        Parameters
        ----------
        num_samples : int
            How many.
        given : mapping of str to object
            Values of columns, checked before.
        seed : int
            Seed of the draws.
        num_particles : int, default 1000
            Latents of each of two proposals that are weighted where values are given.

        Raises
        ------
        ValueError
            For a number below 1.

        Notes
        -----
        Without given values, latents are drawn from d(z), the density of the latents, and rows from p(x|z). With them,
        half of the latents are drawn from d(z) and half from the guide q(z|given), and each counts p(given|z) d(z)
        divided by the even mixture of both. The given entries stay as they are.
        """
        if num_samples < 1 or num_particles < 1:
            raise ValueError(f"num_samples and num_particles must be at least 1, got {num_samples} and {num_particles}")
        model: Any = self.vae.model
        generator = np.random.RandomState(seed)
        if not given:
            latents = self._latents(num_samples, generator)
            parts = [self._rows(model.decoder(latents[part]), generator) for part in slices(num_samples, _ROWS_AT_ONCE)]
            return torch.cat(parts).cpu().numpy()
        x, mask = self._row(given)
        raw, weights = self._weighted(x, mask, num_particles, generator)
        chosen = torch.as_tensor(generator.choice(len(raw), size=num_samples, p=weights), device=raw.device)
        parts = [self._rows(raw[chosen[part]], generator) for part in slices(num_samples, _ROWS_AT_ONCE)]
        return torch.where(mask, x, torch.cat(parts)).cpu().numpy()

    def _rows(self, raw: Tensor, generator: np.random.RandomState) -> Tensor:
        """One row ``[D]`` at each of some raw parameters ``[B, P]``."""
        model: Any = self.vae.model
        uniform = torch.as_tensor(generator.uniform(size=(1, len(raw), 1 + len(self.codec.modelled)))).to(raw)
        return Mixture(model.likelihood, raw.unsqueeze(0), raw.new_ones(1, len(raw))).draws(uniform)[0]

    def _latents(self, count: int, generator: np.random.RandomState) -> Tensor:
        """Latents out of their density."""
        if self.density is not None:
            return torch.as_tensor(self.density.sample(count, generator), device=self.vae.device)
        model: Any = self.vae.model
        with forked():
            torch.manual_seed(int(generator.randint(np.iinfo(np.int32).max)))
            return model.prior().sample((count,))

    def _log_density(self, z: Tensor) -> Tensor:
        if self.density is not None:
            return torch.as_tensor(self.density.log_prob(z.cpu().numpy()), device=z.device)
        model: Any = self.vae.model
        return model.prior().log_prob(z)

    def _weighted(
        self, x: Tensor, mask: Tensor, count: int, generator: np.random.RandomState
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Raw parameters at latents of both proposals, ``[2 K, P]``, and the weights of the latents."""
        model: Any = self.vae.model
        guide: Any = self.vae.guide
        posterior = guide.posterior(x, mask)
        noise = torch.as_tensor(generator.standard_normal((count, posterior.event_shape[0]))).to(x)
        theirs = posterior.base_dist.loc + posterior.base_dist.scale * noise
        z = torch.cat([self._latents(count, generator), theirs])
        raw, likelihood = model.decoder(z), model.likelihood
        row = likelihood.fill(x, mask).expand(len(z), -1)
        log_p = likelihood(raw, mask.expand(len(z), -1)).log_prob(row)
        log_d = self._log_density(z)
        log_weight = log_p + log_d - torch.logaddexp(log_d, posterior.log_prob(z))
        weights = log_weight.softmax(0).cpu().numpy().astype(np.float64)
        return raw, weights / weights.sum()

    def _row(self, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """One scaled row with these entries, and its mask."""
        row = pd.DataFrame({name: [given.get(name)] for name in self.codec.schema.names})
        scaled, mask = self.codec.scaled(row)
        device = self.vae.device
        return torch.as_tensor(scaled, dtype=torch.float64, device=device), torch.as_tensor(mask, device=device)
