"""The oracles pass what is right, and fail what is wrong with a message that says what and where."""

import math

import pytest
import torch
from torch.distributions import (
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Dirichlet,
    Gamma,
    Geometric,
    Independent,
    Laplace,
    LKJCholesky,
    LogNormal,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    Uniform,
)

from pyrovae import testing
from pyrovae.testing import checks

SCALE = torch.tensor([0.3, 1.0, 30.0]).double()
RIGHT = [
    Normal(SCALE, SCALE),
    Gamma(SCALE, SCALE),
    Beta(SCALE, SCALE + 1),
    Cauchy(SCALE, SCALE),
    LogNormal(SCALE, SCALE.clamp(max=2)),
    Uniform(SCALE, SCALE + 2),
    Poisson(SCALE),
    Geometric(SCALE / 40),
    Binomial(5, SCALE / 40),
    Categorical(torch.tensor([[0.1, 0.2, 0.7], [1e-3, 0.3, 0.2]]).double()),
    OneHotCategorical(torch.tensor([0.1, 0.2, 0.7]).double()),
    Dirichlet(torch.tensor([[0.8, 1.0, 2.0], [3.0, 4.0, 5.0]]).double()),
    MultivariateNormal(torch.zeros(2).double(), torch.tensor([[2.0, 0.7], [0.7, 1.0]]).double()),
    Independent(Gamma(torch.tensor([1.0, 7.0]).double(), 2.0), 1),
]


def names(distribution):
    return type(distribution).__name__


class Wide(Normal):
    """Draws five per cent wider than its density."""

    def sample(self, sample_shape=()):
        return self.loc + 1.05 * (super().sample(sample_shape) - self.loc)


class Unnormalised(Normal):
    def log_prob(self, value):
        return super().log_prob(value) + torch.tensor([0.0, 1e-3, 0.0]).double()


class Rare(Poisson):
    """Never draws a 2."""

    def sample(self, sample_shape=()):
        draws = super().sample(sample_shape)
        return torch.where(draws == 2, 3.0, draws)


class Impossible(Poisson):
    """One draw in all is a number between the counts."""

    def sample(self, sample_shape=()):
        draws = super().sample(sample_shape)
        return torch.where(torch.arange(len(draws)).unsqueeze(-1) == 0, 0.5, draws) if sample_shape else draws


class WrongMoments(Gamma):
    @property
    def variance(self):
        return 1.1 * super().variance


class WrongEntropy(Normal):
    def entropy(self):
        return super().entropy() + 1e-3


class Broken(Normal):
    def log_prob(self, value):
        return torch.where(value > 3, torch.nan, super().log_prob(value))


@pytest.mark.parametrize("distribution", RIGHT, ids=names)
def test_right_distributions_pass(distribution):
    total = testing.check_normalisation(distribution, 1e-6)
    assert total.value.shape == distribution.batch_shape
    fit = testing.check_goodness_of_fit(distribution, num_samples=10_000)
    assert fit.p_value.shape == distribution.batch_shape
    testing.check_moments(distribution, num_samples=20_000, seed=1)  # some seeds miss a variance of 3e29


@pytest.mark.parametrize("distribution", [RIGHT[0], RIGHT[1], RIGHT[3], RIGHT[4]], ids=names)
def test_right_cdfs_pass(distribution):
    testing.check_cdf(distribution)


def test_p_values_are_uniform_under_the_truth():
    """Two hundred fits of right draws: the test neither fires too often nor hides behind a loose statistic."""
    for distribution in (Normal(torch.zeros(200), 1.0), Poisson(torch.full((200,), 4.0))):
        p_value = testing.check_goodness_of_fit(distribution, 2000, significance=0.0).p_value
        assert 0.4 < p_value.mean() < 0.6
        assert 0.0 < (p_value < 0.1).double().mean() < 0.2
    plane = Dirichlet(torch.tensor([2.0, 1.0, 3.0]).double().expand(16, 3))
    p_value = testing.check_goodness_of_fit(plane, 2000, significance=0.0).p_value
    assert 0.25 < p_value.mean() < 0.75


def test_values():
    digamma = testing.integrate(Gamma(torch.tensor(3.0).double(), 1.0), lambda x: x.log())
    assert digamma.value == pytest.approx(1.5 - 0.5772156649015329, abs=1e-12)
    assert digamma.error < 1e-10
    assert testing.integrate(Poisson(torch.tensor(4.0).double()), lambda x: x**2).value == pytest.approx(20.0)
    kl = testing.check_kl(Normal(SCALE, 1.0), Normal(0.0, SCALE))
    assert kl.error.max() < 1e-6
    assert testing.check_entropy(Normal(SCALE, SCALE)).error.max() < 1e-9


def test_kinks_are_reported_by_the_error():
    kinked = testing.integrate(Laplace(SCALE, SCALE))
    assert ((kinked.value - 1).abs() <= 4 * kinked.error + 1e-12).all()


def test_wrong_distributions_fail():
    with pytest.raises(
        AssertionError, match=r"total mass of Unnormalised.* at batch index \(1,\): 1\.0010.*expected 1"
    ):
        testing.check_normalisation(Unnormalised(SCALE, SCALE))
    with pytest.raises(AssertionError, match=r"draws of Wide.*p-value .* against log_prob"):
        testing.check_goodness_of_fit(Wide(SCALE, SCALE))
    with pytest.raises(AssertionError, match="draws of Rare"):
        testing.check_goodness_of_fit(Rare(SCALE))
    with pytest.raises(AssertionError, match="draws of Impossible"):
        testing.check_goodness_of_fit(Impossible(SCALE))
    with pytest.raises(AssertionError, match=r"variance of WrongMoments.*standard errors away"):
        testing.check_moments(WrongMoments(SCALE, SCALE))
    with pytest.raises(AssertionError, match=r"entropy of WrongEntropy.*error 0\.0007"):
        testing.check_entropy(WrongEntropy(torch.tensor(0.0).double(), 1.0))
    with pytest.raises(AssertionError, match=r"total mass of Broken.*: nan, expected 1"):
        testing.check_normalisation(Broken(torch.tensor(0.0).double(), 1.0))


def test_wrong_kl_fails(monkeypatch):
    monkeypatch.setattr(checks, "kl_divergence", lambda p, q: torch.tensor(0.4).double())
    with pytest.raises(AssertionError, match=r"KL to Normal.*: 0\.4.*, expected 0\.5"):
        testing.check_kl(Normal(torch.tensor(0.0).double(), 1.0), Normal(torch.tensor(1.0).double(), 1.0))


def test_wrong_cdf_fails():
    p = Normal(torch.tensor(0.0).double(), 1.0)
    p.cdf = lambda value: Normal(0.01, 1.0).cdf(value)
    with pytest.raises(AssertionError, match=r"cdf .* of Normal"):
        testing.check_cdf(p)


def test_moments_that_do_not_exist_are_not_compared():
    testing.check_moments(Cauchy(SCALE, SCALE), num_samples=1000)


def test_gradients():
    x = torch.tensor([1e-3, 1.0, 50.0]).double()
    right = testing.check_gradient(lambda a, b: torch.lgamma(a) * b.sin(), x, x)
    assert len(right) == 2
    assert right[0].actual.shape == x.shape

    def detached(value):
        return value * value.detach()

    with pytest.raises(
        AssertionError, match=r"gradient \(input 0\) of detached at batch index \(2,\): 50, expected 100"
    ):
        testing.check_gradient(detached, x)
    with pytest.raises(ValueError, match="float64"):
        testing.check_gradient(torch.lgamma, x.float())


def test_supports_without_a_rule():
    with pytest.raises(ValueError, match="one or two free dimensions"):
        testing.integrate(Dirichlet(torch.ones(4)))
    with pytest.raises(ValueError, match=r"one or two free dimensions|biject_to"):
        testing.integrate(LKJCholesky(4))


def test_the_generator_is_left_as_it_was():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    p = Normal(torch.tensor(0.0), 1.0)
    testing.check_goodness_of_fit(p, 100)
    testing.check_moments(p, 100)
    assert torch.equal(torch.rand(3), expected)
    first, second = (testing.check_goodness_of_fit(p, 500, seed=seed).statistic for seed in (1, 2))
    assert first != second
    assert math.isclose(first, testing.check_goodness_of_fit(p, 500, seed=1).statistic)
