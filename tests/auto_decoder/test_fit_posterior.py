"""Posteriors fitted by gradient: against the exact one, against the start, and what becomes of the original."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from row_pairs import SHAPE, LinearModel, PoorGuide, amortised_pair, decoder_model, pictures, row_pair

from pyrovae import VAE
from pyrovae.data import load
from pyrovae.data.dataset import DataSpec
from pyrovae.distributions import Kumaraswamy
from pyrovae.guides import KumaraswamySticks, PerDatum
from pyrovae.infer import log_weights
from pyrovae.infer.tails import tail_index
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import StickBreakingVAE
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.pairs import find_pair
from pyrovae.training import Trainer

QUIET = {"progress": False}


@torch.no_grad()
def bounds(vae, x, count=200, **data):
    """The bound of each row, by many draws."""
    torch.manual_seed(7)
    with vae.scope():
        return log_weights(vae.model, vae.guide, count, x, **data).log_weight.mean(0)


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_the_exact_posterior_and_evidence_of_a_linear_model(start):
    model = LinearModel()
    x = model.data(40)
    fitted = VAE(model, PoorGuide()).fit_posterior(x, start=start, steps=600, lr=0.2, **QUIET)
    q, (mean, scale) = fitted.encode(x), model.posterior(x)
    assert torch.allclose(q.mean.double(), mean, atol=1e-4)
    assert torch.allclose(q.stddev.double(), scale.expand(40, 2), atol=1e-4)
    assert torch.allclose(fitted.log_likelihood(x, 20).double(), model.evidence(x), atol=1e-3)
    assert torch.allclose(fitted.log_likelihood(x[3:9], 20), fitted.log_likelihood(x, 20)[3:9], atol=1e-3)


def test_rows_without_an_entry_get_the_prior():
    model = LinearModel()
    x = model.data(30)
    mask = torch.rand(30, 6) < 0.5
    mask[:3] = False
    x = torch.where(mask, x, torch.nan)
    fitted = VAE(model, PoorGuide()).fit_posterior(x, mask, start="prior", steps=300, lr=0.2, **QUIET)
    q = fitted.encode(x, mask=mask)
    assert torch.equal(q.mean[:3], torch.zeros(3, 2))
    assert torch.equal(q.stddev[:3], torch.ones(3, 2))
    details = fitted.log_likelihood(x, 4000, mask=mask, return_details=True)
    assert torch.allclose(details.value.double(), model.evidence(x, mask), atol=0.1)


def test_the_bound_never_falls_against_the_guide():
    torch.manual_seed(0)
    vae, x = amortised_pair(), pictures(60)
    Trainer(epochs=3, batch_size=20, progress=False).fit(vae, x)
    before = bounds(vae, x)
    for steps in (1, 5, 60):
        after = bounds(vae.fit_posterior(x, steps=steps, **QUIET), x)
        assert float((after - before).min()) > -0.05, steps
    assert float((after - before).mean()) > 0.05


def test_a_useless_learning_rate_leaves_the_rows_where_they_were():
    vae, x = amortised_pair(), pictures(10)
    fitted = vae.fit_posterior(x, steps=5, lr=50.0, **QUIET)
    assert torch.allclose(fitted.encode(x).mean, vae.encode(x).mean, atol=1e-5)
    assert torch.allclose(fitted.encode(x).stddev, vae.encode(x).stddev, atol=1e-5)


def test_the_original_stays_and_the_model_is_shared():
    vae, x = amortised_pair(), pictures(8)
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    fitted = vae.fit_posterior(x, steps=5, **QUIET)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(p.requires_grad for p in vae.parameters())
    assert all(p.requires_grad for p in fitted.parameters())
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers stay"
    assert fitted.model is vae.model
    assert vae.encode(torch.zeros(2, *SHAPE)).mean.shape == (2, 2)


def test_parameters_of_param_sites_are_those_of_the_original():
    def model(x):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3, 0.5).to_event(1))

    x = torch.randn(30, 2) + 4.0
    vae = VAE(model, guide)
    Trainer(epochs=20, lr=0.1, batch_size=30, progress=False).fit(vae, x)
    loc = vae.param_sites["loc"]
    assert float(loc.detach().abs().min()) > 0.5
    fitted = vae.fit_posterior(x, steps=600, lr=0.2, **QUIET)
    assert fitted.param_sites["loc"] is loc
    assert torch.allclose(fitted.encode(x).mean, (x + loc) / 2, atol=1e-3)


def test_rows_are_known_again_and_others_refused():
    vae, x = amortised_pair(), pictures(20)
    x[:, 0, 0, 0] = 0.0
    fitted = vae.fit_posterior(x, steps=2, **QUIET)
    assert torch.equal(fitted.encode(x[5:9]).mean, fitted.encode(x).mean[5:9])
    with pytest.raises(ValueError, match="1 of 3 rows were not fitted, or with another mask") as error:
        fitted.encode(torch.cat([x[:2], 1 - x[:1]]))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="index names other rows than these"):
        fitted.encode(1 - x[:2], index=torch.arange(2))
    with pytest.raises(ValueError, match="20 of 20 rows were not fitted"):
        fitted.encode(x, mask=torch.rand(x.shape) < 0.5)


def test_sticks_and_their_families():
    torch.manual_seed(0)
    likelihood = BernoulliLikelihood(SHAPE)
    model = StickBreakingVAE(5, 3.0, DenseDecoder(5, likelihood.raw_shape, (8,)), likelihood)
    vae, x = VAE(model, KumaraswamySticks(DenseEncoder(SHAPE, (8,)), 5, 3.0)), pictures(30)
    before = bounds(vae, x)
    fitted = vae.fit_posterior(x, steps=60, **QUIET)
    assert isinstance(fitted.encode(x).base_dist, Kumaraswamy)
    assert float((bounds(fitted, x) - before).min()) > -0.1
    assert float((bounds(fitted, x) - before).mean()) > 0.1
    from_prior = vae.fit_posterior(x, start="prior", steps=200, **QUIET)
    assert isinstance(from_prior.encode(x).base_dist, Kumaraswamy)
    assert float((bounds(from_prior, x) - bounds(fitted, x)).mean()) > -0.5


def test_discrete_latents_climb_too():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5)).to_event(1))
            pyro.sample("x", dist.Normal(3 * z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.full((len(x), 3), 0.5)).to_event(1))

    x = 3 * torch.bernoulli(torch.full((20, 3), 0.5)) + 0.3 * torch.randn(20, 3)
    fitted = VAE(model, guide).fit_posterior(x, steps=400, lr=0.1, **QUIET)
    exact = torch.sigmoid(3 * x - 4.5)
    assert torch.allclose(fitted.encode(x).mean, exact, atol=0.05)


def test_families_that_no_gradient_moves_are_told():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        base = dist.Normal(torch.zeros(len(x), 2), 1.0)
        transform = dist.transforms.AffineTransform(x, 0.5)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.TransformedDistribution(base, [transform]).to_event(1))

    x = torch.randn(8, 2)
    vae = VAE(model, guide)
    with pytest.raises(ValueError, match="site 'z' of the guide is drawn from a TransformedDistribution"):
        vae.fit_posterior(x, **QUIET)
    fitted = vae.fit_posterior(x, start="prior", steps=400, lr=0.2, **QUIET)
    assert torch.allclose(fitted.encode(x).mean, x / 2, atol=1e-3)


def test_answers_that_depend_on_other_draws_are_told():
    def model(x):
        with pyro.plate("data", len(x)):
            upper = pyro.sample("upper", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(upper, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 1.0))
            pyro.sample("upper", dist.Normal(z / 2, 1.0))

    with pytest.raises(ValueError, match="site 'upper' depends on draws of other latents"):
        VAE(model, guide).fit_posterior(torch.randn(5), **QUIET)
    fitted = VAE(model, guide).fit_posterior(torch.randn(5), start="prior", steps=5, **QUIET)
    assert set(fitted.sites.latent) == {"z", "upper"}


def test_a_pair_that_infers_a_class_says_that_no_start_suits_it():
    digits = load("digits")
    vae = find_pair("semi-supervised").build(digits, hidden=(8,), latent_dim=2)
    with pytest.raises(ValueError, match="nor can it be fitted from the prior"):
        vae.fit_posterior(digits.test.x[:5], **QUIET)
    with pytest.raises(ValueError, match="row by row; nor can it be fitted from the prior"):
        vae.fit_posterior(digits.test.x[:5], y=digits.test.y[:5], **QUIET)
    with pytest.raises(ValueError, match="no family of fit_posterior suits the support IntegerInterval"):
        vae.fit_posterior(digits.test.x[:5], start="prior", **QUIET)


def test_early_stopping_saves_steps_and_costs_little(monkeypatch):
    from pyrovae.infer import fitting

    taken = []
    plain = fitting.refine
    monkeypatch.setattr(fitting, "refine", lambda *a: taken.append(plain(*a)) or taken[-1])
    model = LinearModel()
    x = model.data(50)
    fitted = VAE(model, PoorGuide()).fit_posterior(x, start="prior", steps=1500, lr=0.1, tol=1e-3, **QUIET)
    assert float(taken[0].steps.float().mean()) < 1000
    assert float((model.evidence(x) - bounds(fitted, x).double()).max()) < 0.05


def test_points_have_no_likelihood_and_say_what_to_do():
    vae = VAE(LinearModel(), PoorGuide())
    x = vae.model.data(10)
    point = vae.fit_posterior(x, scale="none", start="prior", steps=600, lr=0.2, **QUIET)
    assert torch.allclose(point.encode(x).mean.double(), vae.model.posterior(x)[0], atol=1e-3), "the mode is the mean"
    with pytest.raises(ValueError, match=r"is a point, which has no importance weights; .* scale='learned'"):
        point.log_likelihood(x)
    assert point.impute(x, torch.rand(10, 6) < 2).shape == x.shape


def test_a_narrow_scale_warns_of_its_likelihood():
    vae = VAE(LinearModel(), PoorGuide())
    x = vae.model.data(10)
    narrow = vae.fit_posterior(x, scale="fixed", log_var=-14.0, start="prior", steps=300, lr=0.2, **QUIET)
    with pytest.warns(UserWarning, match="the effective sample size is .* of 300 in the median row"):
        narrow.log_likelihood(x, 300)


def test_the_tail_of_weights():
    torch.manual_seed(0)
    heavy = 0.5 * torch.randn(4000, 2, 30).square().sum(1)  # exp of it has no mean
    assert tail_index(heavy).mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "here"}, "start must be one of guide, zeros, prior, normal, train, got 'here'"),
        ({"start": "guide", "family": "normal"}, "start='guide' keeps the family of the guide"),
        ({"start": "train"}, "start='train' draws from the moments of the training rows"),
        ({"steps": -1}, "steps must be a whole number of at least 0"),
        ({"optimizer": "lbfgs"}, "unknown optimizer 'lbfgs' of rows; known are adam, sgd"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"tol": -1.0}, "tol must not be negative"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"mask": torch.ones(4, 16, dtype=torch.bool)}, "mask must be of type bool and of the shape of x"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        amortised_pair().fit_posterior(pictures(4), **{**QUIET, **options})


def test_nan_in_observed_entries():
    x = pictures(4)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="x has NaN in 1 entries that count as observed"):
        amortised_pair().fit_posterior(x, **QUIET)


def test_rows_outside_of_the_support_are_not_fitted():
    x = pictures(4)
    x[2, 0, 0, 1] = 3.0
    mask = torch.ones_like(x, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"row 2 of the data, entry \(0, 0, 1\) is 3, and Bernoulli"):
        amortised_pair().fit_posterior(x, mask, **QUIET)
    mask[2, 0, 0, 1] = False
    amortised_pair().fit_posterior(x, mask, steps=1, **QUIET)


def test_fitted_rows_are_saved_and_loaded_into_such_a_pair(tmp_path):
    torch.manual_seed(0)
    vae, x = amortised_pair(), pictures(6)
    mask = torch.rand(x.shape) < 0.7
    fitted = vae.fit_posterior(x, mask, steps=20, **QUIET)
    fitted.save(tmp_path / "rows", data=DataSpec("mine", SHAPE, "unit", 6))
    loaded = VAE.load(tmp_path / "rows", pair=amortised_pair().fit_posterior(x, mask, steps=0, **QUIET))
    assert torch.equal(loaded.encode(x[1:3], mask=mask[1:3]).mean, fitted.encode(x[1:3], mask=mask[1:3]).mean)


def test_held_out_rows_of_an_auto_decoder():
    torch.manual_seed(0)
    x = pictures(40)
    vae = row_pair(40, scale="learned", log_var=0.0)
    Trainer(epochs=30, batch_size=20, lr=0.05, progress=False).fit(vae, x)
    held_out = pictures(25, seed=9)
    for start in ("zeros", "train", "normal"):
        fitted = vae.fit_posterior(held_out, start=start, steps=150, **QUIET)
        assert float(fitted.log_likelihood(held_out, 100).mean()) > float(bounds(fitted, held_out).mean())
    with pytest.raises(ValueError, match="start='guide' refines the answer of an amortised guide"):
        vae.fit_posterior(held_out, start="guide", **QUIET)
    samples = fitted.sample(7, source="rows")
    assert samples.shape == (7, *SHAPE)
    with pytest.raises(ValueError, match="source='rows' draws from the posteriors"):
        amortised_pair().sample(7, source="rows")
    with pytest.raises(ValueError, match="source must be one of prior, rows"):
        fitted.sample(7, source="row")


def test_samples_of_rows_are_those_of_the_mixture():
    model = decoder_model()
    guide = PerDatum(2, 2, init=torch.tensor([[5.0, 0.0], [-5.0, 0.0]]), log_var=-6.0)
    vae = VAE(model, guide)
    torch.manual_seed(0)
    drawn = vae.sample(4000, source="rows")
    expected = (vae.decode(torch.tensor([[5.0, 0.0], [-5.0, 0.0]])).mean).mean(0)
    assert torch.allclose(drawn.mean(0), expected, atol=0.06)
