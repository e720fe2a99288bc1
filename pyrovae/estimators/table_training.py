"""Training of a pair of a table, or of several, on the rows of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.rows import Rows
from pyrovae.data.schema import Schema
from pyrovae.data.tables import TableCodec
from pyrovae.estimators.nets import train_net, train_others, varied
from pyrovae.estimators.prediction import Predictor
from pyrovae.estimators.table_model import TableModel
from pyrovae.estimators.trees import ColumnTrees
from pyrovae.likelihoods.balance import lipschitz_weights
from pyrovae.metrics.held_entries import HELD_OUT_LOSS
from pyrovae.pairs.table_defaults import default_epochs, default_nets

HELD_OUT = 0.05
"""Share of the observed entries that the training does not see, to weigh trees and to calibrate spreads."""
WATCHED = 2000
"""Most rows whose held-out entries are watched for early stopping."""


def train_table(
    frame: Any,
    schema: Schema,
    *,
    seed: int,
    pair: Mapping[str, Any],
    training: Mapping[str, Any],
    trees: bool = False,
    likelihoods: Mapping[str, str] | None = None,
    scaling: str = "standardize",
    scale_where: str = "outside",
    balance: str = "none",
    num_nets: int | None = 1,
    variants: Sequence[Mapping[str, Any]] = ({},),
    hiding: bool | None = None,
    device: str | torch.device = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> TableModel:
    """Train a pair, or several, on the rows of a frame.

    Parameters
    ----------
    frame : DataFrame or array
        The rows, missing entries among them.
    schema : Schema
        Its columns.
    seed : int
        Seed of initial weights and training.
    pair, training : mapping
        Options of the pair `tabular` and of the `Trainer`. `epochs` None chooses them by the number of rows. With
        `patience`, the error of held-out entries is watched, and the weights of the best epoch are kept.
    trees : bool, default False
        Whether boosted trees, one model a column, and a factor analyser count beside the pair as held-out entries
        say. The factor analyser is fitted in any case: it says how draws of one row go together.
    likelihoods, scaling, scale_where
        As for `TableCodec.fit`.
    balance : {"none", "lipschitz"}, default "none"
        Whether columns count in training by `lipschitz_weights`.
    num_nets : int or None, default 1
        Nets that are trained, see `Predictor`. None chooses them by the number of steps, see `default_nets`.
    variants : sequence of mapping, default ({},)
        Options that nets differ in. The nets take them in turn.
    hiding : bool, optional
        Whether training hides observed entries from the encoder. None hides if all missing values are ignorable.
    device : str or torch.device, default "cpu"
        Where to train.
    settings : mapping, optional
        What else is written down with the schema.
    """
    codec = TableCodec.fit(schema, frame, likelihoods=likelihoods, scaling=scaling, scale_where=scale_where)
    scaled, mask = codec.scaled(frame)
    scaled = scaled.astype(np.float32).astype(np.float64)  # as runs hold their rows, so that both are one
    ignorable = pair.get("missingness", "ignorable") == "ignorable"
    held = held_out(mask, seed) if ignorable else np.zeros_like(mask)
    shown = mask & ~held
    rows = Rows(torch.as_tensor(scaled, dtype=torch.float32), mask=torch.as_tensor(shown)).numbered()
    verbose = bool(training.get("progress"))
    fitted = fit_trees(codec, scaled, shown, seed, verbose=verbose) if trees else None
    schema_of = {**codec.to_dict(), "settings": dict(settings or {})}
    if balance == "lipschitz":
        weights = lipschitz_weights(codec.families, np.where(shown, scaled, np.nan))
        schema_of["column_weights"] = weights.tolist()
    transform = HideLikeOtherRows() if hiding or (hiding is None and ignorable) else None
    dataset = replace(codec.dataset(rows, transform=transform), schema=schema_of)
    options = training_options(training, len(rows))
    if options.get("patience") is not None:
        options["monitor"] = HELD_OUT_LOSS
        dataset = replace(dataset, validation=held_out_rows(scaled, mask, held, seed))
    if num_nets is None:
        num_nets = default_nets(len(rows), options["batch_size"], options["epochs"]) if ignorable else 1
    first = train_net(dataset, *varied(pair, options, variants[0]), seed=seed, device=device)
    others = train_others(dataset, pair, options, first.vae, num_nets=num_nets, variants=variants, seed=seed)
    predictor = Predictor(codec, first.vae, fitted, others=others, num_variants=len(variants))
    model = TableModel(predictor, history=first.history)
    model.finish(scaled, mask, held, seed, training=options)
    model.write_down()
    return model


def held_out(mask: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Entries that the training does not see, ``[N, D]``; a column keeps at least ten."""
    held = mask & (np.random.RandomState(seed).uniform(size=mask.shape) < HELD_OUT)
    held[:, (mask & ~held).sum(0) < 10] = False
    return held


def held_out_rows(scaled: NDArray[np.float64], mask: NDArray[np.bool_], held: NDArray[np.bool_], seed: int) -> Rows:
    """Training rows with held-out entries, at most `WATCHED`: what is held out is observed, and not to be seen."""
    some = np.random.RandomState(seed).permutation(np.flatnonzero(held.any(1)))[:WATCHED]
    seen = torch.as_tensor(mask[some] & ~held[some])
    x = torch.as_tensor(scaled[some], dtype=torch.float32)
    return Rows(x, mask=torch.as_tensor(mask[some]), more={"seen": seen})


def training_options(training: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Options of the `Trainer` for a number of rows."""
    batch_size = min(training["batch_size"], rows)
    epochs = training.get("epochs") or default_epochs(rows, batch_size)
    given = {"objective": "mean-field", "monitor": "loss", **training}
    return {**given, "batch_size": batch_size, "epochs": epochs}


def fit_trees(
    codec: TableCodec,
    scaled: NDArray[np.float64],
    shown: NDArray[np.bool_],
    seed: int,
    *,
    verbose: bool = False,
) -> ColumnTrees:
    """Boosted trees of the columns of a codec, fitted on those scaled entries that are shown, ``[N, D]``."""
    families = codec.families
    values = np.where(shown, scaled, np.nan)
    return ColumnTrees.fit(values, families.families, families.num_levels, random_state=seed, verbose=verbose)
