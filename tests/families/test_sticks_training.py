"""The stick-breaking VAE in training: stock Pyro, long sticks, ranges of parameters, the registered pair."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import pictures
from stick_pairs import GUIDES, OBJECTIVES, every_guide, sticks_pair, train_by_svi

from pyrovae.data import Dataset, Rows
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer

# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@every_guide
def test_stock_svi(kind, objective):
    vae, x = sticks_pair(kind, truncation=3), pictures(24)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    losses = train_by_svi(vae, OBJECTIVES[objective](), x, 25)
    assert sum(losses[-5:]) < sum(losses[:5])
    assert [name for name, p in vae.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("objective", ["trace", "mean-field", "particles"])
@pytest.mark.parametrize("concentration", ["learned", "inferred"])
def test_stock_svi_with_a_concentration(concentration, objective):
    options = {
        "learned": {"learn_concentration": True},
        "inferred": {"concentration": dist.Gamma(2.0, 1.0), "num_data": 24},
    }
    vae, x = sticks_pair(**options[concentration]), pictures(24)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    losses = train_by_svi(vae, OBJECTIVES[objective](), x, 25)
    assert sum(losses[-5:]) < sum(losses[:5])
    assert [name for name, p in vae.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("objective", ["trace", "mean-field", "iwae"])
@every_guide
def test_long_sticks(kind, objective):
    vae, x = sticks_pair(kind, truncation=1000), pictures(4)
    losses = train_by_svi(vae, OBJECTIVES[objective](), x, 4)
    assert all(map(math.isfinite, losses))
    assert all(p.isfinite().all() for p in vae.parameters())
    assert vae.log_likelihood(x, 5).isfinite().all()


@pytest.mark.parametrize(("kind", "objective"), [*((kind, "trace") for kind in GUIDES), ("kumaraswamy", "mean-field")])
def test_long_training_of_few_data(kind, objective):
    """500 epochs at a large learning rate: nothing diverges, and the data are learnt."""
    vae, x = sticks_pair(kind, truncation=3), pictures(6)
    with pyro.validation_enabled(False):
        losses = train_by_svi(vae, OBJECTIVES[objective](), x, 500)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.7 * losses[0]
    assert vae.log_likelihood(x, 50).isfinite().all()


@every_guide
def test_range_of_parameters(kind):
    """Whatever the features, draws, scores and bounds are finite, with finite gradients."""
    vae = sticks_pair(kind, truncation=5)
    head = vae.guide.head
    features = torch.cat([1e4 * torch.randn(200, 8), torch.zeros(1, 8)]).requires_grad_()
    q = head(features)
    z = q.rsample()
    prior = vae.model.prior().expand([201])
    (vae.model.prior.features(z)[:, 0] + prior.log_prob(z) - q.log_prob(z)).sum().backward()
    assert ((z > 0) & (z < 1)).all()
    assert features.grad.isfinite().all()
    if kind in ("kumaraswamy", "beta"):
        divergence = dist.kl.kl_divergence(q, prior)
        assert divergence.isfinite().all()
        assert divergence.min() > -1e-3


@every_guide
def test_guide_starts_at_the_prior(kind):
    with torch.no_grad():
        q = sticks_pair(kind, concentration=5.0).guide.head(torch.zeros(8)).base_dist
        draws, prior = (d.sample((20_000,)).logit() for d in (q, dist.Beta(1.0, torch.tensor(5.0)).expand([3])))
    assert (draws.mean(0) - prior.mean(0)).abs().max() < (0.5 if kind == "gamma" else 0.1)
    if kind in ("kumaraswamy", "beta"):
        torch.testing.assert_close(q.concentration1, torch.ones(3), rtol=1e-5, atol=0)
        torch.testing.assert_close(q.concentration0, torch.full((3,), 5.0), rtol=1e-5, atol=0)


# -- the registered pair ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concentration_is", ["fixed", "learned", "inferred"])
@every_guide
def test_builder(kind, concentration_is):
    split = Rows(pictures(6), torch.arange(6) % 2)
    dataset = Dataset("tiny", split, split, split, "binary")
    options = {"truncation": 4, "hidden": (8,), "posterior": kind, "concentration_is": concentration_is}
    vae = find_pair("stick-breaking").build(dataset, **options, concentration=3.0)
    history = Trainer(epochs=1, batch_size=3, objective="mean-field", progress=False).fit(vae, dataset)
    assert math.isfinite(history.rows[-1]["validation_loss"])
    assert vae.log_likelihood(split.x, 5).isfinite().all()
    model = vae.model
    found = model.prior.concentration if model.hyperprior is None else model.hyperprior().mean
    assert found.item() == pytest.approx(3.0, rel=0.01)
    for wrong in ({"posterior": "delta"}, {"concentration_is": "guessed"}):
        with pytest.raises(ValueError, match="must be"):
            find_pair("stick-breaking").build(dataset, **{**options, **wrong})
