"""Scales and masks belong to their sites: one particle of an objective is `Trace_ELBO` at the same draws."""

import itertools
import math
from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyrovae.infer import IWAE, VIMCO, KLWeightMessenger, Renyi, log_weights

WAYS = ("likelihood", "mask", "rows", "plate", "kl")
ROWS = 6


class Model(PyroModule):
    def __init__(self, ways):
        super().__init__()
        self.ways = ways
        self.loc = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, x):
        with ExitStack() as stack:
            outer(self.ways, x, stack)
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            for way in self.ways:  # in the given order, so inside or outside of each other
                if way == "likelihood":
                    stack.enter_context(poutine.scale(scale=50.0))
                if way == "mask":
                    stack.enter_context(poutine.mask(mask=torch.arange(len(x)) % 2 == 0))
            with pyro.plate("inner", 3, dim=-2):
                pyro.sample("t", dist.Normal(z * self.loc, 1.0), obs=torch.ones(3, len(x), dtype=torch.float64))


class Guide(PyroModule):
    def __init__(self, ways):
        super().__init__()
        self.ways = ways
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x):
        with ExitStack() as stack:
            outer(self.ways, x, stack)
            pyro.sample("z", dist.Normal(x * self.scale, self.scale))


def outer(ways, x, stack):
    if "rows" in ways:
        stack.enter_context(poutine.scale(scale=0.5 + torch.arange(len(x), dtype=torch.float64)))
    size = 5 * len(x) if "plate" in ways else len(x)
    stack.enter_context(pyro.plate("data", size, subsample=torch.arange(len(x)), dim=-1))


def result(objective, pair, x, ways):
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    for program in pair:
        program.zero_grad()
    with ExitStack() as stack:
        if "kl" in ways:
            stack.enter_context(KLWeightMessenger(0.25))
        loss = objective.loss_and_grads(*pair, x)
    return loss, torch.stack([pair[0].loc.grad, pair[1].scale.grad])


CASES = [ways for n in range(len(WAYS) + 1) for ways in itertools.permutations(WAYS, n) if n < 3 or ways == WAYS]


@pytest.mark.parametrize("ways", CASES, ids="+".join)
def test_one_particle_is_trace_elbo(ways):
    pair = Model(ways).double(), Guide(ways).double()
    x = torch.randn(ROWS, dtype=torch.float64)
    loss, gradient = result(Trace_ELBO(), pair, x, ways)
    for objective in (IWAE(1), Renyi(0.5, 1)):
        ours, our_gradient = result(objective, pair, x, ways)
        assert ours == pytest.approx(loss, abs=1e-6)
        torch.testing.assert_close(our_gradient, gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", [IWAE(4, vectorize_particles=True), VIMCO(4, vectorize_particles=True)])
def test_row_weights_are_outside_the_logarithm(objective):
    weights = 0.5 + torch.arange(ROWS, dtype=torch.float64)
    x = torch.randn(ROWS, dtype=torch.float64)
    plain, weighted = ((Model(ways).double(), Guide(ways).double()) for ways in ((), ("rows",)))
    pyro.set_rng_seed(1)
    at_work = objective._pair(*plain, (x,), {})
    bound = objective.bound(at_work)
    pyro.set_rng_seed(1)
    loss = objective.differentiable_loss(*weighted, x)
    torch.testing.assert_close(loss, -(weights * bound).sum())


@pytest.mark.parametrize("ways", [("likelihood", "rows"), ("rows", "likelihood")], ids="+".join)
def test_row_weights_beside_a_scale_are_refused_for_several_particles(ways):
    """Which of the two is outside of the logarithm cannot be told; with one particle nothing depends on it."""
    pair = Model(ways).double(), Guide(ways).double()
    x = torch.randn(ROWS, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"has a scale of its own beside the weights of the rows"):
        IWAE(4).loss(*pair, x)


def test_a_weight_of_one_likelihood_is_inside_the_logarithm():
    pair = Model(("likelihood", "plate")).double(), Guide(("likelihood", "plate")).double()
    x = torch.randn(ROWS, dtype=torch.float64)
    pyro.set_rng_seed(1)
    weights = log_weights(*pair, 4, x, weighted=True, return_draws=True)
    z, loc, scale = weights.draws["z"], pair[0].loc, pair[1].scale
    expected = dist.Normal(loc, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)
    expected = expected + 150 * dist.Normal(z * loc, 1.0).log_prob(torch.ones(()))
    torch.testing.assert_close(weights.log_weight, expected - dist.Normal(x * scale, scale).log_prob(z))
    pyro.set_rng_seed(1)
    loss = IWAE(4, vectorize_particles=True).differentiable_loss(*pair, x)
    torch.testing.assert_close(loss, -5 * (weights.log_weight.logsumexp(0) - math.log(4)).sum())
    # A held-out figure counts every site once.
    pyro.set_rng_seed(1)
    plain = log_weights(*pair, 4, x)
    torch.testing.assert_close(
        plain.log_weight, weights.log_weight - 147 * dist.Normal(z * loc, 1.0).log_prob(torch.ones(()))
    )


def test_observations_under_a_mask():
    """`obs_mask=` makes a latent of what is missing, which the guide draws."""
    seen = torch.tensor([True, False, True, False])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def guide(x, complete=True):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.where(seen, x / 2, 0.0), torch.where(seen, 0.5**0.5, 1.0)))
            with poutine.mask(mask=~seen):
                pyro.sample("x_unobserved", dist.Normal(z, 1.0))

    def without(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.randn(4)
    exact = torch.where(seen, dist.Normal(0.0, 2**0.5).log_prob(x), 0.0)
    for particles in (1, 3):
        torch.testing.assert_close(log_weights(model, guide, particles, x).log_weight, exact.expand(particles, 4))
    losses = []
    for objective in (Trace_ELBO(), IWAE(1)):
        pyro.set_rng_seed(0)
        losses.append(objective.loss(model, guide, x))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    with pytest.raises(ValueError, match=r"latent site 'x_unobserved' of the model is missing.*obs_mask="):
        IWAE(2).loss(model, without, x)


@pytest.mark.parametrize("weighted", [True, False])
def test_subsampled_pixels(weighted):
    """Unbiased for training; a held-out figure of a datum of which a part is drawn is refused."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("pixels", 6, subsample_size=2, dim=-1) as chosen:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, chosen])

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.mean(1, keepdim=True), 0.5))

    x = torch.randn(4, 6)
    if not weighted:
        with pytest.raises(ValueError, match="the plate 'pixels' around site 'x' draws 2 of 6 elements"):
            log_weights(model, guide, 2, x)
        return
    losses = []
    for objective in (Trace_ELBO(), IWAE(1)):
        pyro.set_rng_seed(0)
        losses.append(objective.loss(model, guide, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
