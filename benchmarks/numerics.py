"""Worst numerical error of the distributions over wide grids, against mpmath, one row per figure.

Run ``python benchmarks/numerics.py``; it takes a few minutes. Each function of `ROWS` returns one or more rows
``(figure, float64 worst, float32 worst, target)``. Errors are relative to max(1, |truth|), with the truth computed at
the parameters and points as the dtype holds them.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions import kl_divergence

from pyrovae.distributions import GEM, Kumaraswamy, LogitNormal, StickBreaking, kl_kumaraswamy_beta_taylor
from pyrovae.distributions.transforms import log_stick_fractions, log_stick_weights

Row = tuple[str, str, str, str]
DTYPES = (torch.float64, torch.float32)
CORNERS = ((0.1, 0.1), (5.0, 0.02), (0.01, 1.0), (1e3, 1e-3), (1e-3, 1e3))
ROWS: list[Callable[[], Iterator[Row]]] = []


def rows(function: Callable[[], Iterator[Row]]) -> Callable[[], Iterator[Row]]:
    """Put a function that yields rows on the list."""
    ROWS.append(function)
    return function


def worst(values: Tensor, truth: list[float]) -> float:
    """Largest error relative to max(1, |truth|); infinite where a value is not finite."""
    truth = torch.tensor(truth, dtype=torch.float64)
    error = (values.detach().double() - truth).abs() / truth.abs().clamp(min=1.0)
    return float(torch.nan_to_num(error, nan=torch.inf).max())


# Kumaraswamy


def kumaraswamy_truth(a: float, b: float, x: float) -> tuple[float, float, float]:
    """Log density, log distribution function and log survival function, to 40 digits."""
    a, b, log_x = mpmath.mpf(a), mpmath.mpf(b), mpmath.log(mpmath.mpf(x))
    log_1m_power = mpmath.log(-mpmath.expm1(a * log_x))
    density = mpmath.log(a) + mpmath.log(b) + (a - 1) * log_x + (b - 1) * log_1m_power
    # expm1 of a number that 40 digits cannot tell from zero: its logarithm is that of b x^a.
    log_survival = b * mpmath.log1p(-mpmath.exp(a * log_x))
    log_cdf = mpmath.log(-mpmath.expm1(log_survival)) if log_survival else mpmath.log(b) + a * log_x
    return float(density), float(log_cdf), float(log_survival)


def kumaraswamy_quantile(a: float, b: float, q: float) -> float:
    a, b, q = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(q)
    return float(mpmath.exp(mpmath.log(-mpmath.expm1(mpmath.log1p(-q) / b)) / a))


def grid(*axes: list[float], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Every combination of the axes, rounded to `dtype`."""
    return tuple(torch.tensor(column, dtype=dtype) for column in zip(*itertools.product(*axes), strict=True))


@rows
def kumaraswamy_grid() -> Iterator[Row]:
    concentrations = list(np.logspace(-3, 3, 13))
    table = {}
    for dtype in DTYPES:
        largest = 1 - (1e-15 if dtype == torch.float64 else 2.0**-24)
        near_one = [1 - d for d in (1e-2, 1e-4, 1e-6, 1e-9, 1e-12) if 1 - d < largest]
        points = [*np.logspace(-30, -1, 16), 0.3, 0.5, 0.9, *near_one, largest]
        a, b, x = grid(concentrations, concentrations, points, dtype=dtype)
        law = Kumaraswamy(a, b)
        truth = list(zip(*map(kumaraswamy_truth, a.tolist(), b.tolist(), x.tolist()), strict=True))
        table[dtype] = [
            worst(law.log_prob(x), truth[0]),
            worst(law.log_prob_from_logs(x.log(), torch.log1p(-x)), truth[0]),
            worst(law.log_cdf(x), truth[1]),
            worst(law.log_survival(x), truth[2]),
            worst(law.icdf(x), list(map(kumaraswamy_quantile, a.tolist(), b.tolist(), x.tolist()))),
        ]
    names = ("log_prob", "log_prob_from_logs", "log_cdf", "log_survival", "icdf")
    for name, double, single in zip(names, *table.values(), strict=True):
        yield f"Kumaraswamy {name}", f"{double:.1e}", f"{single:.1e}", "1e-9 / 1e-4"


def expected_log1m_truth(a: float, b: float) -> float:
    """``E[log(1 - v)]`` as minus the integral of the survival function over 1 - v, by adaptive quadrature."""
    a, b = mpmath.mpf(a), mpmath.mpf(b)

    # In y = -log(1 - v), where the integrand is P(V > v) itself; v = 1 - exp(-y).
    def survival(y: mpmath.mpf) -> mpmath.mpf:
        log_v = mpmath.log1p(-mpmath.exp(-y)) if y > 1 else mpmath.log(-mpmath.expm1(-y))
        return (-mpmath.expm1(a * log_v)) ** b

    end = 80 / b + mpmath.log1p(a)  # the survival function is below (a exp(-y))^b
    breaks = [0, *(end * mpmath.mpf(4) ** k for k in range(-24, 1))]
    return float(-mpmath.quad(survival, breaks))


@rows
def kl_kumaraswamy_beta() -> Iterator[Row]:
    axis = list(np.logspace(-2, 2, 9))
    errors, lowest = {}, {}
    for dtype in DTYPES:
        a, b = grid(axis, axis, dtype=dtype)
        error, low = 0.0, 0.0
        expected = [expected_log1m_truth(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
        for alpha, beta in itertools.product((0.5, 1.0, 2.0, 5.0), (0.5, 1.0, 5.0, 20.0)):
            value = kl_divergence(Kumaraswamy(a, b), TorchBeta(*torch.tensor([alpha, beta], dtype=dtype)))
            truth = [
                float(
                    mpmath.log(p * q)
                    - (1 - 1 / mpmath.mpf(q))
                    - (p - alpha) / mpmath.mpf(p) * mpmath.harmonic(q)
                    - (beta - 1) * m
                    + mpmath.log(mpmath.beta(alpha, beta))
                )
                for p, q, m in zip(a.tolist(), b.tolist(), expected, strict=True)
            ]
            error, low = max(error, worst(value, truth)), min(low, float(value.min()))
        errors[dtype], lowest[dtype] = f"{error:.1e}", f"{low:.1e}"
    yield "KL(Kumaraswamy || Beta)", *errors.values(), "1e-6 / 1e-3"
    yield "KL(Kumaraswamy || Beta), lowest value", *lowest.values(), "-1e-6 (float64)"


@rows
def kl_gradient() -> Iterator[Row]:
    a, b = grid(list(np.logspace(-2, 2, 13)), list(np.logspace(-2, 2, 13)), dtype=torch.float64)
    prior = TorchBeta(torch.ones((), dtype=torch.float64), 5.0)
    errors = {}
    for dtype in DTYPES:
        leaves = [p.to(dtype).requires_grad_() for p in (a, b)]
        slopes = torch.autograd.grad(
            kl_divergence(Kumaraswamy(*leaves), TorchBeta(leaves[0].new_tensor(1.0), 5.0)).sum(), leaves
        )
        error = 0.0
        for i, slope in enumerate(slopes):
            # Slope in the logarithm of the concentration, which has the scale of the divergence.
            up, down = [a, b], [a, b]
            up[i], down[i] = up[i] * np.exp(1e-4), down[i] * np.exp(-1e-4)
            difference = (kl_divergence(Kumaraswamy(*up), prior) - kl_divergence(Kumaraswamy(*down), prior)) / 2e-4
            error = max(error, worst(slope * leaves[i].detach(), difference.tolist()))
        errors[dtype] = f"{error:.1e}"
    yield "KL gradient against finite differences", *errors.values(), "1e-4"


def median_ms(function: Callable[[], object], repeats: int = 30) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


@rows
def kl_cost() -> Iterator[Row]:
    ratios = {}
    for dtype in DTYPES:
        a, b = (torch.rand(2, 512, 50, dtype=dtype) * 3 + 0.1).requires_grad_()
        prior = TorchBeta(torch.ones((), dtype=dtype), torch.tensor(5.0, dtype=dtype))

        def step(divergence: Callable[..., Tensor], leaves: tuple[Tensor, Tensor] = (a, b), prior=prior) -> None:
            posterior = Kumaraswamy(*leaves, validate_args=False)
            torch.autograd.grad(divergence(posterior, prior).sum(), leaves)

        exact = median_ms(lambda step=step: step(kl_divergence))
        series = median_ms(lambda step=step: step(kl_kumaraswamy_beta_taylor))
        ratios[dtype] = f"{exact / series:.2f} ({exact:.1f} / {series:.1f} ms)"
    yield "cost of the KL over the ten-term series, 512 x 50", *ratios.values(), "4 (float32)"


@rows
def kumaraswamy_draws() -> Iterator[Row]:
    for corner in CORNERS:
        torch.manual_seed(0)
        cells = []
        for dtype in DTYPES:
            a, b = (torch.full((1_000_000,), c, dtype=dtype, requires_grad=True) for c in corner)
            law = Kumaraswamy(a, b)
            log_v, log_1mv = law.rsample_log()
            v = law.rsample()
            score = law.log_prob(v)
            slopes = torch.autograd.grad(score.sum(), [a, b])
            finite = all(bool(t.isfinite().all()) for t in (log_v, log_1mv, score, *slopes))
            inside = bool(((v > 0) & (v < 1)).all())
            p_value = stats.kstest(survival_of_draws(*corner, log_v, log_1mv), "uniform").pvalue
            cells.append(f"{'finite' if finite and inside else 'NOT FINITE'}, p = {p_value:.2f}")
        yield f"a million draws at {corner}", *cells, "finite, p > 1e-3"


def survival_of_draws(a: float, b: float, log_v: Tensor, log_1mv: Tensor) -> np.ndarray:
    """``P(V > v)`` in double precision from the logarithm that is away from 0; uniform when the draws are right."""
    log_v, log_1mv = log_v.detach().double().numpy(), log_1mv.detach().double().numpy()
    far = np.minimum(log_1mv, -np.log(2))
    minus_log_v = np.where(far < -36, np.exp(np.maximum(far, -700)), -np.log1p(-np.exp(far)))
    minus_log_v = np.where(log_v < -np.log(2), -log_v, minus_log_v)
    # log(1 - v^a); where -log v underflows it is log a + log(1 - v).
    log_1m_power = np.log(-np.expm1(-a * minus_log_v))
    return np.exp(b * np.where(far < -600, np.log(a) + far, log_1m_power))


# Sticks


@rows
def stick_weights() -> Iterator[Row]:
    cells = []
    for dtype in DTYPES:
        torch.manual_seed(0)
        gap, finite = 0.0, True
        for concentration1, concentration0 in ((1.0, 5.0), (1.0, 500.0), (0.1, 0.1), (1e-2, 1e-2), (5.0, 0.02)):
            a, b = (
                torch.full((64, 999), concentration1, dtype=dtype),
                torch.full((64, 999), concentration0, dtype=dtype),
            )
            log_weights = StickBreaking(Kumaraswamy(a, b)).rsample_log_weights()
            finite = finite and bool(log_weights.isfinite().all())
            gap = max(gap, float((log_weights.exp().sum(-1) - 1).abs().max()))
        log_weights = GEM(torch.tensor(50.0, dtype=dtype), 1000).rsample_log_weights(torch.Size([64]))
        gap = max(gap, float((log_weights.exp().sum(-1) - 1).abs().max()))
        cells.append(f"{gap:.1e}" if finite and bool(log_weights.isfinite().all()) else "NOT FINITE")
    yield "stick weights at truncation 1000, |sum - 1|", *cells, "1e-6 (float32)"


@rows
def stick_round_trip() -> Iterator[Row]:
    for truncation, target in ((50, "1e-5"), (1000, "1e-3")):
        cells = []
        for dtype in DTYPES:
            torch.manual_seed(0)
            fractions = LogitNormal(torch.zeros(64, truncation - 1, dtype=dtype), 2.0)
            log_v, log_1mv = fractions.rsample_log()
            back, back_1m = log_stick_fractions(log_stick_weights(log_v, log_1mv))
            error = max((back.exp() - log_v.exp()).abs().max(), (back_1m.exp() - log_1mv.exp()).abs().max())
            cells.append(f"{error:.1e}")
        yield f"stick-breaking round trip at truncation {truncation}", *cells, target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the functions whose name contains this")
    only = parser.parse_args().only
    mpmath.mp.dps = 40
    print(f"{'figure':52} | {'float64':24} | {'float32':24} | target")
    for function in ROWS:
        if only in function.__name__:
            for row in function():
                print("{:52} | {:24} | {:24} | {}".format(*row), flush=True)


if __name__ == "__main__":
    main()
