"""Small stick-breaking pairs with every guide, and their training in stock Pyro."""

import pyro
import pyro.distributions as dist
import pytest
from pairs import SHAPE
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyrovae import VAE
from pyrovae.guides import BetaSticks, ConcentrationPosterior, GammaSticks, KumaraswamySticks, LogitNormalSticks
from pyrovae.infer import IWAE
from pyrovae.likelihoods import BernoulliLikelihood, NormalLikelihood
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import DenseDecoder, DenseEncoder

GUIDES = {
    "kumaraswamy": KumaraswamySticks,
    "logit-normal": LogitNormalSticks,
    "gamma": GammaSticks,
    "beta": BetaSticks,
}
OBJECTIVES = {
    "trace": Trace_ELBO,
    "mean-field": TraceMeanField_ELBO,
    "iwae": lambda: IWAE(num_particles=3),
    "particles": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
}
every_guide = pytest.mark.parametrize("kind", GUIDES)


def sticks_pair(kind="kumaraswamy", truncation=4, concentration=5.0, hidden=(8,), num_data=None, **options) -> VAE:
    """A small pair; a Gamma as concentration is a hyperprior."""
    likelihood = BernoulliLikelihood(SHAPE)
    decoder = DenseDecoder(truncation, likelihood.raw_shape, hidden, **options.pop("net", {}))
    model = StickBreakingVAE(truncation, concentration, decoder, likelihood, num_data=num_data, **options)
    inferred = isinstance(concentration, dist.Gamma)
    initial = ConcentrationPosterior(1.0) if inferred else concentration
    return VAE(model, GUIDES[kind](DenseEncoder(SHAPE, (8,)), truncation, initial, num_data=num_data))


def train_by_svi(vae, objective, x, steps, lr=1e-2):
    pyro.clear_param_store()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": lr}), objective)
    return [svi.step(x) for _ in range(steps)]


class Flat(nn.Module):
    """A decoder that hands the weights on."""

    def forward(self, weights):
        return weights


def weights_pair(truncation, concentration, num_data, **options) -> VAE:
    """Data are the weights of a stick, seen with little noise."""
    likelihood = NormalLikelihood((truncation,), scale=0.03)
    model = StickBreakingVAE(truncation, concentration, Flat(), likelihood, num_data=num_data, gain=1.0, **options)
    initial = ConcentrationPosterior(2.0) if isinstance(concentration, dist.Gamma) else concentration
    encoder = DenseEncoder((truncation,), (32,))
    return VAE(model, KumaraswamySticks(encoder, truncation, initial, num_data=num_data))


HYPER = {"concentration": dist.Gamma(2.0, 1.0), "num_data": 24}
