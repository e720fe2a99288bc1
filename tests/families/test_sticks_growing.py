"""Adding sticks to a trained pair, and the numbers that say when they are needed."""

import pytest
import torch
from pairs import SHAPE, pictures, same_weights, weights_of
from pyro.infer import TraceMeanField_ELBO
from stick_pairs import HYPER, every_guide, sticks_pair, train_by_svi, weights_pair
from torch import nn

from pyrovae import VAE
from pyrovae.data import Dataset, Rows
from pyrovae.guides import KumaraswamySticks
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.metrics import active_units, stick_weights
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder
from pyrovae.runs import add_sticks, fit_growing, needs_sticks
from pyrovae.training import Trainer


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("kind", ["kumaraswamy", "beta"])
def test_added_sticks_change_nothing(kind, learn, count):
    vae, x = sticks_pair(kind, truncation=4, learn_concentration=learn), pictures(6)
    train_by_svi(vae, TraceMeanField_ELBO(), x, 60, lr=0.03)
    grown = add_sticks(vae, count)
    assert isinstance(grown.model.prior.log_concentration, nn.Parameter) == learn
    assert grown.model.prior.concentration == vae.model.prior.concentration
    old, new = vae.encode(x), grown.encode(x)
    assert new.event_shape == (3 + count,)
    # The divergence is the same, datum by datum, and the new sticks add none.
    torch.testing.assert_close(grown(x).kl, vae(x).kl, rtol=1e-4, atol=1e-4)
    # So is every log weight, wherever the remainder is broken.
    z = old.sample()
    longer = torch.cat([z, torch.rand(6, count).clamp(0.01, 0.99)], -1)
    torch.testing.assert_close(grown.decode(longer).log_prob(x), vae.decode(z).log_prob(x), rtol=1e-5, atol=1e-4)
    before = vae.model.prior().log_prob(z) - old.log_prob(z)
    torch.testing.assert_close(
        grown.model.prior().log_prob(longer) - new.log_prob(longer), before, rtol=1e-4, atol=1e-4
    )
    one, other = (pair.log_likelihood(x, 2000, return_details=True) for pair in (vae, grown))
    errors = (one.standard_error**2 + other.standard_error**2).sqrt()
    assert ((one.value - other.value).abs() < 5 * errors + 1e-3).all()


def test_added_sticks_are_trained():
    vae, x = sticks_pair(truncation=2, concentration=1.0), pictures(12)
    train_by_svi(vae, TraceMeanField_ELBO(), x, 40)
    before = weights_of(vae)
    grown = add_sticks(vae, 3)
    losses = train_by_svi(grown, TraceMeanField_ELBO(), x, 100, lr=0.03)
    assert sum(losses[-5:]) < sum(losses[:5])
    columns = grown.model.decoder.net.layers[0].weight[:, 1:]
    assert (columns[:, :1] - columns[:, 1:]).abs().max() > 1e-3  # the copies go their own ways
    assert same_weights(before, weights_of(vae))


def test_need_for_sticks():
    vae, x = sticks_pair(truncation=4, concentration=5.0), pictures(8)
    remainder = stick_weights(vae, x)[:, -1].mean().item()
    assert 0.1 < remainder < 0.9
    assert needs_sticks(vae, x)
    assert not needs_sticks(vae, x, remainder=0.99)
    assert not needs_sticks(add_sticks(vae, 60), x)
    with pytest.raises(ValueError, match="share of the stick between 0 and 1, got 2"):
        needs_sticks(vae, x, remainder=2)
    with pytest.raises(ValueError, match="divergence must not be negative, got -1"):
        needs_sticks(vae, x, divergence=-1.0)


@every_guide
def test_a_last_stick_at_the_prior_needs_no_more(kind):
    vae, x = sticks_pair(kind, truncation=4, concentration=1.0), pictures(8)
    with torch.no_grad():
        vae.guide.head.linear.weight.mul_(10)
    state = torch.get_rng_state()
    assert needs_sticks(vae, x)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        vae.guide.head.linear.weight.reshape(2, 3, 8)[:, -1] = 0.0
    expected = kind in ("gamma", "logit-normal")  # whose fractions are only close to the prior
    assert needs_sticks(vae, x, divergence=1e-3) == expected
    assert not needs_sticks(vae, x, divergence=1.0)


def test_growing(tmp_path):
    x = pictures(40)
    dataset = Dataset("some", Rows(x[:30]), Rows(x[30:]), Rows(x[30:]), "binary")
    trainer = Trainer(objective="mean-field", epochs=3, batch_size=10, lr=1e-2, progress=False)
    vae = fit_growing(trainer, sticks_pair(truncation=3), dataset, count=2, most=6, run=tmp_path)
    assert vae.model.prior.num_features == 5  # 7 would be too many
    assert vae.model.prior.gain == sticks_pair(truncation=3).model.prior.gain
    assert not vae.training
    again = sticks_pair(truncation=3)
    history = (tmp_path / "5-weights" / "metrics.csv").read_text()
    assert same_weights(
        weights_of(fit_growing(trainer, again, dataset, count=2, most=6, run=tmp_path)), weights_of(vae)
    )
    assert (tmp_path / "5-weights" / "metrics.csv").read_text() == history
    enough = fit_growing(trainer, sticks_pair(truncation=40), dataset)
    assert enough.model.prior.num_features == 40
    with pytest.raises(ValueError, match="at the prior exactly; got StickBreakingVAE and GammaHead"):
        fit_growing(trainer, sticks_pair("gamma"), dataset)
    with pytest.raises(ValueError, match="seen on validation rows, and there are none"):
        fit_growing(trainer, sticks_pair(), Dataset("some", Rows(x), Rows(x[:0]), Rows(x), "binary"))


def test_active_units_are_counted_in_units_of_the_prior():
    """Two fractions follow the data over a small part of the prior's spread, and one over none of it."""
    vae, x = sticks_pair("beta", truncation=4, concentration=50.0), pictures(20)
    with torch.no_grad():
        vae.guide.head.linear.weight.mul_(3).reshape(2, 3, 8)[:, -1] = 0.0
        means = vae.encode(x).mean
    count, variances = active_units(vae, x)
    assert count == 2
    prior = torch.distributions.Beta(1.0, 50.0)
    torch.testing.assert_close(variances, means.var(0, correction=0) / prior.variance)
    assert means.var(0).max() < 1e-2  # the threshold of standard normal latents


@every_guide
def test_mean_weights_are_those_of_draws(kind):
    vae, x = sticks_pair(kind, truncation=4), pictures(3)
    state = torch.get_rng_state()
    weights = stick_weights(vae, x)
    assert torch.equal(torch.get_rng_state(), state)
    drawn = vae.model.prior.features(vae.encode(x).sample((40_000,))).mean(0)
    torch.testing.assert_close(weights, drawn.detach(), atol=0.01, rtol=0)


def test_decoders_that_take_more_sticks():
    likelihood, x = BernoulliLikelihood(SHAPE), pictures(4)
    for decoder in (
        ConvDecoder(4, SHAPE, (3, 4), 16),
        DenseDecoder(4, SHAPE, (8,), layer="gated"),
        DenseDecoder(4, SHAPE, (8, 8), layer="residual"),
        DenseDecoder(4, SHAPE, ()),
    ):
        guide = KumaraswamySticks(ConvEncoder(SHAPE, (3, 4), 16), 4, 5.0)
        vae = VAE(StickBreakingVAE(4, 5.0, decoder, likelihood), guide)
        grown = add_sticks(vae, 2)
        grown(x).nll.sum().backward()
        z = torch.rand(2, 5).clamp(0.01, 0.99)
        torch.testing.assert_close(grown.decode(z).mean, vae.decode(z[:, :3]).mean)


class Squared(nn.Module):
    """A decoder that is not linear in the weights."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 64)

    def forward(self, weights):
        return self.net(weights**2).unflatten(-1, SHAPE)


@pytest.mark.parametrize(
    ("make", "count", "message"),
    [
        (sticks_pair, 0, "count must be at least 1, got 0"),
        (lambda: sticks_pair("gamma"), 1, "at the prior exactly; got StickBreakingVAE and GammaHead"),
        (lambda: sticks_pair(**HYPER), 1, "fix or learn the concentration"),
        (lambda: sticks_pair(hidden=(4, 4), net={"layer": "residual"}), 1, "an identity skip"),
        (lambda: weights_pair(4, 5.0, None), 1, "does not begin with a linear layer on the 4 weights"),
        (lambda: _with_decoder(Squared()), 1, "more than a linear layer from the weights"),
    ],
)
def test_sticks_that_cannot_be_added(make, count, message):
    with pytest.raises(ValueError, match=message):
        add_sticks(make(), count)


def _with_decoder(decoder):
    vae = sticks_pair()
    vae.model.decoder = decoder
    return vae
