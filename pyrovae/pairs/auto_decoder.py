"""The auto-decoder: a decoder model, and posterior parameters of its own for each row in place of an encoder."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pyrovae.data.dataset import TABLE, DataSpec, Rows
from pyrovae.guides import PerDatum
from pyrovae.models import GaussianVAE, StickBreakingVAE, TabularVAE
from pyrovae.nn import DenseDecoder
from pyrovae.pairs import parts
from pyrovae.pairs.needs import Needs, when
from pyrovae.pairs.registry import register_pair
from pyrovae.priors import StandardNormal
from pyrovae.vae import VAE

_OF_FRACTIONS = ("logit-normal", "kumaraswamy", "beta", "gamma")
_NORMAL = ("normal", "logit-normal")
_LOG_VAR = {"fixed": -3.0, "learned": 0.0, "none": 0.0}


@register_pair(
    "auto-decoder",
    summary="auto-decoder: no encoder, parameters of its own for each row; for missing entries",
    lr={"model": 2e-3, "guide": 0.1},
    objective="mean-field",
    needs=(
        Needs(
            ("net", "channels", "likelihood", "likelihood_scale"),
            lambda options, spec: spec is None or spec.kind != TABLE,
            "pictures and vectors, and these data are a table",
        ),
        Needs(("parameterization", "scale_floor"), lambda options, spec: spec is None or spec.kind == TABLE, "tables"),
        parts.FLOORED,
        parts.NATURAL,
        Needs(("concentration",), when("family", *_OF_FRACTIONS), "sticks", "family='kumaraswamy'"),
        Needs(
            ("log_var",),
            lambda options, spec: options["family"] in _NORMAL and options["posterior_scale"] != "none",
            "the families normal and logit-normal whose posteriors are no points",
        ),
        parts.LAYERED,
        parts.CHANNELS,
        parts.ACTIVATED,
        parts.SCALED,
    ),
)
def auto_decoder(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    latent_dim: Annotated[int, "size of the latent; for sticks the number of weights"] = 50,
    family: Annotated[
        Literal["normal", "logit-normal", "kumaraswamy", "beta", "gamma"],
        "posterior of a row; the last four are of the fractions of a stick",
    ] = "normal",
    posterior_scale: Annotated[
        Literal["fixed", "learned", "none"] | None,
        "scale of the posterior of a row; none makes it a point (default: fixed for normal)",
    ] = None,
    log_var: Annotated[
        float | None, "log of the variance, fixed or at first; -14 for imputation (default: -3 if fixed, 0 if learned)"
    ] = None,
    init: Annotated[
        Literal["zeros", "normal", "pca"] | None,
        "where the rows start (default: pca for normal latents if there are enough components, else zeros)",
    ] = None,
    concentration: Annotated[float, "concentration of the prior of a stick"] = 5.0,
    net: parts.Net = "dense",
    hidden: Annotated[
        tuple[int, ...] | None,
        "hidden layers from the data to the latent, as of an encoder; the decoder has them reversed",
    ] = None,
    layer: parts.Layer = "plain",
    activation: parts.Activation = "relu",
    channels: parts.Channels = (32, 64),
    likelihood: parts.LikelihoodOption = "auto",
    likelihood_scale: parts.LikelihoodScale = 1.0,
    parameterization: Annotated[
        Literal["natural", "canonical"], "of a table: which parameters of its families the decoder gives"
    ] = "natural",
    scale_floor: Annotated[
        float, "of a table: smallest standard deviation of a column, in units of the column's"
    ] = 0.02,
) -> VAE:
    """Build an auto-decoder for pictures, vectors or a table.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, number of rows.
    rows : Rows, optional
        Training rows, for `init`.
    latent_dim, family, posterior_scale, log_var, init, concentration
        Options of the pair. ``pyrovae train auto-decoder --help`` explains them.
    net, hidden, layer, activation, channels, likelihood, likelihood_scale, parameterization, scale_floor
        Options of the decoder and the likelihood.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.
    """
    parts.check_sizes(latent_dim=latent_dim)
    sticks, table = family in _OF_FRACTIONS, spec.kind == TABLE
    if sticks and table:
        raise ValueError(f"the posterior {family} is of sticks, and an auto-decoder of a table has the family normal")
    if hidden is None:
        hidden = (256, 256) if table else (200,)
    scale = posterior_scale
    if scale is None:
        scale = "fixed" if family in _NORMAL else "learned"
    model: Any
    if table:
        from pyrovae.likelihoods.tables import TableLikelihood
        from pyrovae.pairs.tables import columns_of

        columns, _, _ = columns_of(spec)
        head: Any = TableLikelihood(columns, parameterization=parameterization, scale_floor=scale_floor)
        decoder: Any = DenseDecoder(latent_dim, head.raw_shape, hidden[::-1], layer=layer, activation=activation)
        model = TabularVAE(StandardNormal(latent_dim), decoder, head)
    else:
        head = parts.make_likelihood(likelihood, spec, likelihood_scale, grey=sticks)
        options: dict[str, Any] = {"net": net, "hidden": hidden, "layer": layer, "activation": activation}
        decoder = parts.make_decoder(latent_dim, head.raw_shape, channels=channels, **options)
        if sticks:
            model = StickBreakingVAE(latent_dim, concentration, decoder, head)
        else:
            model = GaussianVAE(StandardNormal(latent_dim), decoder, head)
    guide = PerDatum(
        spec.num_rows,
        latent_dim - 1 if sticks else latent_dim,
        family,
        scale,
        _LOG_VAR[scale] if log_var is None else log_var,
        _start(init, spec, rows, 0 if sticks else latent_dim),
        rows=rows,
    )
    return VAE(model, guide)


def _start(init: str | None, spec: DataSpec, rows: Rows | None, components: int) -> str:
    """Where the rows start; without rows it does not matter, because weights are read from a file next."""
    if rows is None and init in (None, "pca"):
        return "zeros"
    enough = 0 < components <= min(spec.num_rows, math.prod(spec.shape))
    return ("pca" if enough else "zeros") if init is None else init
