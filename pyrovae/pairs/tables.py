"""The pair of heterogeneous tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import torch

from pyrovae.data.dataset import TABLE, DataSpec, Rows
from pyrovae.families import register_family
from pyrovae.guides import TabularGuide
from pyrovae.likelihoods.tables import ColumnFamilies, TableLikelihood
from pyrovae.metrics.tables import TABLES
from pyrovae.models import TabularVAE
from pyrovae.nn import DenseDecoder, GaussianHead
from pyrovae.nn.tables import SetEncoder, TableEncoder
from pyrovae.pairs import parts
from pyrovae.pairs import table_defaults as defaults
from pyrovae.pairs.registry import register_pair
from pyrovae.vae import VAE


def _epochs(rows: int, batch_size: int) -> int:
    from pyrovae.estimators.table_model import default_epochs  # which stands on this module

    return default_epochs(rows, batch_size)


@register_pair(
    "tabular",
    summary="VAE of heterogeneous tables with missing values: one likelihood for each column",
    data_kind=TABLE,
    epochs=_epochs,
    objective="mean-field",
    kl_weight=defaults.KL_WEIGHT,
    lr=defaults.LR,
    lr_schedule=defaults.LR_SCHEDULE,
    batch_size=defaults.BATCH_SIZE,
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
) -> VAE:
    """Build a VAE of tables.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data; its schema says what the columns are.
    rows : Rows, optional
        Training rows. The VampPrior takes its pseudo-inputs from them.
    latent_dim, hidden, encoder, layer, activation, dropout, prior, num_components, parameterization, scale_floor
        Options of the pair. ``pyrovae train tabular --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        The data are no table, or a size does not suit.
    """
    parts.check_sizes(latent_dim=latent_dim, num_components=num_components)
    columns, loc, scale = columns_of(spec)
    likelihood = TableLikelihood(columns, parameterization=parameterization, scale_floor=scale_floor)
    options: dict[str, Any] = {"loc": loc, "scale": scale, "layer": layer, "activation": activation}
    net = (
        SetEncoder(columns, hidden, dropout=dropout, **options)
        if encoder == "set"
        else TableEncoder(columns, hidden, dropout=dropout, **options)
    )
    decoder = DenseDecoder(latent_dim, likelihood.raw_shape, hidden[::-1], layer=layer, activation=activation)
    guide = TabularGuide(net, GaussianHead(net.out_features, latent_dim))
    top = parts.make_prior(prior, latent_dim, num_components, guide.posterior, partial(_complete_rows, spec, rows))
    return VAE(TabularVAE(top, decoder, likelihood), guide)


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


def _complete_rows(spec: DataSpec, rows: Rows | None, num_rows: int) -> torch.Tensor:
    """Initial pseudo-inputs, whose levels are whole numbers."""
    columns, _, _ = columns_of(spec)
    found = parts.random_rows(spec, rows, num_rows)
    return torch.where(torch.tensor(columns.num_levels) > 0, found.round(), found)


register_family(TABLES)
