"""Every estimator with the pair it is tried on and the exact gradient of what it claims to climb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from enumeration import Case, Values, bound_gradients, path_gradients, wake_sleep_gradients
from pyro.infer import ELBO, Trace_ELBO
from tiny_pairs import CASES
from torch import nn

from pyrovae.infer import IWAE, NVIL, VIMCO, KLWeightMessenger, Renyi, ReweightedWakeSleep, WakeSleep


class Comparison(NamedTuple):
    """An estimator, K, a pair, and the gradient that the estimator should have on average."""

    estimator: str
    count: int
    pair: str
    make: Callable[[], ELBO]
    exact: Callable[[], Values]
    beta: float = 1.0

    @property
    def name(self) -> str:
        weight = "" if self.beta == 1 else f", KL weight {self.beta}"
        return f"{self.estimator}, K={self.count}, {self.pair}{weight}"

    def z_scores(self, draws: int) -> Values:
        """How many standard errors the mean of so many draws per datum is from the exact gradient, by parameter."""
        case = CASES[self.pair]
        return z_scores(draws_of_gradient(self.make(), case, self.beta, draws), self.exact())


def draws_of_gradient(objective: ELBO, case: Case, beta: float = 1.0, draws: int = 1000, calls: int = 10) -> Values:
    """Single-draw gradients of the bound, averaged over the two data of the case: `[draws, ...]` by parameter."""
    rows = draws * len(case.x) // calls
    model, guide = case.programs(rows)
    x = case.data(rows)
    parts = {name: [] for name in case.values}
    for _ in range(calls):
        with KLWeightMessenger(beta):
            objective.loss_and_grads(model, guide, x)
        for program in (model, guide):
            for name, parameter in program.named_parameters():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else -parameter.grad
                parts[name].append(gradient.unflatten(0, (-1, len(case.x))).mean(1))
                parameter.grad = None
    return {name: torch.cat(part) for name, part in parts.items()}


def z_scores(draws: Values, exact: Values) -> Values:
    """Distances of the mean from the exact gradient in standard errors; rounding counts as no distance."""
    result = {}
    for name, draw in draws.items():
        error = draw.std(0) / len(draw) ** 0.5
        result[name] = ((draw.mean(0) - exact[name]).abs() - 1e-9).clamp(min=0) / error.clamp(min=1e-12)
    return result


def own_net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 1), nn.Tanh()).double()


UNBIASED = {
    "iwae": IWAE,
    "vimco geometric": VIMCO,
    "vimco arithmetic": partial(VIMCO, control_variate="arithmetic"),
    "nvil": partial(NVIL, normalize=False),
}
"""For the importance-weighted bound and any latents."""

BASELINES = {
    "nvil without baseline": lambda k: NVIL(k, baseline="none", normalize=False),
    "nvil with a net": lambda k: NVIL(k, baseline="input", normalize=False),
    "nvil with an own net": lambda k: NVIL(k, baseline=own_net(), normalize=False),
}

WAKE_SLEEP = {
    "wake-wake": (1.0, 0.0, 0.0),
    "reweighted wake-sleep": (0.5, 0.5, 0.0),
    "wake-wake, defensive": (1.0, 0.0, 0.3),
}
"""Weights of wake-phi and sleep-phi, and the defensive probability."""


def comparisons() -> Iterator[Comparison]:
    """All estimators on all the pairs they are for."""
    discrete = ("three-bits", "two-layers")
    for pair in discrete:
        case = CASES[pair]
        for name, elbo in {"elbo": Trace_ELBO, "iwae": IWAE, "nvil": partial(NVIL, normalize=False)}.items():
            make = elbo if name == "elbo" else partial(elbo, 1)
            yield Comparison(name, 1, pair, make, partial(bound_gradients, case, 1))
        for count in (2, 3, 5):
            for name, make in (UNBIASED | (BASELINES if count == 3 else {})).items():
                yield Comparison(name, count, pair, partial(make, count), partial(bound_gradients, case, count))
            yield Comparison(
                "renyi 0.5", count, pair, partial(Renyi, 0.5, count), partial(bound_gradients, case, count, 0.5)
            )
            for name, weights in WAKE_SLEEP.items():
                options = dict(zip(("wake_phi", "sleep_phi", "defensive"), weights, strict=True))
                make = partial(ReweightedWakeSleep, count, **options)
                yield Comparison(name, count, pair, make, partial(wake_sleep_gradients, case, count, **options))
        for count in (1, 3):
            exact = partial(wake_sleep_gradients, case, count, 0.0, 1.0)
            yield Comparison("wake-sleep", count, pair, partial(WakeSleep, count), exact)
    yield from _other_targets()
    yield from _continuous()


def _other_targets() -> Iterator[Comparison]:
    case = CASES["three-bits"]
    for alpha in (0.0, 1.0, 2.0):
        exact = partial(bound_gradients, case, 2, alpha)
        yield Comparison(f"renyi {alpha:g}", 2, "three-bits", partial(Renyi, alpha, 2), exact)
    for beta in (0.0, 0.5):
        for name, make in UNBIASED.items():
            exact = partial(bound_gradients, case, 2, beta=beta)
            yield Comparison(name, 2, "three-bits", partial(make, 2), exact, beta)
        exact = partial(bound_gradients, case, 2, 0.5, beta)
        yield Comparison("renyi 0.5", 2, "three-bits", partial(Renyi, 0.5, 2), exact, beta)
    for pair in ("bit-first", "normal-first"):
        yield Comparison("elbo", 1, pair, Trace_ELBO, partial(bound_gradients, CASES[pair], 1))
        for name, make in UNBIASED.items():
            yield Comparison(name, 2, pair, partial(make, 2), partial(bound_gradients, CASES[pair], 2))
        yield Comparison("renyi 0.5", 2, pair, partial(Renyi, 0.5, 2), partial(bound_gradients, CASES[pair], 2, 0.5))


def _continuous() -> Iterator[Comparison]:
    for pair, counts in (("gaussian", (1, 2, 3)), ("hierarchical", (1, 2))):
        case = CASES[pair]
        for count in counts:
            for gradient in ("standard", "dreg"):
                make = partial(IWAE, count, gradient=gradient)
                yield Comparison(f"iwae {gradient}", count, pair, make, partial(bound_gradients, case, count))
            # Beyond one particle this is biased for the bound, and has a target of its own.
            make, exact = partial(IWAE, count, gradient="stl"), partial(path_gradients, case, count)
            yield Comparison("iwae stl", count, pair, make, exact if count > 1 else partial(bound_gradients, case, 1))
    gaussian = CASES["gaussian"]
    yield Comparison("renyi 0.5", 2, "gaussian", partial(Renyi, 0.5, 2), partial(bound_gradients, gaussian, 2, 0.5))
    for beta in (0.0, 0.5, 2.0):
        for gradient in ("standard", "dreg"):
            make, exact = partial(IWAE, 2, gradient=gradient), partial(bound_gradients, gaussian, 2, beta=beta)
            yield Comparison(f"iwae {gradient}", 2, "gaussian", make, exact, beta)
    for pair in ("concrete", "gumbel-softmax", "straight-through bit", "straight-through one-hot"):
        yield Comparison("elbo", 1, pair, Trace_ELBO, partial(bound_gradients, CASES[pair], 1))
        for gradient in ("standard",) if pair.startswith("straight") else ("standard", "dreg"):
            make = partial(IWAE, 2, gradient=gradient)
            yield Comparison(f"iwae {gradient}", 2, pair, make, partial(bound_gradients, CASES[pair], 2))
