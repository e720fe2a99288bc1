"""Parts that pairs share: likelihoods, nets and priors by name, and the options that choose them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from pyrovae.data.dataset import TABLE, DataSpec, Rows
from pyrovae.likelihoods import BernoulliLikelihood, DiscretizedLogisticLikelihood, Likelihood, NormalLikelihood
from pyrovae.likelihoods.tables import FAMILIES, WITH_FLOOR, WITH_TWO_FORMS
from pyrovae.masks import fill_missing
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from pyrovae.nn.mlp import ACTIVATIONS, activation_module
from pyrovae.pairs.needs import Needs, when
from pyrovae.priors import MixturePrior, StandardNormal, VampPrior

LikelihoodName = Literal["auto", "bernoulli", "normal", "normal-learned", "normal-predicted", "discretized-logistic"]

LikelihoodOption = Annotated[LikelihoodName, "likelihood of the data; auto chooses by their kind"]
GreyLikelihood = Annotated[
    LikelihoodName, "likelihood of the data; auto is bernoulli for values in [0, 1], else normal-learned"
]
LikelihoodScale = Annotated[float, "standard deviation of the likelihood 'normal'"]
Net = Annotated[Literal["dense", "conv"], "kind of encoder and decoder"]
HIDDEN = "hidden layers of the encoder, mirrored in the decoder; one number for conv, its dense layer"
LAYER = "kind of hidden layers; conv has plain and residual"
Hidden = Annotated[tuple[int, ...], HIDDEN]
LayerName = Literal["plain", "gated", "residual"]
Layer = Annotated[LayerName, LAYER]
Activation = Annotated[str, "activation of plain and residual layers and convolutions: " + ", ".join(ACTIVATIONS)]
COMPONENTS = 500
Channels = Annotated[tuple[int, ...], "channels of convolutional nets at half and quarter size"]
Tied = Annotated[bool, "the decoder uses the weights of the encoder, transposed; for plain layers"]
SeesMask = Annotated[bool, "the encoder also gets the mask of the observed entries; for data with missing entries"]
NumComponents = Annotated[int, "number of components of a mixture, or of pseudo-inputs of a VampPrior"]

CHANNELS = Needs(("channels",), when("net", "conv"), "convolutional nets", "net='conv'")
ACTIVATED = Needs(
    ("activation",),
    lambda options, spec: options["layer"] != "gated" or options["activation"] not in ACTIVATIONS,
    "plain and residual layers, and gated ones have none",
    "layer='plain'",
)
LAYERED = Needs(
    ("layer", "activation"),
    lambda options, spec: options["hidden"] is None or len(options["hidden"]) > 0,
    "hidden layers",
    "their sizes, hidden=(100,) say",
)
COMPONENTS_OF_PRIOR = Needs(
    ("num_components",), when("prior", "mixture", "vamp"), "the priors mixture and vamp", "prior='mixture'"
)
FLOORED = Needs(
    ("scale_floor",),
    lambda options, spec: any(family in WITH_FLOOR for family in _families_of(spec)),
    f"columns of the families {', '.join(WITH_FLOOR)}, and these data have none",
)
NATURAL = Needs(
    ("parameterization",),
    lambda options, spec: any(family in WITH_TWO_FORMS for family in _families_of(spec)),
    f"columns of the families {', '.join(WITH_TWO_FORMS)}, and these data have none",
)
SCALED = Needs(("likelihood_scale",), when("likelihood", "normal"), "the likelihood normal", "likelihood='normal'")
"""What options of several pairs need to have an effect."""

_AUTOMATIC = {
    "binary": "bernoulli",
    "unit": "bernoulli",
    "8-bit": "discretized-logistic",
    "symmetric": "normal-learned",
    "real": "normal-learned",
}


def make_likelihood(name: str, spec: DataSpec, scale: float = 1.0, *, grey: bool = False) -> Likelihood:
    """Make a likelihood by name for a data set.

    Parameters
    ----------
    name : {"auto", "bernoulli", "normal", "normal-learned", "normal-predicted", "discretized-logistic"}
        Which one. "auto" chooses by the kind of the values: Bernoulli for "binary" and "unit", discretised logistic for
        "8-bit", and a normal with learned scales for "symmetric" and "real".
    spec : DataSpec
        Shape and kind of the data.
    scale : float, default 1.0
        Standard deviation of "normal", positive, in the units of the data.
    grey : bool, default False
        Whether "auto" takes Bernoulli for "8-bit" too, for pairs whose references do so.

    Returns
    -------
    Likelihood
        The likelihood.

    Raises
    ------
    ValueError
        The name is unknown, the scale is not positive, or the discretised logistic is asked for data of another kind
        than "8-bit".

    Notes
    -----
    Bernoulli scores grey values in [0, 1] by the cross-entropy. This is usual, but it is not a probability of the data.
    """
    if spec.kind == TABLE:
        raise ValueError(f"{spec.name} is a table, whose columns are of several kinds; use the pair tabular")
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
    sees_mask: bool = False,
) -> nn.Module:
    """Make an encoder of data with `hidden[-1]` features.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    net : {"dense", "conv"}, default "dense"
        Kind of net. "conv" is for pictures.
    hidden : sequence of int, default (500,)
        Sizes of the hidden layers. "conv" takes one size, that of its dense layer.
    layer : {"plain", "gated", "residual"}, default "plain"
        Kind of layer. "gated" is for dense nets.
    activation : str, default "relu"
        A name out of `pyrovae.nn.mlp.ACTIVATIONS`.
    channels : sequence of int, default (32, 64)
        Two numbers of channels, for "conv".
    dropout : float, default 0.0
        Probability of dropping a hidden unit in training, for dense nets.
    sees_mask : bool, default False
        Whether the encoder also gets the mask of the observed entries.

    Returns
    -------
    Module
        The encoder.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.
    """
    activation_module(activation)  # gated layers have none, and would let a misspelt name pass
    if not hidden:
        raise ValueError("hidden must hold the size of at least one hidden layer")
    if net == "conv":
        if dropout:
            raise ValueError(
                f"convolutional nets have no dropout, got dropout={dropout}; leave it out, or use dense nets"
            )
        options: dict[str, Any] = {"layer": layer, "activation": activation, "sees_mask": sees_mask}
        return ConvEncoder(data_shape, _two(channels), _one(hidden), **options)
    return DenseEncoder(data_shape, hidden, sees_mask=sees_mask, layer=layer, activation=activation, dropout=dropout)


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
    """Make the decoder that mirrors the encoder of the same options.

    Parameters
    ----------
    in_features : int
        Size of what the decoder sees.
    raw_shape : sequence of int
        `raw_shape` of the likelihood.
    net : {"dense", "conv"}, default "dense"
        Kind of net. "conv" is for pictures.
    hidden : sequence of int, default (500,)
        Sizes of the hidden layers of the encoder. The decoder has them in reverse order.
    layer : {"plain", "gated", "residual"}, default "plain"
        Kind of layer. "gated" is for dense nets.
    activation : str, default "relu"
        A name out of `pyrovae.nn.mlp.ACTIVATIONS`.
    channels : sequence of int, default (32, 64)
        Two numbers of channels, for "conv".
    tied_to : Module, optional
        The encoder, if the decoder is to use its weights, transposed. None gives the decoder its own weights.

    Returns
    -------
    Module
        The decoder.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.
    """
    activation_module(activation)
    if net == "conv":
        options = {"layer": layer, "activation": activation, "tied_to": tied_to}
        return ConvDecoder(in_features, raw_shape, _two(channels), _one(hidden), **options)
    if tied_to is not None:
        return DenseDecoder(in_features, raw_shape, tied_to=tied_to, activation=activation)
    return DenseDecoder(in_features, raw_shape, hidden[::-1], layer=layer, activation=activation)


def make_nets(
    data_shape: Sequence[int],
    latent_dim: int,
    raw_shape: Sequence[int],
    *,
    tied: bool = False,
    sees_mask: bool = False,
    **options: Any,
) -> tuple[nn.Module, nn.Module]:
    """Make an encoder of data and a decoder that mirrors it.

    Parameters
    ----------
    data_shape : sequence of int
        Shape of one datum.
    latent_dim : int
        Size of what the decoder sees.
    raw_shape : sequence of int
        `raw_shape` of the likelihood.
    tied : bool, default False
        Whether the decoder uses the weights of the encoder.
    sees_mask : bool, default False
        Whether the encoder also gets the mask of the observed entries.
    **options
        Options that `make_encoder` and `make_decoder` both have.

    Returns
    -------
    encoder, decoder : Module
        The nets.

    Raises
    ------
    ValueError
        A size or a combination of options does not suit.
    """
    if tied and sees_mask:
        raise ValueError(
            "an encoder that sees the mask has more inputs than a decoder has outputs, so tied must be off"
        )
    encoder = make_encoder(data_shape, sees_mask=sees_mask, **options)
    return encoder, make_decoder(latent_dim, raw_shape, tied_to=encoder if tied else None, **options)


def make_prior(
    name: str,
    latent_dim: int,
    num_components: int,
    posterior: Callable[[Tensor], Any],
    draw_inputs: Callable[[int], Tensor],
) -> nn.Module:
    """Make a prior of a vector latent by name.

    Parameters
    ----------
    name : {"standard-normal", "mixture", "vamp"}
        Which one.
    latent_dim : int
        Size of the latent.
    num_components : int
        Components of the mixture, or pseudo-inputs of the VampPrior.
    posterior : callable
        The distribution that a VampPrior is a mixture of, as a function of its pseudo-inputs.
    draw_inputs : callable
        Gives so many initial pseudo-inputs, as a Tensor. Only "vamp" calls it.

    Returns
    -------
    Module
        The prior.
    """
    if name == "vamp":
        return VampPrior(posterior, draw_inputs(num_components))
    return MixturePrior(latent_dim, num_components) if name == "mixture" else StandardNormal(latent_dim)


def random_rows(spec: DataSpec, rows: Rows | None, num_rows: int) -> Tensor:
    """Draw initial pseudo-inputs, ``[num_rows, ...]``, from the training data with replacement.

    Missing entries get the mean of the observed ones. Without rows they are zeros. That is enough for a pair whose
    weights are read from a file next.
    """
    if rows is None:
        return torch.zeros(num_rows, *spec.shape)
    some = rows.take(torch.randint(len(rows), (num_rows,), device="cpu"))
    return some.x if some.mask is None else fill_missing(some.x, some.mask, mean_of_entries(rows))


def mean_of_entries(rows: Rows) -> Tensor:
    """The mean of every entry of a datum over the rows in which it is observed, ``[...]``; 0 where it never is."""
    if rows.mask is None:
        return rows.x.mean(0)
    return fill_missing(rows.x, rows.mask, 0.0).sum(0) / rows.mask.sum(0).clamp(min=1)


def check_sizes(**sizes: int) -> None:
    """Check that options are at least 1.

    Raises
    ------
    ValueError
        An option is below 1. The message names it.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _families_of(spec: DataSpec | None) -> Sequence[str]:
    """The families of the columns of a table; all there are, where they are not known."""
    stored = {} if spec is None or spec.schema is None else spec.schema.get("columns")
    return stored.get("families", [*FAMILIES]) if isinstance(stored, Mapping) else [*FAMILIES]


def _one(hidden: Sequence[int]) -> int:
    if len(hidden) != 1:
        raise ValueError(
            f"convolutional nets have one dense layer, so hidden must hold one number, its size; got {tuple(hidden)}"
        )
    return hidden[0]


def _two(channels: Sequence[int]) -> tuple[int, int]:
    if len(channels) != 2:
        raise ValueError(f"convolutional nets take two numbers of channels, got {tuple(channels)}")
    return channels[0], channels[1]
