"""Small belief networks and categorical pairs, and their joint distributions by enumeration."""

import itertools

import torch

from pyrovae import VAE, data
from pyrovae.data import Dataset, Rows
from pyrovae.guides import AmortizedCategorical, BernoulliLayers
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import CategoricalVAE, SigmoidBeliefNetwork
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.nn.variables import Bits, OneHot

PIXELS = 4


def belief_network(sizes=(3, 2), hidden=(), variable=Bits, likelihood=BernoulliLikelihood) -> VAE:
    model = SigmoidBeliefNetwork(sizes, likelihood((PIXELS,)), hidden, variable=variable())
    vae = VAE(model, BernoulliLayers((PIXELS,), sizes, hidden, variable=variable()))
    return spread(vae)


def categorical_vae(num_variables=2, num_classes=3, learn_prior=True, variable=OneHot) -> VAE:
    likelihood = BernoulliLikelihood((PIXELS,))
    decoder = DenseDecoder(num_variables * num_classes, likelihood.raw_shape, ())
    options = {"learn_prior": learn_prior, "variable": variable()}
    model = CategoricalVAE(num_variables, num_classes, decoder, likelihood, **options)
    encoder = DenseEncoder((PIXELS,), (5,))
    return spread(VAE(model, AmortizedCategorical(encoder, num_variables, num_classes, variable=variable())))


def spread(vae: VAE) -> VAE:
    """Weights that make the latents matter, and differ from each other."""
    for parameter in vae.parameters():
        parameter.data = 0.6 * torch.randn_like(parameter)
    return vae


def binary(size: int) -> torch.Tensor:
    """All binary vectors, `[2 ** size, size]`."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)))


def bernoulli(value, logits):
    return -(torch.log1p(torch.exp(-logits)) * value + torch.log1p(torch.exp(logits)) * (1 - value))


def linear(layer, value):
    return value @ layer.weight.T + layer.bias


def exact_joint(vae: VAE, x, mask=None):
    """log p(x, z) `[Z, B]` for all states of a linear belief network of any depth, and those states by site."""
    sizes = [layer.out_features for layer in vae.guide.upward]
    states = binary(sum(sizes)).split(sizes, 1)
    joint = bernoulli(states[-1], vae.model.top_logits).sum(1)
    for below, above, net in zip(states[-2::-1], states[:0:-1], list(vae.model.downward)[::-1], strict=True):
        joint = joint + bernoulli(below, linear(net.layers[0], above)).sum(1)
    pixels = bernoulli(x, linear(vae.model.decoder.net.layers[0], states[0])[:, None])
    shown = torch.ones_like(x) if mask is None else mask.float()
    names = vae.model.names
    return joint[:, None] + (pixels * shown).sum(2), dict(zip(names, states, strict=True))


def exact_categorical_joint(vae: VAE, x):
    variables, classes = vae.guide.head.shape
    index = torch.tensor(list(itertools.product(range(classes), repeat=variables)))
    prior = vae.model.prior_logits.log_softmax(1)
    log_prior = torch.stack([sum(prior[v, i[v]] for v in range(variables)) for i in index])
    states = torch.eye(classes)[index]
    pixels = bernoulli(x, linear(vae.model.decoder.net.layers[0], states.reshape(len(index), -1))[:, None])
    return log_prior[:, None] + pixels.sum(2), states


SIZES = [(3,), (3, 2), (2, 3, 2)]


def tiny_dataset(kind="binary", rows=64) -> Dataset:
    x = data.load("digits", binarize="static").train.x[:rows, :, 2:6, 2:6]
    x = x if kind == "binary" else x - 0.5
    return Dataset("tiny", Rows(x), Rows(x[:8]), Rows(x[:8]), kind)
