"""Registered divergences against mpmath and quadrature, never against their own formula."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from torch.distributions import Beta as TorchBeta
from torch.distributions import Normal, Uniform, kl_divergence
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.distributions import (
    GEM,
    Beta,
    GammaComposition,
    Kumaraswamy,
    LogitNormal,
    StickBreaking,
    kl_kumaraswamy_beta_taylor,
)
from pyrovae.distributions.kumaraswamy import expected_log1m
from pyrovae.testing import check_gradient, check_kl

DTYPES = [torch.float64, torch.float32]


def double(*values):
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def quadrature(a, b, log_target):
    """KL from Kumaraswamy(a, b) to a log density of (log v, log(1 - v)), by adaptive quadrature to 30 digits.

    In the standard exponential variable E = -log P(V > v), for which log(1 - v^a) = -E / b.
    """

    def integrand(log_energy):
        energy = mpmath.exp(log_energy)
        t = energy / b
        log_v = (mpmath.log1p(-mpmath.exp(-t)) if t > 1 else mpmath.log(-mpmath.expm1(-t))) / a
        # Beyond 30 digits v is 1, and 1 - v is (1 - v^a) / a.
        log_1mv = mpmath.log(-mpmath.expm1(log_v)) if t < 60 else -t - mpmath.log(a)
        density = mpmath.log(a * b) + (a - 1) * log_v - (b - 1) * t
        return mpmath.exp(log_energy - energy) * (density - log_target(log_v, log_1mv))

    with mpmath.workdps(35):
        return float(mpmath.quad(integrand, [-60, -20, -10, -6, -3, -1, 0, 1, 2, 3, mpmath.log(80)]))


def log_beta(alpha, beta):
    return lambda log_v, log_1mv: (
        (alpha - 1) * log_v + (beta - 1) * log_1mv - mpmath.log(mpmath.beta(mpmath.mpf(alpha), beta))
    )


PAIRS = [(0.3, 0.3), (5.0, 0.5), (1.0, 5.0), (100.0, 100.0), (0.01, 2.0), (3.0, 0.2), (0.02, 30.0)]


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 5.0), (0.5, 0.5), (5.0, 20.0)])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_kumaraswamy_beta(a, b, alpha, beta):
    truth = quadrature(a, b, log_beta(alpha, beta))
    for dtype, tolerance in [(torch.float64, 1e-6), (torch.float32, 1e-3)]:
        p = Kumaraswamy(*torch.tensor([a, b], dtype=dtype))
        for prior in (TorchBeta, Beta):
            value = kl_divergence(p, prior(*torch.tensor([alpha, beta], dtype=dtype)))
            assert value.dtype == dtype
            assert abs(float(value) - truth) < tolerance * max(1.0, truth)


def test_kumaraswamy_beta_over_the_whole_grid():
    """Never negative, and smooth enough that a finer rule changes nothing."""
    axis = torch.logspace(-2, 2, 17, dtype=torch.float64)
    a, b = (x.flatten() for x in torch.meshgrid(axis, axis, indexing="ij"))
    for alpha, beta in itertools.product((0.5, 1.0, 5.0), (0.5, 1.0, 5.0, 20.0)):
        value = kl_divergence(Kumaraswamy(a, b), TorchBeta(*double(alpha, beta)))
        assert (value > -1e-6).all()
        single = kl_divergence(Kumaraswamy(a.float(), b.float()), TorchBeta(*torch.tensor([alpha, beta])))
        assert ((single - value).abs() < 1e-3 * value.clamp(min=1)).all()


@pytest.mark.parametrize("b", [1e-2, 1.0, 30.0])
def test_expected_log1m_where_v_is_a_power_of_a_beta(b):
    assert float(expected_log1m(*double(1.0, b))) == pytest.approx(-1 / b, rel=1e-12)
    # For a = 1/2, v is w^2 with w Beta(1, b), and log(1 - w^2) = log(1 - w) + log(1 + w).
    rest = mpmath.quad(lambda u: mpmath.log(2 - u ** (1 / mpmath.mpf(b))), [0, 1e-6, 0.01, 0.5, 1])
    assert float(expected_log1m(*double(0.5, b))) == pytest.approx(-1 / b + float(rest), rel=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient(dtype):
    axis = torch.logspace(-2, 2, 7, dtype=torch.float64)
    a, b = (x.flatten() for x in torch.meshgrid(axis, axis, indexing="ij"))
    prior = (1.0, 5.0)

    def divergence(log_a, log_b):
        q = TorchBeta(*torch.tensor(prior, dtype=log_a.dtype))
        return kl_divergence(Kumaraswamy(log_a.exp(), log_b.exp()), q)

    # In the logarithms of the concentrations, whose derivatives have the scale of the divergence.
    leaves = [x.log().to(dtype).requires_grad_() for x in (a, b)]
    slopes = torch.autograd.grad(divergence(*leaves).sum(), leaves)
    with torch.no_grad():
        for i, slope in enumerate(slopes):
            step = [1e-5 * (i == k) for k in range(2)]
            logs = [leaf.double() for leaf in leaves]
            up = divergence(logs[0] + step[0], logs[1] + step[1])
            down = divergence(logs[0] - step[0], logs[1] - step[1])
            truth = (up - down) / 2e-5
            assert ((slope - truth).abs() < 1e-4 * truth.abs().clamp(min=1)).all()


@pytest.mark.parametrize(("c", "d"), [(1.0, 1.0), (0.2, 6.0), (8.0, 0.4)])
@pytest.mark.parametrize(("a", "b"), PAIRS[:5])
def test_kumaraswamy_kumaraswamy(a, b, c, d):
    def log_target(log_v, log_1mv):
        # log(1 - v^c), by log(1 - v) where v is 1 to 30 digits
        log_1m_power = mpmath.log(-mpmath.expm1(c * log_v)) if log_1mv > -55 else log_1mv + mpmath.log(c)
        return mpmath.log(c * d) + (c - 1) * log_v + (d - 1) * log_1m_power

    truth = quadrature(a, b, log_target)
    for dtype, tolerance in [(torch.float64, 1e-6), (torch.float32, 1e-3)]:
        pair = (Kumaraswamy(*torch.tensor(x, dtype=dtype)) for x in ((a, b), (c, d)))
        assert abs(float(kl_divergence(*pair)) - truth) < tolerance * max(1.0, truth)


def test_kumaraswamy_uniform():
    p = Kumaraswamy(*double(2.0, 3.0))
    for low, high in [(0.0, 1.0), (-1.0, 4.0)]:
        truth = quadrature(2.0, 3.0, lambda *_, width=high - low: -mpmath.log(width))
        assert float(kl_divergence(p, Uniform(*double(low, high)))) == pytest.approx(truth, rel=1e-12)
    assert kl_divergence(p, Uniform(*double(0.1, 1.0))) == torch.inf


def test_beta_divergences():
    p, q = Beta(*double(2.0, 3.0)), Beta(*double(0.7, 1.5))
    check_kl(p, q, tolerance=1e-8)
    check_kl(p, TorchBeta(*double(0.7, 1.5)), tolerance=1e-8)
    check_kl(TorchBeta(*double(2.0, 3.0)), q, tolerance=1e-8)
    check_kl(p, Uniform(*double(0.0, 1.0)), tolerance=1e-8)


def test_logit_normal_divergence():
    check_kl(LogitNormal(*double(0.3, 0.5)), LogitNormal(*double(-1.0, 2.0)), tolerance=1e-8)


def test_stick_breaking_divergence_is_that_of_the_fractions():
    a, b = torch.rand(2, 3, 9, dtype=torch.float64) + 0.5
    p, q = StickBreaking(Kumaraswamy(a, b)), GEM(torch.tensor(5.0, dtype=torch.float64), 10)
    fractions = kl_divergence(Kumaraswamy(a, b), TorchBeta(*double(1.0, 5.0)))
    assert torch.allclose(kl_divergence(p, q), fractions.sum(-1))
    # The same by sampling weights: the change of variables cancels.
    log_weights = p.rsample_log_weights((20_000,))
    difference = p.log_prob_log_weights(log_weights) - q.log_prob_log_weights(log_weights)
    assert ((difference.mean(0) - kl_divergence(p, q)).abs() < 5 * difference.std(0) / 20_000**0.5).all()


def test_divergences_that_do_not_exist():
    with pytest.raises(ValueError, match="same truncation on both sides, got 10 and 8"):
        kl_divergence(GEM(5.0, 10), GEM(5.0, 8))
    with pytest.raises(NotImplementedError):
        kl_divergence(GammaComposition(1.0, 1.0), Beta(1.0, 1.0))


@pytest.mark.parametrize(("a", "b", "published"), [(2, 3, 1.3722), (1, 1, 2.0269), (0.3, 0.3, 4.799), (10, 0.1, 18.52)])
def test_ten_term_series_reproduces_the_published_error(a, b, published):
    p, q = Kumaraswamy(*double(float(a), float(b))), TorchBeta(*double(1.0, 5.0))
    assert float(kl_kumaraswamy_beta_taylor(p, q)) == pytest.approx(published, rel=1e-3)
    assert kl_kumaraswamy_beta_taylor(p, q) < kl_divergence(p, q)
    more = kl_kumaraswamy_beta_taylor(p, q, terms=10**5)
    assert kl_kumaraswamy_beta_taylor(p, q) < more < kl_divergence(p, q)


def test_torch_is_as_it_was():
    """Importing the library adds pairs; torch's own divergences and classes are untouched."""
    p, q = TorchBeta(*double(2.0, 3.0)), TorchBeta(*double(0.7, 1.5))
    assert torch.distributions.kl._dispatch_kl(TorchBeta, TorchBeta).__module__.startswith("torch.")
    assert torch.distributions.kl._dispatch_kl(Normal, Normal).__module__.startswith("torch.")
    check_kl(p, q, tolerance=1e-8)


def divergences(a, b):
    p, q = Kumaraswamy(a, b, validate_args=False), Kumaraswamy(b, a, validate_args=False)
    prior = GEM(2.0, a.shape[-1] + 1, validate_args=False)
    sticks = kl_divergence(StickBreaking(p, validate_args=False), prior)
    return kl_divergence(p, q), sticks, kl_kumaraswamy_beta_taylor(p, Beta(a, b, validate_args=False))


@pytest.mark.filterwarnings("ignore")  # the compiler's own imports warn of deprecations
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_traces_maps_and_compiles(backend):
    a, b = torch.tensor([[0.01, 0.3, 100.0, 2.0]]), torch.tensor([[0.02, 5.0, 0.05, 1.0]])
    expected = divergences(a, b)
    runs = {
        "make_fx": make_fx(divergences)(a, b)(a, b),
        "vmap": [rows[0] for rows in torch.vmap(divergences)(a[None], b[None])],
        "compile": torch.compile(divergences, fullgraph=True, backend=backend)(a, b),
    }
    for name, seen in runs.items():
        for one, other in zip(seen, expected, strict=True):
            assert torch.allclose(one, other, rtol=1e-4), name


def test_gradient_by_func_grad():
    a, b = double([0.3, 2.0], [5.0, 0.4])
    check_gradient(lambda a, b: torch.stack([part.sum() for part in divergences(a, b)[:2]]), a, b, tolerance=1e-6)
    slopes = torch.func.grad(lambda a: divergences(a, b)[1].sum())(a)
    assert np.isfinite(slopes.numpy()).all()
