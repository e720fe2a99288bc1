"""Discrete latents: every tool of VAE against enumeration."""

import math

import pyro
import pytest
import torch
from discrete_pairs import (
    PIXELS,
    SIZES,
    belief_network,
    bernoulli,
    binary,
    categorical_vae,
    exact_categorical_joint,
    exact_joint,
    linear,
)

from pyrovae.guides import BernoulliLayers
from pyrovae.likelihoods import NormalLikelihood
from pyrovae.training import Trainer


@pytest.mark.parametrize("sizes", SIZES)
def test_log_likelihood_of_belief_networks(sizes):
    vae, x = belief_network(sizes), binary(PIXELS)[::3]
    exact = exact_joint(vae, x)[0].logsumexp(0)
    found = vae.log_likelihood(x, 20_000, return_details=True)
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()
    assert (found.standard_error < 0.1).all()


def test_log_likelihood_of_categorical_latents():
    vae, x = categorical_vae(), binary(PIXELS)[::3]
    exact = exact_categorical_joint(vae, x)[0].logsumexp(0)
    found = vae.log_likelihood(x, 20_000, return_details=True)
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()


@pytest.mark.parametrize("sizes", SIZES)
def test_masked_entries_do_not_count(sizes):
    vae, x = belief_network(sizes), binary(PIXELS)[::3]
    mask = torch.rand(x.shape) < 0.6
    exact = exact_joint(vae, x, mask)[0].logsumexp(0)
    found = vae.log_likelihood(torch.where(mask, x, math.nan), 20_000, mask=mask, return_details=True)
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()


@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_samples_have_the_exact_distribution(make):
    vae = make()
    x = binary(PIXELS)
    joint = exact_joint(vae, x)[0] if make is belief_network else exact_categorical_joint(vae, x)[0]
    exact = joint.logsumexp(0).exp().detach()
    assert float(exact.sum()) == pytest.approx(1.0, abs=1e-5)
    code = 2 ** torch.arange(PIXELS).flip(0)
    draws = vae.sample(20_000)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    shares = torch.bincount((draws @ code.float()).long(), minlength=16) / 20_000
    assert ((shares - exact).abs() < 4.5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-4).all()
    means = vae.sample(20_000, output="mean")
    torch.testing.assert_close(means.mean(0), (exact[:, None] * x).sum(0), rtol=0, atol=0.02)


def test_decode_and_reconstruct():
    vae, x = belief_network((3, 2)), binary(PIXELS)
    _, states = exact_joint(vae, x)
    p = vae.decode(states)
    expected = linear(vae.model.decoder.net.layers[0], states["z1"]).sigmoid()
    torch.testing.assert_close(p.mean, expected)
    # Latents that are not given come from the model; z2 does not reach the data but through z1.
    torch.testing.assert_close(vae.decode({"z1": states["z1"]}).mean, expected)
    posterior = linear(vae.guide.upward[0].layers[0], x).sigmoid()
    torch.testing.assert_close(vae.posterior(x)["z1"].mean, posterior)
    q = torch.stack([bernoulli(z, posterior.logit()).sum(1) for z in binary(3)]).exp()
    mean = (q[..., None] * linear(vae.model.decoder.net.layers[0], binary(3)).sigmoid()[:, None]).sum(0)
    found = vae.reconstruct(x.repeat(4000, 1)).unflatten(0, (4000, 16)).mean(0)
    torch.testing.assert_close(found, mean, rtol=0, atol=0.03)


def test_categorical_posterior_and_decoder():
    vae, x = categorical_vae(), binary(PIXELS)
    q = vae.encode(x)
    assert (q.batch_shape, q.event_shape) == ((16,), (2, 3))
    torch.testing.assert_close(q.base_dist.probs.sum(-1), torch.ones(16, 2))
    _, states = exact_categorical_joint(vae, x)
    expected = linear(vae.model.decoder.net.layers[0], states.flatten(1)).sigmoid()
    torch.testing.assert_close(vae.decode(states).mean, expected)
    draw = q.sample()
    assert ((draw == 0) | (draw == 1)).all()
    assert (draw.sum(-1) == 1).all()


@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_training_finds_what_the_data_are_made_of(make):
    """Two pictures, one of them three times as frequent: the best loss is their entropy, and 4 times that without z."""
    x = torch.tensor([[1.0, 1, 0, 0]] * 75 + [[0.0, 0, 1, 1]] * 25)
    vae = make()
    Trainer(objective="vimco", num_particles=5, lr=0.1, epochs=60, batch_size=50, progress=False).fit(vae, x)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy - 0.02 < float(-vae.log_likelihood(x, 1000).mean()) < 2 * entropy


def test_centre_of_the_guide():
    centre = torch.tensor([0.2, 0.4, 0.6, 0.8])
    plain, centred = (BernoulliLayers((PIXELS,), (3,), centre=c) for c in (None, centre))
    centred.upward.load_state_dict(plain.upward.state_dict())
    x, mask = torch.rand(5, PIXELS), torch.rand(5, PIXELS) < 0.5

    def logits(guide, x, **given):
        return pyro.poutine.trace(guide).get_trace(x, **given).nodes["z"]["fn"].base_dist.logits

    torch.testing.assert_close(logits(centred, x + centre), logits(plain, x))
    # A missing entry is one that equals the mean.
    hidden = torch.where(mask, x, math.nan)
    torch.testing.assert_close(logits(centred, hidden, mask=mask), logits(centred, torch.where(mask, x, centre)))


def test_nets_between_layers_have_the_hidden_layers_asked_for():
    vae = belief_network((3, 2), hidden=(7,))
    for nets in (vae.model.downward, vae.guide.upward):
        for net in nets:
            assert [layer.out_features for layer in net.layers[::2]] == [7, net.out_features]
    assert vae.log_likelihood(binary(PIXELS), 10).shape == (16,)
    assert belief_network((3, 2), likelihood=NormalLikelihood).log_likelihood(torch.randn(2, PIXELS), 5).shape == (2,)
