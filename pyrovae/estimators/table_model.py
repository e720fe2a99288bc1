"""A VAE of a table, trained: what the imputer and the transformer do with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.data.rows import Rows, slices
from pyrovae.data.tables import TableCodec
from pyrovae.estimators.calibration import calibrate
from pyrovae.estimators.factors import FactorModel
from pyrovae.estimators.forests import ColumnForests, affordable
from pyrovae.estimators.given import check_given
from pyrovae.estimators.latent_mixture import LatentMixture
from pyrovae.estimators.missing_ranges import without_observed_ranges
from pyrovae.estimators.nets import load_others, save_others
from pyrovae.estimators.prediction import Predictor, Sampling, row_generators
from pyrovae.estimators.sampling import RowSampler
from pyrovae.estimators.stacking import Expectations
from pyrovae.estimators.trees import ColumnTrees
from pyrovae.infer.imputation import weighted
from pyrovae.runs import saving
from pyrovae.runs.run import Run
from pyrovae.training import History
from pyrovae.training.schedules import parse_schedule
from pyrovae.vae import VAE

FOUND = ("tree_weights", "spread", "net_weights", "factor_shares", "forest_weights", "calibrated_on")
"""What `finish` finds, and the schema keeps."""
HIDDEN_TO_CALIBRATE = 0.3
"""Share of the observed entries of held-out rows that is hidden to calibrate spreads on them."""
TREES, LATENTS, FACTORS, FORESTS = "trees.npz", "latents.npz", "factors.npz", "forests.npz"
WIDTHS = (1.0, 2.0, 4.0, 8.0)
"""Widths of the proposals of densities, in standard deviations of the guide."""
_NUMBERS_AT_ONCE = 4_000_000
_LATENT_ROWS = 10_000
_WEIGHTED = ("iwae", "iwae-stl", "iwae-dreg")
"""Objectives under which draws of the guide count by their importance weights."""
LATENT_DRAWS = 5
"""Draws of the latent of each row of a small table, to find where they lie."""


def draws_for(coverage: float) -> int:
    """The least number of draws of which some two bound an interval of this coverage."""
    return math.ceil(2 / (1 - coverage) - 1 - 1e-6)


@dataclass
class TableModel:
    """A trained pair of the kind `tabular` with the codec of its table. Inference is in float64.

    Parameters
    ----------
    predictor : Predictor
        The codec, the pair, its trees, and how they complete rows.
    density : LatentMixture or None
        Where the latents of the training rows lie. None takes the prior.
    history : History or None
        What its training did; None for one that was read from a folder.
    """

    predictor: Predictor
    density: LatentMixture | None = None
    history: History | None = None

    @property
    def codec(self) -> TableCodec:
        """From frames to rows and back."""
        return self.predictor.codec

    @property
    def vae(self) -> VAE:
        """The pair."""
        return self.predictor.vae

    def finish(
        self,
        scaled: NDArray[np.float64],
        mask: NDArray[np.bool_],
        held: NDArray[np.bool_],
        seed: int = 0,
        *,
        training: Mapping[str, Any],
    ) -> None:
        """Calibrate the model on entries that the training did not see, and find where the latents of its rows lie.

        Parameters
        ----------
        scaled : ndarray, shape ``[N, D]``
            The training rows.
        mask : ndarray of bool, shape ``[N, D]``
            Their observed entries.
        held : ndarray of bool, shape ``[N, D]``
            Those of them that the training did not see, see `held_out`. Without any, nothing is calibrated.
        seed : int, default 0
            Seed of the draws.
        training : mapping
            Options of the `Trainer` that the pair was trained with.
        """
        x = torch.as_tensor(scaled, dtype=torch.float64, device=self.vae.device)
        values, ordered = np.where(mask & ~held, scaled, np.nan), self.codec.ordered.tolist()
        if not self.models_missing:
            self.predictor.factors = FactorModel.fit(values, self.codec.families, ordered=ordered, random_state=seed)
        if held.any() and not self.models_missing:
            forests = self.predictor.trees is not None and affordable(len(x), self.predictor.expectations)
            shown = torch.as_tensor(mask & ~held, device=x.device)
            calibrate(self.predictor, x, shown, held, seed, with_forests=forests)
        self.density = self._latent_mixture(x, torch.as_tensor(mask, device=x.device), seed, training)

    def calibrate(self, rows: Rows, seed: int = 0) -> None:
        """Find the factors of the spread on rows that the training did not see, of which a part is hidden.

        Parameters
        ----------
        rows : Rows
            Scaled rows of the codec.
        seed : int, default 0
            Seed of what is hidden, and of the draws.
        """
        x = rows.x.to(self.vae.device, torch.float64)
        mask = torch.ones_like(x, dtype=torch.bool) if rows.mask is None else rows.mask.to(x.device)
        held = mask.cpu().numpy() & (np.random.RandomState(seed).uniform(size=x.shape) < HIDDEN_TO_CALIBRATE)
        calibrate(self.predictor, x, mask & ~torch.as_tensor(held, device=x.device), held, seed)

    @property
    def is_calibrated(self) -> bool:
        """Whether spreads were calibrated, or there is nothing to calibrate."""
        known = self.models_missing or self.predictor.expectations.is_level.all()
        return bool(self.predictor.calibrated_on.any() or known)

    @property
    def models_missing(self) -> bool:
        """Whether the pair models what is missing. Then nothing stands beside it, and spreads are its own."""
        model: Any = self.vae.model
        return model.missingness is not None

    @torch.no_grad()
    def _latent_mixture(self, x: Tensor, mask: Tensor, seed: int, training: Mapping[str, Any]) -> LatentMixture:
        """Where latents of rows lay when the decoder was trained: if importance weights counted, they choose."""
        guide: Any = self.vae.guide
        generator = np.random.RandomState(seed)
        some = torch.as_tensor(generator.permutation(len(x))[:_LATENT_ROWS], device=x.device)
        posterior = guide.posterior(x[some], mask[some]).base_dist
        draws = int(np.clip(_LATENT_ROWS // len(some), 1, LATENT_DRAWS))
        particles = int(training.get("num_particles") or 1) if training.get("objective") in _WEIGHTED else 1
        kl_weight = parse_schedule(training.get("kl_weight", 1.0))(float(training.get("epochs") or 0))
        found = []
        for _ in range(draws):
            noise = torch.as_tensor(generator.standard_normal((particles, *posterior.loc.shape)), device=x.device)
            z = posterior.loc + posterior.scale * noise
            if particles > 1:
                weights = [
                    weighted(self.vae, x[some[part]], mask[some[part]], noise[:, part], kl_weight=kl_weight)[1]
                    for part in slices(len(some), max(1, _LATENT_ROWS // particles))
                ]
                gumbel = torch.as_tensor(generator.gumbel(size=(particles, len(some))), device=x.device)
                chosen = (torch.cat(weights, 1).nan_to_num(0.0, neginf=-1e30) + gumbel).argmax(0)
                z = z[chosen, torch.arange(len(some), device=x.device)][None]
            found.append(z[0].cpu().numpy())
        return LatentMixture.fit(np.stack(found), generator)

    def found(self) -> dict[str, Any]:
        """What was found after the training, ready for JSON, but for what `save_parts` writes."""
        return {name: getattr(self.predictor, name).tolist() for name in FOUND}

    def write_down(self, settings: Mapping[str, Any] | None = None) -> None:
        """Put what was found after the training, and other settings, into what is saved with the pair."""
        made_by = self.vae.made_by
        if made_by is not None:
            found = {**self.found(), "finished": dict(saving.UNTRAINED)}
            if settings is not None:
                found["settings"] = dict(settings)
            schema = {**(made_by.spec.schema or {}), **found}
            self.vae.made_by = made_by._replace(spec=made_by.spec._replace(schema=schema))

    def save(self, folder: str | Path, *, overwrite: bool = False, settings: Mapping[str, Any] | None = None) -> None:
        """Write the model to a folder, see `VAE.save`; its trees to `trees.npz` beside it.

        `settings` replace those that were written down with the training.
        """
        self.write_down(settings)
        saving.save(self.vae, folder, overwrite=overwrite, beside=self.save_parts)

    def save_parts(self, folder: Path) -> None:
        """Write trees and the density of the latents to a folder, and remove those of another model."""
        found = self.predictor
        parts = (found.trees, TREES), (self.density, LATENTS), (found.factors, FACTORS), (found.forests, FORESTS)
        for part, name in parts:
            if part is None:
                (folder / name).unlink(missing_ok=True)
            else:
                part.save(folder / name)
        save_others(self.predictor.others, folder)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> tuple[TableModel, dict[str, Any]]:
        """Read a model, and the settings that were written down with it. A run that is not finished is finished first.

        Raises
        ------
        CheckpointError
            The folder holds no run, or a damaged one.
        ValueError
            It holds a pair that is for no table, or a damaged file.
        """
        run = Run.open(folder)
        if run.spec.schema is None:
            raise ValueError(f"{folder} holds a pair that is for no table")
        run = run.finish(device=device)
        schema, is_done = run.spec.schema or {}, run.pair.finishing is not None and run.pair.finishing.is_done(run)
        # What was found for other weights, before the training went on, is of no use.
        weights, spread, of_nets, shares, of_forests, calibrated_on = (
            np.array(schema.get(name, ()) if is_done else ()) for name in FOUND
        )
        trees, latents, factors, forests = (Path(folder) / name for name in (TREES, LATENTS, FACTORS, FORESTS))
        if weights.any() and not trees.exists():
            raise ValueError(f"{folder} lacks {TREES}, which its model needs; save the model again")
        if shares.any() and not factors.exists():
            raise ValueError(f"{folder} lacks {FACTORS}, which its model needs; save the model again")
        if of_forests.any() and not forests.exists():
            raise ValueError(f"{folder} lacks {FORESTS}, which its model needs; save the model again")
        codec, settings = TableCodec.from_dict(schema), dict(schema.get("settings", {}))
        how, declared = settings.get("missingness", "ignorable"), settings.get("ranges") or ()
        predictor = Predictor(
            replace(codec, schema=without_observed_ranges(codec.schema, how, declared)),
            run.load_vae(device).double().eval(),
            ColumnTrees.load(trees) if weights.any() else None,
            weights,
            spread,
            load_others(folder, len(of_nets) - 1, device),
            of_nets,
            factors=FactorModel.load(factors) if is_done and factors.exists() else None,
            factor_shares=shares,
            forests=ColumnForests.load(forests, Expectations(codec.families)) if of_forests.any() else None,
            forest_weights=of_forests,
            calibrated_on=calibrated_on,
        )
        density = LatentMixture.load(latents) if is_done and latents.exists() else None
        return cls(predictor, density), settings

    def encoded(self, frame: Any, *, unseen: str = "raise", extra: str = "raise") -> tuple[Tensor, Tensor]:
        """Scaled rows in float64, and their mask, on the device of the pair."""
        scaled, mask = self.codec.scaled(frame, unseen=unseen, extra=extra)
        x = torch.as_tensor(scaled, dtype=torch.float64)
        return x.to(self.vae.device), torch.as_tensor(mask).to(self.vae.device)

    def never_recorded(self, frame: pd.DataFrame) -> Tensor | None:
        """Where modelled entries of a frame hold nothing, ``[N, D]``, if the pair models what is missing; else None.

        A level that the training did not see is not observed, and was recorded all the same.
        """
        if not self.models_missing:
            return None
        columns = [self.codec.schema.names[column] for column in self.codec.modelled]
        return torch.as_tensor(frame[columns].isna().to_numpy(dtype=bool, copy=True), device=self.vae.device)

    def points(self, x: Tensor, mask: Tensor, sampling: Sampling, missing: Tensor | None = None) -> NDArray[np.float64]:
        """The best single values of all columns of the schema, ``[N, D]``, in their units."""
        return self.codec.complete(self.predictor.points(x, mask, sampling, missing))

    def draws(
        self,
        x: Tensor,
        mask: Tensor,
        num_draws: int,
        sampling: Sampling,
        *,
        by_row: bool = True,
        missing: Tensor | None = None,
    ) -> NDArray[np.float64]:
        """Draws of the missing entries, ``[num_draws, N, D]``, in the units of the columns; see `Predictor.draws`."""
        drawn = self.predictor.draws(x, mask, num_draws, sampling, by_row=by_row, missing=missing)
        return np.stack([self.codec.complete(draw) for draw in drawn])

    def intervals(
        self,
        x: Tensor,
        mask: Tensor,
        coverages: Sequence[float],
        num_draws: int,
        sampling: Sampling,
        missing: Tensor | None = None,
    ) -> NDArray[np.float64]:
        """Ends of intervals of the missing entries, ``[len(coverages), 2, N, D]``, in the units of the columns.

        They are the k-th draws from below and from above. A number drawn like these lies between them with probability
        1 - 2 k / (num_draws + 1), and k is the largest for which that is no less than the coverage.

        Raises
        ------
        ValueError
            If so many draws have no such interval.
        """
        places = []
        for coverage in coverages:
            place = math.floor((1 - coverage) / 2 * (num_draws + 1) + 1e-9)
            if not place:
                least = draws_for(coverage)
                raise ValueError(f"coverage {coverage:g} needs num_draws of at least {least}, got {num_draws}")
            places.append([place - 1, num_draws - place])
        found = []
        for part in slices(len(x), max(1, _NUMBERS_AT_ONCE // (num_draws * x.shape[1]))):
            absent = None if missing is None else missing[part]
            drawn = self.draws(x[part], mask[part], num_draws, sampling, by_row=False, missing=absent)
            found.append(np.sort(drawn, axis=0)[np.array(places)])
        return np.concatenate(found, 2)

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, mask: Tensor, sampling: Sampling, missing: Tensor | None = None
    ) -> NDArray[np.float64]:
        """Importance-sampled log-density of the observed entries of each row, ``[N]``, in nats and in raw units.

        It is that of the pair alone, without trees and further nets, and 0 of a row without any observed entry, unless
        the pair models what is missing. `missing` is that of `never_recorded`. The noise of a row depends on what the
        row holds and on nothing else, so that errors of rows are independent.
        """
        model: Any = self.vae.model
        shape, found = (sampling.num_samples, model.prior.latent_dim), []
        numbers = shape[0] * max(model.likelihood.raw_shape[0], shape[1])
        for part in slices(len(x), max(1, _NUMBERS_AT_ONCE // numbers)):
            own = [each.standard_normal(shape) for each in row_generators(x[part], mask[part], sampling.seed)]
            noise = torch.as_tensor(np.stack(own, 1)).to(x)
            absent = None if missing is None else missing[part]
            _, log_weight = weighted(self.vae, x[part], mask[part], noise, absent, widths=WIDTHS)
            found.append(log_weight.logsumexp(0) - math.log(shape[0]))
        scale = torch.as_tensor(self.codec.log_scale(x.cpu().numpy()), device=x.device)
        log_prob = torch.cat(found) - (mask * scale).sum(-1)
        known = mask.any(-1) | self.models_missing
        return torch.where(known, log_prob, 0.0).cpu().numpy()

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
        check_given(self.codec.schema, given)
        rows = RowSampler(self.codec, self.vae, self.density)
        scaled = rows.sample(num_samples, given or {}, random_state, num_particles)
        values = self.codec.complete(scaled)
        if given:  # as they were given, and not as scaling leaves them
            row = pd.DataFrame({name: [given.get(name)] for name in self.codec.schema.names})
            exact, known = self.codec.schema.encode(row)
            values[:, known[0]] = exact[0, known[0]]
        return self.codec.schema.decode(values)
