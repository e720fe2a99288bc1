"""Tables as data sets of a pair: families of columns, scaling, and back to a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.data.dataset import TABLE, Dataset, Rows, Transform
from pyrovae.data.scaling import ScalingMoments, TableScaler
from pyrovae.data.schema import Schema
from pyrovae.distributions.mapped_normal import at_atom
from pyrovae.likelihoods.marginals import Marginal
from pyrovae.likelihoods.tables import COUNTS, FAMILIES, OF_LEVELS, POSITIVE, ColumnFamilies

FAMILY_OF_KIND = {
    "real": "normal",
    "positive": "normal",
    "count": "normal",
    "binary": "bernoulli",
    "categorical": "categorical",
    "ordinal": "categorical",
}
"""The likelihood of a column by its kind, where nothing else is asked for."""
ALLOWED = {
    "real": ("normal", "student-t", "quantile"),
    "positive": ("normal", "student-t", "log-normal", "gamma", "quantile"),
    "count": ("normal", "student-t", "poisson", "negative-binomial", "quantile"),
    "binary": ("bernoulli", "categorical"),
    "categorical": ("categorical",),
    "ordinal": ("categorical", "ordered", "normal"),
}
"""The likelihoods that a column of a kind may have."""
_FARTHEST = 1e18
WHERE = ("outside", "inside", "batch")
"""Where numbers are scaled: before they reach the pair, within its likelihood, or there by each batch."""
MARGINALS = ("none", "quantile")


@dataclass(frozen=True)
class TableCodec:
    """From a frame to scaled rows of a pair, and back.

    Columns without a value, or with one value alone, are no part of the rows; `complete` gives them their value back.

    Parameters
    ----------
    schema : Schema
        All columns.
    families : ColumnFamilies
        The likelihoods of the columns that are modelled.
    scaler : TableScaler
        Their scaling.
    loc, scale : ndarray, shape ``[D]``
        Mean and standard deviation of what an encoder sees of each modelled column.
    within : TableScaler, optional
        The scaling that the likelihood does itself; `scaler` then leaves values as they are.
    by_batch : bool, default False
        Whether it is done by each batch in training.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"a": [1.5, None, 4.0], "b": ["x", "y", "x"], "c": [7, 7, 7]})
    >>> codec = TableCodec.fit(Schema.infer(frame, kinds={"a": "real"}), frame)
    >>> codec.families.families, codec.rows(frame).mask[:, 0]
    (('normal', 'bernoulli'), tensor([ True, False,  True]))
    """

    schema: Schema
    families: ColumnFamilies
    scaler: TableScaler
    loc: NDArray[np.float64]
    scale: NDArray[np.float64]
    within: TableScaler | None = None
    by_batch: bool = False

    @classmethod
    def fit(
        cls,
        schema: Schema,
        frame: Any,
        *,
        likelihoods: Mapping[str, str] | None = None,
        scaling: str = "standardize",
        scale_where: str = "outside",
    ) -> TableCodec:
        """Find scaling and families of the columns of a table.

        Parameters
        ----------
        schema : Schema
            The columns.
        frame : DataFrame or array
            The training rows.
        likelihoods : mapping of str to str, optional
            Likelihoods by the name or the kind of columns, where another one than that of `FAMILY_OF_KIND` is meant.
        scaling : {"standardize", "normalize", "none"}, default "standardize"
            How numbers are scaled.
        scale_where : {"outside", "inside", "batch"}, default "outside"
            Where they are scaled, see `WHERE`. Densities are the same outside and inside, those of inside in the units
            of the table from the start. Batches are standardised.

        Raises
        ------
        ValueError
            No column can be modelled, a likelihood does not suit its column, or the two options of scaling do not suit
            each other.
        """
        if scale_where not in WHERE:
            raise ValueError(f"scale_where must be one of {', '.join(WHERE)}, got {scale_where!r}")
        if scale_where == "batch" and scaling != "standardize":  # or evaluation would scale otherwise than training
            raise ValueError(f"scale_where 'batch' needs scaling='standardize', which each batch does, got {scaling!r}")
        modelled, families = _modelled(schema), families_of(schema, likelihoods).families
        values = schema.encode(frame)[0][:, modelled]
        scaler = TableScaler.fit(values, families, scaling)
        _check_ends(schema, modelled, scaler)
        columns = families_of(schema, likelihoods, scaler.transform(values))
        if scale_where == "outside":
            loc, scale = _moments(scaler.transform(values), families)
            return cls(schema, columns, scaler, loc, scale)
        if "quantile" in families:
            raise ValueError("columns of the family 'quantile' are scaled outside; scale_where must be 'outside'")
        loc, scale = _moments(values, families)
        outside = TableScaler.fit(values, families, "none")
        return cls(schema, columns, outside, loc, scale, scaler, scale_where == "batch")

    @classmethod
    def fit_chunks(
        cls,
        schema: Schema,
        chunks: Iterable[NDArray[np.float64]],
        *,
        likelihoods: Mapping[str, str] | None = None,
        scaling: str = "standardize",
    ) -> TableCodec:
        """Find scaling and families of a table whose rows come in chunks.

        Parameters
        ----------
        schema : Schema
            The columns.
        chunks : iterable of ndarray, each of shape ``[N, D]``
            The training rows, encoded by the schema.
        likelihoods, scaling
            As for `fit`, whose scaling is found up to rounding.

        Raises
        ------
        ValueError
            As `fit` does.
        """
        modelled, columns = _modelled(schema), families_of(schema, likelihoods)
        if "quantile" in columns.families:
            raise ValueError("a column of the family 'quantile' needs all rows at once, and these come in chunks")
        moments = ScalingMoments(columns.families)
        for values in chunks:
            moments.add(values[:, modelled])
        scaler = moments.scaler(scaling)
        _check_ends(schema, modelled, scaler)
        loc, scale = moments.features(scaler)
        return cls(schema, columns, scaler, loc, scale)

    def log_scale(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """What log-densities of scaled entries ``[N, D]`` are larger by than in the units of the table, in nats.

        It is 0 of atoms, which have a probability and no density.
        """
        found = np.array(np.broadcast_to(self.scaler.log_scale, scaled.shape))
        for column, marginal in enumerate(self.families.marginals):
            if marginal is not None and marginal.atoms:
                found[marginal.is_atom(scaled[:, column]), column] = 0.0
        return found

    @property
    def modelled(self) -> list[int]:
        """The columns of the schema that are modelled."""
        return _modelled(self.schema)

    @property
    def ordered(self) -> torch.Tensor:
        """Which of the modelled columns have an order, ``[D]``."""
        return torch.tensor([self.schema.columns[column].kind == "ordinal" for column in self.modelled])

    def rows(self, frame: Any, *, unseen: str = "raise", extra: str = "raise") -> Rows:
        """Scaled rows of a frame in float32, zeros where entries are missing. See `Schema.encode`."""
        scaled, mask = self.scaled(frame, unseen=unseen, extra=extra)
        return Rows(torch.as_tensor(scaled, dtype=torch.float32), mask=torch.as_tensor(mask))

    def scaled(self, frame: Any, *, unseen: str = "raise", extra: str = "raise") -> tuple[NDArray, NDArray]:
        """Scaled values of the modelled columns, zeros where they are missing, and the mask, ``[N, D]``."""
        values, mask = self.schema.encode(frame, unseen=unseen, extra=extra)
        too_early = self.too_early(values[:, self.modelled])
        if unseen == "raise" and too_early.any():
            name = self.schema.columns[self.modelled[int(too_early.any(0).argmax())]].name
            raise ValueError(f"column {name!r} holds a date a day or more before the earliest one of the training rows")
        mask = mask[:, self.modelled] & ~too_early
        return np.where(mask, self.scaler.transform(values[:, self.modelled]), 0.0), mask

    def too_early(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which modelled values ``[N, D]`` are dates to which their likelihood, one of positive numbers, gives none."""
        columns = [self.schema.columns[column] for column in self.modelled]
        dates = np.array([column.origin is not None for column in columns])
        return (values <= 0) & dates & np.isin(self.families.families, POSITIVE)

    def complete(self, scaled: NDArray) -> NDArray:
        """Values of all columns of the schema, ``[N, D]``, from scaled values of the modelled ones."""
        full = np.full((len(scaled), len(self.schema.columns)), np.nan)
        values = self.scaler.inverse_transform(scaled)
        for number, marginal in enumerate(self.families.marginals):
            for atom in () if marginal is None else marginal.atoms:
                values[at_atom(scaled[:, number], atom), number] = self.scaler.exactly(atom, number)
        full[:, self.modelled] = values
        for position, column in enumerate(self.schema.columns):
            if column.kind == "constant":
                full[:, position] = column.low
        return full

    def dataset(self, rows: Rows, name: str = "table", transform: Transform | None = None) -> Dataset:
        """Training rows as a data set without others."""
        none = rows.take(slice(0, 0))
        return Dataset(name, rows, none, none, TABLE, transform=transform, schema=self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What a pair and a later reader need to know, ready for JSON."""
        return {
            "columns": self.families.to_dict(),
            "features": {"loc": self.loc.tolist(), "scale": self.scale.tolist()},
            "scaler": self.scaler.to_dict(),
            **({} if self.within is None else {"within": {**self.within.to_dict(), "by_batch": self.by_batch}}),
            "schema": self.schema.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TableCodec:
        """What `to_dict` wrote.

        Raises
        ------
        ValueError
            Something is missing.
        """
        for name in ("columns", "features", "scaler", "schema"):
            if not isinstance(stored.get(name), Mapping):
                raise ValueError(f"the schema of the table lacks {name!r}")
        features = stored["features"]
        return cls(
            Schema.from_dict(stored["schema"]),
            ColumnFamilies.from_dict(stored["columns"]),
            TableScaler.from_dict(stored["scaler"]),
            np.array(features["loc"]),
            np.array(features["scale"]),
            TableScaler.from_dict(stored["within"]) if "within" in stored else None,
            bool(stored.get("within", {}).get("by_batch")),
        )


def families_of(
    schema: Schema, likelihoods: Mapping[str, str] | None = None, scaled: NDArray[np.float64] | None = None
) -> ColumnFamilies:
    """The families of the columns of a schema that are modelled, in their order.

    Parameters
    ----------
    schema : Schema
        The columns.
    likelihoods : mapping of str to str, optional
        See `TableCodec.fit`.
    scaled : ndarray, shape ``[N, D]``, optional
        Scaled values of these columns, NaN where they are missing, from which the maps of columns of the family
        "quantile" are found. None gives these columns a map that changes nothing.

    Raises
    ------
    ValueError
        No column can be modelled, or a likelihood does not suit its column.
    """
    modelled = _modelled(schema)
    if not modelled:
        raise ValueError("no column has two different values, so there is nothing to model")
    families = tuple(_family(schema, column, likelihoods or {}) for column in modelled)
    for name, family in (likelihoods or {}).items():
        if family not in FAMILIES:
            raise ValueError(f"likelihoods[{name!r}] must be one of {', '.join(FAMILIES)}, got {family!r}")
    known = {*schema.names, *ALLOWED}
    if unknown := [name for name in likelihoods or {} if name not in known]:
        raise ValueError(f"likelihoods names {unknown[0]!r}, which is no column and no kind")
    sizes = (len(schema.columns[column].levels or ()) for column in modelled)
    levels = tuple(n if f in OF_LEVELS else 0 for f, n in zip(families, sizes, strict=True))
    if scaled is None or "quantile" not in families:
        return ColumnFamilies(families, levels)
    found = (_marginal(each) if family == "quantile" else None for each, family in zip(scaled.T, families, strict=True))
    return ColumnFamilies(families, levels, tuple(found))


def _marginal(scaled: NDArray[np.float64]) -> Marginal:
    return Marginal.fit(scaled[~np.isnan(scaled)])


def _check_ends(schema: Schema, modelled: list[int], scaler: TableScaler) -> None:
    """Refuse numbers that are so far apart that scaled ones have no square in float32.

    Raises
    ------
    ValueError
        Naming the column.
    """
    columns = [schema.columns[position] for position in modelled]
    known = [(0.0 if c.low is None else c.low, 0.0 if c.high is None else c.high) for c in columns]
    with np.errstate(over="ignore"):
        far = (np.abs(scaler.transform(np.array(known).T)) > _FARTHEST).any(0)
    if far.any():
        column, (low, high) = columns[int(far.argmax())], known[int(far.argmax())]
        raise ValueError(
            f"column {column.name!r} has numbers from {low:g} to {high:g}, which are too large for a model; divide "
            "them, or take logarithms"
        )


def _modelled(schema: Schema) -> list[int]:
    return [i for i, column in enumerate(schema.columns) if column.kind not in ("constant", "missing")]


def _family(schema: Schema, position: int, likelihoods: Mapping[str, str]) -> str:
    column = schema.columns[position]
    family = likelihoods.get(column.name, likelihoods.get(column.kind, FAMILY_OF_KIND[column.kind]))
    if family not in ALLOWED[column.kind]:
        allowed = ", ".join(ALLOWED[column.kind])
        raise ValueError(f"column {column.name!r} is {column.kind}: its likelihood is one of {allowed}, not {family!r}")
    if family == "bernoulli" and len(column.levels or ()) != 2:
        return "categorical"
    if family in POSITIVE and column.low is not None and column.low <= 0:
        raise ValueError(
            f"column {column.name!r} has values down to {column.low:g}, and {family!r} is for positive ones"
        )
    return family


def _moments(scaled: NDArray, families: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of what an encoder sees: logs of positive columns and counts."""
    loc, scale = np.zeros(len(families)), np.ones(len(families))
    for i, family in enumerate(families):
        if family in OF_LEVELS:
            continue
        if family == "quantile":  # what an encoder sees is a normal score
            continue
        seen = scaled[:, i][~np.isnan(scaled[:, i])]
        seen = np.log(seen) if family in POSITIVE else np.log1p(seen) if family in COUNTS else seen
        loc[i], scale[i] = seen.mean(), max(float(seen.std()), 1e-6)
    return loc, scale
