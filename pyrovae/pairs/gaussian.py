"""The Gaussian VAE, put together for data of a kind."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.guides import AmortizedGaussian
from pyrovae.models import GaussianVAE
from pyrovae.pairs import parts
from pyrovae.pairs.registry import register_pair
from pyrovae.vae import VAE


def _layer(layer: str | None, net: str) -> str:
    """The kind of layers that was asked for, or the usual one of such nets."""
    return layer or ("plain" if net == "conv" else "gated")


_ACTIVATED = replace(
    parts.ACTIVATED,
    met=lambda options, spec: parts.ACTIVATED.met({**options, "layer": _layer(options["layer"], options["net"])}, spec),
)


@register_pair(
    "gaussian",
    summary="Gaussian VAE: vector latent, dense or convolutional nets, three priors",
    needs=(parts.CHANNELS, _ACTIVATED, parts.COMPONENTS_OF_PRIOR, parts.SCALED),
)
def gaussian(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    latent_dim: Annotated[int, "size of the latent"] = 16,
    net: parts.Net = "dense",
    hidden: Annotated[tuple[int, ...] | None, f"{parts.HIDDEN} (default: 300,300; 300 for conv)"] = None,
    layer: Annotated[parts.LayerName | None, f"{parts.LAYER} (default: gated; plain for conv)"] = None,
    activation: parts.Activation = "relu",
    channels: parts.Channels = (32, 64),
    tied: parts.Tied = False,
    sees_mask: parts.SeesMask = False,
    prior: Annotated[Literal["standard-normal", "mixture", "vamp"], "prior of the latent"] = "standard-normal",
    num_components: parts.NumComponents = parts.COMPONENTS,
    likelihood: parts.LikelihoodOption = "auto",
    likelihood_scale: parts.LikelihoodScale = 1.0,
) -> VAE:
    """Build a Gaussian VAE. Without `hidden` and `layer` it has two gated layers, or plain convolutional nets.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, classes, number of rows.
    rows : Rows, optional
        Training rows. The VampPrior takes its pseudo-inputs from them.
    latent_dim, net, hidden, layer, activation, channels, tied, sees_mask, prior, num_components
        Options of the pair. ``pyrovae train gaussian --help`` explains them.
    likelihood, likelihood_scale
        Options of the pair. ``pyrovae train gaussian --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.
    """
    parts.check_sizes(latent_dim=latent_dim, num_components=num_components)
    if hidden is None:
        hidden = (300,) if net == "conv" else (300, 300)
    head = parts.make_likelihood(likelihood, spec, likelihood_scale)
    encoder, decoder = parts.make_nets(
        spec.shape,
        latent_dim,
        head.raw_shape,
        net=net,
        hidden=hidden,
        layer=_layer(layer, net),
        activation=activation,
        channels=channels,
        tied=tied,
        sees_mask=sees_mask,
    )
    guide = AmortizedGaussian(encoder, latent_dim)
    top = parts.make_prior(prior, latent_dim, num_components, guide.posterior, partial(parts.random_rows, spec, rows))
    return VAE(GaussianVAE(top, decoder, head), guide)
