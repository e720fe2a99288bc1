"""Ordinal levels and relaxed variables where the usual parametrisations lose their digits."""

import itertools

import mpmath
import pyro.distributions as pyro_dist
import pytest
import torch
from torch.distributions import biject_to, relaxed_bernoulli, relaxed_categorical

from pyrovae import testing
from pyrovae.distributions import (
    NaturalPoisson,
    OrderedLogits,
    RelaxedBernoulliLogits,
    RelaxedOneHotLogProbs,
    straight_through_bernoulli,
    straight_through_one_hot,
)

DTYPES = [(torch.float32, 1e-4), (torch.float64, 1e-8)]


def relative(actual, truth):
    truth = torch.tensor([float(value) for value in truth], dtype=torch.double)
    return ((actual.flatten().double() - truth).abs() / truth.abs().clamp(min=1)).max()


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_ordered_logits_against_mpmath(dtype, tolerance):
    predictor = torch.tensor([-1e3, -40.0, 0.0, 0.3, 17.0, 300.0], dtype=dtype)
    cutpoints = torch.tensor([-20.0, -1e-6, 0.0, 1e-3, 2.0, 90.0], dtype=dtype)
    p = OrderedLogits(predictor, cutpoints)
    truth = []
    with mpmath.workdps(600):
        sigmoid = lambda x: 1 / (1 + mpmath.exp(-x))  # noqa: E731
        for f in predictor.tolist():
            cumulative = [0, *(sigmoid(mpmath.mpf(c) - mpmath.mpf(f)) for c in cutpoints.tolist()), 1]
            truth += [mpmath.log(b - a) for a, b in itertools.pairwise(cumulative)]
    assert relative(p.log_probs, truth) < tolerance
    assert relative(p.log_prob(p.enumerate_support()).T, truth) < tolerance


def test_ordered_logits_agrees_with_pyro_where_pyro_has_digits_and_keeps_them_elsewhere():
    cutpoints = torch.tensor([-1.0, 0.5, 2.0])
    near = torch.tensor([-2.0, 0.0, 3.0])
    levels = torch.tensor([0, 2, 3])
    ours, theirs = OrderedLogits(near, cutpoints), pyro_dist.OrderedLogistic(near, cutpoints)
    torch.testing.assert_close(ours.log_prob(levels), theirs.log_prob(levels))
    far = torch.tensor(30.0, requires_grad=True)
    level = torch.tensor(1)
    (slope,) = torch.autograd.grad(OrderedLogits(far, cutpoints).log_prob(level), far)
    assert slope == pytest.approx(-1.0)  # the score falls by a nat per unit: this is what pulls the predictor back
    (lost,) = torch.autograd.grad(pyro_dist.OrderedLogistic(far, cutpoints).log_prob(level), far)
    assert lost.abs() < 0.1 or not lost.isfinite()


def test_ordered_logits_moments_and_shapes():
    p = OrderedLogits(torch.zeros(3, 1), torch.tensor([[-1.0, 0.5], [0.0, 0.1]]))
    assert p.batch_shape == (3, 2)
    assert p.num_levels == 3
    binary = OrderedLogits(torch.tensor(0.4), torch.tensor([0.1]))
    assert binary.mean == pytest.approx(float(torch.tensor(0.3).sigmoid()))
    with pytest.raises(ValueError, match=r"cutpoints must be \[\.\.\., K - 1\]"):
        OrderedLogits(torch.tensor(0.0), torch.zeros(0))


def test_zero_inflation_is_left_to_pyro():
    gate = torch.tensor([-3.0, 2.0])
    p = pyro_dist.ZeroInflatedDistribution(NaturalPoisson(torch.tensor([[1.0], [-40.0]])), gate_logits=gate)
    assert testing.check_normalisation(p, 1e-5).value.shape == (2,)
    assert p.log_prob(torch.tensor([0.0, 3.0])).isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_relaxed_bernoulli_against_mpmath(dtype, tolerance):
    temperature = torch.tensor([1e-3, 0.1, 1.0], dtype=dtype).reshape(-1, 1, 1)
    logits = torch.tensor([-50.0, 0.0, 3.0], dtype=dtype).reshape(-1, 1)
    values = torch.tensor([-1e5, -30.0, 0.2, 1e3], dtype=dtype)
    p = RelaxedBernoulliLogits(temperature, logits)
    truth = []
    with mpmath.workdps(60):
        for tau in temperature.flatten().tolist():
            for alpha in logits.flatten().tolist():
                for value in values.tolist():
                    distance = mpmath.mpf(tau) * mpmath.mpf(value) - mpmath.mpf(alpha)
                    truth.append(mpmath.log(tau) - distance - 2 * mpmath.log1p(mpmath.exp(-distance)))
    assert relative(p.log_prob(values), truth) < tolerance


def test_relaxed_bernoulli_agrees_with_torch_at_high_temperature_only():
    ours = RelaxedBernoulliLogits(torch.tensor(0.7), torch.tensor([-1.0, 2.0]))
    theirs = relaxed_bernoulli.LogitRelaxedBernoulli(torch.tensor(0.7), logits=torch.tensor([-1.0, 2.0]))
    draws = ours.rsample((100,))
    torch.testing.assert_close(ours.log_prob(draws), theirs.log_prob(draws))
    cold = RelaxedBernoulliLogits(torch.tensor(0.1), torch.tensor(0.0))
    torch.manual_seed(0)
    draws = cold.rsample((10_000,))
    weights = draws.sigmoid()
    assert 0.1 < (weights == 1).float().mean() < 0.25
    twin = relaxed_bernoulli.RelaxedBernoulli(torch.tensor(0.1), logits=torch.tensor(0.0), validate_args=False)
    on_weights = cold.log_prob(draws) - torch.nn.functional.logsigmoid(draws) - torch.nn.functional.logsigmoid(-draws)
    assert (twin.log_prob(weights) - on_weights).nan_to_num(torch.inf).abs().max() > 1.0
    assert cold.log_prob(draws).isfinite().all()


def test_relaxed_one_hot_against_torch_and_quadrature():
    logits = torch.tensor([[0.0, 1.0, -1.0], [0.2, -0.3, 0.0]]).double()
    ours = RelaxedOneHotLogProbs(torch.tensor([0.5, 1.2]).double(), logits)
    draws = ours.rsample((50,))
    for row, temperature in enumerate(ours.temperature):
        theirs = relaxed_categorical.ExpRelaxedCategorical(temperature, logits=logits[row])
        torch.testing.assert_close(ours.log_prob(draws)[:, row], theirs.log_prob(draws[:, row]))
    testing.check_normalisation(ours, 1e-8)
    # The class of the largest weight has the probabilities of the categorical, at any temperature.
    frequency = torch.nn.functional.one_hot(ours.sample((40_000,)).argmax(-1), 3).double().mean(0)
    torch.testing.assert_close(frequency, logits.softmax(-1), atol=0.01, rtol=0)


def test_cold_one_hot_draws_score_and_differentiate():
    logits = torch.tensor([0.0, 3.0, -3.0, 1.0], requires_grad=True)
    p = RelaxedOneHotLogProbs(0.01, logits)
    draws = p.rsample((2000,))
    assert (draws.exp() == 0).any()  # weights that torch's class cannot score
    score = p.log_prob(draws)
    assert score.isfinite().all()
    assert torch.autograd.grad(score.sum(), logits)[0].isfinite().all()


def test_log_simplex_bijection():
    transform = biject_to(RelaxedOneHotLogProbs.support)
    x = torch.tensor([[300.0, -2.0], [0.1, -900.0]])
    y = transform(x)
    assert RelaxedOneHotLogProbs.support.check(y).all()
    torch.testing.assert_close(transform.inv(y), x)
    assert transform.forward_shape((5, 2)) == (5, 3)
    assert transform == biject_to(RelaxedOneHotLogProbs.support)


def test_straight_through():
    logits = torch.tensor([-2.0, 0.3, 900.0], requires_grad=True)
    hard = straight_through_bernoulli(logits)
    assert hard.tolist() == [0.0, 1.0, 1.0]
    (slope,) = torch.autograd.grad(hard.sum(), logits)
    torch.testing.assert_close(slope, logits.sigmoid() * (-logits).sigmoid())
    weights = torch.tensor([[0.2, 0.7, 0.1]]).log().requires_grad_()
    hard = straight_through_one_hot(weights)
    assert hard.tolist() == [[0.0, 1.0, 0.0]]
    (slope,) = torch.autograd.grad(hard[0, 1], weights)
    torch.testing.assert_close(slope, torch.tensor([[0.0, 0.7, 0.0]]))
