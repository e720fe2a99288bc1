"""Stick-breaking in log space: the transform, the distribution of the weights, and traces of it."""

import numpy as np
import pyro
import pytest
import torch
from fraction_cases import DTYPES, fractions
from pyro import distributions as dist
from scipy import stats
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
)
from pyrovae.distributions.fractions import rsample_log
from pyrovae.distributions.transforms import log_stick_fractions, log_stick_jacobian, log_stick_weights

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


def test_entropy_of_sticks():
    alpha = torch.tensor([0.5, 2.0, 1.0, 3.5], dtype=torch.float64)
    later = alpha.flip(-1).cumsum(-1).flip(-1)[1:]
    assert float(StickBreaking(Beta(alpha[:-1], later)).entropy()) == pytest.approx(stats.dirichlet(alpha).entropy())
    with pytest.raises(NotImplementedError, match="LogitNormal fractions"):
        StickBreaking(LogitNormal(torch.zeros(3), 1.0)).entropy()


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
