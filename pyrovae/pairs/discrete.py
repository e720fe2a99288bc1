"""Pairs with discrete latents, put together for data of a kind."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal, get_args

import torch
from torch import nn

from pyrovae.data.dataset import DataSpec, Rows
from pyrovae.guides import AmortizedCategorical, BernoulliLayers
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import CategoricalVAE, SigmoidBeliefNetwork
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.nn.variables import Bits, OneHot, RelaxedBits, RelaxedOneHot, RelaxedVariable
from pyrovae.pairs.needs import Needs, when
from pyrovae.pairs.parts import LikelihoodOption, make_likelihood, mean_of_entries
from pyrovae.pairs.registry import register_pair
from pyrovae.vae import VAE

_Draws = Literal["exact", "relaxed", "straight-through"]
_DRAWS = get_args(_Draws)
Draws = Annotated[_Draws, "exact draws for vimco, nvil and wake-sleep, or a relaxation for elbo and iwae"]
Temperature = Annotated[float, "temperature of the relaxation, for draws that are not exact"]
_RELAXED = Needs(("temperature",), when("draws", "relaxed", "straight-through"), "relaxed draws", "draws='relaxed'")
_HIDDEN = Needs(
    ("activation",), lambda options, spec: len(options["hidden"]) > 0, "hidden layers", "their sizes, hidden=(100,) say"
)


def _variables(exact: type[nn.Module], relaxed: type[nn.Module], draws: str, temperature: float) -> list[nn.Module]:
    """One variable for the model and one for the guide."""
    if draws not in _DRAWS:
        raise ValueError(f"draws must be one of {', '.join(_DRAWS)}, got {draws!r}")
    if draws == "exact":
        return [exact(), exact()]
    return [relaxed(temperature, straight_through=draws == "straight-through") for _ in range(2)]


@register_pair(
    "sbn",
    summary="sigmoid belief network: layers of binary latents",
    objective="vimco",
    num_particles=10,
    needs=(_RELAXED, _HIDDEN),
)
def sbn(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    sizes: Annotated[tuple[int, ...], "sizes of the layers, from the data upwards"] = (200, 200, 200),
    hidden: Annotated[tuple[int, ...], "hidden layers of the nets between two layers; empty is linear"] = (),
    activation: Annotated[str, "activation of hidden layers"] = "tanh",
    draws: Draws = "exact",
    temperature: Temperature = 2 / 3,
    likelihood: LikelihoodOption = "auto",
) -> VAE:
    """Build a sigmoid belief network. The guide subtracts the mean of the data.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, classes, number of rows.
    rows : Rows, optional
        Training rows. They give the mean of every entry, over the rows in which it is observed. With a Bernoulli
        likelihood, the network then starts with the right mean of every pixel. None takes a mean of zero.
    sizes, hidden, activation, draws, temperature, likelihood
        Options of the pair. ``pyrovae train sbn --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or an option does not suit.
    """
    head = make_likelihood(likelihood, spec)
    top, bottom = _variables(Bits, RelaxedBits, draws, temperature)
    centre = torch.zeros(spec.shape) if rows is None else mean_of_entries(rows)
    model = SigmoidBeliefNetwork(sizes, head, hidden, activation=activation, variable=top)
    if rows is not None and isinstance(head, BernoulliLikelihood):
        # The network starts out with the right mean of every pixel.
        with torch.no_grad():
            last: Any = model.decoder.net.get_submodule("layers")
            last[-1].bias.copy_(centre.flatten().clamp(0.01, 0.99).logit())
    guide = BernoulliLayers(spec.shape, sizes, hidden, activation=activation, centre=centre, variable=bottom)
    return VAE(model, guide)


@register_pair(
    "categorical",
    summary="VAE with a vector of categorical latents",
    objective="vimco",
    num_particles=10,
    needs=(_RELAXED, _HIDDEN),
)
def categorical(
    spec: DataSpec,
    rows: Rows | None = None,
    *,
    num_variables: Annotated[int, "number of categorical variables"] = 30,
    num_classes: Annotated[int, "number of classes of each variable"] = 10,
    hidden: Annotated[tuple[int, ...], "hidden layers, encoder first; mirrored in the decoder"] = (300,),
    activation: Annotated[str, "activation of hidden layers"] = "relu",
    draws: Draws = "exact",
    temperature: Temperature = 2 / 3,
    learn_prior: Annotated[bool, "learn the prior class probabilities"] = False,
    likelihood: LikelihoodOption = "auto",
) -> VAE:
    """Build a VAE with categorical latents.

    Parameters
    ----------
    spec : DataSpec
        What to know of the data: shape, kind of values, classes, number of rows.
    rows : Rows, optional
        Training rows. This pair does not use them.
    num_variables, num_classes, hidden, activation, draws, temperature, learn_prior, likelihood
        Options of the pair. ``pyrovae train categorical --help`` explains them.

    Returns
    -------
    VAE
        The pair, untrained.

    Raises
    ------
    ValueError
        A size or an option does not suit.
    """
    head = make_likelihood(likelihood, spec)
    top, bottom = _variables(OneHot, RelaxedOneHot, draws, temperature)
    decoder = DenseDecoder(num_variables * num_classes, head.raw_shape, hidden[::-1], activation=activation)
    model = CategoricalVAE(num_variables, num_classes, decoder, head, learn_prior=learn_prior, variable=top)
    encoder = DenseEncoder(spec.shape, hidden, activation=activation)
    return VAE(model, AmortizedCategorical(encoder, num_variables, num_classes, variable=bottom))


def exact(vae: VAE) -> VAE:
    """Copy a VAE, with exact variables in the place of relaxed ones and the same weights.

    Use it to evaluate the discrete model that a relaxed pair was trained for. Figures of the relaxed pair itself are
    those of another model, whose likelihood is close to the discrete one only at low temperature.

    Parameters
    ----------
    vae : VAE
        The relaxed pair. It stays as it is.

    Returns
    -------
    VAE
        The exact pair.

    Examples
    --------
    >>> from pyrovae import data
    >>> from pyrovae.pairs import find_pair
    >>> relaxed = find_pair("sbn").build(data.load("digits", binarize="static"), draws="relaxed")
    >>> exact(relaxed).sample(2).shape
    torch.Size([2, 1, 8, 8])
    """
    vae = copy.deepcopy(vae)
    for module in list(vae.modules()):
        for name, child in module.named_children():
            if isinstance(child, RelaxedVariable):
                setattr(module, name, OneHot() if isinstance(child, RelaxedOneHot) else Bits())
    return vae
