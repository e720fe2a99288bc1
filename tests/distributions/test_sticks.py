"""Fractions, stick-breaking in log space and the random-order variant."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit
from torch.distributions import kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.distributions import (
    GEM,
    Beta,
    GammaComposition,
    Kumaraswamy,
    LogitNormal,
    MultivariateKumaraswamy,
    StickBreaking,
    StickBreakingTransform,
    kl_multivariate_kumaraswamy_dirichlet_bound,
)
from pyrovae.distributions.fractions import log_prob_from_logs, rsample_log
from pyrovae.distributions.transforms import log_stick_fractions, log_stick_jacobian, log_stick_weights

DTYPES = [torch.float64, torch.float32]


def fractions(shape, dtype=torch.float32, **kwargs):
    """One distribution of each kind, with concentrations that reach both ends of the interval."""
    a, b = torch.full(shape, 0.05, dtype=dtype), torch.full(shape, 0.3, dtype=dtype)
    return [
        Kumaraswamy(a, b, **kwargs),
        Beta(a, b, **kwargs),
        GammaComposition(a, b, **kwargs),
        LogitNormal(-a, 50 * b, **kwargs),
    ]


# Fractions


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


# The transform


@pytest.mark.parametrize(("truncation", "tolerance"), [(50, 1e-5), (1000, 1e-3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(truncation, tolerance, dtype):
    log_v, log_1mv = LogitNormal(torch.zeros(16, truncation - 1, dtype=dtype), 2.0).rsample_log()
    log_weights = log_stick_weights(log_v, log_1mv)
    assert log_weights.isfinite().all()
    back, back_1m = log_stick_fractions(log_weights)
    assert (back.exp() - log_v.exp()).abs().max() < tolerance
    assert (back_1m.exp() - log_1mv.exp()).abs().max() < tolerance
    # Without logarithms the weights must stay above the smallest number, as those of a flat prior do.
    transform = StickBreakingTransform()
    v = Beta(torch.ones(16, truncation - 1, dtype=dtype), truncation / 10).rsample()
    assert (transform.inv(transform(v)) - v).abs().max() < tolerance


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_at_truncation_1000(dtype):
    for p in [*fractions((8, 999), dtype), Kumaraswamy(torch.ones(8, 999, dtype=dtype), 300.0)]:
        log_weights = StickBreaking(p).rsample_log_weights()
        assert log_weights.isfinite().all()
        assert (log_weights.exp().sum(-1) - 1).abs().max() < 1e-6


def test_log_determinant_against_the_jacobian():
    v = torch.rand(6, dtype=torch.float64)
    transform = StickBreakingTransform()
    jacobian = torch.autograd.functional.jacobian(lambda v: transform(v)[:-1], v)
    assert torch.allclose(transform.log_abs_det_jacobian(v, transform(v)), jacobian.logdet())
    assert transform.forward_shape((5, 6)) == (5, 7)
    assert transform.inverse_shape((5, 7)) == (5, 6)
    assert transform == StickBreakingTransform()


def test_gradient_through_the_transform():
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def chain(logits):
        log_v, log_1mv = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
        return (*log_stick_fractions(log_stick_weights(log_v, log_1mv)), log_stick_jacobian(log_1mv))

    torch.autograd.gradcheck(chain, logits)


# Stick-breaking


@pytest.mark.parametrize("dtype", DTYPES)
def test_beta_sticks_are_a_dirichlet(dtype):
    alpha = torch.tensor([[0.5, 2.0, 1.0, 3.5], [10.0, 0.1, 0.2, 5.0]], dtype=dtype)
    later = alpha.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    p, truth = StickBreaking(Beta(alpha[..., :-1], later)), dist.Dirichlet(alpha)
    x = truth.sample((200,)).clamp(min=1e-6)
    x = x / x.sum(-1, keepdim=True)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    assert torch.allclose(p.log_prob(x), truth.log_prob(x), rtol=tolerance, atol=tolerance)
    assert torch.allclose(p.log_prob_log_weights(x.log()), truth.log_prob(x), rtol=tolerance, atol=tolerance)
    assert torch.allclose(p.mean, truth.mean)
    assert torch.allclose(p.variance, truth.variance, rtol=1e-4)


@pytest.mark.parametrize("p", fractions((3, 9)), ids=lambda p: type(p).__name__)
def test_shapes_and_scores(p):
    sticks = StickBreaking(p)
    assert (sticks.batch_shape, sticks.event_shape, sticks.truncation) == ((3,), (10,), 10)
    weights = sticks.rsample((5,))
    assert weights.shape == (5, 3, 10)
    assert sticks.log_prob(weights).shape == (5, 3)
    log_weights = sticks.rsample_log_weights((50,))
    assert sticks.log_prob_log_weights(log_weights).isfinite().all()
    wide = sticks.expand((2, 3))
    assert type(wide) is StickBreaking
    assert torch.allclose(wide.log_prob(weights[0]), sticks.log_prob(weights[0]).expand(2, 3))
    assert StickBreaking(p.to_event(1)).event_shape == (10,)


def test_score_of_a_draw_whose_weights_underflow():
    """The log density of the weights is that of the fractions minus the log determinant, however small the weights."""
    sticks = StickBreaking(Kumaraswamy(torch.full((999,), 2.0, dtype=torch.float64), 0.5))
    torch.manual_seed(0)
    log_v, log_1mv = rsample_log(sticks.fractions)
    log_weights = log_stick_weights(log_v, log_1mv)
    assert log_weights.min() < -1000
    truth = sticks.fractions.base_dist.log_prob_from_logs(log_v, log_1mv).sum() - log_stick_jacobian(log_1mv)
    assert torch.allclose(sticks.log_prob_log_weights(log_weights), truth, rtol=1e-9)


def test_gem():
    p = GEM(torch.tensor([1.0, 5.0]), truncation=30)
    assert (p.batch_shape, p.event_shape) == ((2,), (30,))
    ratio = torch.tensor([1 / 2, 5 / 6])
    assert torch.allclose(p.mean[:, :-1], (1 - ratio)[:, None] * ratio[:, None] ** torch.arange(29))
    assert torch.allclose(p.mean.sum(-1), torch.ones(2))
    draws = p.rsample((20_000,))
    assert torch.allclose(draws.mean(0), p.mean, atol=6e-3)
    assert torch.allclose(draws.var(0), p.variance, atol=3e-3)
    with pytest.raises(ValueError, match=r"GEM: parameter `concentration`.*GreaterThan.*-1"):
        GEM(-1.0, truncation=5)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        GEM(1.0, truncation=1)


def test_whole_numbers_are_parameters_too():
    assert GEM(5, truncation=50).rsample().shape == (50,)
    assert Kumaraswamy(2, torch.tensor([3])).mean.tolist() == pytest.approx([16 / 35])
    assert Beta(torch.tensor(2), 1.0).rsample().isfinite()


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


def test_entropy_of_sticks():
    alpha = torch.tensor([0.5, 2.0, 1.0, 3.5], dtype=torch.float64)
    later = alpha.flip(-1).cumsum(-1).flip(-1)[1:]
    assert float(StickBreaking(Beta(alpha[:-1], later)).entropy()) == pytest.approx(stats.dirichlet(alpha).entropy())
    with pytest.raises(NotImplementedError, match="LogitNormal fractions"):
        StickBreaking(LogitNormal(torch.zeros(3), 1.0)).entropy()


@pytest.mark.parametrize("concentrations", [(0.05, 0.2), (0.7, 0.3), (3.0, 2.0)], ids=str)
def test_gamma_composition_quantiles(concentrations):
    p = GammaComposition(*torch.tensor(concentrations, dtype=torch.float64))
    q = torch.tensor([0.01, 0.3, 0.5, 0.9], dtype=torch.float64)
    draws = p.rsample((100_000,))
    below = (draws.unsqueeze(-1) <= p.icdf(q)).double().mean(0)
    assert ((below - q).abs() < 5 * (q * (1 - q) / 100_000).sqrt()).all()


def test_stick_breaking_errors():
    with pytest.raises(ValueError, match=r"expected batch shape \[..., K-1\].*got batch shape \(\)"):
        StickBreaking(Beta(1.0, 1.0))
    p = GEM(5.0, truncation=3)
    with pytest.raises(
        ValueError, match=r"StickBreaking: value of shape \(3,\) must satisfy Simplex.*\[0.5, 0.5, 0.5\]"
    ):
        p.log_prob(torch.tensor([0.5, 0.5, 0.5]))


def test_in_a_pyro_model():
    def model():
        with pyro.plate("data", 4):
            pyro.sample("weights", GEM(torch.full((4,), 5.0), 10))

    def guide():
        a, b = (pyro.param(name, torch.ones(4, 9), constraint=dist.constraints.positive) for name in "ab")
        with pyro.plate("data", 4):
            pyro.sample("weights", StickBreaking(Kumaraswamy(a, b)))

    for loss in (pyro.infer.Trace_ELBO(), pyro.infer.TraceMeanField_ELBO()):
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), loss)
        losses = [svi.step() for _ in range(150)]
        assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])


# Random order


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


# Tracing


def draw_and_score(a, b):
    total = 0.0
    for p in (Kumaraswamy, Beta, GammaComposition, LogitNormal):
        sticks = StickBreaking(p(a, b, validate_args=False), validate_args=False)
        log_weights = sticks.rsample_log_weights()
        total = total + sticks.log_prob_log_weights(log_weights) + sticks.log_prob(log_weights.exp())
    random_order = MultivariateKumaraswamy(a, validate_args=False)
    return total + random_order.log_prob(random_order.rsample())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_traces_maps_and_compiles():
    a, b = torch.rand(2, 4) + 0.5, torch.rand(2, 4) + 0.5
    torch.manual_seed(0)
    expected = draw_and_score(a, b)
    graph = make_fx(draw_and_score)(a, b)
    for run in (graph, torch.compile(draw_and_score, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        assert torch.allclose(run(a, b), expected)
    rows = torch.vmap(draw_and_score, randomness="different")(a.expand(3, 2, 4), b.expand(3, 2, 4))
    assert rows.shape == (3, 2)
    assert (rows[0] != rows[1]).all()
    slopes = torch.func.grad(lambda a, b: draw_and_score(a, b).sum(), argnums=(0, 1))(a, b)
    assert all(slope.isfinite().all() for slope in slopes)
