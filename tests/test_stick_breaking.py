"""The stick-breaking VAE: bounds against quadrature, stock Pyro, long sticks, the concentration, added sticks."""

import logging
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import SHAPE, pictures, same_weights, weights_of
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyrovae import VAE
from pyrovae.data import Dataset, Split
from pyrovae.guides import BetaSticks, ConcentrationPosterior, GammaSticks, KumaraswamySticks, LogitNormalSticks
from pyrovae.infer import IWAE, log_weights
from pyrovae.latents import active_units, stick_weights
from pyrovae.likelihoods import BernoulliLikelihood, NormalLikelihood
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import ConvDecoder, ConvEncoder, DenseDecoder, DenseEncoder
from pyrovae.priors import StickBreakingPrior
from pyrovae.registry import find_pair
from pyrovae.sticks import add_sticks, fit_growing, needs_sticks
from pyrovae.training import Trainer

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


# -- the concentration ------------------------------------------------------------------------------------------------


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
        posterior = vae.guide.global_posterior()
        found = posterior.mean.item()
        assert posterior.stddev < 0.2 * found
    assert 0.6 * true < found < 1.5 * true


HYPER = {"concentration": dist.Gamma(2.0, 1.0), "num_data": 24}


def test_a_minibatch_counts_the_global_site_in_part():
    """The losses of minibatches sum to that of all data, up to the draws of the concentration, a nat or so."""
    vae, x = sticks_pair(**HYPER).double(), pictures(24).double()
    with torch.no_grad():
        vae.model.decoder.net.layers[-1].weight.zero_()
        vae.guide.global_posterior.log_scale.fill_(-20.0)
    whole = TraceMeanField_ELBO().loss(vae.model, vae.guide, x)
    parts = sum(TraceMeanField_ELBO().loss(vae.model, vae.guide, part) for part in x.split(5))
    assert parts == pytest.approx(whole, abs=5)
    vae.model.num_data = vae.guide.rows_in_all = None
    uncounted = sum(TraceMeanField_ELBO().loss(vae.model, vae.guide, part) for part in x.split(5))
    q, p = vae.guide.global_posterior(), vae.model.hyperprior()
    draws = q.sample((1000,))
    kl = (q.log_prob(draws) - p.log_prob(draws)).mean().item()
    assert kl > 15
    assert uncounted - whole == pytest.approx(4 * kl, abs=10)


def test_global_site_is_at_its_posterior_mean(caplog):
    vae, x = sticks_pair(**HYPER), pictures(4)
    with torch.no_grad():
        vae.guide.global_posterior.loc.fill_(math.log(7.0))
    mean = vae.guide.global_posterior().mean.detach()
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
        vae.guide.global_posterior.loc.fill_(math.log(40.0))
    assert vae.sample(2000, "mean")[:, 0].mean().item() == pytest.approx(1 / 41, rel=0.1)


def test_objectives_of_log_weights_refuse_a_global_site():
    vae = sticks_pair(**HYPER)
    for rows in (1, 4):
        with pytest.raises(ValueError, match=r"latent site 'concentration' lies outside the plate.*an ELBO of Pyro"):
            IWAE(num_particles=3).loss(vae.model, vae.guide, pictures(rows))


# -- adding sticks ----------------------------------------------------------------------------------------------------


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
    dataset = Dataset("some", Split(x[:30]), Split(x[30:]), Split(x[30:]), "binary")
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
    with pytest.raises(ValueError, match="at the prior exactly; got StickBreakingVAE and GammaSticks"):
        fit_growing(trainer, sticks_pair("gamma"), dataset)
    with pytest.raises(ValueError, match="seen on validation rows, and there are none"):
        fit_growing(trainer, sticks_pair(), Dataset("some", Split(x), Split(x[:0]), Split(x), "binary"))


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
        (lambda: sticks_pair("gamma"), 1, "at the prior exactly; got StickBreakingVAE and GammaSticks"),
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


# -- the registered pair ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concentration_is", ["fixed", "learned", "inferred"])
@every_guide
def test_builder(kind, concentration_is):
    split = Split(pictures(6), torch.arange(6) % 2)
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
