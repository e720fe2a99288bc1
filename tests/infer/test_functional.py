"""The pure functions of log weights against their definitions, written out particle by particle."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyrovae.infer import effective_sample_size, log_mean_exp
from pyrovae.infer import functional as F


@pytest.fixture
def log_weight():
    return 2 * torch.randn(6, 4, dtype=torch.float64)


def test_bounds_by_their_definition(log_weight):
    weight = log_weight.exp()
    torch.testing.assert_close(log_mean_exp(log_weight), weight.mean(0).log())
    torch.testing.assert_close(F.iwae(log_weight), weight.mean(0).log())
    torch.testing.assert_close(F.elbo(log_weight), log_weight.mean(0))
    for alpha in (-1.0, 0.0, 0.5, 3.0):
        torch.testing.assert_close(F.renyi(log_weight, alpha), (weight ** (1 - alpha)).mean(0).log() / (1 - alpha))
    torch.testing.assert_close(effective_sample_size(log_weight), weight.sum(0) ** 2 / weight.square().sum(0))


def test_renyi_passes_through_its_special_orders(log_weight):
    torch.testing.assert_close(F.renyi(log_weight, 1.0), F.elbo(log_weight))
    torch.testing.assert_close(F.renyi(log_weight, 1 + 1e-6), F.elbo(log_weight), rtol=0, atol=1e-4)
    torch.testing.assert_close(F.renyi(log_weight, -1e4), log_weight.max(0).values, rtol=0, atol=1e-3)
    torch.testing.assert_close(F.renyi(log_weight, 1e4), log_weight.min(0).values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_sum_of_others_leaves_one_out(count):
    log_weight = 3 * torch.randn(count, 5, dtype=torch.float64)
    for k, found in enumerate(F.log_sum_of_others(log_weight)):
        others = torch.cat([log_weight[:k], log_weight[k + 1 :]])
        torch.testing.assert_close(found, others.exp().sum(0).log())


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("control_variate", ["geometric", "arithmetic"])
def test_vimco_signal_replaces_one_weight_at_a_time(count, control_variate):
    log_weight = 3 * torch.randn(count, 5, dtype=torch.float64)
    weight = log_weight.exp()
    for k, found in enumerate(F.vimco_signal(log_weight, control_variate)):
        others = torch.cat([weight[:k], weight[k + 1 :]])
        mean = others.mean(0) if control_variate == "arithmetic" else others.log().mean(0).exp()
        without = torch.cat([others, mean[None]]).mean(0).log()
        torch.testing.assert_close(found, weight.mean(0).log() - without)


def test_score_terms_have_value_zero_and_the_weighted_scores_as_gradient(log_weight):
    score = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    bound = log_mean_exp(log_weight)
    expected = {
        F.elbo: log_weight / 6,
        F.iwae: bound.expand(6, 4),
        F.vimco: F.vimco_signal(log_weight),
    }
    for function, signal in expected.items():
        value = function(log_weight, score)
        torch.testing.assert_close(value, function(log_weight) if function is not F.vimco else bound)
        torch.testing.assert_close(torch.autograd.grad(value.sum(), score)[0], signal)
    baseline = torch.randn(4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(F.nvil(log_weight, score, baseline).sum(), score)
    torch.testing.assert_close(gradient, (bound - baseline).expand(6, 4))


def test_scale_of_nvil_divides_all_that_reaches_the_score():
    """Of a discrete guide log q is the score itself, so the whole gradient is divided by the scale."""
    log_p, log_q = torch.randn(2, 3, 4, dtype=torch.float64)
    log_q.requires_grad_()
    plain, halved = (
        torch.autograd.grad(F.nvil(log_p - log_q, log_q, torch.zeros(4), scale).sum(), log_q)[0] for scale in (1.0, 2.0)
    )
    torch.testing.assert_close(halved, plain / 2)


def test_wake_and_sleep(log_weight):
    log_p = (0.3 * torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    log_q = (log_p - log_weight).detach().requires_grad_()
    share = log_weight.exp() / log_weight.exp().sum(0)
    theta, phi = F.wake_theta(log_p, log_q), F.wake_phi(log_p, log_q)
    torch.testing.assert_close(theta, log_weight.exp().mean(0).log())
    torch.testing.assert_close(phi, (share * log_q).sum(0))
    for value, reached, other in ((theta, log_p, log_q), (phi, log_q, log_p)):
        gradient, nothing = torch.autograd.grad(value.sum(), (reached, other), allow_unused=True)
        torch.testing.assert_close(gradient, share)
        assert nothing is None
    torch.testing.assert_close(F.sleep_phi(log_q), log_q.mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_weights_far_apart(dtype, shift):
    """A weight that dwarfs the others by 1e4 nats: every figure is known and finite, and so is every gradient."""
    log_weight = torch.tensor([[0.0], [1e4], [0.0], [-1e4]], dtype=dtype) + shift
    score = torch.zeros(4, 1, dtype=dtype, requires_grad=True)
    top = 1e4 + shift
    bound = top - math.log(4)
    close = {"rel": 0, "abs": 5e-3 if dtype is torch.float32 else 1e-6}
    assert float(F.iwae(log_weight)) == pytest.approx(bound, **close)
    assert float(F.renyi(log_weight, 0.5)) == pytest.approx(top - 2 * math.log(4), **close)
    assert float(effective_sample_size(log_weight)) == pytest.approx(1.0)
    others = F.log_sum_of_others(log_weight).flatten() - shift
    assert others.tolist() == pytest.approx([1e4, math.log(2), 1e4, 1e4], **close)
    arithmetic = F.vimco_signal(log_weight, "arithmetic").flatten().tolist()
    assert arithmetic == pytest.approx([math.log(3 / 4)] + [1e4 - math.log(8 / 3)] + [math.log(3 / 4)] * 2, **close)
    geometric = F.vimco_signal(log_weight, "geometric").flatten().tolist()
    # In place of the large weight comes exp(-1e4 / 3), next to nothing beside the two weights of 1.
    assert geometric == pytest.approx([0.0, 1e4 - math.log(2), 0.0, 0.0], **close)
    for value in (F.vimco(log_weight, score), F.iwae(log_weight, score), F.nvil(log_weight, score, torch.zeros(1))):
        assert torch.autograd.grad(value.sum(), score)[0].isfinite().all()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.untyped_storage().nbytes() // value.element_size())
        return result


@pytest.mark.parametrize("control_variate", ["geometric", "arithmetic"])
def test_vimco_makes_nothing_larger_than_its_arguments(control_variate):
    """2000 particles of 50 data; a tensor of particles by particles would hold two hundred million numbers."""
    log_weight = torch.randn(2000, 50, requires_grad=True)
    with Largest() as largest:
        F.vimco(log_weight, log_weight, control_variate).sum().backward()
    assert largest.size <= log_weight.numel()


def test_vimco_needs_others_to_compare_with():
    with pytest.raises(ValueError, match="num_particles of at least 2"):
        F.vimco_signal(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="geometric or arithmetic, got 'median'"):
        F.vimco_signal(torch.zeros(2, 3), "median")


def test_nothing_added_has_no_likelihood():
    with pytest.raises(ValueError, match="no log weights were added"):
        F.LogWeightSum().result()


def test_vimco_with_a_weight_of_zero():
    log_weight = torch.tensor([[0.0], [-math.inf], [1.0]])
    signal = F.vimco_signal(log_weight, "arithmetic")
    assert signal.isfinite().all()
    assert not F.vimco_signal(log_weight, "geometric").isnan().any()


def test_nvil_scale_keeps_the_direction_under_a_kl_weight():
    """The part of the gradient that dividing by the scale leaves out is zero in the mean, whatever the KL weight."""
    beta, scale, num_draws = 0.3, 50.0, 200_000
    logit = torch.tensor(0.4, dtype=torch.double, requires_grad=True)
    q = torch.distributions.Bernoulli(logits=logit)
    draws = q.sample((3, num_draws))
    log_q = q.log_prob(draws)
    zeros = torch.zeros(num_draws, dtype=torch.double)
    weight = beta * (torch.log(0.3 + 0.4 * draws) - log_q) + 2.0 * draws
    whole, short = (
        torch.autograd.grad(F.nvil(weight, log_q, zeros, s, beta).sum(), logit, retain_graph=True)[0]
        for s in (1.0, scale)
    )
    assert abs(short * scale / whole - 1) < 0.05
