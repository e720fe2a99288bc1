"""A training of a table whose rows come in chunks, as `partial_fit` does it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from pyrovae.data.column_kinds import range_of
from pyrovae.data.columns import NUMBERS, Column
from pyrovae.data.frames import days_between, held_by, row_of, times_of
from pyrovae.data.hiding import HideLikeOtherRows
from pyrovae.data.row_numbers import hidden_entries
from pyrovae.data.rows import Rows
from pyrovae.data.schema import Schema
from pyrovae.data.tables import TableCodec
from pyrovae.estimators.nets import built, varied
from pyrovae.estimators.prediction import Predictor
from pyrovae.estimators.table_model import TableModel
from pyrovae.estimators.table_training import HELD_OUT, fit_trees
from pyrovae.rng import forked
from pyrovae.training import History, Trainer, TrainingData

STEPS_OF_CHUNK = 500
"""About so many steps are done with a chunk whose number of passes nobody chose, within 1 and 20 passes."""
KEPT_ROWS = 20_000
"""The most rows that are kept, to fit trees and to calibrate on them."""
MIN_SHOWN = 10
"""Values of a column that are seen before some are held out."""
_KEPT_ENTRIES = 4_000_000
_WHOLE = re.compile(r"^(ui|i|UI|I)nt\d+(\[pyarrow\])?$")
_SHIFTED = ("normal", "student-t")
_OF_CODEC = ("likelihoods", "scaling", "scale_where")
_KNOWN = (*_OF_CODEC, "pair", "training", "trees", "num_nets", "variants", "hiding", "balance")


class ChunkTraining:
    """A training on chunks of rows, of which only a sample is kept. It begins with the first chunk.

    Parameters
    ----------
    frame : DataFrame
        The first chunk, from which scaling is found.
    schema : Schema
        Its columns.
    options : mapping
        Options of `train_table`.
    seed : int
        Seed of weights, training, and of the rows that are kept.
    ranges : mapping of str to tuple of two
        Declared ranges of columns, which no value may leave.
    device : str, default "cpu"
        Where to train.

    Raises
    ------
    ValueError
        For options that are for `fit` alone, and as `TableCodec.fit` does.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        schema: Schema,
        options: Mapping[str, Any],
        *,
        seed: int,
        ranges: Mapping[str, tuple[Any, Any]],
        device: str = "cpu",
    ) -> None:
        _check(options)
        if empty := [c.name for c in schema.columns if c.kind in NUMBERS and c.missing == 1.0]:
            raise ValueError(
                f"column {empty[0]!r} has no value in the first chunk, which tells its scaling; begin with other rows"
            )
        self.codec = TableCodec.fit(schema, frame, **{name: options[name] for name in _OF_CODEC})
        self.options, self.seed, self.ranges, self.device = dict(options), seed, dict(ranges), device
        self.pair, self.training = varied(options["pair"], options["training"], options["variants"][0])
        self.ignorable = self.pair.get("missingness", "ignorable") == "ignorable"
        hides = options["hiding"] or (options["hiding"] is None and self.ignorable)
        self.transform = HideLikeOtherRows() if hides else None
        self.calls = self.seen = 0
        self.counts = np.zeros(len(self.codec.modelled))
        self.history = History([], 0, "")
        self.optimizer: Optimizer | None = None
        self.kept = _Sample(len(self.codec.modelled))
        self.vae: Any = None

    def add(self, frame: pd.DataFrame) -> None:
        """Train on a chunk.

        Raises
        ------
        ValueError, TypeError
            If it holds what its columns cannot have; nothing has changed then.
        """
        codec = _with_earlier_dates(self.codec, frame)
        values = self._encoded(frame, codec.schema)
        codec = replace(codec, schema=_widened(codec.schema, values, self.ranges))
        values = values[:, codec.modelled]
        mask = ~np.isnan(values)
        scaled = np.where(mask, codec.scaler.transform(values), 0.0).astype(np.float32).astype(np.float64)
        counts, numbers = self.counts + mask.sum(0), np.arange(self.seen, self.seen + len(frame))
        held = mask & hidden_entries(numbers, mask.shape[1], HELD_OUT, self.seed)
        held[:, (counts < MIN_SHOWN) | (not self.ignorable)] = False
        rows = Rows(torch.as_tensor(scaled, dtype=torch.float32), mask=torch.as_tensor(mask & ~held))
        if self.vae is None:
            dataset = codec.dataset(rows)
            with forked():
                torch.manual_seed(self.seed)
                self.vae = built(dataset, self.pair).to(self.device)
        if bool((mask & ~held).any()):
            self._train(rows)
        self.codec, self.counts, self.calls = codec, counts, self.calls + 1
        self.kept.add(scaled, mask, held, np.random.default_rng((self.seed, self.seen)))
        self.seen += len(frame)

    def model(self, settings: Mapping[str, Any]) -> TableModel:
        """What was learned so far, with trees and calibration on the rows that are kept."""
        vae = copy.deepcopy(self.vae).double().eval()
        made_by = vae.made_by
        schema = {**(made_by.spec.schema or {}), **self.codec.to_dict(), "settings": dict(settings)}
        vae.made_by = made_by._replace(spec=made_by.spec._replace(schema=schema, num_rows=self.seen))
        scaled, mask, held = self.kept.arrays
        verbose = bool(self.training.get("progress"))
        trees = None
        if self.options["trees"]:
            trees = fit_trees(self.codec, scaled, mask & ~held, self.seed, verbose=verbose)
        found = TableModel(Predictor(self.codec, vae, trees), history=self.history)
        found.finish(scaled, mask, held, self.seed, training=self.options["training"])
        found.write_down()
        return found

    def _train(self, rows: Rows) -> None:
        options = dict(self.training)
        lr, batch_size = options.pop("lr"), min(options.pop("batch_size"), len(rows))
        epochs = options.pop("epochs") or int(np.clip(round(STEPS_OF_CHUNK * batch_size / len(rows)), 1, 20))
        options.pop("patience", None)

        def same_optimizer(groups: Sequence[Any]) -> Optimizer:
            if self.optimizer is None:
                self.optimizer = torch.optim.Adam(groups, lr=lr, fused=True)
            for group in self.optimizer.param_groups:
                group["lr"] = lr  # where the schedule of this chunk begins
            return self.optimizer

        seed = int(np.random.default_rng((self.seed, self.calls)).integers(2**31))
        trainer = Trainer(
            optimizer=same_optimizer, epochs=epochs, batch_size=batch_size, seed=seed, monitor="loss", **options
        )
        history = trainer.fit(self.vae, TrainingData(rows, transform=self.transform))
        before = len(self.history.rows)
        later = [{**row, "epoch": row["epoch"] + before} for row in history.rows]
        self.history = History([*self.history.rows, *later], before + history.best_epoch, history.reason)

    def _encoded(self, frame: pd.DataFrame, schema: Schema) -> NDArray[np.float64]:
        """Numbers of a chunk, all of whose values the schema takes."""
        values, _ = schema.encode(frame, unseen="missing")
        modelled = self.codec.modelled
        values[:, modelled] = np.where(self.codec.too_early(values[:, modelled]), np.nan, values[:, modelled])
        for position, column in enumerate(schema.columns):
            series = frame[column.name]
            given = series.notna().to_numpy()
            wrong = given & np.isnan(values[:, position])
            if column.kind == "constant":
                wrong |= given & (values[:, position] != column.low)
            if wrong.any():
                value, row = series.iloc[int(np.argmax(wrong))], row_of(series, wrong)
                value = value.item() if isinstance(value, np.generic) else value
                raise ValueError(
                    f"column {column.name!r} has the value {value!r} in row {row!r}, and {_said(column)} in the first "
                    "chunk; declare what it may hold, by levels, kinds or ranges, and begin anew with fit or a clone"
                )
            if column.name in self.ranges and column.kind in NUMBERS:
                range_of(series, values[:, position], _declared(column, self.ranges))
        return values


def _check(options: Mapping[str, Any]) -> None:
    """Refuse options that are for `fit` alone.

    Raises
    ------
    ValueError
        Naming the option.
    """
    if options["num_nets"] not in (None, 1):
        raise ValueError(f"partial_fit trains one net; num_nets must be 1 or None, got {options['num_nets']}")
    if options["training"].get("patience") is not None:
        raise ValueError("patience is for fit: the epochs of partial_fit are over different rows; leave it None")
    if options["balance"] != "none":
        raise ValueError(f"balance is for fit, which sees all rows; it must be 'none', got {options['balance']!r}")
    for name in options:
        if name not in _KNOWN:
            raise ValueError(f"partial_fit cannot honour {name}")


class _Sample:
    """Rows drawn at random from all chunks so far, each with the same probability."""

    def __init__(self, columns: int) -> None:
        self.most = int(np.clip(_KEPT_ENTRIES // max(columns, 1), 1000, KEPT_ROWS))
        self.rank = np.empty(0)
        self.arrays: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]] = (
            np.empty((0, columns)),
            np.empty((0, columns), bool),
            np.empty((0, columns), bool),
        )

    def add(
        self,
        scaled: NDArray[np.float64],
        mask: NDArray[np.bool_],
        held: NDArray[np.bool_],
        generator: np.random.Generator,
    ) -> None:
        """Take a chunk in: the rows of the smallest random numbers stay."""
        rank = np.concatenate((self.rank, generator.uniform(size=len(scaled))))
        stays = np.sort(np.argsort(rank)[: self.most])
        self.rank = rank[stays]
        old_scaled, old_mask, old_held = self.arrays
        self.arrays = (
            np.concatenate((old_scaled, scaled))[stays],
            np.concatenate((old_mask, mask))[stays],
            np.concatenate((old_held, held))[stays],
        )


def _said(column: Column) -> str:
    if column.kind == "missing":
        return "had no value"
    if column.kind == "constant":
        return f"had the value {column.values()} alone"
    return f"was {column.kind} ({column.values()})"


def _with_earlier_dates(codec: TableCodec, frame: pd.DataFrame) -> TableCodec:
    """The codec that counts days from an earlier one, where dates of a chunk need that; scaled dates stay the same.

    That is so for dates that are shifted and scaled. Others keep the day from which they count.
    """
    columns, loc = list(codec.schema.columns), list(codec.scaler.loc)
    for place, position in enumerate(codec.modelled):
        column, series = columns[position], frame[columns[position].name]
        if column.origin is None or held_by(series) != "date" or codec.families.families[place] not in _SHIFTED:
            continue
        days = days_between(times_of(series), np.datetime64(column.origin, "us"))
        if codec.within is None and (days < 1).any():
            earlier = float(np.ceil(1 - np.nanmin(days)))  # whole days, so that times of the day stay
            origin = np.datetime64(column.origin, "us") - np.timedelta64(int(earlier), "D")
            low, high = (None if end is None else end + earlier for end in (column.low, column.high))
            columns[position] = replace(column, origin=str(origin), low=low, high=high)
            loc[place] += earlier
    scaler = replace(codec.scaler, loc=tuple(loc))
    return replace(codec, schema=Schema(tuple(columns)), scaler=scaler)


def _widened(schema: Schema, values: NDArray[np.float64], ranges: Mapping[str, tuple[Any, Any]]) -> Schema:
    """The schema with ranges that hold the values, where they were not declared."""
    columns = []
    for position, column in enumerate(schema.columns):
        known = values[:, position][~np.isnan(values[:, position])]
        if column.kind in NUMBERS and len(known):
            fixed_low, fixed_high = _declared(column, ranges)
            low = column.low if fixed_low is not None or column.low is None else min(column.low, float(known.min()))
            high = (
                column.high if fixed_high is not None or column.high is None else max(column.high, float(known.max()))
            )
            whole = column.integer and bool(np.all(known == np.rint(known)))
            column = replace(column, low=low, high=high, integer=whole)
            if column.origin is None and not bool(np.all(known == np.rint(known))):
                column = replace(column, dtype=_WHOLE.sub(_with_fractions, column.dtype))
        columns.append(column)
    return Schema(tuple(columns))


def _with_fractions(whole: re.Match[str]) -> str:
    """The dtype of numbers with fractions beside one of whole numbers, of NumPy, pandas or pyarrow."""
    if whole[2]:
        return "double[pyarrow]"
    return "Float64" if whole[1] in ("I", "UI") else "float64"


def _declared(column: Column, ranges: Mapping[str, tuple[Any, Any]]) -> tuple[float | None, float | None]:
    """The ends of a range that were declared, as numbers."""
    low, high = ranges.get(column.name, (None, None))
    return (None if low is None else column.low), (None if high is None else column.high)
