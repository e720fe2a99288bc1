"""Worst numerical error of the distributions over wide grids, against mpmath, one row per figure.

Run ``python benchmarks/numerics.py``. It takes two minutes and prints a table in Markdown. Each function of `ROWS`
yields rows ``(figure, float64 worst, float32 worst, target)``. Errors are relative to max(1, |truth|). The truth is
computed at the parameters and points as the dtype holds them.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mpmath
import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions import kl_divergence

from pyrovae import distributions
from pyrovae.distributions import GEM, Kumaraswamy, LogitNormal, StickBreaking, kl_kumaraswamy_beta_taylor
from pyrovae.distributions.kumaraswamy import expected_log1m
from pyrovae.distributions.transforms import log_stick_fractions, log_stick_weights

# The formulas of the natural families in canonical parameters are the tests' own.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "distributions"))
from natural_truth import TRUTHS

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
def expected_log1m_beyond_the_grid() -> Iterator[Row]:
    axis = list(np.logspace(-3, 3, 7))
    errors = []
    for dtype in DTYPES:
        a, b = grid(axis, axis, dtype=dtype)
        truth = [expected_log1m_truth(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
        errors.append(f"{worst(expected_log1m(a, b), truth):.1e}")
    yield "E[log(1 - v)], concentrations 1e-3 to 1e3", *errors, "(none set)"


@rows
def kumaraswamy_moments() -> Iterator[Row]:
    axis = list(np.logspace(-3, 3, 13))
    cells = {}
    for dtype in DTYPES:
        a, b = grid(axis, axis, dtype=dtype)
        law, pairs = Kumaraswamy(a, b), list(zip(a.tolist(), b.tolist(), strict=True))
        first, second = ([q * mpmath.beta(1 + order / mpmath.mpf(p), q) for p, q in pairs] for order in (1, 2))
        # The entropy without digamma: v^a is Beta(1, b), and E[log v^a] is minus a harmonic number.
        entropy = [
            1 - 1 / mpmath.mpf(q) + (1 - 1 / mpmath.mpf(p)) * mpmath.harmonic(q) - mpmath.log(p * q) for p, q in pairs
        ]
        cells[dtype] = [
            worst(law.mean, list(map(float, first))),
            worst(law.variance, [float(s - m * m) for s, m in zip(second, first, strict=True)]),
            worst(law.entropy(), list(map(float, entropy))),
        ]
    for name, double, single in zip(("mean", "variance", "entropy"), *cells.values(), strict=True):
        yield f"Kumaraswamy {name}", f"{double:.1e}", f"{single:.1e}", "1e-9 / 1e-4"


@rows
def kl_kumaraswamy_beta() -> Iterator[Row]:
    axis = list(np.logspace(-2, 2, 9))
    errors, lowest = {}, {}
    for dtype in DTYPES:
        a, b = grid(axis, axis, dtype=dtype)
        error, low = 0.0, float("inf")
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
    yield "KL of Kumaraswamy to Beta", *errors.values(), "1e-6 / 1e-3"
    yield "KL of Kumaraswamy to Beta, lowest value", *lowest.values(), "-1e-6 (float64)"


@rows
def kl_gradient() -> Iterator[Row]:
    a, b = grid(list(np.logspace(-2, 2, 13)), list(np.logspace(-2, 2, 13)), dtype=torch.float64)
    errors = {}
    for dtype in DTYPES:
        error = 0.0
        for prior in itertools.product((0.5, 1.0, 2.0, 5.0), (0.5, 1.0, 5.0, 20.0)):
            leaves = [p.to(dtype).requires_grad_() for p in (a, b)]
            target = TorchBeta(*torch.tensor(prior, dtype=dtype))
            slopes = torch.autograd.grad(kl_divergence(Kumaraswamy(*leaves), target).sum(), leaves)
            target = TorchBeta(*torch.tensor(prior, dtype=torch.float64))
            for i, slope in enumerate(slopes):
                # Slope in the logarithm of the concentration, which has the scale of the divergence.
                up, down = ([leaf.detach().double() for leaf in leaves] for _ in range(2))
                up[i], down[i] = up[i] * np.exp(1e-4), down[i] * np.exp(-1e-4)
                difference = (
                    kl_divergence(Kumaraswamy(*up), target) - kl_divergence(Kumaraswamy(*down), target)
                ) / 2e-4
                error = max(error, worst(slope * leaves[i].detach(), difference.tolist()))
        errors[dtype] = f"{error:.1e}"
    yield "KL gradient in log concentrations, finite differences", *errors.values(), "1e-4"


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
    for seed, corner in enumerate(CORNERS):
        torch.manual_seed(seed)
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
    minus_log_v = np.where(log_v < -0.5, -log_v, -np.log1p(-np.exp(np.clip(log_1mv, -700, -0.5))))
    # Where 1 - v underflows even here, 1 - v^a is a (1 - v).
    return np.exp(b * np.where(log_1mv < -700, np.log(a) + log_1mv, np.log(-np.expm1(-a * minus_log_v))))


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
    yield "stick weights at truncation 1000, distance of sum from 1", *cells, "1e-6 (float32)"


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


# Natural exponential families


def _natural_grids() -> dict[str, tuple[list, list]]:
    """Natural parameters and values of each family, every value against every parameter."""
    concentrations = list(np.logspace(-3, 5, 9))
    rates = [-rate for rate in np.logspace(-3, 3, 4)]
    locations = (-1e3, -30.0, 0.0, 0.2, 3.0, 1e3)
    normals = [(z / scale, -0.5 / scale**2) for z in locations for scale in np.logspace(-3, 3, 7)]  # z = loc / scale
    points = [*np.logspace(-30, -1, 8), 0.5, 1.0, 30.0, 1e3, 1e5]
    inside = [*np.logspace(-30, -1, 8), 0.3, 0.5, 0.9, 1 - 6e-8]
    counts = [0.0, 1.0, 2.0, 30.0, 997.0, 8103.0, 9e4]
    negative = [(-eta,) for eta in np.logspace(-2, 1.7, 9)]
    simplex = [(0.25, 0.25, 0.5), (2.0**-20, 0.5, 0.5 - 2.0**-20), (2.0**-100, 0.875, 0.125)]
    return {
        "NaturalNormal": (normals, [-1e3, -31.0, -0.2, 0.0, 3.1, 40.0, 1e3]),
        "NaturalLogNormal": ([(a, b) for a, b in normals if -a / (2 * b) < 50], points),
        "NaturalExponential": ([(-rate,) for rate in np.logspace(-5, 5, 11)], [0.0, *points]),
        "NaturalGamma": (list(itertools.product(concentrations, rates)), points),
        "NaturalBeta": (list(itertools.product(concentrations, repeat=2)), inside),
        "NaturalDirichlet": (list(itertools.product(concentrations[::2], repeat=3)), simplex),
        "NaturalBernoulli": ([(eta,) for eta in np.linspace(-300, 300, 61)], [0.0, 1.0]),
        "NaturalCategorical": (list(itertools.product((-300.0, -20.0, 0.0, 1.0, 19.0, 300.0), repeat=3)), [0, 1, 2, 3]),
        "NaturalPoisson": ([(eta,) for eta in np.linspace(-30, 9, 14)], counts),
        "NaturalGeometric": (negative, counts),
        "NaturalNegativeBinomial": (negative, counts),
    }


def _worst_family(errors: dict[str, float]) -> str:
    name = max(errors, key=errors.__getitem__)
    return f"{errors[name]:.1e} {name.removeprefix('Natural')}"


@rows
def natural_families() -> Iterator[Row]:
    figures = ("log_prob", "entropy", "mean", "variance", "KL", "round trip")
    table: dict[str, list[str]] = {figure: [] for figure in figures}
    for dtype in DTYPES:
        errors: dict[str, dict[str, float]] = {figure: {} for figure in table}
        for name, (parameters, points) in _natural_grids().items():
            cls, truth = getattr(distributions, name), TRUTHS[name]
            fixed = {"total_count": 3.5} if name == "NaturalNegativeBinomial" else {}
            natural = torch.tensor(parameters, dtype=dtype)
            values = torch.tensor(points, dtype=torch.long if name == "NaturalCategorical" else dtype)
            law, rowwise = cls(natural, **fixed), cls(natural.unsqueeze(1), **fixed)
            etas = natural.tolist()
            log_prob = rowwise.log_prob(values).flatten()
            exact = [float(truth.log_prob(eta, x)) for eta in etas for x in values.tolist()]
            errors["log_prob"][name] = worst(log_prob, exact)
            errors["entropy"][name] = worst(law.entropy(), [float(truth.entropy(eta)) for eta in etas])
            if truth.moments is not None:
                moments = [truth.moments(eta) for eta in etas]
                for figure, column in zip(("mean", "variance"), zip(*moments, strict=True), strict=True):
                    exact = [float(value) for event in column for value in event]
                    # The log-normal's overflow; an infinite value of one that does not is an error.
                    held = [abs(value) < torch.finfo(dtype).max for value in exact]
                    values = getattr(law, figure).flatten()[torch.tensor(held)]
                    errors[figure][name] = worst(values, list(itertools.compress(exact, held)))
            pairs = list(itertools.product(etas[::3], etas[::2]))
            p, q = (torch.tensor(column, dtype=dtype) for column in zip(*pairs, strict=True))
            divergence = kl_divergence(cls(p, **fixed), cls(q, **fixed))
            errors["KL"][name] = worst(divergence, [float(truth.kl(a, b)) for a, b in pairs])
            back = cls.from_canonical(**law.to_canonical()).natural
            errors["round trip"][name] = worst(back.flatten(), natural.flatten().tolist())
        for figure, by_family in errors.items():
            table[figure].append(_worst_family(by_family))
    targets = {"round trip": "1e-10 / 1e-5"}
    for figure, cells in table.items():
        yield f"natural families, {figure}", *cells, targets.get(figure, "1e-8 / 1e-4")


@rows
def discretized_logistic() -> Iterator[Row]:
    cells = []
    for dtype in DTYPES:
        loc, scale = grid(
            [-3.0, -0.1, 0.0, 1e-4, 0.3, 0.4999, 0.5, 1.0, 2.0], list(np.logspace(-6, 6, 13)), dtype=dtype
        )
        values, exact = [], []
        for num_bins in (2, 16, 256, 1024):
            law = distributions.DiscretizedLogistic(loc, scale, num_bins)
            levels = sorted({0, 1, num_bins // 3, num_bins // 2, num_bins - 2, num_bins - 1})
            scores = law.log_prob(torch.tensor(levels, dtype=dtype).unsqueeze(1) / (num_bins - 1))
            for level, row in zip(levels, scores, strict=True):
                for score, m, s in zip(row, loc.tolist(), scale.tolist(), strict=True):
                    truth = logistic_bin_truth(m, s, level, num_bins)
                    values.append(score.detach())
                    exact.append(truth)
        cells.append(f"{worst(torch.stack(values), exact):.1e}")
    yield "DiscretizedLogistic log_prob, scales 1e-6..1e6", *cells, "1e-8 / 1e-4"


def logistic_bin_truth(loc: float, scale: float, level: int, num_bins: int) -> float:
    """Log mass of a level, on the side where both tails are small."""
    last = num_bins - 1
    loc, scale = mpmath.mpf(loc) * last, mpmath.mpf(scale) * last
    lower, upper = (level - 0.5 - loc) / scale, (level + 0.5 - loc) / scale
    if lower > 0:
        lower, upper, level = -upper, -lower, last - level
    # log(sigmoid(u) - sigmoid(l)) with exp(l) factored out of both, which 40 digits hold for any l.
    below = mpmath.mpf(0) if level == 0 else 1 / (1 + mpmath.exp(lower))
    reach = upper if level == 0 else lower
    above = mpmath.exp(-reach) if level == last else mpmath.exp(upper - reach) / (1 + mpmath.exp(upper))
    return float(reach + mpmath.log(above - below))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the functions whose name contains this")
    only = parser.parse_args().only
    mpmath.mp.dps = 40
    layout = "| {:56} | {:24} | {:24} | {:18} |"
    print(layout.format("figure", "float64", "float32", "target"))
    print(layout.format(*["---"] * 4))
    for function in ROWS:
        if only in function.__name__:
            for row in function():
                print(layout.format(*row), flush=True)


if __name__ == "__main__":
    main()
