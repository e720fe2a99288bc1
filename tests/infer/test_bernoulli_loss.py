"""Log-likelihoods of Bernoulli variables in a recorded step: fewer logarithms, the same values and gradients."""

import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.infer.bernoulli_loss import share_exponentials

aten = torch.ops.aten


def log_likelihoods(shape, event):
    """Of rows, and the gradient of their weighted sum, as an objective asks for them."""

    def run(logits, x):
        given = logits.detach().requires_grad_()
        rows = dist.Bernoulli(logits=given, validate_args=False).to_event(event).log_prob(x)
        weights = torch.arange(1.0, rows.numel() + 1, dtype=x.dtype).reshape(rows.shape)
        (gradient,) = torch.autograd.grad((weights * rows).sum(), [given])
        return rows.detach(), gradient

    return run


def masked(logits, x):
    given = logits.detach().requires_grad_()
    rows = torch.where(x > 0.5, dist.Bernoulli(logits=given, validate_args=False).log_prob(x), 0.0).sum(-1)
    (gradient,) = torch.autograd.grad(rows.sum(), [given])
    return rows.detach(), gradient


def example(shape, dtype, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(shape, generator=generator, dtype=dtype)
    return logits, (torch.rand(shape, generator=generator) > 0.5).to(dtype)


def targets(graph):
    return [node.target for node in graph.graph.nodes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "event"),
    [((5, 784), 1), ((5, 1, 28, 28), 3), ((4, 5, 200), 1), ((5, 10), 1), ((6, 2, 64), 1)],
)
def test_values_and_gradients_are_the_same(shape, event, dtype):
    run, given = log_likelihoods(shape, event), example(shape, dtype)
    graph = make_fx(run)(*given)
    assert share_exponentials(graph) == 1
    tolerance = 2e-6 if dtype == torch.float32 else 1e-13
    for made, right in zip(graph(*given), run(*given), strict=True):
        torch.testing.assert_close(made, right, rtol=tolerance, atol=tolerance)
    kinds = targets(graph)
    assert aten.prod.dim_int in kinds
    assert aten.log1p.default not in kinds
    assert kinds.count(aten.exp.default) == 1
    assert aten.sigmoid.default not in kinds


@pytest.mark.parametrize("width", [1, 7, 67, 134])
def test_widths_without_a_good_divisor_keep_their_logarithms(width):
    run, given = log_likelihoods((3, width), 1), example((3, width), torch.float64)
    graph = make_fx(run)(*given)
    assert share_exponentials(graph) == 1
    assert aten.log1p.default in targets(graph)
    assert aten.prod.dim_int not in targets(graph)
    for made, right in zip(graph(*given), run(*given), strict=True):
        torch.testing.assert_close(made, right, rtol=1e-13, atol=1e-13)


def test_masked_rows_keep_their_logarithms():
    given = example((4, 64), torch.float64)
    graph = make_fx(masked)(*given)
    assert share_exponentials(graph) == 1
    assert aten.log1p.default in targets(graph)
    for made, right in zip(graph(*given), masked(*given), strict=True):
        torch.testing.assert_close(made, right, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("logit", "value"), [(17.0, 1.0), (-17.0, 0.0), (-14.7, 0.0), (3.0, 1.0), (88.0, 1.0)])
@pytest.mark.parametrize("width", [784, 4096, 67])
def test_small_losses_are_those_of_double_precision(logit, value, width):
    """Torch's own are off by a half for zeros at a logit of -14.7, by its rounding."""
    run = log_likelihoods((2, width), 1)
    logits, x = torch.full((2, width), logit), torch.full((2, width), value)
    graph = make_fx(run)(logits, x)
    share_exponentials(graph)
    exact = run(logits.double(), x.double())
    for made, right in zip(graph(logits, x), exact, strict=True):
        torch.testing.assert_close(made.double(), right, rtol=0.02, atol=1e-7)


def test_infinite_logits_give_what_they_give_uncompiled():
    run, (logits, x) = log_likelihoods((4, 64), 1), example((4, 64), torch.float32)
    for row, (logit, value) in enumerate([(1, 0), (1, 1), (-1, 0), (-1, 1)]):
        logits[row, 7], x[row, 7] = logit * torch.inf, value
    graph = make_fx(run)(logits, x)
    share_exponentials(graph)
    for made, right in zip(graph(logits, x), run(logits, x), strict=True):
        torch.testing.assert_close(made, right, rtol=2e-6, atol=1e-6, equal_nan=True)


def test_logits_that_the_step_changes_in_place_are_left_alone():
    def run(logits, x):
        held = logits.clone()
        rows = F.binary_cross_entropy_with_logits(held.view(4, 64), x, reduction="none").neg().sum(-1)
        held[:, :5] = 0.0
        return rows, torch.sigmoid(held.view(4, 64))

    given = example((4, 64), torch.float32)
    graph = make_fx(run)(*given)
    assert share_exponentials(graph) == 0
    for made, right in zip(graph(*given), run(*given), strict=True):
        assert torch.equal(made, right)


@pytest.mark.parametrize("scale", [1e-30, 1e2, 1e30])
def test_extreme_logits(scale):
    run = log_likelihoods((3, 784), 1)
    given = example((3, 784), torch.float32, scale)
    graph = make_fx(run)(*given)
    share_exponentials(graph)
    for made, right in zip(graph(*given), run(*given), strict=True):
        torch.testing.assert_close(made, right, rtol=2e-6, atol=1e-6)


def test_what_is_not_a_number_stays_so():
    run, (logits, x) = log_likelihoods((3, 784), 1), example((3, 784), torch.float32)
    graph = make_fx(run)(logits, x)
    share_exponentials(graph)
    logits[1, 5] = float("nan")
    rows, gradient = graph(logits, x)
    assert rows.isnan().tolist() == [False, True, False]
    assert gradient.isnan().sum() == 1
    assert gradient[1, 5].isnan()


def test_probabilities_of_draws_stay_what_they_are():
    """Another rounding could turn a draw into another one."""

    def run(logits):
        given = logits.detach().requires_grad_()
        drawn = torch.bernoulli(torch.sigmoid(given.detach()))
        rows = dist.Bernoulli(logits=given, validate_args=False).to_event(1).log_prob(drawn)
        return drawn, *torch.autograd.grad(rows.sum(), [given])

    logits, _ = example((5, 64), torch.float32)
    graph = make_fx(run)(logits)
    assert share_exponentials(graph) == 1
    assert targets(graph).count(aten.sigmoid.default) == 1
    torch.manual_seed(0)
    drawn, gradient = graph(logits)
    torch.manual_seed(0)
    right, other = run(logits)
    assert torch.equal(drawn, right)
    torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize(
    "options", [{"weight": torch.full((8,), 2.0)}, {"pos_weight": torch.full((8,), 2.0)}, {"reduction": "mean"}]
)
def test_other_losses_are_left_alone(options):
    def run(logits, x):
        return F.binary_cross_entropy_with_logits(logits, x, **{"reduction": "none", **options})

    given = example((4, 8), torch.float32)
    graph = make_fx(run)(*given)
    before = targets(graph)
    assert share_exponentials(graph) == 0
    assert targets(graph) == before
    assert torch.equal(graph(*given), run(*given))
