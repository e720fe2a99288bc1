"""Guides whose densities cannot be set against the model's, or only for a part of the values or of the datum."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import transforms
from pyro.infer.reparam import LocScaleReparam

from pyrovae import VAE
from pyrovae.infer import IWAE, VIMCO, Renyi
from pyrovae.training import Trainer

X = torch.tensor([0.3, -1.2, 2.0, 0.05])
HALF = torch.tensor(0.5)


def pair(prior, posterior, likelihood):
    """A model of one latent and its guide."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", posterior(x))

    return model, guide


def around(z):
    return dist.Normal(z, 1.0)


def both(x):
    """Probabilities of two levels."""
    return torch.stack([torch.sigmoid(x), torch.sigmoid(-x)], -1)


def second(z):
    return dist.Normal(2 * z[..., 1], 1.0)


OTHER_KINDS = {
    "straight-through": (
        dist.Bernoulli(torch.tensor(0.3)),
        lambda x: dist.RelaxedBernoulliStraightThrough(HALF, torch.sigmoid(x)),
        around,
    ),
    "one-hot straight-through": (
        dist.OneHotCategorical(torch.tensor([0.7, 0.3])),
        lambda x: dist.RelaxedOneHotCategoricalStraightThrough(HALF, both(x)),
        second,
    ),
    "relaxed": (
        dist.Bernoulli(torch.tensor(0.3), validate_args=False),
        lambda x: dist.RelaxedBernoulli(HALF, torch.sigmoid(x)),
        around,
    ),
    "discrete": (dist.Normal(0.0, 1.0), lambda x: dist.Bernoulli(torch.sigmoid(x)), around),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_a_density_is_not_set_against_a_probability(name):
    model, guide = pair(*OTHER_KINDS[name])
    ways = {
        "log_likelihood": lambda: VAE(model, guide).log_likelihood(X, 10),
        "bound_terms": lambda: VAE(model, guide).bound_terms(X),
        "forward": lambda: VAE(model, guide)(X),
        "IWAE": lambda: IWAE(5).loss(model, guide, X),
        "VIMCO": lambda: VIMCO(5).loss(model, guide, X),
        "Trainer": lambda: Trainer("iwae", epochs=1, progress=False).fit(VAE(model, guide), X),
    }
    for call in ways.values():
        with pytest.raises(ValueError, match=r"site 'z' is (continuous|discrete) in the guide") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compile", [False, "recorded"])
def test_an_elbo_of_pyro_says_that_it_is_none(compile, caplog):
    def guide(x):
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.RelaxedBernoulliStraightThrough(HALF, torch.sigmoid(x + shift)))

    model = pair(*OTHER_KINDS["straight-through"])[0]
    caplog.set_level("WARNING", logger="pyrovae")
    Trainer("elbo", epochs=1, progress=False, compile=compile).fit(VAE(model, guide), X)
    assert caplog.text.count("compares a density with a probability, as in Pyro, and is no bound") == 1


def test_straight_through_of_one_kind():
    prior = torch.tensor([0.7, 0.3])
    model, guide = pair(
        dist.OneHotCategorical(prior), lambda x: dist.OneHotCategoricalStraightThrough(probs=both(X[: len(x)])), second
    )
    exact = torch.logsumexp(prior.log() + dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(X.unsqueeze(-1)), -1)
    torch.testing.assert_close(VAE(model, guide).log_likelihood(X, 20_000), exact, atol=0.03, rtol=0)


TOO_NARROW = {
    "positive": (dist.Normal(0.0, 1.0), lambda x: dist.LogNormal(x, 1.0), around, "-0.001 in the guide (LogNormal)"),
    "interval": (dist.Normal(0.0, 1.0), lambda x: dist.Uniform(x - 1, x + 1), around, "in the guide (Uniform)"),
    "above": (dist.HalfNormal(1.0), lambda x: dist.Uniform(0 * x, 1.0), around, "1.002 in the guide (Uniform)"),
    "vectors": (
        dist.Normal(torch.zeros(3), 1.0).to_event(1),
        lambda x: dist.Uniform(x[:, None].expand(-1, 3) - 1, x[:, None] + 1).to_event(1),
        lambda z: around(z.sum(-1)),
        "in the guide (Uniform)",
    ),
    "counts": (dist.Poisson(2.0), lambda x: dist.Binomial(3, torch.sigmoid(x)), around, "4 in the guide (Binomial)"),
    "levels": (
        dist.Categorical(torch.ones(4)),
        lambda x: dist.Categorical(torch.ones(len(x), 3)),
        around,
        "3 in the guide (Categorical)",
    ),
}


@pytest.mark.parametrize("name", TOO_NARROW)
def test_values_that_the_guide_never_draws(name):
    prior, posterior, likelihood, words = TOO_NARROW[name]
    vae = VAE(*pair(prior, posterior, likelihood))
    with pytest.raises(ValueError, match="importance weights leave a part of the evidence of row 0 out") as caught:
        vae.log_likelihood(X, 10)
    assert words in str(caught.value)
    assert IWAE(5).loss(vae.model, vae.guide, X) > 0  # a bound all the same
    if name != "levels":  # torch has a divergence for equally many alone
        vae.bound_terms(X)


@pytest.mark.parametrize(
    ("prior", "posterior", "likelihood"),
    [
        (dist.Normal(0.0, 1.0), lambda x: dist.Uniform(x - 12, x + 12), around),
        (dist.Uniform(0.0, 1.0), lambda x: dist.Uniform(0 * x, 1.0), around),
        (dist.Gamma(2.0, 1.0), lambda x: dist.LogNormal(x, 1.0), around),
        (dist.Poisson(2.0), lambda x: dist.Geometric(0.3 + 0 * x), around),
        (
            dist.VonMises(0.0, 1.0),
            lambda x: dist.Uniform(0 * x - torch.pi, torch.pi),
            lambda z: dist.Normal(z.cos(), 1.0),
        ),
        (
            dist.Exponential(1.0),
            lambda x: dist.TransformedDistribution(
                dist.Exponential(torch.ones(len(x))), [transforms.AffineTransform(x.abs(), 1.0)]
            ),
            lambda z: dist.Uniform(-z, z),
        ),
    ],
    ids=["far tails", "equal", "positive", "counts", "angles", "of the data alone"],
)
def test_values_that_the_posterior_does_not_have_either(prior, posterior, likelihood):
    """By numerical integration or sums."""
    vae = VAE(*pair(prior, posterior, likelihood))
    torch.manual_seed(0)
    discrete = prior.support.is_discrete
    grid = torch.arange(60.0) if discrete else torch.linspace(-15, 30, 900_001)
    low, high = {"VonMises": (-math.pi, math.pi), "Uniform": (0.0, 1.0)}.get(type(prior).__name__, (-15, 30))
    if type(prior).__name__ not in ("Normal", "VonMises"):
        low = max(low, 0.0)
    grid = grid[(grid >= low) & (grid <= high) & (grid > 0 if type(prior).__name__ == "Gamma" else grid == grid)]
    exact = []
    for value in X:
        able = grid > value.abs() if type(prior).__name__ == "Exponential" else torch.ones_like(grid).bool()
        log_p = prior.log_prob(grid[able]) + likelihood(grid[able]).log_prob(value)
        exact.append(log_p.logsumexp(0) + (0.0 if discrete else math.log(45 / 900_000)))
    torch.testing.assert_close(vae.log_likelihood(X, 40_000), torch.stack(exact), atol=0.04, rtol=0)


def within(x):
    """Forty latents of each datum, in a plate."""
    with pyro.plate("data", len(x), dim=-2), pyro.plate("pixels", 40, dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 10.0), obs=x)


def within_narrow(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("pixels", 40, dim=-1):
        pyro.sample("z", dist.Uniform(-1.5 + 0 * x, 1.5))


def nested(x):
    """The range of the second latent ends at the first one."""
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Uniform(0.0, 2.0))
        second = pyro.sample("second", dist.Uniform(0.0, first))
        pyro.sample("x", dist.Normal(second, 1.0), obs=x)


def nested_narrow(x):
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Uniform(1.5 + 0 * x, 2.0))
        pyro.sample("second", dist.Uniform(0.0, first))


def nested_whole(x):
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Uniform(0 * x, 2.0))
        pyro.sample("second", dist.Uniform(0.0, first))


def bounded(z):
    return dist.Uniform(-z, z)


def right_for_some(x):
    """From |x| on for the first row, and from |x| + 3 on for the others."""
    shift = x.abs() + 3.0 * (torch.arange(len(x)) > 0)
    return dist.TransformedDistribution(dist.Exponential(torch.ones(len(x))), [transforms.AffineTransform(shift, 1.0)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("model", "guide", "row"),
    [
        (within, within_narrow, 0),
        (nested, nested_narrow, 0),
        (*pair(dist.Exponential(1.0), right_for_some, bounded), 1),
        (*pair(dist.Normal(0.0, 1.0), lambda x: dist.Uniform(torch.where(x > 5, 4.0, -12.0), 12.0), around), 9),
    ],
    ids=["in a plate of the datum", "dependent", "of some rows", "of a late row"],
)
def test_each_row_and_each_latent_counts(model, guide, row, seed):
    torch.manual_seed(seed)
    x = torch.randn(4, 40) if model is within else torch.tensor([0.3, -0.2, 0.5, 0.1])
    vae = VAE(model, guide)
    if row == 9:
        x = torch.cat([0.1 * torch.randn(9), torch.tensor([6.0])])
        assert vae.log_likelihood(x[:9], 5).shape == (9,)
    with pytest.raises(ValueError, match=f"leave a part of the evidence of row {row} out"):
        vae.log_likelihood(x, 10)


@pytest.mark.parametrize("seed", range(3))
def test_every_entry_and_side_is_tried(seed):
    torch.manual_seed(seed)
    wide = torch.tensor([[-8.0, -0.5]]), torch.tensor([[8.0, 0.5]])
    pairs = [
        pair(
            dist.Normal(torch.zeros(2), 1.0).to_event(1),
            lambda x: dist.Uniform(*(end.expand(len(x), 2) for end in wide)).to_event(1),
            lambda z: around(z.sum(-1)),
        ),
        pair(dist.Normal(0.0, 1.0), lambda x: dist.Uniform(-8.0 + 0 * x, 0.5), around),
        pair(  # a second mode, far from the edge
            dist.MixtureSameFamily(
                dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([0.0, 10.0]), torch.tensor([0.1, 0.1]))
            ),
            lambda x: dist.Uniform(-1.5 + 0 * x, 1.5),
            lambda z: dist.Normal(z, 5.0),
        ),
    ]
    for programs in pairs:
        with pytest.raises(ValueError, match="site 'z' is never"):
            VAE(*programs).log_likelihood(X, 10)


def test_a_check_holds_for_what_it_looked_at_alone():
    """Neither for other latents that are given, nor for other parameters."""
    narrow = VAE(*pair(dist.Normal(0.0, 1.0), lambda x: dist.Uniform(-0.5 + 0 * x, 0.5), around))
    narrow.log_likelihood(X, 10, condition={"z": torch.zeros(4)})
    with pytest.raises(ValueError, match="site 'z' is never"):
        narrow.log_likelihood(X, 10)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(20.0))
        with pyro.plate("data", len(x)):
            ends = [transforms.TanhTransform(), transforms.AffineTransform(0.0, scale)]
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(torch.zeros(len(x)), 1.0), ends))

    vae = VAE(pair(dist.Normal(0.0, 1.0), None, around)[0], guide, example=X)
    vae.log_likelihood(X, 10)
    with torch.no_grad():
        next(vae.parameters()).fill_(0.5)
    with pytest.raises(ValueError, match="site 'z' is never"):
        vae.log_likelihood(X, 10)


@pytest.mark.parametrize("seed", range(3))
def test_ranges_around_another_draw(seed):
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(a, 0.1))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x / 2, 1.0))
            pyro.sample("z", dist.Uniform(a - 1.5, a + 1.5))

    torch.manual_seed(seed)
    exact = dist.Normal(0.0, 2.01**0.5).log_prob(X)
    torch.testing.assert_close(VAE(model, guide).log_likelihood(X, 60_000), exact, atol=0.05, rtol=0)


def test_hidden_rows_count_for_nothing():
    def model(x, shown):
        with pyro.plate("data", len(x)), poutine.mask(mask=shown):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, shown):
        with pyro.plate("data", len(x)), poutine.mask(mask=shown):
            pyro.sample("z", dist.Uniform(-8.0 + 0 * x, 8.0))

    shown = torch.tensor([True, False, True, False])
    found = VAE(model, guide).log_likelihood(X, 40_000, shown=shown)
    exact = dist.Normal(0.0, 2**0.5).log_prob(X) * shown
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_ranges_of_ready_made_transforms_are_what_they_say(seed):
    """torch makes a Gumbel variable of a uniform one, which it clips."""
    torch.manual_seed(seed)
    for prior in (dist.Normal(0.0, 1.0), dist.Gumbel(0.0, 1.0)):
        assert VAE(*pair(prior, lambda x: dist.Gumbel(x, 0.5), around)).log_likelihood(X, 10).isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_ranges_of_dependent_latents_that_agree(seed):
    torch.manual_seed(seed)
    found = VAE(nested, nested_whole).log_likelihood(X, 40_000)
    first = torch.linspace(0.0, 2.0, 2001)[1:]
    cdf = dist.Normal(0.0, 1.0).cdf
    exact = torch.stack([((cdf(x) - cdf(x - first)) / first).mean().log() for x in X])
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_given_is_fixed_in_the_checks(seed):
    def model(x):
        scale = pyro.sample("scale", dist.Normal(0.0, 100.0), infer={"is_global": True})
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("scale", dist.Normal(2.0, 1e-3), infer={"is_global": True})
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(0 * x, 1.0))

    torch.manual_seed(seed)
    exact = (dist.Normal(0.0, 1.0).cdf(X) - dist.Normal(0.0, 1.0).cdf(X - 1)).log()
    vae = VAE(model, guide, example=X)
    found = vae.log_likelihood(X, 20_000, condition={"scale": torch.tensor(1.0)})
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0)
    with pytest.raises(ValueError, match="site 'z' is never"):
        VAE(model, guide, example=X).log_likelihood(X, 10, condition={"scale": torch.tensor(2.0)})


TABLE = torch.linspace(0.5, 5.0, 10)


@pytest.mark.parametrize(
    ("prior", "posterior", "likelihood"),
    [
        (
            dist.MixtureSameFamily(
                dist.Categorical(torch.ones(2)), dist.Pareto(torch.ones(2), torch.tensor([2.0, 3.0]))
            ),
            lambda x: dist.MixtureSameFamily(
                dist.Categorical(torch.ones(len(x), 2)), dist.Pareto(torch.ones(len(x), 2), torch.tensor([2.0, 3.0]))
            ),
            around,
        ),
        (dist.VonMises(0.0, 1.0), lambda x: dist.Uniform(0 * x, 2 * torch.pi), lambda z: dist.Normal(z.cos(), 1.0)),
        (dist.Poisson(2.0), lambda x: dist.Binomial(9, 0.3 + 0 * x), lambda z: dist.Normal(TABLE[z.long()], 1.0)),
        (dist.Normal(0.0, 1.0), lambda x: dist.Uniform(x - 8, x + 8), around),
        (
            dist.TransformedDistribution(dist.Exponential(1.0), [transforms.AffineTransform(0.0, 2.0)]),
            lambda x: dist.LogNormal(x, 1.0),
            around,
        ),
        (
            dist.Categorical(torch.tensor([0.5, 0.5])),
            lambda x: dist.Empirical(torch.tensor([0, 1]).expand(len(x), 2), torch.zeros(len(x), 2)),
            lambda z: dist.Normal(z.float(), 1.0),
        ),
    ],
    ids=["mixture", "angles", "a table", "tails", "transformed", "empirical"],
)
def test_pairs_that_are_right(prior, posterior, likelihood):
    assert VAE(*pair(prior, posterior, likelihood)).log_likelihood(X, 20).isfinite().all()


@pytest.mark.parametrize(
    ("prior", "posterior", "message"),
    [
        (dist.Delta(torch.tensor(1.0)), lambda x: dist.Normal(x, 1.0), "of a single value in the model"),
        (
            dist.ZeroInflatedDistribution(dist.Normal(torch.tensor(2.0), 1.0), gate=HALF),
            lambda x: dist.Normal(x, 1.0),
            "continuous but for 0 in the model",
        ),
        (
            dist.Normal(0.0, 1.0),
            lambda x: dist.TransformedDistribution(
                dist.Normal(x, 1.0), [transforms.TanhTransform(), transforms.AffineTransform(0.0, 1.5)]
            ),
            "importance weights leave",
        ),
    ],
    ids=["atom", "zero-inflated", "bounded transform"],
)
def test_pairs_that_are_not(prior, posterior, message):
    with pytest.raises(ValueError, match=message):
        VAE(*pair(prior, posterior, around)).log_likelihood(X, 20)


def some_pixels(x):
    """A plate within the datum that draws a quarter of its entries."""
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("pixels", x.shape[1], subsample_size=5, dim=-1) as index:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, index])


def of_all_pixels(x):
    scale = pyro.param("scale", torch.tensor(21**-0.5))
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x.sum(-1, keepdim=True) / 21, scale))


def test_a_part_of_a_datum_has_no_figures_of_the_whole():
    torch.manual_seed(0)
    x = torch.randn(6, 20)
    vae = VAE(some_pixels, of_all_pixels).prepare(x)
    for call in (vae.bound_terms, vae, vae.reconstruct, lambda x: vae.sample(3), lambda x: vae.log_likelihood(x, 5)):
        with pytest.raises(ValueError, match="'pixels' around site 'x' draws 5 of 20 elements of a datum") as caught:
            call(x)
        assert "\n" not in str(caught.value)
    for objective in (IWAE(10), IWAE(10, vectorize_particles=False), Renyi(num_particles=10), VIMCO(10)):
        with pytest.raises(ValueError, match="no bound of several particles"):
            objective.loss(some_pixels, of_all_pixels, x)
    with pytest.raises(ValueError, match="no bound of several particles"):
        Trainer("iwae", epochs=1, progress=False).fit(vae, x)


def test_one_particle_of_a_part_of_a_datum_is_the_elbo():
    torch.manual_seed(0)
    x = torch.randn(6, 20)
    exact = dist.MultivariateNormal(torch.zeros(20), torch.eye(20) + 1).log_prob(x).sum()
    losses = torch.tensor([IWAE(1).loss(some_pixels, of_all_pixels, x) for _ in range(300)])
    assert -losses.mean() == pytest.approx(exact.item(), abs=4 * losses.std().item() / 300**0.5)  # the guide is exact
    Trainer("elbo", epochs=1, progress=False).fit(VAE(some_pixels, of_all_pixels), x)


def test_what_a_reparameterizer_of_pyro_writes_is_no_data():
    weight = torch.tensor([1.0, 0.5, -1.0])

    def plain(x, mask=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 2.0))
            likelihood = dist.Normal(weight * z.unsqueeze(-1), 1.0)
            pyro.sample("x", (likelihood if mask is None else likelihood.mask(mask)).to_event(1), obs=x)

    def guide(x, mask=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal(torch.zeros(len(x)), 1.0))

    vae = VAE(poutine.reparam(plain, {"z": LocScaleReparam(0.0)}), guide)
    x, mask = torch.tensor([[1.5, 0.0, 0.0]]), torch.tensor([[True, False, False]])
    completed = vae.impute(x, mask, num_samples=20_000)
    assert vae.sites.all_observed == ("x",)
    assert vae.sites.latent == ("z_decentered",)
    mean = 1.5 * 4 / 5  # of z given the first entry
    torch.testing.assert_close(completed, torch.tensor([[1.5, mean / 2, -mean]]), atol=0.05, rtol=0)
    assert vae.sample(4).shape == (4, 3)
    exact = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 4 * weight.outer(weight)).log_prob(x)
    torch.testing.assert_close(vae.log_likelihood(x, 40_000), exact, atol=0.05, rtol=0)


def labelled(x, mask, c):
    """The observed label shifts the data."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("c", dist.Normal(z, 1.0), obs=c)
        pyro.sample("x", dist.Normal(z.unsqueeze(-1) + c.unsqueeze(-1), 1.0).mask(mask).to_event(1), obs=x)


def of_prior(x, mask, c):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))


def test_a_named_data_site_is_completed_given_the_others():
    x, mask = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[True, False], [False, False]])
    c = torch.tensor([1.0, -4.0])
    torch.manual_seed(0)
    vae = VAE(labelled, of_prior, observed="x")
    # z given c, and x - c where it is observed: prior 0, all of them with variance 1.
    expected = torch.tensor([[3.0, (1.0 + 2.0) / 3 + 1.0], [-2.0 - 4.0, -2.0 - 4.0]])
    torch.testing.assert_close(vae.impute(x, mask, num_samples=40_000, c=c), expected, atol=0.15, rtol=0)
    draws = vae.impute(x, mask, num_samples=2000, num_draws=2000, c=c)
    torch.testing.assert_close(draws.mean(0), expected, atol=0.3, rtol=0)
    with pytest.raises(ValueError, match=r"the pair has \['c', 'x'\]; .* VAE\(..., observed=NAME\)"):
        VAE(labelled, of_prior).impute(x, mask, c=c)
    with pytest.raises(ValueError, match=r"site 'c' holds rows of shape \(\) where x has \(2,\)"):
        VAE(labelled, of_prior, observed="c").impute(x, mask, c=c)


def test_entries_that_depend_on_each_other_given_the_latents_are_not_completed():
    loc = torch.tensor([[3.0, 3.0], [-3.0, -3.0]])

    def model(x, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 0.1))
            parts = dist.Normal(loc + z[..., None, None], 1.0).mask(mask.unsqueeze(-2)).to_event(1)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), parts), obs=x)

    def guide(x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 0.1))

    x = torch.tensor([[3.0, 0.0], [0.0, -3.0]])
    vae = VAE(model, guide)
    with pytest.raises(ValueError, match=r"entries of site 'x' depend on each other .*MixtureSameFamily"):
        vae.impute(x, torch.tensor([[True, False], [True, True]]))
    completed = vae.impute(x, torch.tensor([[False, False], [True, True]]), num_samples=500)
    torch.testing.assert_close(completed, torch.tensor([[0.0, 0.0], [0.0, -3.0]]), atol=0.1, rtol=0)


def test_transforms_of_single_entries_couple_none():
    def model(x, mask):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            base = dist.Normal(z.unsqueeze(-1).expand(*z.shape, 2), 1.0).mask(mask).to_event(1)
            pyro.sample("x", dist.TransformedDistribution(base, [transforms.SigmoidTransform()]), obs=x)

    def guide(x, mask):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    x, mask = torch.tensor([[0.9, 0.5]]), torch.tensor([[True, False]])
    assert VAE(model, guide).impute(x, mask, num_draws=3).shape == (3, 1, 2)


def test_numbers_of_all_rows_are_a_tensor():
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, torch.as_tensor(c)), obs=x)

    def guide(x, c):
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + shift, 1.0))

    values = [1.0, 2.0, 3.0, 4.0]
    for c in (
        values,
        tuple(values),
        np.array(values),
        list(np.array(values, dtype=np.float32)),
        [*torch.tensor(values)],
    ):
        with pytest.raises(TypeError, match=r"c= is a (list|tuple|ndarray) as long as the 4 rows"):
            VAE(model, guide).log_likelihood(X, 10, chunk_size=2, c=c)
    for c in (values, tuple(values)):  # a training makes a tensor of an array
        with pytest.raises(TypeError, match=r"c= is a (list|tuple) as long as the 4 rows"):
            Trainer(epochs=1, batch_size=2, progress=False).fit(VAE(model, guide), {"x": X, "c": c})
    Trainer(epochs=1, batch_size=2, progress=False).fit(VAE(model, guide), {"x": X, "c": np.array(values)})
    assert VAE(model, guide).log_likelihood(X, 10, chunk_size=2, c=torch.tensor([1.0, 2.0, 3.0, 4.0])).shape == (4,)
