"""A VAE of a table, trained: what the imputer and the transformer do with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.rows import Rows, slices
from pyrovae.data.schema import Schema
from pyrovae.data.tables import TableCodec
from pyrovae.distributions.quantiles import quantile
from pyrovae.estimators.calibration import spread_factors
from pyrovae.estimators.latent_mixture import LatentMixture
from pyrovae.estimators.trees import ColumnTrees
from pyrovae.infer.imputation import Mixture, mixtures
from pyrovae.likelihoods.tables import OF_LEVELS
from pyrovae.pairs.registry import find_pair
from pyrovae.runs import saving
from pyrovae.runs.run import Run
from pyrovae.training import History, Trainer, TrainingData
from pyrovae.vae import VAE

STEPS = 5000
"""Steps of a training whose length nobody chose, within 20 and 300 epochs."""
HELD_OUT = 0.05
"""Share of the observed entries that the training does not see, to calibrate spreads."""
TREES, LATENTS = "trees.npz", "latents.npz"
_DRAWS_AT_ONCE = 4_000_000
_LATENT_ROWS = 10_000
_CALIBRATION_ROWS = 3000
_CALIBRATION_DRAWS = 200


@dataclass
class TableModel:
    """A trained pair of the kind `tabular` with the codec of its table. Inference is in float64.

    Parameters
    ----------
    codec : TableCodec
        From frames to rows and back.
    vae : VAE
        The pair.
    trees : ColumnTrees or None
        What predicts each column from the others, if the pair takes hints.
    spread : ndarray, shape ``[D]``, or None
        Factors of the spread of imputed numbers; None is 1.
    density : LatentMixture or None
        Where the latents of the training rows lie. None takes the prior.
    history : History or None
        What its training did; None for one that was read from a folder.
    """

    codec: TableCodec
    vae: VAE
    trees: ColumnTrees | None = None
    spread: NDArray[np.float64] | None = None
    density: LatentMixture | None = None
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
        trees: bool = False,
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
        trees : bool, default False
            Whether predictions of boosted trees enter as hints.
        likelihoods, scaling
            As for `TableCodec.fit`.
        device : str or torch.device, default "cpu"
            Where to train.
        settings : mapping, optional
            What else is written down with the schema.
        """
        codec = TableCodec.fit(schema, frame, likelihoods=likelihoods, scaling=scaling)
        scaled, mask = codec.scaled(frame)
        held = _held_out(mask, np.random.RandomState(seed))
        shown = mask & ~held
        rows = Rows(torch.as_tensor(scaled, dtype=torch.float32), mask=torch.as_tensor(shown)).numbered()
        stored, fitted = {**codec.to_dict(), "settings": dict(settings or {})}, None
        if trees:
            values, families = np.where(shown, scaled, np.nan), codec.families
            options = {"random_state": seed, "verbose": bool(training.get("progress"))}
            fitted, hints = ColumnTrees.fit(values, families.families, families.num_levels, **options)
            rows = rows.replace(more={"hints": torch.as_tensor(hints, dtype=torch.float32)})
            stored["hints"] = [list(map(int, part)) for part in fitted.layout]
            fitted = fitted if fitted.layout else None
        dataset = replace(codec.dataset(rows, transform=HideLikeOtherRows()), schema=stored)
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
        history = trainer.fit(vae, TrainingData(rows if fitted else rows.replace(more={}), transform=dataset.transform))
        model = cls(codec, vae.double().eval(), fitted, history=history)
        model._calibrate(scaled, shown, held, seed)
        if fitted is None:
            model.density = model._latent_mixture(scaled, mask, np.random.RandomState(seed))
        return model

    @torch.no_grad()
    def _latent_mixture(self, scaled: NDArray, mask: NDArray, generator: np.random.RandomState) -> LatentMixture:
        guide: Any = self.vae.guide
        some = generator.permutation(len(scaled))[:_LATENT_ROWS]
        x, seen = torch.as_tensor(scaled[some]).to(self.vae.device), torch.as_tensor(mask[some]).to(self.vae.device)
        posterior = guide.posterior(x, seen).base_dist
        noise = torch.as_tensor(generator.standard_normal(posterior.loc.shape), device=x.device)
        return LatentMixture.fit((posterior.loc + posterior.scale * noise).cpu().numpy(), generator)

    def _calibrate(self, scaled: NDArray, shown: NDArray, held: NDArray, seed: int) -> None:
        """Find the factors of the spread on entries that the training did not see, and write them down."""
        numbers = np.array([family not in OF_LEVELS for family in self.codec.families.families])
        asked = held & numbers
        rows = np.flatnonzero(asked.any(1))[:_CALIBRATION_ROWS]
        if not len(rows):
            return
        x, mask = torch.as_tensor(scaled[rows]).to(self.vae.device), torch.as_tensor(shown[rows]).to(self.vae.device)
        generator = np.random.RandomState(seed)
        uniform = self.noise(generator, _CALIBRATION_DRAWS, 1 + x.shape[1], normal=False)
        means, draws = [], []
        for _, mixture in self.mixtures(x, mask, 50, "none", generator):
            means.append(mixture.points(self.codec.ordered).cpu().numpy())
            draws.append(mixture.draws(uniform).cpu().numpy())
        found = spread_factors(scaled[rows], np.concatenate(means), np.concatenate(draws, 1), asked[rows])
        self.spread = np.where(numbers, found, 1.0)
        made_by = self.vae.made_by
        if made_by is not None:
            schema = {**(made_by.spec.schema or {}), "spread": self.spread.tolist()}
            self.vae.made_by = made_by._replace(spec=made_by.spec._replace(schema=schema))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to a folder, see `VAE.save`; its trees to `trees.npz` beside it."""
        saving.save(self.vae, folder, overwrite=overwrite)
        if self.trees is not None:
            self.trees.save(Path(folder) / TREES)
        if self.density is not None:
            self.density.save(Path(folder) / LATENTS)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> tuple[TableModel, dict[str, Any]]:
        """Read a model, and the settings that were written down with it."""
        run = Run.open(folder)
        schema = run.spec.schema
        if schema is None:
            raise ValueError(f"{folder} holds a pair that is for no table")
        trees = ColumnTrees.load(Path(folder) / TREES) if schema.get("hints") else None
        spread = np.array(schema["spread"]) if "spread" in schema else None
        density = LatentMixture.load(Path(folder) / LATENTS) if (Path(folder) / LATENTS).exists() else None
        vae = run.load_vae(device).double().eval()
        model = cls(TableCodec.from_dict(schema), vae, trees, spread, density)
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
        yield from mixtures(self.vae, x, mask, noise, hints=self.hints(x, mask), weights=weights)

    def hints(self, x: Tensor, mask: Tensor) -> Tensor | None:
        """What the trees predict of rows; None without trees."""
        if self.trees is None:
            return None
        values = torch.where(mask, x, torch.nan).cpu().numpy()
        return torch.as_tensor(self.trees.hints(values), dtype=x.dtype, device=x.device)

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
                torch.where(mask[part][rows], x[part][rows], self._spread(mixture, uniform)).cpu().numpy()
                for rows, mixture in inner
            )
        drawn = np.concatenate(parts, 1)
        return np.stack([self.codec.complete(draw) for draw in drawn])

    def _spread(self, mixture: Mixture, uniform: Tensor) -> Tensor:
        """Draws of rows, numbers moved from their means by the calibrated factors."""
        drawn = mixture.draws(uniform)
        if self.spread is None:
            return drawn
        mean = mixture.points(self.codec.ordered)
        factor = torch.as_tensor(self.spread, dtype=drawn.dtype, device=drawn.device)
        return torch.where(factor == 1, drawn, mean + factor * (drawn - mean))

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, mask: Tensor, num_samples: int, generator: np.random.RandomState
    ) -> NDArray[np.float64]:
        """Importance-sampled log-density of the observed entries of each row, ``[N]``, in nats and in raw units."""
        self._refuse_trees("rows have no density")
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

    def sample(
        self, num_samples: int, given: Mapping[str, Any] | None = None, random_state: int = 0, num_particles: int = 1000
    ) -> pd.DataFrame:
        """New rows of the table, perhaps with given values of some columns.

        Parameters
        ----------
        num_samples : int
            How many.
        given : mapping of str to object, optional
            Values of columns by name. The other columns are drawn given these, by importance weights.
        random_state : int, default 0
            Seed of the draws.
        num_particles : int, default 1000
            Draws of the latent that are weighted, with `given`.

        Returns
        -------
        DataFrame
            Columns and dtypes of the table.

        Raises
        ------
        ValueError
            For a number below 1, an unknown column, and a value that its column cannot have.
        """
        self._refuse_trees("rows cannot be drawn")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        generator = np.random.RandomState(random_state)
        uniform = self.noise(generator, num_samples, 1 + len(self.codec.modelled), normal=False)
        if given:
            x, mask = self._given(given)
            mixture = next(iter(self.mixtures(x, mask, num_particles, "importance", generator)))[1]
            drawn = torch.where(mask, x, mixture.draws(uniform)[:, 0])
        else:
            drawn = self._drawn(num_samples, uniform[:, 1:], generator)
        return self.codec.schema.decode(self.codec.complete(drawn.cpu().numpy()))

    @torch.no_grad()
    def _drawn(self, num_samples: int, uniform: Tensor, generator: np.random.RandomState) -> Tensor:
        """Scaled rows at latents drawn from where those of the training rows lie."""
        model: Any = self.vae.model
        if self.density is None:
            with torch.random.fork_rng():
                torch.manual_seed(int(generator.randint(np.iinfo(np.int32).max)))
                z = model.prior().sample((num_samples,))
        else:
            z = torch.as_tensor(self.density.sample(num_samples, generator), device=uniform.device)
        parts = []
        for part in slices(num_samples, 4096):
            groups = model.likelihood.elementwise(model.raw(z[part]))
            noise = uniform[part]
            parts.append(groups.joined(lambda fn, c, u=noise: quantile(fn, u.index_select(-1, c)).to(u.dtype)))
        return torch.cat(parts)

    def _given(self, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """One scaled row with these entries, and its mask."""
        schema = self.codec.schema
        for name in given:
            if name not in schema.names:
                raise ValueError(f"there is no column {name!r}; the columns are {', '.join(schema.names)}")
        row = pd.DataFrame({name: [given.get(name)] for name in schema.names})
        return self.encoded(row)

    def _refuse_trees(self, what: str) -> None:
        if self.trees is not None:
            raise ValueError(
                f"with trees, what is said of a column depends on all others, so {what}; fit with trees=False"
            )


def _held_out(mask: NDArray[np.bool_], generator: np.random.RandomState) -> NDArray[np.bool_]:
    """Entries that the training does not see; a column keeps at least ten."""
    held = mask & (generator.uniform(size=mask.shape) < HELD_OUT)
    held[:, (mask & ~held).sum(0) < 10] = False
    return held


def default_epochs(rows: int, batch_size: int) -> int:
    """Epochs of a training of about `STEPS` steps, at least 20 and at most 300."""
    return int(np.clip(round(STEPS * batch_size / rows), 20, 300))
