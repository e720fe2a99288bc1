"""Gradients of discrete pairs in expectation: the sum over all draws equals that of the bound, term by term."""

from __future__ import annotations

import itertools
import math
from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.poutine.messenger import Messenger

from pyrovae.infer import IWAE, NVIL, VIMCO, KLWeightMessenger, Renyi
from pyrovae.infer.objective import Objective

X, SEEN, WEIGHTS = torch.tensor([0.4, -0.7]).double(), torch.tensor([True, False]), torch.tensor([0.5, 2.0]).double()
START = {"a": torch.tensor([0.1, 0.6]).double(), "b": torch.tensor(0.3).double(), "c": torch.tensor(-0.2).double()}
LOOP = {"vectorize_particles": False}
OBJECTIVES = {
    "elbo": (Trace_ELBO(), "elbo", 1),
    "graph": (TraceGraph_ELBO(), "elbo", 1),
    "iwae of 1": (IWAE(1), "iwae", 1),
    "iwae": (IWAE(2, **LOOP), "iwae", 2),
    "renyi": (Renyi(0.5, 2, **LOOP), "renyi", 2),
    "vimco": (VIMCO(2, **LOOP), "iwae", 2),
    "vimco, arithmetic": (VIMCO(2, "arithmetic", **LOOP), "iwae", 2),
    "nvil": (NVIL(2, "none", **LOOP), "iwae", 2),
}
WAYS = [
    (),
    ("rows",),
    ("mask",),
    ("mask of x",),
    ("scale",),
    ("full",),
    ("likelihood",),
    ("rows of x",),
    ("factor",),
    ("guide factor",),
    ("full", "mask of x", "likelihood"),
    ("rows", "full", "guide factor"),
    ("rows of x", "mask", "factor"),
]


class Forced(Messenger):
    """Give the latent the next of some values."""

    values = ()

    def _pyro_sample(self, msg):
        if msg["name"] == "z" and msg["value"] is None and self.values:
            msg["value"], msg["done"], self.values = self.values[0], True, self.values[1:]


def around(ways, x, stack):
    if "rows" in ways:
        stack.enter_context(poutine.scale(scale=WEIGHTS))
    if "mask" in ways:
        stack.enter_context(poutine.mask(mask=SEEN))
    if "scale" in ways:
        stack.enter_context(poutine.scale(scale=3.0))
    stack.enter_context(pyro.plate("data", 10 if "full" in ways else 2, subsample=torch.arange(2)))


def pair(ways):
    def model(x):
        b, c = pyro.param("b", START["b"].clone()), pyro.param("c", START["c"].clone())
        with ExitStack() as stack:
            around(ways, x, stack)
            z = pyro.sample("z", dist.Bernoulli(logits=c))
            if "factor" in ways:
                pyro.factor("f", (b - c) * z)
            if "likelihood" in ways:
                stack.enter_context(poutine.scale(scale=7.0))
            if "rows of x" in ways:
                stack.enter_context(poutine.scale(scale=WEIGHTS))
            if "mask of x" in ways:
                stack.enter_context(poutine.mask(mask=SEEN))
            pyro.sample("x", dist.Normal(b * z, 1.0), obs=x)

    def guide(x):
        a = pyro.param("a", START["a"].clone())
        with ExitStack() as stack:
            around(ways, x, stack)
            z = pyro.sample("z", dist.Bernoulli(logits=a))
            if "guide factor" in ways:
                pyro.factor("g", a * z + a.square(), has_rsample=True)

    return model, guide


def log_weight(ways, beta, row, a, b, c):
    """The log weight of both values of a row's latent, and the guide's log-probability of them."""
    z = torch.tensor([0.0, 1.0]).double()
    log_q = dist.Bernoulli(logits=a).log_prob(z)
    value = dist.Normal(b * z, 1.0).log_prob(X[row])
    value = value * (7 if "likelihood" in ways else 1) * (WEIGHTS[row] if "rows of x" in ways else 1)
    value = value * (SEEN[row] if "mask of x" in ways else 1)
    value = value + beta * (dist.Bernoulli(logits=c).log_prob(z) - log_q)
    value = value + ((b - c) * z if "factor" in ways else 0) - (a * z + a**2 if "guide factor" in ways else 0)
    return value, log_q


def expected(ways, kind, particles, beta):
    """Minus the expected bound and its gradient, from its definition."""
    a, b, c = (value.clone().requires_grad_() for value in START.values())
    total = 0.0
    for row in range(2):
        value, log_q = log_weight(ways, beta, row, a[row], b, c)
        alpha = {"iwae": 0.0, "renyi": 0.5}.get(kind)
        mean = 0.0
        for draws in itertools.product((0, 1), repeat=particles):
            weights, probability = value[[*draws]], log_q[[*draws]].sum().exp()
            bound = weights.mean()
            if alpha is not None:
                bound = (((1 - alpha) * weights).logsumexp(0) - math.log(particles)) / (1 - alpha)
            mean = mean + probability * bound
        common = (WEIGHTS[row] if "rows" in ways else 1) * (5 if "full" in ways else 1) * (3 if "scale" in ways else 1)
        total = total - mean * common * (SEEN[row] if "mask" in ways else 1)
    gradients = torch.autograd.grad(total, [a, b, c], allow_unused=True)
    return total.item(), dict(zip("abc", gradients, strict=True))


@pytest.mark.parametrize("beta", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("ways", WAYS, ids="+".join)
def test_expected_gradient(ways, kind, beta):
    if kind == "elbo" and "guide factor" in ways:
        pytest.skip("Trace_ELBO leaves a differentiable factor out of the score")
    objective, bound, particles = OBJECTIVES[kind]
    (model, guide), forced = pair(ways), Forced()
    guide = forced(guide)
    pyro.clear_param_store()
    if isinstance(objective, Objective):
        objective.loss(model, guide, X)  # which looks at the pair first
    value, gradients = 0.0, dict.fromkeys("abc", 0.0)
    rows = [torch.tensor(draws).double() for draws in itertools.product((0.0, 1.0), repeat=2)]
    for draws in itertools.product(rows, repeat=particles):
        pyro.clear_param_store()
        probability = sum(dist.Bernoulli(logits=START["a"]).log_prob(z).sum() for z in draws).exp()
        forced.values = draws
        with KLWeightMessenger(beta) if beta != 1 else ExitStack():
            value += probability * objective.loss_and_grads(model, guide, X)
        for name, parameter in pyro.get_param_store().named_parameters():
            gradients[name] = gradients[name] + probability * (0.0 if parameter.grad is None else parameter.grad)
    exact, exact_gradients = expected(ways, bound, particles, beta)
    assert float(value) == pytest.approx(exact, abs=1e-8)
    for name, gradient in exact_gradients.items():
        gradient = torch.zeros(()).double() if gradient is None else gradient
        torch.testing.assert_close(torch.as_tensor(gradients[name]).double(), gradient, rtol=0, atol=1e-8)
