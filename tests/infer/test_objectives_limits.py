"""Objectives at their limits: far log weights, memory, plates within a datum, errors that say what is wrong."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_pairs import GENERAL, PIXELS, K, belief_network, data, gradients, make, mixed
from pyro.nn import PyroModule
from test_functional import Largest
from torch import nn

from pyrovae.infer import IWAE, NVIL, VIMCO, KLWeightMessenger, ReweightedWakeSleep, log_weights, make_objective


@pytest.mark.parametrize("objective", GENERAL)
def test_log_weights_far_apart(objective):
    """One bit decides on 1e4 nats."""

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.logits, self.weight = nn.Parameter(torch.zeros(())), nn.Parameter(torch.tensor(140.0))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Bernoulli(logits=self.logits))
                pyro.sample("x", dist.Normal(self.weight * z, 1.0), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.level = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Bernoulli(logits=self.level))

    pair, x = (Model(), Guide()), torch.zeros(20)
    assert log_weights(*pair, 50, x).log_weight.std() > 4e3
    loss = make(objective).loss_and_grads(*pair, x)
    assert math.isfinite(loss)
    for name, value in gradients(pair).items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("objective", [VIMCO, lambda k: VIMCO(k, control_variate="arithmetic"), ReweightedWakeSleep])
def test_memory_grows_with_the_particles_and_not_with_their_square(objective):
    pair, x, particles = belief_network(), data(20), 200
    made = objective(particles)
    made.loss(*pair, x)
    with Largest() as largest:
        made.loss_and_grads(*pair, x)
    assert largest.size <= particles * len(x) * PIXELS


def test_latents_outside_the_plate_are_named():
    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("scale", dist.LogNormal(0.0, 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    for objective in GENERAL:
        made = make(objective)
        if made.takes_shared:
            assert math.isfinite(made.loss(model, guide, torch.zeros(5)))
            continue
        with pytest.raises(ValueError, match=r"latent site 'scale' lies outside the plate.*'iwae'"):
            made.loss(model, guide, torch.zeros(5))


@pytest.mark.parametrize("sleep_phi", [0.0, 1.0])
def test_a_kl_weight_leaves_the_guide_of_wake_sleep_its_whole_loss(sleep_phi):
    """At weight 0 particles count by their likelihood, and the guide still learns log q of them, and of dreams."""
    bits = torch.tensor([[0.3], [0.8]]).logit().requires_grad_()
    x = torch.tensor([1.0, 0.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=bits[x.long(), 0]))

    def gradient(beta):
        objective = ReweightedWakeSleep(400, wake_phi=1 - sleep_phi, sleep_phi=sleep_phi, vectorize_particles=True)
        pyro.set_rng_seed(0)
        with KLWeightMessenger(beta):
            (found,) = torch.autograd.grad(objective.differentiable_loss(model, guide, x), bits)
        return found

    if sleep_phi:
        torch.testing.assert_close(gradient(0.0), gradient(1.0))
        return
    q = bits.detach().sigmoid()[x.long(), 0]
    likely = torch.stack([torch.where(x == 1, 0.8, 0.2) * q, torch.where(x == 1, 0.2, 0.8) * (1 - q)])
    target = likely[0] / likely.sum(0)
    expected = (q - target).flip(0).unsqueeze(1)
    torch.testing.assert_close(gradient(0.0), expected, atol=0.06, rtol=0)


def test_a_kl_weight_and_defensive_draws():
    """The weights are p(x|z) (p(z) / mixture)^beta; the bound of many particles is the logarithm of their mean."""
    p, q, defensive, beta = torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8]), 0.3, 0.5
    likelihood, x = torch.tensor([0.2, 0.7]), torch.ones(50)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(p))
            pyro.sample("x", dist.Bernoulli(likelihood[z]), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(q))

    mixture = (1 - defensive) * q + defensive / 2
    expected = (mixture * likelihood * (p / mixture) ** beta).sum().log()
    objective = ReweightedWakeSleep(2000, wake_phi=1.0, sleep_phi=0.0, defensive=defensive)
    with KLWeightMessenger(beta):
        found = -objective.loss(model, guide, x) / len(x)
    assert found == pytest.approx(float(expected), abs=0.005)


def test_defensive_draws_and_plates_within_a_datum():
    x = torch.ones(4, 3)

    def program(x, observe=True):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("inner", 3, dim=-1):
            z = pyro.sample("bits", dist.Bernoulli(0.5))
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        program(x, observe=False)

    with pytest.raises(ValueError, match="site 'bits' lies in the plate 'inner' within a datum"):
        ReweightedWakeSleep(3, defensive=0.1).loss(program, guide, x)


def test_defensive_draws_need_finitely_many_values():
    with pytest.raises(ValueError, match="site 'z' has not finitely many values"):
        ReweightedWakeSleep(K, defensive=0.1).loss(*mixed(), data())


def test_dreams_need_a_single_data_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("w", dist.Normal(-z, 1.0), obs=-x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(0.4))

    with pytest.raises(ValueError, match=r"dreams one data site.*\['x', 'w'\].*sleep_phi=0"):
        ReweightedWakeSleep(K).loss(model, guide, torch.zeros(5))
    assert math.isfinite(ReweightedWakeSleep(K, sleep_phi=0.0).loss(model, guide, torch.zeros(5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: IWAE(0), "num_particles must be at least 1, got 0"),
        (lambda: IWAE(3, gradient="path"), "gradient must be one of standard, stl, dreg, got 'path'"),
        (lambda: VIMCO(1), "num_particles is 1, take 2 or more"),
        (lambda: VIMCO(3, control_variate="median"), "must be geometric or arithmetic, got 'median'"),
        (lambda: NVIL(1, baseline="net"), "baseline must be one of none, running-mean, input or a module, got 'net'"),
        (lambda: ReweightedWakeSleep(3, wake_phi=0.0, sleep_phi=0.0), "not both 0; got 0.0 and 0.0"),
        (lambda: ReweightedWakeSleep(3, wake_phi=-1.0), "got -1.0 and 0.5"),
        (lambda: ReweightedWakeSleep(1), "wake-phi weighs particles against each other; num_particles is 1, take 2"),
        (lambda: make_objective("wake-wake", num_particles=1), "num_particles is 1, take 2 or more, or wake_phi=0"),
        (lambda: ReweightedWakeSleep(3, defensive=1.0), "a probability below 1, got 1.0"),
        (lambda: make_objective("vimko"), "unknown objective 'vimko'; known are .*vimco"),
        (lambda: make_objective("vimco", num_particles=3, alpha=2), "objective 'vimco': .*alpha"),
        (lambda: make_objective("vimco", num_particles=1), "take 2 or more"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("vectorize", [True, False])
def test_dreg_where_a_plate_within_a_datum_has_as_many_entries_as_there_are_data(vectorize):
    """Each datum's path has that datum's weights, by Tucker et al. (2019), equation 8, written out."""
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", 3, dim=-1):
            with pyro.plate("parts", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(3, 3, dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(z.sum(-2, keepdim=z.dim() > 2), 0.7), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.3, dtype=torch.float64))
        with pyro.plate("data", 3, dim=-1), pyro.plate("parts", 3, dim=-2):
            pyro.sample("z", dist.Normal((slope * x).expand(3, 3), 0.9))

    objective = IWAE(K, gradient="dreg", max_plate_nesting=2, vectorize_particles=vectorize)
    torch.manual_seed(0)
    objective.loss_and_grads(model, guide, x)
    torch.manual_seed(0)
    again = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    calls, zeros = (1, torch.zeros(K, 3, 3)) if vectorize else (K, torch.zeros(1, 3, 3))
    noise = torch.cat([torch.normal(zeros.double(), 1.0) for _ in range(calls)])
    z = again * x + 0.9 * noise
    log_q = dist.Normal(again.detach() * x, 0.9).log_prob(z).sum(1)
    log_weight = dist.Normal(0.0, 1.0).log_prob(z).sum(1) + dist.Normal(z.sum(1), 0.7).log_prob(x) - log_q
    (log_weight.detach().softmax(0).square() * log_weight).sum().neg().backward()
    torch.testing.assert_close(pyro.param("slope").grad, again.grad)
