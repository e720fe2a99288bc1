"""A VAE of a table, trained: what the imputer and the transformer do with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pyrovae.data.dataset import Dataset
from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.rows import slices
from pyrovae.data.schema import Schema
from pyrovae.data.tables import TableCodec
from pyrovae.infer.imputation import Mixture, mixtures
from pyrovae.pairs.registry import find_pair
from pyrovae.runs import saving
from pyrovae.runs.run import Run
from pyrovae.training import History, Trainer, TrainingData
from pyrovae.vae import VAE

STEPS = 5000
"""Steps of a training whose length nobody chose, within 20 and 300 epochs."""
_DRAWS_AT_ONCE = 4_000_000


@dataclass
class TableModel:
    """A trained pair of the kind `tabular` with the codec of its table. Inference is in float64.

    Parameters
    ----------
    codec : TableCodec
        From frames to rows and back.
    vae : VAE
        The pair.
    history : History or None
        What its training did; None for one that was read from a folder.
    """

    codec: TableCodec
    vae: VAE
    history: History | None = None

    @classmethod
    def train(
        cls,
        frame: Any,
        schema: Schema,
        *,
        seed: int,
        pair: Mapping[str, Any],
        training: Mapping[str, Any],
        likelihoods: Mapping[str, str] | None = None,
        scaling: str = "standardize",
        device: str | torch.device = "cpu",
        settings: Mapping[str, Any] | None = None,
    ) -> TableModel:
        """Train a pair on the rows of a frame.

        Parameters
        ----------
        frame : DataFrame or array
            The rows, missing entries among them.
        schema : Schema
            Its columns.
        seed : int
            Seed of initial weights and training.
        pair, training : mapping
            Options of the pair `tabular` and of the `Trainer`. `epochs` None chooses them by the number of rows.
        likelihoods, scaling
            As for `TableCodec.fit`.
        device : str or torch.device, default "cpu"
            Where to train.
        settings : mapping, optional
            What else is written down with the schema.
        """
        codec = TableCodec.fit(schema, frame, likelihoods=likelihoods, scaling=scaling)
        rows = codec.rows(frame)
        dataset = codec.dataset(rows, transform=HideLikeOtherRows())
        dataset = Dataset(**{**vars(dataset), "schema": {**codec.to_dict(), "settings": dict(settings or {})}})
        options = dict(training)
        batch_size = min(options.pop("batch_size"), len(rows))
        epochs = options.pop("epochs") or default_epochs(len(rows), batch_size)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            vae = find_pair("tabular").build(dataset, **pair).to(device)
        trainer = Trainer(
            objective=options.pop("objective", "mean-field"),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            monitor="loss",
            **options,
        )
        history = trainer.fit(vae, TrainingData(dataset.train, transform=dataset.transform))
        return cls(codec, vae.double().eval(), history)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to a folder, see `VAE.save`."""
        saving.save(self.vae, folder, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> tuple[TableModel, dict[str, Any]]:
        """Read a model, and the settings that were written down with it."""
        run = Run.open(folder)
        schema = run.spec.schema
        if schema is None:
            raise ValueError(f"{folder} holds a pair that is for no table")
        model = cls(TableCodec.from_dict(schema), run.load_vae(device).double().eval())
        return model, dict(schema.get("settings", {}))

    @property
    def latent_dim(self) -> int:
        """Size of the latent."""
        prior: Any = self.vae.model.prior
        return int(prior.latent_dim)

    def encoded(self, frame: Any, *, unseen: str = "raise", extra: str = "raise") -> tuple[Tensor, Tensor]:
        """Scaled rows in float64, and their mask, on the device of the pair."""
        scaled, mask = self.codec.scaled(frame, unseen=unseen, extra=extra)
        x = torch.as_tensor(scaled, dtype=torch.float64)
        return x.to(self.vae.device), torch.as_tensor(mask).to(self.vae.device)

    def noise(self, generator: np.random.RandomState, count: int, width: int, *, normal: bool) -> Tensor:
        """Numbers for draws, the same for every row: antithetic normal ones, or stratified uniform ones."""
        if normal:
            half = generator.standard_normal((math.ceil(count / 2), width))
            numbers = np.concatenate([half, -half])[:count]
        else:
            ranks = np.stack([generator.permutation(count) for _ in range(width)], 1)
            numbers = (ranks + generator.uniform(size=(count, width))) / count
        return torch.as_tensor(numbers, dtype=torch.float64, device=self.vae.device)

    def mixtures(
        self, x: Tensor, mask: Tensor, num_samples: int, weights: str, generator: np.random.RandomState
    ) -> Iterator[tuple[slice, Mixture]]:
        """The mixtures of rows, in parts."""
        noise = self.noise(generator, num_samples, self.latent_dim, normal=True)
        yield from mixtures(self.vae, x, mask, noise, weights=weights)

    def points(
        self, x: Tensor, mask: Tensor, num_samples: int, weights: str, generator: np.random.RandomState
    ) -> NDArray[np.float64]:
        """The best single values of all columns of the schema, ``[N, D]``, in their units."""
        found = [m.points(self.codec.ordered) for _, m in self.mixtures(x, mask, num_samples, weights, generator)]
        return self.codec.complete(torch.cat(found).cpu().numpy())

    def draws(
        self,
        x: Tensor,
        mask: Tensor,
        num_draws: int,
        num_samples: int,
        weights: str,
        generator: np.random.RandomState,
    ) -> NDArray[np.float64]:
        """Draws of the missing entries, ``[num_draws, N, D]``; observed entries are as given."""
        uniform = self.noise(generator, num_draws, 1 + x.shape[1], normal=False)
        seed = int(generator.randint(np.iinfo(np.int32).max))
        parts = []
        for part in slices(len(x), max(1, _DRAWS_AT_ONCE // (num_draws * x.shape[1]))):
            again = np.random.RandomState(seed)
            inner = self.mixtures(x[part], mask[part], num_samples, weights, again)
            parts.extend(
                torch.where(mask[part][rows], x[part][rows], mixture.draws(uniform)).cpu().numpy()
                for rows, mixture in inner
            )
        drawn = np.concatenate(parts, 1)
        return np.stack([self.codec.complete(draw) for draw in drawn])

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, mask: Tensor, num_samples: int, generator: np.random.RandomState
    ) -> NDArray[np.float64]:
        """Importance-sampled log-density of the observed entries of each row, ``[N]``, in nats and in raw units."""
        noise = self.noise(generator, num_samples, self.latent_dim, normal=True)
        model: Any = self.vae.model
        guide: Any = self.vae.guide
        found = []
        for part in slices(len(x), max(1, _DRAWS_AT_ONCE // (num_samples * model.likelihood.raw_shape[0]))):
            posterior = guide.posterior(x[part], mask[part])
            z = posterior.base_dist.loc + posterior.base_dist.scale * noise.unsqueeze(1)
            fn = model.likelihood(model.decoder(z), mask[part].expand(len(noise), -1, -1))
            log_weight = fn.log_prob(model.likelihood.fill(x[part], mask[part])) + model.prior().log_prob(z)
            log_weight = log_weight - posterior.log_prob(z)
            found.append(log_weight.logsumexp(0) - math.log(len(noise)))
        scale = torch.as_tensor(self.codec.scaler.log_scale, device=x.device)
        return (torch.cat(found) - (mask * scale).sum(-1)).cpu().numpy()

    @torch.no_grad()
    def latents(self, x: Tensor, mask: Tensor) -> NDArray[np.float64]:
        """Means of the latent of each row, ``[N, latent_dim]``."""
        guide: Any = self.vae.guide
        parts = [guide.posterior(x[part], mask[part]).mean for part in slices(len(x), 8192)]
        return torch.cat(parts).cpu().numpy()

    @torch.no_grad()
    def latent_density(self, x: Tensor, mask: Tensor, generator: np.random.RandomState) -> GaussianMixture:
        """A mixture of normals fitted to draws of the latents of rows: the distribution that the decoder knows."""
        guide: Any = self.vae.guide
        posterior = guide.posterior(x, mask).base_dist
        noise = torch.as_tensor(generator.standard_normal(posterior.loc.shape), device=x.device)
        drawn = (posterior.loc + posterior.scale * noise).cpu().numpy()
        components = int(np.clip(len(drawn) // 50, 1, 20))
        return GaussianMixture(components, reg_covar=1e-4, random_state=generator, max_iter=50).fit(drawn)


def default_epochs(rows: int, batch_size: int) -> int:
    """Epochs of a training of about `STEPS` steps, at least 20 and at most 300."""
    return int(np.clip(round(STEPS * batch_size / rows), 20, 300))
