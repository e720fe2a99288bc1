"""The concentration of the sticks: fixed, learned and inferred as a global site."""

import logging
import math

import pyro.distributions as dist
import pytest
import torch
from pairs import pictures
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from stick_pairs import HYPER, sticks_pair, weights_pair

from pyrovae.infer import IWAE, log_weights
from pyrovae.priors import StickBreakingPrior
from pyrovae.training import Trainer


@pytest.mark.parametrize("true", [0.7, 8.0])
@pytest.mark.parametrize("inferred", [True, False])
def test_concentration_is_found(true, inferred):
    prior = StickBreakingPrior(8, true)
    x = prior.features(prior().sample((300,)))
    x = x + 0.03 * torch.randn_like(x)
    options = {} if inferred else {"learn_concentration": True}
    vae = weights_pair(8, dist.Gamma(1.0, 0.5) if inferred else 2.0, 300, **options)
    trainer = Trainer(objective="mean-field", lr=0.02, lr_schedule="cosine", epochs=60, batch_size=50, progress=False)
    trainer.fit(vae, x)
    if not inferred:
        found = vae.model.prior.concentration.item()
    else:
        posterior = vae.guide.shared["concentration"]()
        found = posterior.mean.item()
        assert posterior.stddev < 0.2 * found
    assert 0.6 * true < found < 1.5 * true


def test_a_minibatch_counts_the_global_site_in_part():
    """The losses of minibatches sum to that of all data, up to the draws of the concentration, a nat or so."""
    vae, x = sticks_pair(**HYPER).double(), pictures(24).double()
    with torch.no_grad():
        vae.model.decoder.net.layers[-1].weight.zero_()
        vae.guide.shared["concentration"].log_scale.fill_(-20.0)
    whole = TraceMeanField_ELBO().loss(vae.model, vae.guide, x)
    parts = sum(TraceMeanField_ELBO().loss(vae.model, vae.guide, part) for part in x.split(5))
    assert parts == pytest.approx(whole, abs=5)
    vae.model.num_data = vae.guide.num_training_rows = None
    uncounted = sum(TraceMeanField_ELBO().loss(vae.model, vae.guide, part) for part in x.split(5))
    q, p = vae.guide.shared["concentration"](), vae.model.hyperprior()
    draws = q.sample((1000,))
    kl = (q.log_prob(draws) - p.log_prob(draws)).mean().item()
    assert kl > 15
    assert uncounted - whole == pytest.approx(4 * kl, abs=10)


def test_global_site_is_at_its_posterior_mean(caplog):
    vae, x = sticks_pair(**HYPER), pictures(4)
    with torch.no_grad():
        vae.guide.shared["concentration"].loc.fill_(math.log(7.0))
    mean = vae.guide.shared["concentration"]().mean.detach()
    with caplog.at_level(logging.INFO, logger="pyrovae"):
        torch.manual_seed(3)
        by_default = vae.log_likelihood(x, 20)
        vae.log_likelihood(x, 20)
    assert [r.message for r in caplog.records if "global latents" in r.message] == [
        f"global latents are fixed at their posterior means: concentration = {mean.item()}; "
        "condition= chooses other values"
    ]
    torch.manual_seed(3)
    assert torch.equal(vae.log_likelihood(x, 20, condition={"concentration": mean}), by_default)
    torch.manual_seed(3)
    other = vae.log_likelihood(x, 20, condition={"concentration": torch.tensor(0.5)})
    assert (other - by_default).abs().min() > 0.01
    weights = log_weights(vae.model, vae.guide, 3, x)
    assert weights.log_weight.shape == (3, 4)
    assert vae.sites.latent == ("z",)
    assert vae.sites.shared == ("concentration",)
    assert vae.encode(x).event_shape == (3,)
    assert vae(x).kl.shape == (4,)


def test_global_site_at_its_mean_is_the_fixed_prior():
    """The log weight is that of a model whose concentration is fixed there."""
    vae, fixed, x = sticks_pair(**HYPER), sticks_pair(concentration=3.0), pictures(4)
    state = {**fixed.state_dict(), **{n: v for n, v in vae.state_dict().items() if n in fixed.state_dict()}}
    fixed.load_state_dict(state)
    estimates = []
    for pair, options in ((vae, {"condition": {"concentration": torch.tensor(3.0)}}), (fixed, {})):
        torch.manual_seed(0)
        estimates.append(pair.log_likelihood(x, 30, **options))
    torch.testing.assert_close(*estimates)


def test_samples_are_drawn_at_the_posterior_mean_of_the_concentration():
    vae = weights_pair(8, dist.Gamma(1.0, 1.0), 10)
    with torch.no_grad():
        vae.guide.shared["concentration"].loc.fill_(math.log(40.0))
    assert vae.sample(2000, "mean")[:, 0].mean().item() == pytest.approx(1 / 41, rel=0.1)


def test_objectives_of_log_weights_draw_the_concentration_once():
    vae = sticks_pair(**HYPER)
    for rows in (1, 4):
        x = pictures(rows)
        torch.manual_seed(0)
        expected = Trace_ELBO().loss(vae.model, vae.guide, x)
        torch.manual_seed(0)
        assert IWAE(num_particles=1).loss(vae.model, vae.guide, x) == pytest.approx(expected, rel=1e-5)
        with pytest.raises(ValueError, match=r"latent site 'concentration' lies outside the plate.*'iwae'"):
            IWAE(num_particles=3, gradient="dreg").loss(vae.model, vae.guide, x)
