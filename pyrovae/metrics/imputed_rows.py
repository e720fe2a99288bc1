"""Rows of a table of which entries are hidden, and what a run and other imputers make of them."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.data.columns import NUMBERS
from pyrovae.data.dataset import Rows
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from pyrovae.data.tables import TableCodec
    from pyrovae.estimators.prediction import Sampling
    from pyrovae.estimators.table_model import TableModel
    from pyrovae.metrics.evaluation import Progress

# The codec and the baselines import pandas, so they are imported in the functions.

logger = logging.getLogger(__name__)

HIDDEN = 0.5
"""Share of the observed entries that are hidden, to be imputed."""
COVERAGE = 0.9
"""Probability that the intervals of hidden entries claim."""
MOST_LEVELS = 1000
"""Boosted trees grow a tree for each level, so tables with a column of more levels are not compared with them."""
QUICK = ("mean-mode", "hist-gradient-boosting")
"""Baselines for large tables, where no others are asked for."""
MOST_WORK = 1_000_000
"""Rows of a small table times the square of its columns, levels counted each: all baselines take up to a minute."""
NUM_DRAWS = 200
"""Draws of each interval."""


class Table(NamedTuple):
    """The modelled columns of some rows as arrays."""

    values: NDArray[np.float64]
    """In the units of the table, levels as codes, NaN where an entry is missing, ``[N, D]``."""
    names: list[str]
    kinds: list[str]
    num_levels: NDArray[np.int64]
    """Of columns of numbers 1."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """Ends of the range in the training rows; NaN without one."""


class Filled(NamedTuple):
    """Rows that an imputer completed, ``[N, D]``, and how long it took."""

    values: NDArray[np.float64]
    seconds: float
    """Of a baseline with the time to fit it."""


def table_of(codec: TableCodec, rows: Rows) -> Table:
    """Rows of a pair in the units of their table."""
    columns = [codec.schema.columns[position] for position in codec.modelled]
    values = codec.scaler.inverse_transform(rows.x.cpu().double().numpy())
    # Rows are held in float32, which is coarser than whole numbers are.
    values = np.where([column.integer or column.levels is not None for column in columns], np.rint(values), values)
    if rows.mask is not None:
        values = np.where(rows.mask.cpu().numpy(), values, np.nan)
    levels = np.array([len(column.levels or (None,)) for column in columns])
    low, high = (
        np.array([getattr(c, end) if c.levels is None else code for c, code in zip(columns, codes, strict=True)], float)
        for end, codes in (("low", np.zeros(len(levels))), ("high", levels - 1))
    )
    return Table(values, [c.name for c in columns], [c.kind for c in columns], levels, low, high)


@dataclass
class ImputedRows:
    """Observed entries of some rows that are hidden, and the run that completes them.

    Which entries, and latents, are drawn by the seed of the global generator of PyTorch, whatever was drawn since.

    Parameters
    ----------
    vae : VAE
        The pair.
    rows : Rows
        The rows.
    finished : tuple of TableModel and Sampling, optional
        The run as `pyrovae impute` has it. None takes the pair alone.
    """

    vae: VAE
    rows: Rows
    finished: tuple[TableModel, Sampling] | None = None

    @cached_property
    def codec(self) -> TableCodec:
        """The columns."""
        from pyrovae.data.tables import TableCodec

        made_by: Any = self.vae.made_by
        return TableCodec.from_dict(made_by.spec.schema)

    @cached_property
    def model(self) -> TableModel:
        """What completes the rows."""
        if self.finished is not None:
            return self.finished[0]
        from pyrovae.estimators.prediction import Predictor
        from pyrovae.estimators.table_model import TableModel

        return TableModel(Predictor(self.codec, copy.deepcopy(self.vae).double().eval()))

    @cached_property
    def alone(self) -> TableModel:
        """The same without trees."""
        predictor = self.model.predictor
        nothing = np.zeros_like(predictor.tree_weights)
        without = replace(predictor, trees=None, tree_weights=nothing, forests=None, forest_weights=nothing)
        return replace(self.model, predictor=without)

    @property
    def has_trees(self) -> bool:
        """Whether trees count in what the run imputes."""
        return bool(self.model.predictor.tree_weights.any() or self.model.predictor.forest_weights.any())

    @property
    def sampling(self) -> Sampling:
        """How latents are drawn."""
        from pyrovae.estimators.prediction import Sampling

        return Sampling() if self.finished is None else self.finished[1]

    @cached_property
    def table(self) -> Table:
        """The rows in the units of the table."""
        return table_of(self.codec, self.rows)

    @cached_property
    def x(self) -> Tensor:
        """The scaled rows in float64, ``[N, D]``."""
        return self.rows.x.to(self.model.vae.device, torch.float64)

    @cached_property
    def mask(self) -> Tensor:
        """Their observed entries, ``[N, D]``."""
        if self.rows.mask is None:
            return torch.ones_like(self.x, dtype=torch.bool)
        return self.rows.mask.to(self.x.device)

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """Which of the observed entries are hidden, ``[N, D]``."""
        observed = self.mask.cpu().numpy()
        return observed & (np.random.default_rng(torch.initial_seed() % 2**63).random(observed.shape) < HIDDEN)

    @property
    def seen(self) -> Tensor:
        """The others, ``[N, D]``."""
        return self.mask & ~torch.as_tensor(self.hidden, device=self.x.device)

    def rebuilt(self) -> NDArray[np.float64]:
        """What the pair makes of rows of which it sees all observed entries, ``[N, D]``."""
        return self._as_completed(self.alone.predictor.points(self.x, self.mask, self.sampling))

    def completed(self) -> dict[str, Filled]:
        """The values that `pyrovae impute` fills in, and those without its trees, where these count."""
        models = {"vae": self.model} | ({"vae-alone": self.alone} if self.has_trees else {})
        found = {}
        for name, model in models.items():
            started = time.perf_counter()
            values = self._as_completed(model.predictor.points(self.x, self.seen, self.sampling, ~self.mask))
            found[name] = Filled(values, time.perf_counter() - started)
        return found

    @torch.no_grad()
    def log_prob(self) -> float:
        """The summed log-density of the hidden entries, each given the seen ones of its row, in scaled units."""
        asked, total = torch.as_tensor(self.hidden, device=self.x.device), 0.0
        for part, mixture in self.alone.predictor.mixtures(self.x, self.seen, self.sampling, ~self.mask):
            filled: Any = mixture.likelihood.fill(self.x[part], asked[part])
            log_prob = mixture.entries.log_prob(filled) + mixture.weights.log().unsqueeze(-1)
            total += float(log_prob.logsumexp(0)[asked[part]].sum())
        return total

    def coverage(self) -> dict[str, float | None]:
        """The share of hidden numbers, and of hidden ordered levels, that lie in their intervals."""
        (inside,) = self._inside([COVERAGE])
        kinds, shares = np.array(self.table.kinds), {}
        for what, of_kinds in (("numbers", NUMBERS), ("ordered levels", ("ordinal",))):
            asked = self.hidden & np.isin(kinds, of_kinds)
            shares[what] = float(inside[asked].mean()) if asked.any() else None
        return shares

    def coverages(self, levels: Sequence[float]) -> tuple[dict[float, float], int]:
        """The share of hidden numbers in their intervals, by the level of these, and how many numbers there are."""
        asked = self.hidden & np.isin(np.array(self.table.kinds), NUMBERS)
        if not asked.any():
            return {}, 0
        found = self._inside(levels)
        shares = {level: float(inside[asked].mean()) for level, inside in zip(levels, found, strict=True)}
        return shares, int(asked.sum())

    def _inside(self, levels: Sequence[float]) -> list[NDArray[np.bool_]]:
        """Which entries lie in their interval of each level, ``[N, D]``."""
        found = self.model.intervals(self.x, self.seen, levels, NUM_DRAWS, self.sampling, ~self.mask)
        bounds = [[self._as_encoded(end) for end in ends] for ends in found]
        # A part in a million, which rows in float32 do not tell.
        slack = np.nan_to_num(1e-6 * np.fmax(np.abs(self.table.low), np.abs(self.table.high)))
        values = self.table.values
        with np.errstate(invalid="ignore"):
            return [(values >= low - slack) & (values <= high + slack) for low, high in bounds]

    def baselines(
        self, train: Rows | None, names: Sequence[str] | None, progress: Progress | None = None
    ) -> dict[str, Filled]:
        """What other imputers, fitted on other rows, fill in.

        Parameters
        ----------
        train : Rows or None
            Rows to fit them on. Without any, there are none.
        names : sequence of str or None
            Which. None takes all that scikit-learn has, and of large tables those in `QUICK`.
        progress : callable, optional
            Wraps the names.
        """
        from pyrovae.estimators.baselines import IN_SCIKIT_LEARN, impute_with

        if train is None or not len(train) or (names is not None and not names):
            return {}
        learned = table_of(self.codec, train).values
        wanted = tuple(IN_SCIKIT_LEARN if names is None else names)
        if names is None and len(learned) * int(self.table.num_levels.sum()) ** 2 > MOST_WORK:
            wanted = tuple(name for name in wanted if name in QUICK)
            logger.info("beside %s alone, as the table is large; --baselines names others", " and ".join(wanted))
        if int(self.table.num_levels.max()) > MOST_LEVELS and set(wanted) - {"mean-mode"}:
            wanted = tuple(name for name in wanted if name == "mean-mode")
            logger.info("beside mean-mode alone, as a column has more than %d levels", MOST_LEVELS)
        shown, seed = np.where(self.hidden, np.nan, self.table.values), torch.initial_seed() % 2**32
        found = {}
        in_turn: Iterable[Any] = wanted if progress is None else progress(wanted)
        for name in in_turn:
            started = time.perf_counter()
            values = impute_with(name, learned, shown, self.table.kinds, seed)
            found[name] = Filled(values, time.perf_counter() - started)
        return found

    def as_frame(self, values: NDArray[np.float64]) -> tuple[Any, Any]:
        """The schema of the modelled columns, and values of these as a frame, also where they are out of range."""
        columns = self.codec.schema.subset(self.table.names).columns
        unbounded = type(self.codec.schema)(tuple(c if c.levels else replace(c, low=None, high=None) for c in columns))
        return unbounded, unbounded.decode(values)

    def _as_completed(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scaled values as a completed table has them: within their ranges, whole numbers and levels as such."""
        return self._as_encoded(self.codec.complete(scaled))

    def _as_encoded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        schema = self.codec.schema
        return schema.encode(schema.decode(values), unseen="missing")[0][:, self.codec.modelled]
