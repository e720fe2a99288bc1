"""The Kumaraswamy against mpmath, in the tails and in both precisions."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import biject_to, transform_to
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.distributions import Kumaraswamy
from pyrovae.distributions._numerics import complement_loglog, log1mexp
from pyrovae.distributions.constraints import open_unit_interval

DTYPES = [torch.float64, torch.float32]
CORNERS = [(0.1, 0.1), (5.0, 0.02), (0.01, 1.0), (1e3, 1e-3), (1e-3, 1e3)]


@pytest.fixture(autouse=True)
def forty_digits():
    with mpmath.workdps(40):
        yield


def grid(dtype, *axes):
    return tuple(torch.tensor(column, dtype=dtype) for column in zip(*itertools.product(*axes), strict=True))


def worst(values, truth):
    truth = torch.tensor([float(t) for t in truth], dtype=torch.float64)
    error = (values.double() - truth).abs() / truth.abs().clamp(min=1.0)
    assert not error.isnan().any()
    return float(error.max())


def points(dtype):
    """From 1e-30 to the largest number below 1 that the test asks for, with the concentrations 1e-3 to 1e3."""
    last = [1 - 1e-6, 1 - 1e-10, 1 - 1e-15] if dtype == torch.float64 else [1 - 1e-4, 1 - 2.0**-24]
    concentrations = [1e-3, 0.03, 1.0, 2.5, 50.0, 1e3]
    return grid(dtype, concentrations, concentrations, [1e-30, 1e-12, 1e-4, 0.1, 0.5, 0.9, *last])


def exact(a, b, x):
    """Log density, log cdf, log survival and quantile (at probability x) from the definitions, to 40 digits."""
    a, b, x = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(x)
    log_left = mpmath.log1p(-(x**a))
    density = mpmath.log(a * b) + (a - 1) * mpmath.log(x) + (b - 1) * log_left
    log_cdf = mpmath.log(-mpmath.expm1(b * log_left))
    return density, log_cdf, b * log_left, (-mpmath.expm1(mpmath.log1p(-x) / b)) ** (1 / a)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_tails(dtype, tolerance):
    a, b, x = points(dtype)
    p = Kumaraswamy(a, b)
    with mpmath.workdps(60):
        truth = list(zip(*map(exact, a.tolist(), b.tolist(), x.tolist()), strict=True))
    assert worst(p.log_prob(x), truth[0]) < tolerance
    assert worst(p.log_prob_from_logs(x.log(), torch.log1p(-x)), truth[0]) < tolerance
    assert worst(p.log_cdf(x), truth[1]) < tolerance
    assert worst(p.log_survival(x), truth[2]) < tolerance
    assert worst(p.icdf(x), truth[3]) < tolerance


def test_quantiles_at_the_ends():
    p = Kumaraswamy(2.0, 3.0)
    assert p.icdf(torch.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("corner", CORNERS, ids=str)
def test_a_million_draws(corner):
    a, b = (torch.full((10**6,), c, requires_grad=True) for c in corner)
    p = Kumaraswamy(a, b)
    v = p.rsample()
    assert ((v >= torch.finfo(v.dtype).tiny) & (v <= 1 - 5.9e-8)).all()
    score = p.log_prob(v)
    assert score.isfinite().all()
    for gradient in torch.autograd.grad(score.sum(), [a, b]):
        assert gradient.isfinite().all()
    log_v, log_1mv = p.rsample_log()
    assert log_v.isfinite().all()
    assert log_1mv.isfinite().all()
    assert stats.kstest(survival(*corner, log_v, log_1mv), "uniform").pvalue > 1e-3


def survival(a, b, log_v, log_1mv):
    """``(1 - v^a)^b`` in double precision from whichever logarithm is away from 0; uniform when the draws are right."""
    log_v, log_1mv = log_v.detach().double().numpy(), log_1mv.detach().double().numpy()
    minus_log_v = np.where(log_v < -0.5, -log_v, -np.log1p(-np.exp(np.clip(log_1mv, -700, -0.5))))
    # Where 1 - v underflows even here, 1 - v^a is a (1 - v).
    return np.exp(b * np.where(log_1mv < -700, np.log(a) + log_1mv, np.log(-np.expm1(-a * minus_log_v))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_logarithms_belong_to_one_draw(dtype):
    p = Kumaraswamy(*grid(dtype, [1e-3, 0.1, 1.0, 30.0, 1e3], [1e-3, 0.1, 1.0, 30.0, 1e3]))
    log_v, log_1mv = p.rsample_log((200,))
    small, large = log_v < -0.7, log_v > -0.7
    tolerance = 1e3 * torch.finfo(dtype).eps
    assert torch.allclose(log_1mv[small], torch.log1p(-log_v[small].exp()), rtol=tolerance, atol=1e-37)
    assert torch.allclose(log_v[large], torch.log1p(-log_1mv[large].exp()), rtol=tolerance, atol=1e-37)
    torch.manual_seed(3)
    logs = p.rsample_log((200,))
    torch.manual_seed(3)
    v = p.rsample((200,))
    inside = (v > 1e-30) & (v < 0.9)
    assert torch.allclose(v[inside], logs[0].exp()[inside], rtol=1e-4)
    assert ((logs[0] < -80) == (v < 2e-35)).all()


@pytest.mark.parametrize("concentrations", [(0.3, 0.2), (2.0, 5.0), (40.0, 0.5)], ids=str)
def test_path_derivative(concentrations):
    """The derivative of a draw is minus the derivative of its cdf over its density."""
    a, b = (torch.tensor(c, dtype=torch.float64, requires_grad=True) for c in concentrations)
    v = Kumaraswamy(a, b).rsample()
    path = torch.autograd.grad(v, [a, b], retain_graph=True)
    frozen = v.detach()
    slopes = torch.autograd.grad(Kumaraswamy(a, b).cdf(frozen), [a, b])
    density = Kumaraswamy(a, b).log_prob(frozen).exp()
    for derivative, slope in zip(path, slopes, strict=True):
        assert torch.allclose(derivative, -slope / density, rtol=1e-8)


@pytest.mark.parametrize("corner", [(0.01, 1.0), (5.0, 0.02)], ids=str)
def test_score_of_a_moved_draw_keeps_its_path_derivative(corner):
    """A draw that float32 cannot hold is moved; the derivative of its score is still that of the exact draw."""
    a, b = (torch.tensor(c, requires_grad=True) for c in corner)
    p = Kumaraswamy(a, b)
    torch.manual_seed(0)
    log_v, log_1mv = p.rsample_log((500,))
    torch.manual_seed(0)
    score = p.log_prob(p.rsample((500,)))
    moved = (log_v < -84) | (log_1mv < -16.7)
    assert moved.sum() > 50
    slopes = torch.autograd.grad(score[moved].sum(), [a, b])
    truth = torch.autograd.grad(p.log_prob_from_logs(log_v, log_1mv)[moved].sum(), [a, b])
    for slope, expected in zip(slopes, truth, strict=True):
        assert torch.allclose(slope, expected, rtol=0.05)


@pytest.mark.parametrize("concentrations", [(0.5, 0.3), (3.0, 2.0), (0.05, 8.0), (20.0, 0.1)], ids=str)
def test_moments_and_entropy_against_quadrature(concentrations):
    a, b = concentrations

    # In y = log v - log(1 - v) the density has light tails on both sides.
    def expectation(function):
        def integrand(y):
            log_v, log_1mv = -mpmath.log1p(mpmath.exp(-y)), -mpmath.log1p(mpmath.exp(y))
            log_1m_power = mpmath.log(-mpmath.expm1(a * log_v))
            density = mpmath.log(a * b) + (a - 1) * log_v + (b - 1) * log_1m_power
            return mpmath.exp(density + log_v + log_1mv) * function(mpmath.exp(log_v), density)

        return mpmath.quad(integrand, [-2000, -500, -100, -30, -10, -3, 0, 3, 10, 30, 100, 400])

    with mpmath.workdps(20):
        mean, square = expectation(lambda v, _: v), expectation(lambda v, _: v * v)
        entropy = expectation(lambda _, density: -density)
    for dtype, tolerance in [(torch.float64, 1e-9), (torch.float32, 1e-5)]:
        p = Kumaraswamy(torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype))
        assert float(p.mean) == pytest.approx(float(mean), rel=tolerance)
        assert float(p.variance) == pytest.approx(float(square - mean**2), rel=tolerance)
        assert float(p.entropy()) == pytest.approx(float(entropy), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_at_the_corners(dtype):
    a, b = grid(dtype, [1e-3, 1.0, 1e3], [1e-3, 1.0, 1e3])
    p = Kumaraswamy(a, b)

    def moment(order):
        return [b * mpmath.beta(1 + order / mpmath.mpf(a), b) for a, b in zip(a.tolist(), b.tolist(), strict=True)]

    mean, square = moment(1), moment(2)
    assert worst(p.mean, mean) < 1e-6
    variance = torch.tensor([float(s - m * m) for s, m in zip(square, mean, strict=True)], dtype=torch.float64)
    assert torch.allclose(p.variance.double(), variance, rtol=1e-5, atol=1e-37)


def test_mode():
    a = torch.tensor([3.0, 2.0, 2.0, 1.0, 0.5, 1.0, 0.5, 0.5, 1.0])
    b = torch.tensor([4.0, 1.0, 0.5, 3.0, 3.0, 0.5, 1.0, 0.5, 1.0])
    mode = Kumaraswamy(a, b).mode
    assert mode[1:7].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    assert mode[7:].isnan().all()
    inside = torch.linspace(0.001, 0.999, 999)
    assert abs(float(mode[0]) - float(inside[Kumaraswamy(3.0, 4.0).log_prob(inside).argmax()])) < 1e-3


def test_error_names_parameter_constraint_and_worst_entry():
    with pytest.raises(ValueError, match=r"Kumaraswamy.*`concentration0`.*GreaterThan.*2 of 4.*-7 at index \(1, 0\)"):
        Kumaraswamy(1.0, torch.tensor([[1.0, 2.0], [-7.0, -1.0]]))
    with pytest.raises(ValueError, match=r"Kumaraswamy.*value.*OpenUnitInterval.*2 of 3.*1\.5 at index \(2,\)"):
        Kumaraswamy(1.0, 1.0).log_prob(torch.tensor([0.5, -0.1, 1.5]))
    with pytest.raises(ValueError, match=r"1 of 2 entries does not; the worst is nan at index \(0,\)"):
        Kumaraswamy(torch.tensor([torch.nan, 1.0]), 1.0)
    assert Kumaraswamy(-1.0, 1.0, validate_args=False).batch_shape == ()


@pytest.mark.parametrize("constraint", [open_unit_interval, Kumaraswamy.support])
def test_constraint_has_a_bijection(constraint):
    for registry in (biject_to, transform_to):
        transform = registry(constraint)
        assert constraint.check(transform(torch.tensor([-1e4, 0.0, 1e4]))).all()
        assert torch.allclose(transform.inv(transform(torch.tensor([-3.0, 2.0]))), torch.tensor([-3.0, 2.0]))


def outputs(a, b, x):
    p = Kumaraswamy(a, b, validate_args=False)
    return p.log_prob(x), p.log_cdf(x), p.log_survival(x), p.icdf(x), p.entropy(), p.mean, p.variance, p.mode


@pytest.mark.parametrize("dtype", DTYPES)
def test_traced_mapped_and_compiled_values(dtype):
    a, b, x = points(dtype)
    expected = outputs(a, b, x)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    runs = {
        "make_fx": make_fx(outputs)(a, b, x)(a, b, x),
        "vmap": torch.vmap(outputs)(a, b, x),
        "compile": torch.compile(outputs, fullgraph=True, backend="aot_eager")(a, b, x),
    }
    for name, seen in runs.items():
        for one, other in zip(seen, expected, strict=True):
            assert torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True), name


def draw_and_score(a, b):
    p = Kumaraswamy(a, b, validate_args=False)
    return p.log_prob(p.rsample())


def test_traced_mapped_and_compiled_draws():
    a, b = grid(torch.float32, [0.1, 1.0, 1e3], [1e-3, 1.0, 30.0])
    torch.manual_seed(0)
    expected = draw_and_score(a, b)
    graph = make_fx(draw_and_score)(a, b)
    for run in (graph, torch.compile(draw_and_score, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        assert torch.allclose(run(a, b), expected)
        assert not torch.allclose(run(a, b), expected)  # a new draw at every call
    rows = torch.vmap(draw_and_score, randomness="different")(a.expand(3, -1), b.expand(3, -1))
    assert rows.isfinite().all()
    assert not torch.allclose(rows[0], rows[1])
    slopes = torch.func.grad(lambda a, b: draw_and_score(a, b).sum(), argnums=(0, 1))(a, b)
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.filterwarnings("ignore")  # the compiler's own imports warn of deprecations
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_code_keeps_small_numbers(dtype):
    """torch compiles expm1 on the CPU to exp - 1, which loses every probability below 1e-7; ours must not use it."""

    def helpers(x):
        return log1mexp(-x), complement_loglog(torch.log(x)), complement_loglog(-x)

    x = torch.logspace(-36, 2, 64, dtype=dtype)
    expected, seen = helpers(x), torch.compile(helpers, fullgraph=True)(x)
    for one, other in zip(seen, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=0)


def test_loglog_complement_passes_large_gradients():
    """Where p is near the smallest number, the gradient of its correction must not be a difference of infinities."""
    s = torch.cat([-torch.linspace(70, 90, 200), torch.linspace(70, 90, 200).log()]).requires_grad_()
    (1e4 * complement_loglog(s)).sum().backward()
    assert s.grad.isfinite().all()


def test_loglog_complement_is_its_own_inverse():
    s = torch.linspace(-700, 6, 1000, dtype=torch.float64)
    assert torch.allclose(complement_loglog(complement_loglog(s)), s, rtol=1e-12)
    torch.autograd.gradcheck(complement_loglog, s[::50].clone().requires_grad_(), rtol=1e-5)


@pytest.mark.parametrize("a", [49.0, 51.0, 1e3, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("b", [1e-6, 1.0, 1e4, 1e6])
def test_variance_of_narrow_densities(a, b):
    """Where the moments cancel; the gradient is that of the value."""
    with mpmath.workdps(60):
        mean, square = (b * mpmath.beta(1 + order / mpmath.mpf(a), b) for order in (1, 2))
        expected = float(square - mean**2)
    leaf = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    found = Kumaraswamy(leaf, torch.tensor(b, dtype=torch.float64)).variance
    assert found.item() == pytest.approx(expected, rel=2e-6)
    (gradient,) = torch.autograd.grad(found, leaf)
    assert gradient.isfinite()
    assert gradient < 0
