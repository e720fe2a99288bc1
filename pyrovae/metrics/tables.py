"""Figures of a pair of tables: likelihood per entry, and errors of reconstructed and of imputed entries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.columns import NUMBERS
from pyrovae.families import EvaluationFigure, Family, Measure
from pyrovae.metrics.evaluation import Evaluated, NonFiniteFigureError
from pyrovae.metrics.held_entries import held_entry_figures
from pyrovae.metrics.imputed_rows import COVERAGE, HIDDEN, ImputedRows, Table
from pyrovae.models import TabularVAE
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyrovae.plotting.run import Pictured

_NATS = "nats per entry"
_LEVELS = tuple(round(0.1 * tenths, 1) for tenths in range(1, 10))  # of the intervals of the figure
_RMSE = "after VAEM: (1/D) sqrt(sum of the D mean squared errors), numbers scaled to [0, 1], 0 or 1 for a level"
_IMPUTED = "entries that were observed and then hidden, half of them at random"

FIGURES = (
    EvaluationFigure(
        "nll_per_entry",
        _NATS,
        "-`log_likelihood` per observed entry, scaled as for training, too high after a small KL weight; "
        "for pairs of tables",
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
        "`rmse`, `numeric` and `categorical` of imputed entries: of the values that `pyrovae impute` fills in, without "
        "its trees (`vae-alone`), and of imputers fitted on the training rows",
    ),
    EvaluationFigure(
        "imputation_by_column",
        "share",
        "error of each column: of numbers the root mean squared error over the range (in training rows and these), of "
        "ordered levels the mean difference over their number, of other levels the share of wrong ones",
    ),
    EvaluationFigure("imputation_seconds", "s", "the time that each took, with the fit of the other imputers"),
    EvaluationFigure(
        "interval_coverage",
        "share of entries",
        f"imputed numbers, and imputed ordered levels, that lie in their {COVERAGE:.0%} intervals",
    ),
)


def is_table_pair(vae: VAE) -> bool:
    """Whether a pair is one of a table whose schema it knows."""
    if not isinstance(vae.model, TabularVAE) or vae.made_by is None:
        return False
    return "scaler" in (vae.made_by.spec.schema or {})


def table_figures(evaluated: Evaluated) -> dict[str, Any]:
    """The figures of a table, see `FIGURES`."""
    imputed = ImputedRows(evaluated.vae, evaluated.rows, evaluated.finished)
    table, hidden = imputed.table, imputed.hidden
    log_scale, observed = imputed.codec.log_scale(imputed.rows.x.cpu().double().numpy()), imputed.mask.cpu().numpy()
    entries = int(observed.sum())
    if not entries:
        return {}
    per_entry = -float(evaluated.figures.get("log_likelihood", math.nan)) * len(evaluated.rows) / entries
    rebuilt = imputed.rebuilt()
    _check_values("reconstructed values", rebuilt, observed)
    errors = _plain(_errors(table, rebuilt, observed))
    found: dict[str, Any] = {
        "nll_per_entry": per_entry,
        "nll_per_entry_raw": per_entry + float((observed * log_scale).sum()) / entries,
        "rmse": errors["rmse"],
        "rmse_numeric": errors["numeric"],
        "error_categorical": errors["categorical"],
    }
    if not hidden.any():
        return found
    nll = -imputed.log_prob() / int(hidden.sum())
    raw_units = float((hidden * log_scale).sum()) / int(hidden.sum())
    found |= {"imputation_nll_per_entry": nll, "imputation_nll_per_entry_raw": nll + raw_units}
    others = imputed.baselines(evaluated.neighbours, evaluated.baselines, evaluated.progress)
    own = imputed.completed()
    for name, part in own.items():
        _check_values(f"imputed values ({name})", part.values, hidden)
    filled = own | others
    columns = {name: _by_column(table, part.values, hidden) for name, part in filled.items()}
    found["imputation"] = {name: _plain(_errors(table, part.values, hidden)) for name, part in filled.items()}
    found["imputation_by_column"] = {
        column: {name: errors[position] for name, errors in columns.items()}
        for position, column in enumerate(table.names)
    }
    found["imputation_seconds"] = {name: round(part.seconds, 2) for name, part in filled.items()}
    return {**found, "interval_coverage": imputed.coverage()}


# Plots import matplotlib, so they are imported when they are drawn.
def _plot_rows(run: Pictured) -> dict[str, Figure]:
    """Marginals and associations of held-out rows and of as many new rows."""
    from pyrovae.plotting.tables import associations, marginals

    imputed = ImputedRows(run.vae, run.held_out, run.finished)
    schema, real = imputed.as_frame(imputed.table.values)
    generated = imputed.model.sample(len(real), random_state=torch.initial_seed() % 2**32)
    drawn = {"marginals": marginals(real, generated, schema), "associations": associations(real, generated, schema)}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _plot_imputed(run: Pictured) -> dict[str, Figure]:
    """Imputed entries of held-out rows against the true ones, and errors by column."""
    from pyrovae.plotting.tables import errors_by_column, imputed_against_true, interval_calibration

    imputed = ImputedRows(run.vae, run.held_out, run.finished)
    table, hidden = imputed.table, imputed.hidden
    if not hidden.any():
        return {}
    filled = imputed.completed() | imputed.baselines(run.dataset.train, ("mean-mode",))
    columns = {
        name: dict(zip(table.names, _by_column(table, part.values, hidden), strict=True))
        for name, part in filled.items()
    }
    schema, true = imputed.as_frame(table.values)
    title = f"Error of imputed entries by column\n{len(run.held_out)} rows, {HIDDEN:.0%} of their entries hidden"
    drawn = {
        "against_true": imputed_against_true(true, imputed.as_frame(filled["vae"].values)[1], hidden, schema),
        "errors": errors_by_column(columns, title=title),
    }
    shares, number = imputed.coverages(_LEVELS)
    if number:
        drawn["calibration"] = interval_calibration(shares, number)
    return {name: figure for name, figure in drawn.items() if figure is not None}


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


def _ranges(table: Table) -> NDArray[np.float64]:
    """The range of each column in the whole table: in the training rows, and in these."""
    known = ~np.isnan(table.values)
    low = np.fmin(table.low, np.where(known, table.values, np.inf).min(0))
    high = np.fmax(table.high, np.where(known, table.values, -np.inf).max(0))
    return np.where(np.isin(table.kinds, NUMBERS) & (high > low), high - low, 1.0)


def _errors(table: Table, filled: NDArray[np.float64], asked: NDArray[np.bool_]) -> dict[str, float]:
    from pyrovae.metrics.imputation import vaem_rmse

    error = vaem_rmse(table.values, filled, asked, table.kinds, _ranges(table))
    return {"rmse": error.rmse, "numeric": error.numeric, "categorical": error.categorical}


def _check_values(what: str, values: NDArray[np.float64], asked: NDArray[np.bool_]) -> None:
    """Refuse values of the pair that are no numbers, instead of an error of the others.

    Raises
    ------
    NonFiniteFigureError
        Naming the rows.
    """
    wrong = np.flatnonzero((asked & ~np.isfinite(values)).any(1))
    if len(wrong):
        shown = ", ".join(map(str, wrong[:10])) + (", ..." if len(wrong) > 10 else "")
        raise NonFiniteFigureError(
            f"the {what} of {len(wrong)} of {len(values)} evaluated rows are not finite (rows {shown}), so there are "
            "no figures; look at these rows, and at the weights of the pair"
        )


def _by_column(table: Table, filled: NDArray[np.float64], asked: NDArray[np.bool_]) -> Sequence[float | None]:
    from pyrovae.metrics.imputation import column_errors

    errors = column_errors(table.values, filled, asked, table.kinds, table.num_levels, _ranges(table))
    return [_finite(error.value) for error in errors]


def _plain(errors: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in errors.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
