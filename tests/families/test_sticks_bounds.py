"""The stick-breaking VAE: its prior, bounds against quadrature, and its sites."""

import math

import pyro.distributions as dist
import pytest
import torch
from pairs import SHAPE, pictures
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from stick_pairs import every_guide, sticks_pair
from torch import nn

from pyrovae.guides import ConcentrationPosterior, KumaraswamySticks
from pyrovae.infer import log_weights
from pyrovae.nn import DenseEncoder
from pyrovae.priors import StickBreakingPrior

# -- the prior --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn", [False, True])
def test_prior(learn):
    prior = StickBreakingPrior(4, 3.0, learn=learn)
    z = torch.rand(5, 3)
    expected = (math.log(3.0) + 2.0 * torch.log1p(-z)).sum(-1)
    torch.testing.assert_close(prior().log_prob(z), expected)
    torch.testing.assert_close(prior(torch.tensor([[1.0], [3.0]])).log_prob(z)[1], expected)
    torch.testing.assert_close(prior(torch.tensor([[1.0], [3.0]])).log_prob(z)[0], torch.zeros(5), atol=1e-6, rtol=0)
    assert (prior.latent_dim, prior.num_features, len(list(prior.parameters()))) == (3, 4, learn)
    v1, v2, v3 = z.unbind(-1)
    weights = [v1, (1 - v1) * v2, (1 - v1) * (1 - v2) * v3, (1 - v1) * (1 - v2) * (1 - v3)]
    torch.testing.assert_close(prior.features(z), torch.stack(weights, -1))
    assert prior.double()().sample().dtype == torch.float64


@pytest.mark.parametrize("fraction", [0.0, 1e-45, 1e-30, 0.5, 1 - 2**-24, 1.0])
def test_weights_of_extreme_fractions(fraction):
    z = torch.full((2, 999), fraction, requires_grad=True)
    weights = StickBreakingPrior(1000).features(z)
    weights[:, 5].sum().backward()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StickBreakingPrior(1), "truncation is the number of weights and must be at least 2, got 1"),
        (lambda: StickBreakingPrior(3, 0.0), "concentration must be a positive number, got 0"),
        (lambda: sticks_pair(concentration=dist.Gamma(1.0, 1.0), learn_concentration=True), "leave out learn_con"),
        (lambda: sticks_pair(num_data=0), "num_data must be at least 1, got 0"),
        (lambda: ConcentrationPosterior(-1.0), "initial and spread must be positive, got -1"),
        (lambda: KumaraswamySticks(DenseEncoder(SHAPE), 1), "must be at least 2, got 1"),
        (lambda: KumaraswamySticks(DenseEncoder(SHAPE), 4, -2.0), "concentration must be a positive number, got -2"),
        (lambda: KumaraswamySticks(DenseEncoder(SHAPE), 4, 2000.0), "must be between 0.01 and 1000.0, got 2000"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- bounds against quadrature ----------------------------------------------------------------------------------------


def grid(concentration):
    """Points of the unit square, even in the logits, with the logarithms of their volumes and of the prior density."""
    logits = torch.linspace(-25.0, 25.0, 600, dtype=torch.float64)
    points = torch.sigmoid(logits)
    log_width = (torch.log(points) + torch.log1p(-points) + (logits[1] - logits[0]).log()).expand(2, -1)
    v = torch.cartesian_prod(points, points)
    return v, torch.cartesian_prod(*log_width).sum(-1), torch.distributions.Beta(1.0, concentration).log_prob(v).sum(-1)


def log_likelihood_at(vae, v, x):
    """log p(x | v) of one datum by the definition of weights, for fractions `[N, 2]`."""
    v1, v2 = v.unbind(-1)
    weights = torch.stack([v1, (1 - v1) * v2, (1 - v1) * (1 - v2)], -1)
    logits = vae.model.decoder(vae.model.prior.gain * weights)
    return -nn.functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum((1, 2, 3))


@every_guide
@torch.no_grad()
def test_bound_and_evidence_are_those_of_quadrature(kind):
    vae = sticks_pair(kind, truncation=3, concentration=2.0).double()
    vae.guide.head.linear.weight.mul_(2)
    x = pictures(1).double()
    v, log_volume, log_prior = grid(2.0)
    log_joint = log_likelihood_at(vae, v, x) + log_prior
    evidence = (log_joint + log_volume).logsumexp(0).item()
    log_q = vae.encode(x).log_prob(v)
    mass = (log_q + log_volume).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=2e-3)  # one of the densities has a kink
    bound = (mass * (log_joint - log_q)).sum().item() / mass.sum().item()
    assert bound < evidence - 0.01

    copies = x.expand(20_000, *SHAPE)
    weights = log_weights(vae.model, vae.guide, 1, copies).log_weight[0]
    assert abs(weights.mean() - bound) < 5 * weights.std() / 20_000**0.5 + 5e-3
    for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
        assert -objective.loss(vae.model, vae.guide, copies) / 20_000 == pytest.approx(bound, abs=0.05)
    assert vae.log_likelihood(x, 20_000).item() == pytest.approx(evidence, abs=0.02)


@pytest.mark.parametrize("kind", ["kumaraswamy", "beta"])
def test_exact_divergence_has_the_gradient_of_the_sampled_one(kind):
    """Mean-field and sampled ELBO estimate one number with one gradient."""
    vae, x = sticks_pair(kind).double(), pictures(2).double().repeat(4000, 1, 1, 1)
    weight = vae.guide.head.linear.weight
    with torch.no_grad():
        weight.mul_(2)
    gradients = []
    for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
        objective.loss_and_grads(vae.model, vae.guide, x)
        gradients.append(weight.grad.clone() / len(x))
        weight.grad = None
    sampled, exact = gradients
    assert exact.norm() > 0.1
    assert (sampled - exact).norm() < 0.1 * exact.norm()


# -- the sites --------------------------------------------------------------------------------------------------------


def test_weights_are_recorded_and_masks_count():
    vae, x = sticks_pair(truncation=6), pictures(3)
    trace = poutine.trace(vae.model).get_trace(x)
    weights = trace.nodes["weights"]["value"]
    assert trace.nodes["z"]["value"].shape == (3, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    torch.testing.assert_close(weights, vae.model.prior.features(trace.nodes["z"]["value"]))
    mask = torch.zeros_like(x, dtype=torch.bool)
    nothing_seen = vae.log_likelihood(x, 500, mask=mask)
    torch.testing.assert_close(nothing_seen, torch.zeros(3), atol=0.1, rtol=0)
    missing = torch.where(mask, x, math.nan)
    assert torch.equal(vae(missing, mask=mask).nll, torch.zeros(3))


def test_methods_of_the_vae():
    vae, x = sticks_pair(), pictures(5)
    assert vae.sample(3).shape == (3, *SHAPE)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.decode(torch.rand(2, 3)).mean.shape == (2, *SHAPE)
    assert vae.sites.latent == ("z",)
    assert vae.sites.shared == ()
