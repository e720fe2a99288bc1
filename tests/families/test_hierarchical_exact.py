"""Layers of Gaussian latents against closed forms: linear pairs whose evidence is known."""

import math
from itertools import pairwise

import pytest
import torch
from pairs import same_weights, weights_of
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from pyrovae import VAE, metrics
from pyrovae.data import Rows
from pyrovae.guides import HierarchicalGaussian
from pyrovae.infer import IWAE
from pyrovae.likelihoods import NormalLikelihood
from pyrovae.models import HierarchicalVAE
from pyrovae.nn import DenseDecoder, FlatEncoder, GaussianLayer
from pyrovae.priors import StandardNormal

NOISE = 0.5  # of the data
SCALE = 0.7  # of a layer given the one above


def affine(layer: GaussianLayer, weight, offset, scale) -> GaussianLayer:
    """Make the mean of a layer affine and its scale constant."""
    linear = layer.double().head.linear
    size = linear.out_features // 2
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[:size] = torch.as_tensor(weight)
        linear.bias[:size] = torch.as_tensor(offset)
        linear.bias[size:] = torch.as_tensor(scale - layer.head.min_scale).expm1().log()
    return layer


def linear_pair(dims, loadings, offsets, weight, upward) -> VAE:
    """A linear hierarchy: `loadings[i]` and `offsets[i]` lead from layer i + 2 to layer i + 1, `weight` to the data."""
    downward = [
        affine(GaussianLayer(above, (), below), loading, offset, torch.full((below,), SCALE, dtype=torch.float64))
        for (below, above), loading, offset in zip(pairwise(dims), loadings, offsets, strict=True)
    ]
    decoder = DenseDecoder(dims[0], (len(weight),), ()).double()
    with torch.no_grad():
        decoder.net.layers[-1].weight.copy_(weight)
        decoder.net.layers[-1].bias.zero_()
    model = HierarchicalVAE(StandardNormal(dims[-1]), downward, decoder, NormalLikelihood((len(weight),), scale=NOISE))
    return VAE(model, HierarchicalGaussian(FlatEncoder((len(weight),)), upward)).double()


def evidence(vae: VAE, x, size=5):
    """log p of the first entries of each row under a linear hierarchy, from the moments of its layers."""
    top = vae.model.prior.latent_dim
    mean, covariance = torch.zeros(top).double(), torch.eye(top).double()
    for layer in list(vae.model.downward)[::-1]:
        loading, _ = layer.head.linear.weight.chunk(2)
        mean = loading @ mean + layer.head.linear.bias.chunk(2)[0]
        covariance = loading @ covariance @ loading.T + SCALE**2 * torch.eye(len(loading)).double()
    last = vae.model.decoder.net.layers[-1]
    mean = last.weight @ mean + last.bias
    covariance = last.weight @ covariance @ last.weight.T + NOISE**2 * torch.eye(len(last.weight)).double()
    return MultivariateNormal(mean[:size], covariance[:size, :size]).log_prob(x[:, :size]).detach()


def exact_pair(num_layers=2, dead=False, reached=5) -> VAE:
    """Diagonal loadings and orthogonal weights, so that the exact posterior is a chain of diagonal Gaussians.

    Args:
        num_layers: how many, each of size 2.
        dead: the second unit of every layer above the first has nothing to do with the layer below.
        reached: how many of the 5 entries of the data depend on the latents.
    """
    loadings = [torch.diag(torch.tensor([1.2 + i, 0.0 if dead else -0.8])).double() for i in range(num_layers - 1)]
    offsets = [torch.tensor([0.5, -1.0]).double() for _ in loadings]
    weight = torch.zeros(5, 2, dtype=torch.float64)
    weight[:reached] = torch.linalg.qr(torch.randn(reached, 2, dtype=torch.float64))[0] * torch.tensor([1.5, 0.7])
    means, variances = [torch.zeros(2).double()], [torch.ones(2).double()]
    for loading, offset in zip(loadings[::-1], offsets[::-1], strict=True):
        means.insert(0, loading.diagonal() * means[0] + offset)
        variances.insert(0, loading.diagonal() ** 2 * variances[0] + SCALE**2)
    precision = 1 / variances[0] + weight.square().sum(0) / NOISE**2
    upward = [
        affine(
            GaussianLayer(5, (), 2),
            weight.T / (NOISE**2 * precision[:, None]),
            means[0] / (variances[0] * precision),
            precision**-0.5,
        )
    ]
    for loading, offset, mean, variance in zip(loadings, offsets, means[1:], variances[1:], strict=True):
        slope = loading.diagonal() / SCALE**2
        precision = 1 / variance + loading.diagonal() * slope
        level = (mean / variance - slope * offset) / precision
        upward.append(affine(GaussianLayer(2, (), 2), torch.diag(slope / precision), level, precision**-0.5))
    return linear_pair((2,) * num_layers, loadings, offsets, weight, upward)


def full_pair() -> VAE:
    """Loadings without zeros, which a diagonal guide cannot match, and a guide that knows nothing yet."""
    loading, weight = 0.5 * torch.randn(3, 2).double(), 0.25 * torch.randn(5, 3).double()
    upward = [GaussianLayer(5, (), 3), GaussianLayer(3, (), 2)]
    return linear_pair((3, 2), [loading], [torch.randn(3).double()], weight, upward)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_exact_guide_gives_the_evidence_with_one_sample(num_layers):
    vae = exact_pair(num_layers)
    x = vae.sample(7)
    torch.testing.assert_close(vae.log_likelihood(x, 1), evidence(vae, x), rtol=0, atol=1e-8)
    loss = Trace_ELBO().loss(vae.model, vae.guide, x)
    assert loss == pytest.approx(-float(evidence(vae, x).sum()), abs=1e-7)


def test_evidence_after_training_the_guide():
    vae = full_pair()
    x = vae.sample(200)
    before = weights_of(vae.model)
    optimizer = torch.optim.Adam(vae.guide.parameters(), 0.03)
    objective = Trace_ELBO()
    for _ in range(150):
        optimizer.zero_grad()
        objective.differentiable_loss(vae.model, vae.guide, x).backward()
        optimizer.step()
    assert same_weights(before, weights_of(vae.model))
    exact = evidence(vae, x).mean()
    assert abs(float(vae.log_likelihood(x, 1000).mean() - exact)) < 0.05
    with torch.no_grad():
        forward = vae(x.repeat(20, 1))
    # The diagonal guide keeps a gap, so that it is the importance weights that reach the evidence.
    assert 0.2 < float(exact + (forward.nll + forward.kl).mean()) < 1


def test_missing_entries():
    """Two entries that say nothing of the latents: without them the guide is still exact, and they count no more."""
    vae = exact_pair(3, reached=3)
    x = vae.sample(6)
    torch.testing.assert_close(vae.log_likelihood(x, 1), evidence(vae, x))
    mask = (torch.arange(5) < 3).expand(6, 5)
    found = vae.log_likelihood(torch.where(mask, x, math.nan), 1, mask=mask)
    torch.testing.assert_close(found, evidence(vae, x, 3))


@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
@pytest.mark.parametrize("num_layers", [2, 3])
def test_mean_field_takes_no_closed_form_between_layers(num_layers):
    """What it estimates is the evidence here. The closed form of KL(q(z1|x) || p(z1|z2)) would be off by far."""
    vae = exact_pair(num_layers)
    x, repeats = vae.sample(1), 20_000
    rows = x.expand(repeats, -1)
    with torch.no_grad():
        forward = vae(rows)
        terms = -forward.nll - forward.kl
    exact, error = float(evidence(vae, x)), float(terms.std()) / repeats**0.5
    assert abs(float(terms.mean()) - exact) < 4 * error
    loss = TraceMeanField_ELBO().loss(vae.model, vae.guide, rows) / repeats
    assert abs(-loss - exact) < 4 * error
    posterior = {
        name: Independent(Normal(q.base_dist.loc, q.base_dist.scale), 1) for name, q in vae.posterior(rows).items()
    }
    z2 = posterior["z2"].sample()
    closed = kl_divergence(posterior["z1"], vae.model.downward[0](z2)).mean()
    z1 = posterior["z1"].sample()
    z2 = vae.guide.upward[1](z1).sample()
    drawn = (posterior["z1"].log_prob(z1) - vae.model.downward[0](z2).log_prob(z1)).mean()
    assert closed - drawn > 20 * error


@pytest.mark.parametrize("num_particles", [1, 4])
def test_sticking_the_landing_stands_still_at_the_exact_posterior(num_particles):
    vae = exact_pair(3)
    x = vae.sample(5)

    def gradient_norm(gradient):
        vae.zero_grad()
        IWAE(num_particles, gradient).loss_and_grads(vae.model, vae.guide, x)
        return max(float(p.grad.abs().max()) for p in vae.guide.parameters())

    assert gradient_norm("stl") < 1e-8
    assert gradient_norm("dreg") < 1e-8
    assert gradient_norm("standard") > 1e-3


def test_draws_have_the_moments_of_the_model():
    vae = full_pair()
    x = vae.sample(20_000)
    exact = evidence(vae, x)
    # The mean of log p(x) under p is the negative entropy, and its variance D / 2.
    last = vae.model.decoder.net.layers[-1].weight.detach()
    loading = vae.model.downward[0].head.linear.weight[:3].detach()
    covariance = last @ (loading @ loading.T + SCALE**2 * torch.eye(3).double()) @ last.T + NOISE**2 * torch.eye(5)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance)
    assert abs(float(exact.mean() + entropy)) < 4 * (2.5 / 20_000) ** 0.5


def test_active_units_of_each_layer():
    vae = exact_pair(2, dead=True)
    found = metrics.evaluate(vae, Rows(vae.sample(200)), num_samples=1)
    assert (found.active_units, found.latent_dim) == (3, 4)
    assert found.active_units_by_site == {"z1": 2, "z2": 1}
    assert found.to_dict()["active_units_by_site"] == {"z1": 2, "z2": 1}
    single = metrics.evaluate(exact_pair(1), Rows(vae.sample(20)), num_samples=1)
    assert "active_units_by_site" not in single.to_dict()
    # Posterior means on the way up are means of means, which is exact where they are affine.
    x = vae.sample(3)
    means = metrics.latent_means(vae, x)
    z1 = vae.guide.upward[0](x).mean
    torch.testing.assert_close(means, torch.cat([z1, vae.guide.upward[1](z1).mean], 1).detach())
