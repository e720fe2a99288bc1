"""What went wrong once, with the right value: densities beside the latents, masks, names, weights, condition=."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, config_enumerate

from pyrovae import VAE
from pyrovae.data import Rows
from pyrovae.infer import IWAE, NVIL, KLWeightMessenger, Renyi, log_weights, make_objective
from pyrovae.infer.bound import bound_terms
from pyrovae.metrics import evaluate
from pyrovae.training import Trainer

X = torch.tensor([-1.0, 0.3, 1.2, 2.0])


def model(x):
    b = pyro.param("b", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + b, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 0.5**0.5))


def exact(x):
    return dist.Normal(0.0, 2**0.5).log_prob(x)


@pytest.mark.parametrize("infer", [{"is_auxiliary": True}, {}])
@pytest.mark.parametrize("fn", [dist.Normal(0.0, 9.0), dist.Bernoulli(0.2)])
def test_a_draw_that_the_guide_has_alone_is_no_part_of_held_out_figures(fn, infer):
    """Its entropy stood in them, so that they lay above the exact evidence."""

    def wider(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", fn, infer=infer)
            pyro.sample("z", dist.Normal(x / 2 + 0.0 * v, 0.5**0.5))

    vae = VAE(model, wider)
    torch.testing.assert_close(vae.log_likelihood(X, 5), exact(X))
    kl = vae(X).kl
    mean = dist.Normal(X / 2, 0.5**0.5)
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(mean, dist.Normal(0.0, 1.0)))
    weights = log_weights(model, wider, 3, X)
    torch.testing.assert_close(weights.log_weight, exact(X).expand(3, 4))


def test_a_draw_that_a_point_stands_on_keeps_its_density():
    def two(x):
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Normal(0.0, 9.0), infer={"is_auxiliary": True})
            u = pyro.sample("u", dist.Normal(x / 4, 0.5**1.5), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(2 * u, log_density=torch.full_like(u, -math.log(2.0))))

    torch.testing.assert_close(VAE(model, two).log_likelihood(X, 5), exact(X))


def test_what_obs_mask_makes_a_latent_is_free_where_it_is_observed():
    seen = torch.tensor([True, False, True, False])

    def masked(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def drawn(x):
        with pyro.plate("data", len(x)):
            scale = torch.where(seen, 0.5**0.5, 1.0)
            z = pyro.sample("z", dist.Normal(torch.where(seen, x / 2, 0.0), scale))
            pyro.sample("x_unobserved", dist.Normal(z, 1.0))

    right = torch.where(seen, exact(X), 0.0)
    vae = VAE(masked, drawn)
    torch.testing.assert_close(vae.log_likelihood(X, 5), right)
    bound = torch.stack([-sum(vae.bound_terms(X)[1:]) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(bound, right, rtol=0, atol=0.1)


@pytest.mark.parametrize("vectorize", [True, False])
def test_masks_over_enumerated_latents(vectorize):
    """Two of three steps are hidden: each added the logarithm of the number of classes to log p."""
    probs, locs = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 2.0])

    @config_enumerate
    def chain(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for t in range(3):
                with poutine.mask(mask=torch.full((len(x),), t < 1)):
                    y = pyro.sample(f"y_{t}", dist.Categorical(probs))
                    pyro.sample(f"x_{t}", dist.Normal(z + locs[y], 1.0), obs=x)

    weights = log_weights(chain, guide, 4, X, vectorize=vectorize, return_draws=True)
    z = weights.draws["z"]
    mixed = (dist.Normal(z.unsqueeze(-1) + locs, 1.0).log_prob(X.unsqueeze(-1)) + probs.log()).logsumexp(-1)
    torch.testing.assert_close(weights.log_p, mixed + dist.Normal(0.0, 1.0).log_prob(z))


def test_bound_and_evaluation_sum_marked_latents_out():
    """Where the prior of a latent depends on the class, as in a Gaussian-mixture VAE."""
    probs, locs = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 2.0])

    @config_enumerate
    def mixture(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(probs))
            z = pyro.sample("z", dist.Normal(locs[y], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    vae = VAE(mixture, guide, example=X)
    traces = vae._traces(X, {})
    nll, kl = bound_terms(vae._summed(traces, X, {}), vae.layout)
    z = traces.guide.nodes["z"]["value"]
    prior = (dist.Normal(locs, 1.0).log_prob(z.unsqueeze(-1)) + probs.log()).logsumexp(-1)
    torch.testing.assert_close(nll, -dist.Normal(z, 1.0).log_prob(X))
    torch.testing.assert_close(kl, dist.Normal(X / 2, 0.5**0.5).log_prob(z) - prior)
    evidence = (dist.Normal(locs, 2**0.5).log_prob(X.unsqueeze(-1)) + probs.log()).logsumexp(-1)
    result = evaluate(vae, Rows(X), num_samples=3000)
    assert result.log_likelihood == pytest.approx(evidence.mean().item(), abs=0.1)
    bound = torch.stack([-sum(vae.bound_terms(X)[1:]) for _ in range(500)]).mean(0)
    assert (bound < evidence).all()


@pytest.mark.parametrize("beta", [0.3, 0.0, torch.tensor(0.3)])
@pytest.mark.parametrize("left", [True, False])
def test_weights_of_rows_are_outside_the_logarithm_under_a_kl_weight_too(beta, left):
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    dim = -2 if left else -1

    def weighted(program, scale):
        def run(x):
            with poutine.scale(scale=scale), pyro.plate("rows", len(x), dim=dim):
                program(x.unsqueeze(-1) if left else x)

        return run

    def inner_model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand(x.shape))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def inner_guide(x):
        pyro.sample("z", dist.Normal(x / 2, 1.0))

    scale = weights.unsqueeze(-1) if left else weights
    objective = IWAE(3, vectorize_particles=True)
    plain = weighted(inner_model, 1.0), weighted(inner_guide, 1.0)
    with KLWeightMessenger(beta):
        at_work = objective._pair(*plain, (X,), {})
        pyro.set_rng_seed(0)
        expected = -(weights * objective.bound(at_work)).sum()
        pyro.set_rng_seed(0)
        loss = objective.loss(weighted(inner_model, scale), weighted(inner_guide, scale), X)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_deterministic_sites_stay_as_they_are_when_data_are_drawn():
    """`poutine.uncondition` draws them with one dimension more."""

    def named(x):
        with pyro.plate("data", len(x)):
            z = pyro.deterministic("w", 2 * pyro.sample("z", dist.Normal(0.0, 1.0)))
            pyro.sample("x", dist.Normal(z / 2, 1.0), obs=x)

    assert VAE(named, guide, example=X).sample(3).shape == (3,)
    assert math.isfinite(make_objective("wake-sleep").loss(named, guide, X))


def test_parameters_whose_names_mean_something_to_torch():
    names = ("values", "a.b", "a/b", "training", "pop")

    def many(x):
        total = sum(pyro.param(name, torch.tensor(float(i))) for i, name in enumerate(names))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(total * x, 0.7))

    vae = VAE(model, many, example=X)
    vae.to_param_store()
    for i, name in enumerate(names):
        assert pyro.param(name).item() == i
    again = VAE(model, many, example=X)
    again.load_state_dict(vae.state_dict())


def test_names_that_clash_are_refused_in_one_line():
    def twice(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    for call in (VAE(twice, guide).prepare, lambda x: IWAE(2).loss(twice, guide, x)):
        with pytest.raises(ValueError, match=r"site 'data' of .*twice shares its name with another site, a plate"):
            call(X)


def test_values_of_latents_are_checked():
    def shared(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def of_both(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + mu) / 2, 0.5**0.5))

    vae = VAE(shared, of_both)
    torch.testing.assert_close(vae.log_likelihood(X, 3, condition={"mu": torch.tensor([0.3])}), exact(X - 0.3))
    for condition, message in (
        ({"mu": torch.ones(4)}, r"condition=\{'mu': ...\} has the shape \(4,\), and the site \(\)"),
        ({"mu": torch.tensor(0.0), "nu": torch.tensor(0.0)}, r"'nu': ...\} is no site of the model"),
        ({"x": X}, "site 'x' is observed"),
    ):
        with pytest.raises(ValueError, match=message):
            vae.log_likelihood(X, 3, condition=condition)
    z = torch.randn(4)  # of a latent of a datum, cut with the rows
    expected = dist.Normal(z, 1.0).log_prob(X)
    for chunk in (2, 8192):
        torch.testing.assert_close(
            VAE(model, guide).log_likelihood(X, 3, chunk_size=chunk, condition={"z": z}), expected
        )


def test_baselines_of_hidden_and_of_drawn_rows():
    def missing(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).mask(~x.isnan()), obs=x.nan_to_num())

    x = torch.where(torch.arange(4) == 1, torch.nan, X)
    objective = NVIL(2, "input")
    assert math.isfinite(objective.loss_and_grads(missing, lambda x: guide(x.nan_to_num()), x))

    def some(program):
        def run(x):
            with pyro.plate("some", len(x), subsample_size=2) as index:
                program(x[index])

        return run

    def few_model(x):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    pair = some(few_model), some(lambda x: pyro.sample("z", dist.Normal(x / 2, 1.0)))
    with pytest.raises(ValueError, match="baseline reads the 4 rows of the data, and the plate over them draws 2"):
        NVIL(2, "input").loss(*pair, X)
    with pytest.raises(ValueError, match="the plate 'some' draws 2 of 3 rows by itself"):
        VAE(*pair, example=X).sample(3)


def test_a_row_that_is_impossible_is_infinite_and_not_nan():
    def impossible(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Delta(z), obs=x)

    for objective in (Trace_ELBO(), IWAE(1), Renyi(0.5, 2)):
        assert objective.loss(impossible, guide, X) == math.inf


def test_a_mask_over_everything_trains_nothing():
    with poutine.mask(mask=False):
        history = Trainer(epochs=1, progress=False).fit(VAE(model, guide), X)
    assert history.rows[0]["loss"] == 0.0


def test_latents_without_a_mean_stand_at_their_mode():
    def cauchy(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Cauchy(x / 2, 1.0))

    torch.testing.assert_close(VAE(model, cauchy).reconstruct(X), X / 2)


def test_a_plate_that_takes_other_rows_in_the_guide_is_refused():
    """Pyro gives the model the rows of the guide's plate, here their numbers."""

    def by_rows(x):
        with pyro.plate("data", len(x), subsample=x) as part:
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=part)

    def alike(x):
        with pyro.plate("data", len(x), subsample=x) as part:
            pyro.sample("z", dist.Normal(part / 2, 0.5**0.5))

    with pytest.raises(ValueError, match="the plate 'data' takes another subsample in the model than in the guide"):
        VAE(by_rows, guide).log_likelihood(X, 3)
    torch.testing.assert_close(VAE(by_rows, alike).log_likelihood(X, 3), exact(X))
