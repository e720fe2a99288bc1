"""Textbook formulas of the natural families in canonical parameters, evaluated with 40 digits by mpmath.

The library takes none of these roads: it works on natural parameters, and its moments, entropies and divergences are
derivatives of the log normaliser. Scalars in, mpmath numbers out; `natural` is a sequence of floats.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mpmath
from mpmath import mpf

Natural = Sequence[float]


class Truth(NamedTuple):
    """Functions of one member: log_prob(natural, x), entropy(natural), kl(natural_p, natural_q), moments(natural).

    `moments` gives the means and the variances of the entries of an event; None where there are none.
    """

    log_prob: Callable[[Natural, float], mpf]
    entropy: Callable[[Natural], mpf]
    kl: Callable[[Natural, Natural], mpf]
    moments: Callable[[Natural], tuple[Sequence[mpf], Sequence[mpf]]] | None


def _normal(natural: Natural) -> tuple[mpf, mpf]:
    variance = -1 / (2 * mpf(natural[1]))
    return mpf(natural[0]) * variance, variance


def _normal_log_prob(natural: Natural, x: float) -> mpf:
    mean, variance = _normal(natural)
    return -((mpf(x) - mean) ** 2) / (2 * variance) - mpmath.log(2 * mpmath.pi * variance) / 2


def _normal_entropy(natural: Natural) -> mpf:
    return mpmath.log(2 * mpmath.pi * mpmath.e * _normal(natural)[1]) / 2


def _normal_kl(p: Natural, q: Natural) -> mpf:
    (mean_p, variance_p), (mean_q, variance_q) = _normal(p), _normal(q)
    ratio = variance_p / variance_q
    return (ratio - 1 - mpmath.log(ratio) + (mean_p - mean_q) ** 2 / variance_q) / 2


def _normal_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    mean, variance = _normal(natural)
    return [mean], [variance]


def _log_normal_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    mean, variance = _normal(natural)
    return [mpmath.exp(mean + variance / 2)], [mpmath.expm1(variance) * mpmath.exp(2 * mean + variance)]


def _gamma_log_prob(natural: Natural, x: float) -> mpf:
    shape, rate, x = mpf(natural[0]), -mpf(natural[1]), mpf(x)
    return shape * mpmath.log(rate) + (shape - 1) * mpmath.log(x) - rate * x - mpmath.loggamma(shape)


def _gamma_entropy(natural: Natural) -> mpf:
    shape, rate = mpf(natural[0]), -mpf(natural[1])
    return shape - mpmath.log(rate) + mpmath.loggamma(shape) + (1 - shape) * mpmath.digamma(shape)


def _gamma_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    shape, rate = mpf(natural[0]), -mpf(natural[1])
    return [shape / rate], [shape / rate**2]


def _gamma_kl(p: Natural, q: Natural) -> mpf:
    (a, b), (c, d) = (mpf(p[0]), -mpf(p[1])), (mpf(q[0]), -mpf(q[1]))
    gap = mpmath.loggamma(c) - mpmath.loggamma(a)
    return (a - c) * mpmath.digamma(a) + gap + c * (mpmath.log(b) - mpmath.log(d)) + a * (d - b) / b


def _log_beta(concentration: Sequence[mpf]) -> mpf:
    return sum(mpmath.loggamma(part) for part in concentration) - mpmath.loggamma(sum(concentration))


def _dirichlet_log_prob(natural: Natural, x: Sequence[float]) -> mpf:
    parts = [mpf(part) for part in natural]
    return sum((part - 1) * mpmath.log(weight) for part, weight in zip(parts, x, strict=True)) - _log_beta(parts)


def _beta_log_prob(natural: Natural, x: float) -> mpf:
    return _dirichlet_log_prob(natural, (mpf(x), 1 - mpf(x)))


def _dirichlet_entropy(natural: Natural) -> mpf:
    parts = [mpf(part) for part in natural]
    total = sum(parts)
    inner = sum((part - 1) * mpmath.digamma(part) for part in parts)
    return _log_beta(parts) + (total - len(parts)) * mpmath.digamma(total) - inner


def _dirichlet_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    parts = [mpf(part) for part in natural]
    total = sum(parts)
    means = [part / total for part in parts]
    return means, [mean * (1 - mean) / (total + 1) for mean in means]


def _beta_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    means, variances = _dirichlet_moments(natural)
    return means[:1], variances[:1]


def _bernoulli_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    one, zero = _categorical(natural)
    return [one], [one * zero]


def _dirichlet_kl(p: Natural, q: Natural) -> mpf:
    p, q = [mpf(part) for part in p], [mpf(part) for part in q]
    total = mpmath.digamma(sum(p))
    inner = sum((a - b) * (mpmath.digamma(a) - total) for a, b in zip(p, q, strict=True))
    return _log_beta(q) - _log_beta(p) + inner


def _exponential_kl(p: Natural, q: Natural) -> mpf:
    ratio = mpf(q[0]) / mpf(p[0])
    return ratio - 1 - mpmath.log(ratio)


def _categorical(natural: Natural) -> list[mpf]:
    odds = [mpmath.exp(mpf(part)) for part in natural] + [mpf(1)]
    return [part / sum(odds) for part in odds]


def _categorical_entropy(natural: Natural) -> mpf:
    return -sum(part * mpmath.log(part) for part in _categorical(natural))


def _categorical_kl(p: Natural, q: Natural) -> mpf:
    return sum(a * mpmath.log(a / b) for a, b in zip(_categorical(p), _categorical(q), strict=True))


def _poisson_log_prob(natural: Natural, x: float) -> mpf:
    rate = mpmath.exp(mpf(natural[0]))
    return mpf(x) * mpmath.log(rate) - rate - mpmath.loggamma(mpf(x) + 1)


def _poisson_moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
    rate = mpmath.exp(mpf(natural[0]))
    return [rate], [rate]


def _poisson_kl(p: Natural, q: Natural) -> mpf:
    rate_p, rate_q = mpmath.exp(mpf(p[0])), mpmath.exp(mpf(q[0]))
    return rate_p * mpmath.log(rate_p / rate_q) - rate_p + rate_q


def _summed_entropy(log_prob: Callable[[Natural, float], mpf], natural: Natural, mean: mpf, variance: mpf) -> mpf:
    """Minus the sum of p log p over all values that matter at 20 digits."""
    reach = 12 * mpmath.sqrt(variance) + 60 * variance / mean + 60
    first, last = max(0, int(mean - reach)), int(mean + reach)
    logs = [log_prob(natural, x) for x in range(first, last + 1)]
    return -sum(mpmath.exp(log) * log for log in logs)


def _poisson_entropy(natural: Natural) -> mpf:
    rate = mpmath.exp(mpf(natural[0]))
    return _summed_entropy(_poisson_log_prob, natural, rate, rate)


def _stop(natural: Natural) -> mpf:
    return 1 - mpmath.exp(mpf(natural[0]))


def negative_binomial(count: float) -> Truth:
    """The truth for one count."""
    r = mpf(count)

    def log_prob(natural: Natural, x: float) -> mpf:
        x = mpf(x)
        coefficient = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
        return coefficient + r * mpmath.log(_stop(natural)) + x * mpf(natural[0])

    def entropy(natural: Natural) -> mpf:
        stop = _stop(natural)
        mean = r * (1 - stop) / stop
        return _summed_entropy(log_prob, natural, mean, mean / stop)

    def kl(p: Natural, q: Natural) -> mpf:
        mean = r * (1 - _stop(p)) / _stop(p)
        return r * mpmath.log(_stop(p) / _stop(q)) + mean * (mpf(p[0]) - mpf(q[0]))

    def moments(natural: Natural) -> tuple[list[mpf], list[mpf]]:
        stop = _stop(natural)
        mean = r * (1 - stop) / stop
        return [mean], [mean / stop]

    return Truth(log_prob, entropy, kl, moments)


_geometric = negative_binomial(1.0)


def _geometric_entropy(natural: Natural) -> mpf:
    stop = _stop(natural)
    return -(mpmath.log(stop) + (1 - stop) / stop * mpf(natural[0]))


TRUTHS = {
    "NaturalNormal": Truth(_normal_log_prob, _normal_entropy, _normal_kl, _normal_moments),
    "NaturalLogNormal": Truth(
        lambda natural, x: _normal_log_prob(natural, mpmath.log(x)) - mpmath.log(x),
        lambda natural: _normal_entropy(natural) + _normal(natural)[0],
        _normal_kl,
        _log_normal_moments,
    ),
    "NaturalExponential": Truth(
        lambda natural, x: mpmath.log(-mpf(natural[0])) + mpf(natural[0]) * mpf(x),
        lambda natural: 1 - mpmath.log(-mpf(natural[0])),
        _exponential_kl,
        lambda natural: _gamma_moments((1.0, natural[0])),
    ),
    "NaturalGamma": Truth(_gamma_log_prob, _gamma_entropy, _gamma_kl, _gamma_moments),
    "NaturalBeta": Truth(_beta_log_prob, _dirichlet_entropy, _dirichlet_kl, _beta_moments),
    "NaturalDirichlet": Truth(_dirichlet_log_prob, _dirichlet_entropy, _dirichlet_kl, _dirichlet_moments),
    "NaturalBernoulli": Truth(
        lambda natural, x: mpmath.log(_categorical(natural)[0 if x else 1]),
        _categorical_entropy,
        _categorical_kl,
        _bernoulli_moments,
    ),
    "NaturalCategorical": Truth(
        lambda natural, x: mpmath.log(_categorical(natural)[int(x)]), _categorical_entropy, _categorical_kl, None
    ),
    "NaturalPoisson": Truth(_poisson_log_prob, _poisson_entropy, _poisson_kl, _poisson_moments),
    "NaturalGeometric": _geometric._replace(entropy=_geometric_entropy),
    "NaturalNegativeBinomial": negative_binomial(3.5),
}
