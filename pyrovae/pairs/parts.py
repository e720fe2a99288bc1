"""Parts that pairs share: likelihoods, nets and priors by name, and the options that choose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, Likelihood, NormalLikelihood
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from pyrovae.nn.mlp import ACTIVATIONS, activation_module
from pyrovae.priors import MixturePrior, StandardNormal, VampPrior

LikelihoodName = Literal["auto", "bernoulli", "normal", "normal-learned", "normal-predicted", "discretized-logistic"]

LikelihoodOption = Annotated[LikelihoodName, "likelihood of the data; auto goes by their kind"]
GreyLikelihood = Annotated[
    LikelihoodName, "likelihood of the data; auto is bernoulli for values in [0, 1], else normal-learned"
]
LikelihoodScale = Annotated[float, "standard deviation of the likelihood 'normal'"]
Net = Annotated[Literal["dense", "conv"], "kind of encoder and decoder"]
HIDDEN = "hidden layers, encoder first, mirrored in the decoder; one entry for conv, its dense layer"
LAYER = "kind of dense layers; for conv plain, or residual with blocks of convolutions"
Hidden = Annotated[tuple[int, ...], HIDDEN]
LayerName = Literal["plain", "gated", "residual"]
Layer = Annotated[LayerName, LAYER]
Activation = Annotated[str, "activation of plain and residual layers and convolutions: " + ", ".join(ACTIVATIONS)]
Channels = Annotated[tuple[int, ...], "channels of convolutional nets at half and quarter size"]
Tied = Annotated[bool, "decoder uses the encoder's weights, transposed (plain dense or conv)"]
NumComponents = Annotated[int, "components of a mixture, pseudo-inputs of a VampPrior"]

_AUTOMATIC = {
    "binary": "bernoulli",
    "unit": "bernoulli",
    "8-bit": "discretized-logistic",
    "symmetric": "normal-learned",
    "real": "normal-learned",
}


def make_likelihood(name: str, spec: DataSpec, scale: float = 1.0, *, grey: bool = False) -> Likelihood:
    """A likelihood by name for a data set; "auto" goes by the kind of its values.

    Grey values in [0, 1] get the Bernoulli cross-entropy, as is usual, which is no probability of the data. With `grey`
    the 256 values of bytes do so too, for pairs whose references have it.
    """
    if name == "auto":
        name = "bernoulli" if grey and spec.kind == "8-bit" else _AUTOMATIC[spec.kind]
    shape = spec.shape
    if name == "bernoulli":
        return BernoulliLikelihood(shape, strict=spec.kind == "binary")
    if name == "discretized-logistic":
        if spec.kind != "8-bit":
            raise ValueError(f"the discretised logistic is for 8-bit data, and {spec.name} is {spec.kind}")
        return DiscretizedLogisticLikelihood(shape)
    return NormalLikelihood(shape, scale=scale if name == "normal" else name.removeprefix("normal-"))


def make_encoder(
    data_shape: Sequence[int],
    *,
    net: str = "dense",
    hidden: Sequence[int] = (500,),
    layer: str = "plain",
    activation: str = "relu",
    channels: Sequence[int] = (32, 64),
    dropout: float = 0.0,
) -> nn.Module:
    """An encoder of data with `hidden[-1]` features; `dropout`, gated layers and several sizes are for dense nets.

    Raises:
        ValueError: for sizes or combinations that do not fit.
    """
    activation_module(activation)  # gated layers have none, and would let a misspelt name pass
    if not hidden:
        raise ValueError("hidden must hold the size of at least one hidden layer")
    if net == "conv":
        if dropout:
            raise ValueError(
                f"convolutional nets have no dropout, got dropout={dropout}; leave it out, or use dense nets"
            )
        return ConvEncoder(data_shape, _two(channels), _one(hidden), layer=layer, activation=activation)
    return DenseEncoder(data_shape, hidden, layer=layer, activation=activation, dropout=dropout)


def make_decoder(
    in_features: int,
    raw_shape: Sequence[int],
    *,
    net: str = "dense",
    hidden: Sequence[int] = (500,),
    layer: str = "plain",
    activation: str = "relu",
    channels: Sequence[int] = (32, 64),
    tied_to: Any = None,
) -> nn.Module:
    """The decoder that mirrors the encoder of the same options, with its weights if it is given as `tied_to`.

    Raises:
        ValueError: for sizes or combinations that do not fit.
    """
    activation_module(activation)
    if net == "conv":
        options = {"layer": layer, "activation": activation, "tied_to": tied_to}
        return ConvDecoder(in_features, raw_shape, _two(channels), _one(hidden), **options)
    if tied_to is not None:
        return DenseDecoder(in_features, raw_shape, tied_to=tied_to, activation=activation)
    return DenseDecoder(in_features, raw_shape, hidden[::-1], layer=layer, activation=activation)


def make_nets(
    data_shape: Sequence[int], latent_dim: int, raw_shape: Sequence[int], *, tied: bool = False, **options: Any
) -> tuple[nn.Module, nn.Module]:
    """An encoder of data and a decoder from a latent of size `latent_dim`, the one mirroring the other.

    Args:
        data_shape: shape of one datum.
        latent_dim: size of what the decoder sees.
        raw_shape: `raw_shape` of the likelihood.
        tied: let the decoder use the encoder's weights.
        **options: those of `make_encoder` and `make_decoder`.

    Raises:
        ValueError: for sizes or combinations that do not fit.
    """
    encoder = make_encoder(data_shape, **options)
    return encoder, make_decoder(latent_dim, raw_shape, tied_to=encoder if tied else None, **options)


def make_prior(
    name: str,
    latent_dim: int,
    num_components: int,
    posterior: Callable[[Tensor], Any],
    draw_inputs: Callable[[int], Tensor],
) -> nn.Module:
    """A prior of a vector latent by name: "standard-normal", "mixture" or "vamp".

    Args:
        name: which one.
        latent_dim: size of the latent.
        num_components: components of a mixture, pseudo-inputs of a VampPrior.
        posterior: what a VampPrior is a mixture of.
        draw_inputs: gives so many initial pseudo-inputs.
    """
    if name == "vamp":
        return VampPrior(posterior, draw_inputs(num_components))
    return MixturePrior(latent_dim, num_components) if name == "mixture" else StandardNormal(latent_dim)


def random_rows(spec: DataSpec, rows: Rows | None, num_rows: int) -> Tensor:
    """Initial values of pseudo-inputs, ``[num_rows, ...]``: training data drawn with replacement.

    Without rows they are zeros, which is enough for a pair whose weights are read from a file next.
    """
    if rows is None:
        return torch.zeros(num_rows, *spec.shape)
    return rows.x[torch.randint(len(rows), (num_rows,))]


def check_sizes(**sizes: int) -> None:
    """Check that options are at least 1.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _one(hidden: Sequence[int]) -> int:
    if len(hidden) != 1:
        raise ValueError(
            f"convolutional nets have one dense layer, so hidden must hold one number, its size; got {tuple(hidden)}"
        )
    return hidden[0]


def _two(channels: Sequence[int]) -> tuple[int, int]:
    if len(channels) != 2:
        raise ValueError(f"convolutional nets take two numbers of channels, got {tuple(channels)}")
    return tuple(channels)
