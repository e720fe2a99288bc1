"""The VAE with several layers of Gaussian latents, put together for data of a kind."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.guides import HierarchicalGaussian
from pyrovae.models import HierarchicalVAE
from pyrovae.nn import GaussianLayer
from pyrovae.nn.encoders import num_features
from pyrovae.pairs import parts
from pyrovae.pairs.needs import Needs
from pyrovae.pairs.registry import register_pair
from pyrovae.vae import VAE

_SEVERAL = Needs(
    ("hidden_between", "skip"),
    lambda options, spec: len(options["latent_dims"]) != 1,
    "several latent layers",
    "their sizes, latent_dims=(100, 50) say",
)


@register_pair(
    "hierarchical",
    summary="VAE with several layers of vector latents, dense or convolutional nets",
    needs=(_SEVERAL, parts.CHANNELS, parts.ACTIVATED, parts.COMPONENTS_OF_PRIOR, parts.SCALED),
)
def hierarchical(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    latent_dims: Annotated[tuple[int, ...], "sizes of the latent layers, from the data upwards"] = (100, 50),
    net: parts.Net = "dense",
    hidden: Annotated[tuple[int, ...] | None, f"{parts.HIDDEN} (default: 200,200; 200 for conv)"] = None,
    hidden_between: Annotated[
        tuple[int, ...], "hidden layers of the nets between latent layers, guide first; mirrored in the model"
    ] = (100, 100),
    layer: parts.Layer = "plain",
    activation: parts.Activation = "tanh",
    channels: parts.Channels = (32, 64),
    skip: Annotated[bool, "the decoder sees all latent layers, not the lowest alone"] = False,
    prior: Annotated[
        Literal["standard-normal", "mixture", "vamp"],
        "prior of the top layer; pseudo-inputs of vamp are values of the layer below it",
    ] = "standard-normal",
    num_components: parts.NumComponents = parts.COMPONENTS,
    likelihood: parts.LikelihoodOption = "auto",
    likelihood_scale: parts.LikelihoodScale = 1.0,
) -> VAE:
    """Build a hierarchical VAE. The defaults are the two-layer nets of the reference.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, classes, number of rows.
    rows : Rows, optional
        Training rows. The VampPrior takes its pseudo-inputs from them.
    latent_dims, net, hidden, hidden_between, layer, activation, channels, skip
        Options of the pair, see below.
    prior, num_components, likelihood, likelihood_scale
        Options of the pair. ``pyrovae train hierarchical --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.

    References
    ----------
    Y. Burda, R. Grosse and R. Salakhutdinov (2016), "Importance weighted autoencoders", section 5.
    """
    if not latent_dims or min(latent_dims) < 1:
        raise ValueError(f"latent_dims must hold at least one positive number, got {latent_dims}")
    parts.check_sizes(num_components=num_components)
    if hidden is None:
        hidden = (200,) if net == "conv" else (200, 200)
    head = parts.make_likelihood(likelihood, spec, likelihood_scale)
    encoder, decoder = parts.make_nets(
        spec.shape,
        sum(latent_dims) if skip else latent_dims[0],
        head.raw_shape,
        net=net,
        hidden=hidden,
        layer=layer,
        activation=activation,
        channels=channels,
    )
    options: dict[str, Any] = {"layer": layer, "activation": activation}
    upward = [GaussianLayer(below, hidden_between, above, **options) for below, above in pairwise(latent_dims)]
    downward = [GaussianLayer(above, hidden_between[::-1], below, **options) for below, above in pairwise(latent_dims)]
    first = GaussianLayer(num_features(encoder), (), latent_dims[0])
    guide = HierarchicalGaussian(encoder, [first, *upward])

    @torch.no_grad()
    def inputs_of_top(num_rows: int) -> Tensor:
        """What the top layer of the guide takes in for training data: with one layer features, else latent means."""
        value = guide.encoder(parts.random_rows(spec, rows, num_rows))
        for below in guide.upward[:-1]:
            value = below(value).mean
        return value

    top = parts.make_prior(prior, latent_dims[-1], num_components, guide.top, inputs_of_top)
    return VAE(HierarchicalVAE(top, downward, decoder, head, skip=skip), guide)
