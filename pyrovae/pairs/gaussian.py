"""The Gaussian VAE, put together for a data set."""

from __future__ import annotations

from typing import Annotated, Literal

import torch

from pyrovae.data import Dataset
from pyrovae.guides import AmortizedGaussian
from pyrovae.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, Likelihood, NormalLikelihood
from pyrovae.models import GaussianVAE
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from pyrovae.nn.mlp import ACTIVATIONS, activation_module
from pyrovae.priors import MixturePrior, StandardNormal, VampPrior
from pyrovae.registry import register_pair
from pyrovae.vae import VAE

LikelihoodName = Literal["auto", "bernoulli", "normal", "normal-learned", "normal-predicted", "discretized-logistic"]

_AUTOMATIC = {
    "binary": "bernoulli",
    "unit": "bernoulli",
    "8-bit": "discretized-logistic",
    "symmetric": "normal-learned",
    "real": "normal-learned",
}


def make_likelihood(name: str, dataset: Dataset, scale: float = 1.0) -> Likelihood:
    """A likelihood by name for a data set; "auto" goes by the kind of its values.

    Grey values in [0, 1] get the Bernoulli cross-entropy, as is usual, which is no probability of the data.
    """
    if name == "auto":
        name = _AUTOMATIC[dataset.kind]
    shape = dataset.shape
    if name == "bernoulli":
        return BernoulliLikelihood(shape, strict=dataset.kind == "binary")
    if name == "discretized-logistic":
        if dataset.kind != "8-bit":
            raise ValueError(f"the discretised logistic is for 8-bit data, and {dataset.name} is {dataset.kind}")
        return DiscretizedLogisticLikelihood(shape)
    return NormalLikelihood(shape, scale=scale if name == "normal" else name.removeprefix("normal-"))


@register_pair("gaussian", summary="Gaussian VAE: vector latent, dense or convolutional nets, three priors")
def gaussian(
    dataset: Dataset,
    *,
    latent_dim: Annotated[int, "size of the latent"] = 16,
    net: Annotated[Literal["dense", "conv"], "kind of encoder and decoder"] = "dense",
    hidden: Annotated[tuple[int, ...], "hidden layers of dense nets, encoder first; mirrored in the decoder"] = (
        300,
        300,
    ),
    layer: Annotated[Literal["plain", "gated", "residual"], "kind of dense layers"] = "gated",
    activation: Annotated[
        str, "activation of plain and residual layers and convolutions: " + ", ".join(ACTIVATIONS)
    ] = "relu",
    channels: Annotated[tuple[int, ...], "channels of convolutional nets at half and quarter size"] = (32, 64),
    tied: Annotated[bool, "decoder uses the encoder's weights, transposed (plain dense or conv)"] = False,
    prior: Annotated[Literal["standard-normal", "mixture", "vamp"], "prior of the latent"] = "standard-normal",
    num_components: Annotated[int, "components of a mixture, pseudo-inputs of a VampPrior"] = 500,
    likelihood: Annotated[LikelihoodName, "likelihood of the data; auto goes by their kind"] = "auto",
    likelihood_scale: Annotated[float, "standard deviation of the likelihood 'normal'"] = 1.0,
) -> VAE:
    """Put a Gaussian VAE together.

    Raises:
        ValueError: for sizes or combinations that do not fit.
    """
    for name, value in (("latent_dim", latent_dim), ("num_components", num_components)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    activation_module(activation)  # gated layers have none, and would let a misspelt name pass
    head = make_likelihood(likelihood, dataset, likelihood_scale)
    if net == "conv":
        if len(channels) != 2:
            raise ValueError(f"convolutional nets take two numbers of channels, got {channels}")
        encoder = ConvEncoder(dataset.shape, channels, hidden[-1], activation=activation)
        decoder = ConvDecoder(
            latent_dim,
            head.raw_shape,
            channels,
            hidden[-1],
            activation=activation,
            tied_to=encoder if tied else None,
        )
    else:
        options = {"activation": activation, "layer": layer}
        encoder = DenseEncoder(dataset.shape, hidden, **options)
        if tied:
            decoder = DenseDecoder(latent_dim, head.raw_shape, tied_to=encoder, activation=activation)
        else:
            decoder = DenseDecoder(latent_dim, head.raw_shape, hidden[::-1], **options)
    guide = AmortizedGaussian(encoder, latent_dim)
    if prior == "vamp":
        chosen = torch.randint(len(dataset.train.x), (num_components,))
        module = VampPrior(guide.posterior, dataset.train.x[chosen])
    else:
        module = MixturePrior(latent_dim, num_components) if prior == "mixture" else StandardNormal(latent_dim)
    return VAE(GaussianVAE(module, decoder, head), guide)
