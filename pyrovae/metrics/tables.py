"""Figures of a pair of tables: likelihood per entry, and errors of reconstructed and of imputed entries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.data.dataset import Rows
from pyrovae.families import EvaluationFigure, Family, Measure
from pyrovae.metrics.evaluation import Evaluated
from pyrovae.metrics.held_entries import held_entry_figures
from pyrovae.models import TabularVAE
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyrovae.plotting.run import Pictured

# The codec and the baselines import pandas, so they are imported in the functions.

HIDDEN = 0.5
"""Share of the observed entries that are hidden, to be imputed."""
NUM_SAMPLES = 50
"""Draws of the latent that an imputed entry is made from."""
MOST_LEVELS = 1000
"""Boosted trees grow a tree for each level, so tables with a column of more levels are not compared with them."""
_NATS = "nats per entry"
_RMSE = "after VAEM: (1/D) sqrt(sum of the D mean squared errors), numbers scaled to [0, 1], 0 or 1 for a level"
_IMPUTED = "entries that were observed and then hidden, half of them at random"

FIGURES = (
    EvaluationFigure(
        "nll_per_entry",
        _NATS,
        "-`log_likelihood` per observed entry, numbers scaled as for training; for pairs of tables",
    ),
    EvaluationFigure("nll_per_entry_raw", _NATS, "the same in the units of the table"),
    EvaluationFigure("rmse", "share of the range", f"error of reconstructed entries {_RMSE}"),
    EvaluationFigure(
        "rmse_numeric", "share of the range", "mean over columns of numbers of their root mean squared error"
    ),
    EvaluationFigure(
        "error_categorical", "share of entries", "mean over columns of levels of the share of wrong levels"
    ),
    EvaluationFigure("imputation_nll_per_entry", _NATS, f"-log p(entry given what is seen of its row), of {_IMPUTED}"),
    EvaluationFigure("imputation_nll_per_entry_raw", _NATS, "the same in the units of the table"),
    EvaluationFigure(
        "imputation",
        "as above",
        "`rmse`, `numeric` and `categorical` of imputed entries, beside imputers fitted on the training rows",
    ),
    EvaluationFigure(
        "imputation_by_column",
        "share",
        "error of each column: of numbers the root mean squared error over the range, of ordered levels the mean "
        "difference over their number, of other levels the share of wrong ones",
    ),
)


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
    """Ends of the range in the training rows."""


def is_table_pair(vae: VAE) -> bool:
    """Whether a pair is one of a table whose schema it knows."""
    if not isinstance(vae.model, TabularVAE) or vae.made_by is None:
        return False
    return "scaler" in (vae.made_by.spec.schema or {})


def table_figures(evaluated: Evaluated) -> dict[str, Any]:
    """The figures of a table, see `FIGURES`.

    Entries are hidden, and latents drawn, by the seed of the global generator of PyTorch, whatever was drawn since.
    """
    from pyrovae.data.tables import TableCodec

    vae, rows = evaluated.vae, evaluated.rows
    made_by: Any = vae.made_by
    codec = TableCodec.from_dict(made_by.spec.schema)
    log_scale = torch.as_tensor(codec.scaler.log_scale, dtype=torch.float64)
    mask = torch.ones_like(rows.x, dtype=torch.bool) if rows.mask is None else rows.mask
    observed, table = mask.cpu(), _table(codec, rows)
    rng = np.random.default_rng(torch.initial_seed() % 2**63)
    found: dict[str, Any] = {}
    entries = int(observed.sum())
    if not entries:
        return found
    per_entry = -float(evaluated.figures.get("log_likelihood", math.nan)) * len(rows) / entries
    raw_units = float((observed * log_scale).sum()) / entries
    found |= {"nll_per_entry": per_entry, "nll_per_entry_raw": per_entry + raw_units}

    noise = torch.as_tensor(rng.standard_normal((NUM_SAMPLES, vae.model.prior.latent_dim)), dtype=rows.x.dtype)
    noise = noise.to(rows.x.device)
    rebuilt, _ = _imputed(vae, codec, rows.x, mask, ~mask, noise)
    errors = _errors(table, _kept_within(table, rebuilt), observed.numpy())
    found |= {"rmse": errors["rmse"], "rmse_numeric": errors["numeric"], "error_categorical": errors["categorical"]}

    hidden = observed.numpy() & (rng.random(observed.shape) < HIDDEN)
    if not hidden.any():
        return found
    asked = torch.as_tensor(hidden)
    seen = mask & ~asked.to(mask.device)
    guesses, log_prob = _imputed(vae, codec, rows.x, seen, asked.to(mask.device), noise, ~mask)
    raw_units = float((asked * log_scale).sum()) / int(asked.sum())
    nll = -log_prob / int(asked.sum())
    found |= {"imputation_nll_per_entry": nll, "imputation_nll_per_entry_raw": nll + raw_units}
    filled = {"vae": _kept_within(table, guesses), **_baselines(evaluated, codec, table, hidden)}
    columns = {name: _by_column(table, values, hidden) for name, values in filled.items()}
    found["imputation"] = {name: _plain(_errors(table, values, hidden)) for name, values in filled.items()}
    found["imputation_by_column"] = {
        column: {name: errors[position] for name, errors in columns.items()}
        for position, column in enumerate(table.names)
    }
    return found


# Plots import matplotlib, so they are imported when they are drawn.
def _plot_rows(run: Pictured) -> dict[str, Figure]:
    """Marginals and associations of held-out rows and of as many rows from the prior."""
    from pyrovae.data.tables import TableCodec
    from pyrovae.estimators.prediction import Predictor
    from pyrovae.estimators.table_model import TableModel
    from pyrovae.plotting.tables import associations, marginals

    made_by: Any = run.vae.made_by
    codec = TableCodec.from_dict(made_by.spec.schema)
    table = _table(codec, run.held_out)
    schema, real = _as_frame(codec, table, table.values)
    generated = TableModel(Predictor(codec, run.vae)).sample(len(real), random_state=torch.initial_seed() % 2**32)
    drawn = {"marginals": marginals(real, generated, schema), "associations": associations(real, generated, schema)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _plot_imputed(run: Pictured) -> dict[str, Figure]:
    """Imputed entries of held-out rows against the true ones, and errors: of the entries that `table_figures` hides."""
    from pyrovae.data.tables import TableCodec
    from pyrovae.plotting.tables import errors_by_column, imputed_against_true

    vae, rows = run.vae, run.held_out.to(run.vae.device)
    made_by: Any = vae.made_by
    codec = TableCodec.from_dict(made_by.spec.schema)
    mask = torch.ones_like(rows.x, dtype=torch.bool) if rows.mask is None else rows.mask
    table, rng = _table(codec, rows), np.random.default_rng(torch.initial_seed() % 2**63)
    noise = torch.as_tensor(rng.standard_normal((NUM_SAMPLES, vae.model.prior.latent_dim))).to(rows.x)
    hidden = mask.cpu().numpy() & (rng.random(mask.shape) < HIDDEN)
    if not hidden.any():
        return {}
    seen = mask & ~torch.as_tensor(hidden).to(mask.device)
    guesses, _ = _imputed(vae, codec, rows.x, seen, ~mask, noise, ~mask)
    evaluated = Evaluated(vae, rows, neighbours=run.dataset.train, baselines=("mean-mode",))
    filled = {"vae": _kept_within(table, guesses), **_baselines(evaluated, codec, table, hidden)}
    columns = {
        name: dict(zip(table.names, _by_column(table, values, hidden), strict=True)) for name, values in filled.items()
    }
    schema, true = _as_frame(codec, table, table.values)
    title = f"Error of imputed entries by column\n{len(rows)} rows, {HIDDEN:.0%} of their entries hidden"
    drawn = {
        "against_true": imputed_against_true(true, _as_frame(codec, table, filled["vae"])[1], hidden, schema),
        "errors": errors_by_column(columns, title=title),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _as_frame(codec: Any, table: Table, values: NDArray[np.float64]) -> tuple[Any, Any]:
    """The schema of the modelled columns, and values of these as a frame, also where they are out of range."""
    columns = codec.schema.subset(table.names).columns
    unbounded = type(codec.schema)(tuple(c if c.levels else replace(c, low=None, high=None) for c in columns))
    return unbounded, unbounded.decode(values)


# Each gives several figures, which a run calls table_marginals and so on.
_PLOTS: dict[str, Any] = {"table": _plot_rows, "imputed": _plot_imputed}
TABLES = Family(
    "tables",
    applies=is_table_pair,
    measures=(Measure(FIGURES, table_figures),),
    validation_figures=held_entry_figures,
    plots=_PLOTS,
)
"""The family of pairs of tables."""


def _table(codec: Any, rows: Rows) -> Table:
    columns = [codec.schema.columns[position] for position in codec.modelled]
    values = codec.scaler.inverse_transform(rows.x.cpu().double().numpy())
    if rows.mask is not None:
        values = np.where(rows.mask.cpu().numpy(), values, np.nan)
    levels = np.array([len(column.levels or (None,)) for column in columns])
    low, high = (
        np.array([getattr(c, end) if c.levels is None else code for c, code in zip(columns, codes, strict=True)], float)
        for end, codes in (("low", np.zeros(len(levels))), ("high", levels - 1))
    )
    kinds = [column.kind for column in columns]
    return Table(values, [column.name for column in columns], kinds, levels, low, high)


def _imputed(
    vae: VAE, codec: Any, x: Tensor, seen: Tensor, asked: Tensor, noise: Tensor, missing: Tensor | None = None
) -> tuple[NDArray[np.float64], float]:
    """The best single values ``[N, D]`` in the units of the table, and the summed log-density of what is asked for.

    What is `missing` was never recorded. For a model of what is missing this is not the same as hidden, see `mixtures`.
    """
    from pyrovae.infer.imputation import mixtures

    model: Any = vae.model
    points, total = [], 0.0
    for part, mixture in mixtures(vae, x, seen, noise, missing=missing):
        points.append(mixture.points(codec.ordered.to(x.device)).double().cpu())
        if bool(asked[part].any()):
            each = mixture.entries.log_prob(model.likelihood.fill(x[part], asked[part]))
            log_prob = each + mixture.weights.log().unsqueeze(-1)
            total += float(log_prob.double().logsumexp(0)[asked[part]].sum())
    return codec.scaler.inverse_transform(torch.cat(points).numpy()), total


def _kept_within(table: Table, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values within the ranges of their columns, and whole codes of levels."""
    kept = np.clip(values, table.low, table.high)
    return np.where(table.num_levels > 1, np.rint(kept), kept)


def _baselines(
    evaluated: Evaluated, codec: Any, table: Table, hidden: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    from pyrovae.estimators.baselines import impute_with

    if evaluated.neighbours is None or not len(evaluated.neighbours) or not evaluated.baselines:
        return {}
    train = _table(codec, evaluated.neighbours).values
    shown = np.where(hidden, np.nan, table.values)
    with_trees = int(table.num_levels.max()) <= MOST_LEVELS
    names = [name for name in evaluated.baselines if with_trees or name == "mean-mode"]
    seed = torch.initial_seed() % 2**32
    return {name: impute_with(name, train, shown, table.kinds, seed) for name in names}


def _errors(table: Table, filled: NDArray[np.float64], asked: NDArray[np.bool_]) -> dict[str, float]:
    from pyrovae.metrics.imputation import NUMBERS, vaem_rmse

    # The range of the whole table: that of the training rows, and of these.
    known = ~np.isnan(table.values)
    low = np.minimum(table.low, np.where(known, table.values, np.inf).min(0))
    high = np.maximum(table.high, np.where(known, table.values, -np.inf).max(0))
    ranges = np.where(np.isin(table.kinds, NUMBERS) & (high > low), high - low, 1.0)
    error = vaem_rmse(table.values, filled, asked, table.kinds, ranges)
    return {"rmse": error.rmse, "numeric": error.numeric, "categorical": error.categorical}


def _by_column(table: Table, filled: NDArray[np.float64], asked: NDArray[np.bool_]) -> Sequence[float | None]:
    from pyrovae.metrics.imputation import column_errors

    errors = column_errors(table.values, filled, asked, table.kinds, table.num_levels)
    return [_finite(error.value) for error in errors]


def _plain(errors: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in errors.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
