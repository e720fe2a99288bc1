"""Distributions of one fraction: moments, draws and densities at the ends of the unit interval."""

import itertools
import math

import numpy as np
import pytest
import torch
from fraction_cases import DTYPES, fractions
from pyro import distributions as dist
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit
from torch.distributions import kl_divergence

from pyrovae.distributions import Beta, GammaComposition, LogitNormal
from pyrovae.distributions.fractions import log_prob_from_logs, rsample_log


@pytest.mark.parametrize("scale", [1e-3, 0.5, 0.999, 1.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("loc", [-12.0, -3.0, 0.4, 8.0])
def test_logit_normal_moments_at_extremes(loc, scale):
    p = LogitNormal(torch.tensor(loc, dtype=torch.float64), scale)
    # Places where the sigmoid turns, for an adaptive quadrature that would not see them.
    turns = [turn for turn in ((-loc + by) / scale for by in (-5, 0, 5)) if abs(turn) < 12] or None
    options = {"points": turns, "epsabs": 1e-14, "epsrel": 1e-12, "limit": 500}
    mean = quad(lambda x: expit(loc + scale * x) * stats.norm.pdf(x), -12, 12, **options)[0]
    variance = quad(lambda x: (expit(loc + scale * x) - mean) ** 2 * stats.norm.pdf(x), -12, 12, **options)[0]
    assert p.mean.item() == pytest.approx(mean, abs=1e-12)
    assert p.variance.item() == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("loc", [18.0, 30.0, 38.0])
def test_logit_normal_moments_close_to_one_are_those_close_to_zero(loc, scale):
    above, below = (LogitNormal(torch.tensor(sign * loc, dtype=torch.float64), scale) for sign in (1, -1))
    assert above.variance == below.variance > 0
    assert above.mean == 1 - below.mean <= 1
    assert below.mean.item() == pytest.approx(math.exp(-loc + scale**2 / 2), rel=0.01)


@pytest.mark.parametrize("concentration0", [1e-2, 0.2, 5.0, 1e3])
@pytest.mark.parametrize("concentration1", [1e-2, 0.5, 30.0, 1e3])
def test_gamma_composition_moments_at_extremes(concentration1, concentration0):
    """The logit is asymmetric Laplace, with its peak where the distribution function has its kink."""
    p = GammaComposition(torch.tensor(concentration1, dtype=torch.float64), concentration0)
    split = torch.tensor(concentration0 / (concentration1 + concentration0), dtype=torch.float64)
    peak, root = torch.logit(p.icdf(split)).item(), (concentration1 * concentration0) ** 0.5
    logit = stats.laplace_asymmetric((concentration0 / concentration1) ** 0.5, peak, 1 / root)
    reach = [-40 / concentration1, -1 / concentration1, 0, 1 / concentration0, 40 / concentration0]
    ends = sorted({peak + by for by in reach} | {-30.0, 0.0, 30.0})

    def mean_of(function):
        parts = itertools.pairwise(ends)
        return sum(quad(lambda x: function(expit(x)) * logit.pdf(x), *part, epsabs=1e-13)[0] for part in parts)

    mean = mean_of(lambda v: v)
    variance = mean_of(lambda v: (v - mean) ** 2)
    assert p.mean.item() == pytest.approx(mean, abs=1e-8)
    assert p.variance.item() == pytest.approx(variance, abs=1e-8)


@pytest.mark.parametrize("concentrations", [(1e-2, 0.5), (0.3, 1e-2), (2.0, 7.0), (1e3, 1e2)], ids=str)
def test_beta_draws(concentrations):
    p = Beta(*torch.tensor(concentrations).expand(100_000, 2).unbind(-1))
    log_v, log_1mv = (log.double().numpy() for log in p.rsample_log())
    assert np.isfinite(log_v).all()
    assert np.isfinite(log_1mv).all()
    a, b = concentrations
    # The smaller side is compared, because scipy resolves only that one.
    side = np.exp(log_v) if a < b else np.exp(log_1mv)
    assert stats.kstest(side, stats.beta(min(a, b), max(a, b)).cdf).pvalue > 1e-3


def test_beta_path_derivative():
    """The gradient of a mean estimated by paths is the gradient of the mean."""
    a, b = (torch.full((200_000,), c, dtype=torch.float64, requires_grad=True) for c in (0.4, 1.3))
    v = Beta(a, b).rsample()
    for leaf, truth in zip((a, b), (1.3 / 1.7**2, -0.4 / 1.7**2), strict=True):
        paths = torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0]
        assert abs(float(paths.mean()) - truth) < 5 * float(paths.std()) / math.sqrt(200_000)


def test_beta_draws_under_func_grad():
    def draw(a, b):
        return Beta(a, b, validate_args=False).rsample().sum()

    slopes = torch.func.grad(draw, argnums=(0, 1))(torch.rand(5) + 0.1, torch.rand(5) + 0.1)
    assert all(slope.isfinite().all() for slope in slopes)


def test_logit_normal_against_normal():
    p = LogitNormal(torch.tensor(0.5, dtype=torch.float64), 2.0)
    v = torch.tensor([1e-9, 0.3, 1 - 1e-9], dtype=torch.float64)
    x = v.numpy()
    truth = stats.norm(0.5, 2.0).logpdf(np.log(x / (1 - x))) - np.log(x * (1 - x))
    assert np.allclose(p.log_prob(v), truth, rtol=1e-9)
    assert torch.allclose(p.icdf(p.cdf(v)), v, rtol=1e-9)
    log_v, log_1mv = LogitNormal(torch.full((50_000,), 300.0), 100.0).rsample_log()
    assert stats.kstest((log_v - log_1mv).numpy(), stats.norm(300, 100).cdf).pvalue > 1e-3


@pytest.mark.parametrize("concentrations", [(0.05, 0.2), (0.7, 0.3), (3.0, 2.0)], ids=str)
def test_gamma_composition_scores_what_it_draws(concentrations):
    a, b = torch.tensor(concentrations, dtype=torch.float64)
    log_v, log_1mv = GammaComposition(a, b).rsample_log((100_000,))
    logit = (log_v - log_1mv).sort().values
    # Distribution function of the logit by a cumulative trapezoid of the density on a fine grid.
    y = torch.linspace(float(logit[0]) - 5, float(logit[-1]) + 5, 200_001, dtype=torch.float64)
    log_s, log_1ms = torch.nn.functional.logsigmoid(y), torch.nn.functional.logsigmoid(-y)
    density = (GammaComposition(a, b).log_prob_from_logs(log_s, log_1ms) + log_s + log_1ms).exp()
    cdf = torch.cumulative_trapezoid(density, y)
    assert abs(float(cdf[-1]) - 1) < 1e-3
    assert stats.kstest(logit.numpy(), lambda x: np.interp(x, y[1:], cdf)).pvalue > 1e-3


def test_gamma_composition_is_close_to_beta_for_small_concentrations_only():
    def distance(c):
        log_v, log_1mv = GammaComposition(c, c).rsample_log((100_000,))
        smaller = torch.minimum(log_v, log_1mv).exp().numpy()  # a side that float32 resolves
        return stats.kstest(smaller, lambda x: 2 * stats.beta(c, c).cdf(x)).statistic

    assert distance(0.1) < 0.02
    assert distance(5.0) > 0.05


@pytest.mark.parametrize("p", fractions((1,)), ids=lambda p: type(p).__name__)
def test_fractions_through_independent_and_in_the_open_interval(p):
    v = p.rsample((10_000,))
    assert p.support.check(v).all()
    assert p.log_prob(v).isfinite().all()
    wide = p.expand((4, 3)).to_event(1)
    log_v, log_1mv = rsample_log(wide, (6,))
    assert log_v.shape == (6, 4, 3)
    assert log_prob_from_logs(wide, log_v, log_1mv).shape == (6, 4)
    middle = torch.full((4, 3), 0.3)
    scores = log_prob_from_logs(wide, middle.log(), (1 - middle).log())
    assert torch.allclose(scores, wide.log_prob(middle), rtol=1e-5)


def test_fractions_of_torch():
    p = dist.Beta(torch.full((3,), 1e-3), 1e-3).to_event(1)
    log_v, log_1mv = rsample_log(p, (1000,))
    assert log_v.isfinite().all()
    assert log_1mv.isfinite().all()
    assert log_prob_from_logs(p, log_v, log_1mv).shape == (1000,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_beta_of_large_concentrations(dtype):
    """The log Gamma functions of 1e3 are thousands; what they leave is of order one."""
    a, b = torch.tensor([1e3, 1e3, 500.0, 1e-3], dtype=dtype), torch.tensor([1e3, 4e2, 1.0, 1e-3], dtype=dtype)
    p, truth = Beta(a, b), stats.beta(a.double().numpy(), b.double().numpy())
    x = torch.tensor([0.5, 0.71, 0.999, 0.3], dtype=dtype)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    assert np.allclose(p.log_prob(x), truth.logpdf(x.double().numpy()), rtol=tolerance, atol=tolerance)
    assert np.allclose(p.entropy(), truth.entropy(), rtol=tolerance, atol=tolerance)
    expected = dist.Beta(a.double(), b.double()), dist.Beta(a.double() + 1, b.double())
    divergence = kl_divergence(p, Beta(a + 1, b)).double()
    assert torch.allclose(divergence, kl_divergence(*expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("concentrations", [(0.05, 0.2), (0.7, 0.3), (3.0, 2.0)], ids=str)
def test_gamma_composition_quantiles(concentrations):
    p = GammaComposition(*torch.tensor(concentrations, dtype=torch.float64))
    q = torch.tensor([0.01, 0.3, 0.5, 0.9], dtype=torch.float64)
    draws = p.rsample((100_000,))
    below = (draws.unsqueeze(-1) <= p.icdf(q)).double().mean(0)
    assert ((below - q).abs() < 5 * (q * (1 - q) / 100_000).sqrt()).all()
