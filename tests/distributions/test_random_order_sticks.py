"""Sticks broken in a random order: the density is the average over the orders."""

import itertools
import math

import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from torch.distributions import kl_divergence

from pyrovae.distributions import (
    Beta,
    Kumaraswamy,
    MultivariateKumaraswamy,
    kl_multivariate_kumaraswamy_dirichlet_bound,
)


def by_enumeration(alpha, x):
    orders = [torch.tensor(order) for order in itertools.permutations(range(len(alpha)))]
    scores = [MultivariateKumaraswamy(alpha).log_prob_given_order(x, order) for order in orders]
    return torch.logsumexp(torch.stack(scores), 0) - math.log(len(orders))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_density_is_the_average_over_orders(size):
    alpha = torch.linspace(0.4, 3.0, size, dtype=torch.float64)
    x = dist.Dirichlet(torch.ones(size, dtype=torch.float64)).sample((50,))
    assert torch.allclose(MultivariateKumaraswamy(alpha).log_prob(x), by_enumeration(alpha, x), rtol=1e-9)


def test_density_of_one_order_of_two_is_a_kumaraswamy():
    alpha = torch.tensor([0.7, 2.0], dtype=torch.float64)
    v = torch.tensor([0.2, 0.9], dtype=torch.float64)
    score = MultivariateKumaraswamy(alpha).log_prob_given_order(torch.stack([1 - v, v], -1), torch.tensor([1, 0]))
    assert torch.allclose(score, Kumaraswamy(alpha[1], alpha[0]).log_prob(v))


def test_exchangeable_when_plain_sticks_are_not():
    alpha, x = torch.full((4,), 0.5), torch.tensor([0.6, 0.25, 0.1, 0.05])
    turned = torch.stack([x.roll(k) for k in range(4)])
    p = MultivariateKumaraswamy(alpha)
    scores = p.log_prob(turned)
    assert torch.allclose(scores, scores[:1].expand(4), rtol=1e-5)
    plain = p.log_prob_given_order(turned, torch.arange(4))
    assert plain.max() - plain.min() > 0.1


def test_moments_of_draws_in_random_order():
    alpha = torch.tensor([[0.3, 1.0, 4.0, 0.5]], dtype=torch.float64)
    p = MultivariateKumaraswamy(alpha)
    draws = p.rsample((100_000,))
    assert torch.allclose(p.mean.sum(-1), torch.ones(1, dtype=torch.float64))
    assert ((draws.mean(0) - p.mean).abs() < 5 * draws.std(0) / math.sqrt(1e5)).all()
    assert torch.allclose(draws.var(0), p.variance, rtol=0.03)


def test_draws_of_two_components_against_the_density():
    alpha = torch.tensor([0.6, 2.5], dtype=torch.float64)
    draws = MultivariateKumaraswamy(alpha).rsample((50_000,))[:, 0].numpy()

    def cdf(x):
        first, second = (Kumaraswamy(*pair) for pair in (alpha, alpha.flip(0)))
        x = torch.as_tensor(x)
        return 0.5 * (first.cdf(x) + second.log_survival(1 - x).exp()).numpy()

    assert stats.kstest(draws.clip(1e-12, 1 - 1e-12), cdf).pvalue > 1e-3


def test_divergence_bound_from_a_dirichlet():
    p = MultivariateKumaraswamy(torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64))
    q = dist.Dirichlet(torch.tensor([1.0, 1.0, 0.7], dtype=torch.float64))
    draws = p.rsample((50_000,)).clamp(min=1e-300)
    difference = p.log_prob(draws) - q.log_prob(draws)
    estimate, error = float(difference.mean()), float(difference.std()) / math.sqrt(50_000)
    bound = float(kl_multivariate_kumaraswamy_dirichlet_bound(p, q))
    assert estimate - 5 * error < bound < estimate + 0.2
    # The bound is the average over orders of divergences that stick-breaking gives exactly.
    total = 0.0
    for order in itertools.permutations(range(3)):
        alpha, beta = p.concentration[list(order)], q.concentration[list(order)]
        pairs = [(Kumaraswamy(alpha[i], alpha[i + 1 :].sum()), Beta(beta[i], beta[i + 1 :].sum())) for i in range(2)]
        total += sum(float(kl_divergence(*pair)) for pair in pairs) / 6
    assert bound == pytest.approx(total, rel=1e-12)


def test_too_many_components_for_the_exact_density():
    p = MultivariateKumaraswamy(torch.ones(20))
    x = p.rsample()
    assert p.log_prob_given_order(x, torch.randperm(20)).isfinite()
    with pytest.raises(ValueError, match="up to 14 components, got 20"):
        p.log_prob(x)
    with pytest.raises(ValueError, match="K at least 2"):
        MultivariateKumaraswamy(torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"`concentration`.*-3 at index \(1, 0\)"):
        MultivariateKumaraswamy(torch.tensor([[1.0, 1.0], [-3.0, -1.0]]))
