"""The pair of heterogeneous tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch

from pyrovae.data.dataset import TABLE, Dataset, DataSpec, Rows
from pyrovae.families import register_family
from pyrovae.guides import TabularGuide
from pyrovae.likelihoods.missingness import MECHANISMS, SelfMasking, resolve_mechanisms
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood
from pyrovae.metrics.tables import TABLES
from pyrovae.models import TabularVAE
from pyrovae.nn import DenseDecoder, GaussianHead
from pyrovae.nn.tables import SetEncoder, TableEncoder
from pyrovae.pairs import parts
from pyrovae.pairs import table_defaults as defaults
from pyrovae.pairs.finishing import Finishing
from pyrovae.pairs.registry import Option, register_pair
from pyrovae.vae import VAE

if TYPE_CHECKING:
    from pathlib import Path

    from pyrovae.runs.run import Run

# Estimators stand on this module, so they are imported in the functions.


def _hold_out(dataset: Dataset, seed: int, stored: DataSpec | None) -> Dataset:
    from pyrovae.estimators import table_runs

    return table_runs.hold_out(dataset, seed, stored)


def _is_done(run: Run) -> bool:
    from pyrovae.estimators import table_runs

    return table_runs.is_done(run)


def _finish(run: Run, dataset: Dataset, device: str, progress: bool) -> Mapping[str, Any]:
    from pyrovae.estimators import table_runs

    return table_runs.finish(run, dataset, device, progress)


def _load(folder: Path, device: str) -> Any:
    from pyrovae.estimators import table_runs

    return table_runs.load(folder, device)


_TREES = "boosted trees beside the pair, one model a column, which count as far as they predict held-out entries better"
_NETS = "nets that complete tables together; by default up to 5, and 1 where 10000 steps are done by one"
FINISHING = Finishing(
    "the trees, latents and spreads that its tables are completed by",
    hold_out=_hold_out,
    is_done=_is_done,
    finish=_finish,
    load=_load,
    options=(Option("trees", bool, True, _TREES), Option("num_nets", int, defaults.NUM_NETS, _NETS)),
)
"""What makes of a run the same as a fitted `VAEImputer`."""


@register_pair(
    "tabular",
    summary="VAE of heterogeneous tables with missing values: one likelihood for each column",
    data_kind=TABLE,
    epochs=defaults.default_epochs,
    finishing=FINISHING,
    objective="mean-field",
    kl_weight=defaults.KL_WEIGHT,
    lr=defaults.LR,
    lr_schedule=defaults.LR_SCHEDULE,
    batch_size=defaults.BATCH_SIZE,
    needs=(parts.LAYERED, parts.ACTIVATED, parts.COMPONENTS_OF_PRIOR, parts.FLOORED, parts.NATURAL),
)
def tabular(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    latent_dim: Annotated[int, "size of the latent"] = defaults.LATENT_DIM,
    hidden: Annotated[tuple[int, ...], parts.HIDDEN] = defaults.HIDDEN,
    encoder: Annotated[
        Literal["dense", "set"], "dense layers on entries and mask, or a sum over entries"
    ] = defaults.ENCODER,
    layer: parts.Layer = "plain",
    activation: parts.Activation = "relu",
    dropout: Annotated[float, "probability of dropping a hidden unit of the encoder in training"] = 0.0,
    prior: Annotated[Literal["standard-normal", "mixture", "vamp"], "prior of the latent"] = defaults.PRIOR,
    num_components: Annotated[int, "components of a mixture, or pseudo-inputs of a VampPrior"] = 50,
    parameterization: Annotated[
        Literal["natural", "canonical"], "which parameters of its families the decoder gives"
    ] = defaults.PARAMETERIZATION,
    scale_floor: Annotated[
        float, "smallest standard deviation of a column, in units of the column's"
    ] = defaults.SCALE_FLOOR,
    missingness: Annotated[
        str | Mapping[str, str], f"what missing entries depend on: {', '.join(MECHANISMS)}; or COLUMN=..., by commas"
    ] = "ignorable",
) -> VAE:
    """Build a VAE of tables.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data; its schema says what the columns are.
    rows : Rows, optional
        Training rows. The VampPrior takes its pseudo-inputs from them, a model of what is missing its first rates.
    latent_dim, hidden, encoder, layer, activation, dropout, prior, num_components, parameterization, scale_floor
        Options of the pair. ``pyrovae train tabular --help`` explains them.
    missingness : str or mapping of str to str, default "ignorable"
        What missing entries depend on, of all columns or by their names, see `resolve_mechanisms`. Anything but
        "ignorable" adds the site `mask`, and likelihoods are those of entries and mask.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        The data are no table, or a size or a mechanism does not suit.
    """
    parts.check_sizes(latent_dim=latent_dim, num_components=num_components)
    columns, loc, scale = columns_of(spec)
    within: dict[str, Any] = scaling_within(spec)
    if within and missingness != "ignorable":
        raise ValueError("a model of what is missing needs numbers that are scaled outside: scale_where='outside'")
    likelihood = TableLikelihood(
        columns,
        parameterization=parameterization,
        scale_floor=scale_floor,
        weights=column_weights(spec),
        **within,
    )
    options: dict[str, Any] = {"loc": loc, "scale": scale, "layer": layer, "activation": activation}
    options["by_batch"] = within.get("by_batch", False)
    net = (
        SetEncoder(columns, hidden, dropout=dropout, **options)
        if encoder == "set"
        else TableEncoder(columns, hidden, dropout=dropout, **options)
    )
    decoder = DenseDecoder(latent_dim, likelihood.raw_shape, hidden[::-1], layer=layer, activation=activation)
    guide = TabularGuide(net, GaussianHead(net.out_features, latent_dim))
    complete = partial(_complete_rows, spec, rows)
    top = parts.make_prior(prior, latent_dim, num_components, guide.posterior, complete)
    if missingness == "ignorable":
        return VAE(TabularVAE(top, decoder, likelihood), guide)
    mechanisms = resolve_mechanisms(missingness, _names_of(spec), columns)
    missing = SelfMasking(columns, mechanisms, loc, scale, _missing_rates(rows))
    return VAE(TabularVAE(top, decoder, likelihood, missing), guide, observed="x", latent=("z",))


def columns_of(spec: DataSpec) -> tuple[ColumnFamilies, torch.Tensor, torch.Tensor]:
    """The families of the columns of a table, and the mean and standard deviation of their numbers.

    Raises
    ------
    ValueError
        The data are no table.
    """
    schema: Mapping[str, Any] | None = spec.schema
    if schema is None or "columns" not in schema:
        raise ValueError(f"{spec.name} is no table: it says nothing of columns; the pair tabular is for tables")
    features = schema.get("features", {})
    size = len(schema["columns"]["families"])
    loc = torch.tensor(features.get("loc", [0.0] * size))
    return ColumnFamilies.from_dict(schema["columns"]), loc, torch.tensor(features.get("scale", [1.0] * size))


def scaling_within(spec: DataSpec) -> dict[str, Any]:
    """The scaling that the likelihood is to do itself, see `TableLikelihood`; nothing if data are scaled already."""
    stored: Mapping[str, Any] | None = (spec.schema or {}).get("within")
    if stored is None:
        return {}
    loc, scale = (torch.tensor(stored[name], dtype=torch.get_default_dtype()) for name in ("loc", "scale"))
    return {"loc": loc, "scale": scale, "by_batch": bool(stored["by_batch"])}


def column_weights(spec: DataSpec) -> torch.Tensor | None:
    """What columns count in training, see `pyrovae.likelihoods.balance`; None if all count alike."""
    stored = (spec.schema or {}).get("column_weights")
    return None if stored is None else torch.tensor(stored, dtype=torch.get_default_dtype())


def _names_of(spec: DataSpec) -> list[str]:
    """Names of the modelled columns, or their numbers where the data have no names."""
    schema: Mapping[str, Any] = spec.schema or {}
    if "scaler" not in schema:
        return [f"x{number}" for number in range(len(schema["columns"]["families"]))]
    from pyrovae.data.tables import TableCodec  # which imports pandas

    codec = TableCodec.from_dict(schema)
    return [codec.schema.names[position] for position in codec.modelled]


def _missing_rates(rows: Rows | None) -> torch.Tensor | None:
    """Share of missing entries of each column; None without rows."""
    if rows is None:
        return None
    mask = rows.more.get("recorded", rows.mask)
    return torch.zeros(rows.x.shape[1]) if mask is None else 1 - mask.float().mean(0)


def _complete_rows(spec: DataSpec, rows: Rows | None, num_rows: int) -> torch.Tensor:
    """Initial pseudo-inputs, whose levels are whole numbers."""
    columns, _, _ = columns_of(spec)
    found = parts.random_rows(spec, rows, num_rows)
    return torch.where(torch.tensor(columns.num_levels) > 0, found.round(), found)


register_family(TABLES)
