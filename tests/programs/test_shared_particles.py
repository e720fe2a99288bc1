"""Latents of all data under several particles: drawn once a step, against formulas, enumeration and the evidence."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyrovae import VAE
from pyrovae.infer import IWAE, NVIL, VIMCO, KLWeightMessenger, MinibatchScale, ReweightedWakeSleep
from pyrovae.training import Callback, Trainer

ROWS, K = 5, 4


def model(x):
    mu = pyro.sample("mu", dist.Normal(x.new_zeros(()), 2.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    m = pyro.param("m", x.new_tensor(0.5))
    s = pyro.param("s", x.new_tensor(0.3), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(m, s))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x + mu) / 2, 0.8))


def rows():
    return torch.linspace(-1.0, 2.0, ROWS, dtype=torch.float64)


def bound_by_hand(x, mu, z, beta=1.0, share=1.0):
    """The bound at one draw `mu` and draws `z` `[K, B]`, with a KL weight and the share of a batch."""
    m, s = (pyro.param(name).detach() for name in "ms")
    latent = dist.Normal(mu, 1.0).log_prob(z) - dist.Normal((x + mu) / 2, 0.8).log_prob(z)
    weight = dist.Normal(z, 1.0).log_prob(x) + beta * latent
    shared = dist.Normal(0.0, 2.0).log_prob(mu) - dist.Normal(m, s).log_prob(mu)
    return (weight.logsumexp(0) - math.log(len(z))).sum() + beta * share * shared


@pytest.mark.parametrize("vectorize", [True, False])
def test_value_is_the_formula_at_the_same_draws(vectorize):
    x, drawn = rows(), []

    def recording(x):
        trace = poutine.trace(guide).get_trace(x)
        drawn.append({name: trace.nodes[name]["value"].detach() for name in ("mu", "z")})

    objective = IWAE(K, vectorize_particles=vectorize)
    objective.loss(model, recording, x)
    drawn.clear()
    with KLWeightMessenger(0.5), MinibatchScale(ROWS, 20, {"data"}):
        loss = objective.loss(model, recording, x)
    first, *others = drawn  # one draw of mu, and the particles at it
    assert len(others) == (1 if vectorize else K)
    z = others[0]["z"] if vectorize else torch.stack([other["z"] for other in others])
    assert all(torch.equal(other["mu"], first["mu"]) for other in others)
    assert loss == pytest.approx(-bound_by_hand(x, first["mu"], z, 0.5, ROWS / 20).item(), abs=1e-6)


def test_bound_lies_between_elbo_and_evidence():
    x = rows()
    covariance = 2.0 * torch.eye(ROWS, dtype=torch.float64) + 4.0
    evidence = dist.MultivariateNormal(torch.zeros(ROWS, dtype=torch.float64), covariance).log_prob(x)
    means = []
    for particles in (1, 20):
        losses = [IWAE(particles).loss(model, guide, x) for _ in range(400)]
        means.append((-torch.tensor(losses).mean().item(), torch.tensor(losses).std().item() / 20))
    (elbo, _), (bound, error) = means
    assert elbo < bound < evidence + 4 * error


def coin_model(x):
    coin = pyro.sample("coin", dist.Bernoulli(x.new_tensor(0.3)))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.2 + 0.6 * coin))
        pyro.sample("x", dist.Normal(z, 0.7), obs=x)


def coin_guide(x):
    logit = pyro.param("logit", x.new_tensor(0.2))
    coin = pyro.sample("coin", dist.Bernoulli(logits=logit))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=pyro.param("slope", x.new_tensor(0.7)) * x + coin))


@pytest.mark.parametrize("objective", [IWAE, VIMCO, NVIL])
def test_gradient_of_discrete_draws_is_that_of_the_enumerated_bound(objective):
    """Over the draw of all data and, for two particles, the draws of each datum."""
    x, particles = torch.tensor([0.3, 0.9], dtype=torch.float64), 2
    logit, slope = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.2, 0.7))
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for coin in bits:
        guides = dist.Bernoulli(logits=slope * x[:, None] + coin, validate_args=False).log_prob(bits)  # [B, value]
        joint = dist.Normal(bits, 0.7).log_prob(x[:, None]) + dist.Bernoulli(0.2 + 0.6 * coin).log_prob(bits)
        weights = joint - guides
        pairs = torch.logaddexp(weights[:, :, None], weights[:, None, :]) - math.log(2)
        of_rows = ((guides[:, :, None] + guides[:, None, :]).exp() * pairs).sum()
        log_q = dist.Bernoulli(logits=logit).log_prob(coin)
        shared = dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)).log_prob(coin) - log_q
        total = total + log_q.exp() * (of_rows + shared)
    exact = -torch.stack(torch.autograd.grad(total, [logit, slope]))
    at_work, found = objective(num_particles=particles, vectorize_particles=True), []
    for _ in range(3000):
        at_work.loss_and_grads(coin_model, coin_guide, x)
        parameters = [pyro.param(name).unconstrained() for name in ("logit", "slope")]
        found.append(torch.stack([parameter.grad for parameter in parameters]))
        for parameter in parameters:
            parameter.grad = None
    found = torch.stack(found)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact).abs() < 4 * error).all(), (found.mean(0), exact, error)


class Watcher(Callback):
    """The posterior of the mean after each epoch; the epoch of the lowest loss is one of much noise."""

    def __init__(self):
        self.found = []

    def on_epoch(self, progress):
        values = dict(progress.vae.named_parameters())
        self.found.append((values["param_sites.m"].item(), values["param_sites.s"].exp().item()))


def test_posterior_of_a_mean_is_exact_under_minibatches():
    torch.manual_seed(0)
    x = 1.0 + 2**0.5 * torch.randn(60)
    variance = 1 / (1 / 4 + 60 / 2)
    for batch_size in (60, 20):
        pyro.clear_param_store()
        vae = VAE(model, guide)
        watcher, epochs = Watcher(), 400 * batch_size // 60
        options = {"lr": 0.02, "progress": False, "callbacks": [watcher]}
        Trainer("iwae", num_particles=10, epochs=epochs, batch_size=batch_size, **options).fit(vae, x)
        mean, deviation = torch.tensor(watcher.found[-epochs // 4 :]).mean(0).tolist()
        assert mean == pytest.approx(variance * x.sum().item() / 2, abs=0.06)
        assert deviation == pytest.approx(variance**0.5, rel=0.15)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_subsample_is_that_of_the_draws(vectorize):
    """Draws of some groups are scored under the prior of these groups, in every particle."""

    def model(x, prior=3.0):
        with pyro.plate("groups", 6, subsample_size=2) as index:
            pyro.sample("mu", dist.Normal(prior * index, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("groups", 6, subsample_size=2) as index:
            pyro.sample("mu", dist.Normal(3.0 * index, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    x = torch.zeros(4)
    exact = -4 * dist.Normal(0.0, 2**0.5).log_prob(torch.zeros(())).item()
    assert IWAE(3, vectorize_particles=vectorize).loss(model, guide, x) == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_draw_of_all_data_that_is_a_function_of_local_ones_is_refused(discrete):
    def late(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5) if discrete else dist.Normal(x / 2, 1.0))
        pyro.sample("mu", dist.Normal(z.mean(), 0.05))

    def two(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5) if discrete else dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + mu, 1.0), obs=x)

    x = torch.randn(4)
    assert math.isfinite(IWAE(1).loss(two, late, x))
    with pytest.raises(
        ValueError, match="the guide draws 'mu', a latent of all data, after 'z', of which it is or may"
    ):
        IWAE(2).loss(two, late, x)


@pytest.mark.parametrize(
    "objective", [IWAE(K, gradient="dreg"), IWAE(K, gradient="stl"), ReweightedWakeSleep(K)], ids=["dreg", "stl", "rws"]
)
def test_objectives_that_weigh_the_path_of_a_draw_refuse(objective):
    with pytest.raises(ValueError, match="latent site 'mu' lies outside the plate over the data"):
        objective.loss(model, guide, rows())
