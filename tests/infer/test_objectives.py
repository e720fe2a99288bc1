"""What every objective keeps to: values by datum, scales, masks, weights; stock Pyro; errors that say what is wrong."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from test_functional import Largest
from torch import nn

from pyrovae.guides import AmortizedGaussian, BernoulliLayers
from pyrovae.infer import (
    IWAE,
    NVIL,
    VIMCO,
    KLWeightMessenger,
    Renyi,
    ReweightedWakeSleep,
    WakeSleep,
    log_weights,
    make_objective,
    objective_names,
)
from pyrovae.likelihoods import BernoulliLikelihood
from pyrovae.models import GaussianVAE, SigmoidBeliefNetwork
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.priors import StandardNormal

PIXELS, K = 6, 4
LATENTS = ("b", "z", "z1", "z2")


def belief_network():
    model = SigmoidBeliefNetwork((3, 2), BernoulliLikelihood((PIXELS,)))
    return model.double(), BernoulliLayers((PIXELS,), (3, 2)).double()


def gaussian():
    likelihood = BernoulliLikelihood((PIXELS,))
    model = GaussianVAE(StandardNormal(2), DenseDecoder(2, likelihood.raw_shape, (4,)), likelihood)
    return model.double(), AmortizedGaussian(DenseEncoder((PIXELS,), (4,)), 2).double()


class MixedModel(PyroModule):
    """A binary and a normal latent; `size` is that of a data set of which the data are a subsample."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.prior = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.net = nn.Linear(2, PIXELS).double()

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            b = pyro.sample("b", dist.Bernoulli(logits=self.prior))
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=self.net(torch.stack([b, z], -1))).to_event(1), obs=x)


class MixedGuide(PyroModule):
    def __init__(self, size=None):
        super().__init__()
        self.size = size
        self.net_of_b, self.net_of_z = nn.Linear(PIXELS, 1).double(), nn.Linear(PIXELS, 1).double()
        self.shift = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x):
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            b = pyro.sample("b", dist.Bernoulli(logits=self.net_of_b(x).squeeze(-1)))
            pyro.sample("z", dist.Normal(self.net_of_z(x).squeeze(-1) + self.shift * b, 0.7))


def mixed(size=None):
    return MixedModel(size), MixedGuide(size)


GENERAL = {
    "iwae": lambda **o: IWAE(K, **o),
    "renyi": lambda **o: Renyi(0.5, K, **o),
    "vimco": lambda **o: VIMCO(K, **o),
    "vimco-arithmetic": lambda **o: VIMCO(K, control_variate="arithmetic", **o),
    "nvil": lambda **o: NVIL(K, **o),
    "nvil-input": lambda **o: NVIL(K, baseline="input", **o),
    "wake-wake": lambda **o: ReweightedWakeSleep(K, wake_phi=1.0, sleep_phi=0.0, **o),
    "rws": lambda **o: ReweightedWakeSleep(K, **o),
    "wake-sleep": lambda **o: WakeSleep(K, **o),
}
PATHWISE = {
    "stl": lambda **o: IWAE(K, gradient="stl", **o),
    "dreg": lambda **o: IWAE(K, gradient="dreg", **o),
}
APPLIES = [
    *((pair, name) for pair in ("belief-network", "gaussian", "mixed") for name in GENERAL),
    *(("gaussian", name) for name in PATHWISE),
]
PAIRS = {"belief-network": belief_network, "gaussian": gaussian, "mixed": mixed}
every = pytest.mark.parametrize(("pair", "objective"), APPLIES)


def make(objective, **options):
    return {**GENERAL, **PATHWISE}[objective](**options)


def data(rows=8):
    return torch.rand(rows, PIXELS, dtype=torch.float64).round()


class FixedNoise(Messenger):
    """Draws made from noise that belongs to a particle and a datum, so that a datum's draws do not move."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def _pyro_sample(self, msg):
        if msg["name"] not in LATENTS:
            return
        noise = torch.rand(K, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(len(msg["name"])))
        noise = noise[:, self.rows]
        noise = noise[..., : msg["fn"].event_shape[0]] if msg["fn"].event_shape else noise[..., 0]
        base = getattr(msg["fn"], "base_dist", msg["fn"])
        reparameterised = msg["fn"].has_rsample
        msg["value"] = base.icdf(noise) if reparameterised else (noise < base.mean).to(noise.dtype)
        msg["done"] = True


def bounds(objective, pair, x, rows, **given):
    """The bound of each datum, whose draws are those of the row numbers `rows`; gradients are added up."""
    model, guide = pair
    objective.max_plate_nesting, objective.vectorize_particles = 1, True
    with torch.random.fork_rng():
        at_work = objective._pair(model, guide, (x,), given)
        at_work.guide = FixedNoise(rows)(guide)
        found = objective.bound(at_work)
        found.sum().backward()
    return found.detach()


def gradients(pair):
    found = {}
    for program in pair:
        for name, parameter in program.named_parameters():
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            parameter.grad = None
    return found


# -- values by datum --------------------------------------------------------------------------------------------------


@every
def test_values_and_gradients_do_not_depend_on_the_batch(pair, objective):
    """Split, shuffled, or one row at a time; dreams, which are of no datum, are compared in value alone."""
    pair, rows = PAIRS[pair](), torch.arange(8)
    x, made = data(), make(objective)
    whole, gradient = bounds(made, pair, x, rows), gradients(pair)
    order = torch.randperm(8)
    for parts in ([rows[:3], rows[3:]], [order], rows.split(1)):
        found = torch.cat([bounds(made, pair, x[part], part) for part in parts])
        torch.testing.assert_close(found, whole[torch.cat(list(parts))], rtol=0, atol=1e-6)
        for name, value in gradients(pair).items():
            if objective not in ("rws", "wake-sleep"):
                torch.testing.assert_close(value, gradient[name], rtol=0, atol=1e-6)


@every
def test_rows_hidden_by_a_mask_count_for_nothing(pair, objective):
    model, guide = pair = PAIRS[pair]()
    x, rows, made = data(), torch.arange(8), make(objective)
    whole, gradient = bounds(made, pair, x, rows), gradients(pair)
    shown = torch.arange(11) < 8
    padded = tuple(poutine.mask(program, mask=shown) for program in (model, guide))
    found = bounds(made, padded, torch.cat([x, data(3)]), torch.arange(11))
    torch.testing.assert_close(found[:8], whole, rtol=0, atol=1e-6)
    assert (found[8:] == 0).all()
    if objective not in ("rws", "wake-sleep"):
        for name, value in gradients(pair).items():
            torch.testing.assert_close(value, gradient[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("pair", "objective"), [case for case in APPLIES if case[0] != "mixed"])
def test_missing_entries_are_as_if_they_did_not_exist(pair, objective):
    """What is under a mask does not matter, NaN included, and the bound is that of a model without those pixels."""
    model, guide = pair = PAIRS[pair]()
    x, rows, made = data(), torch.arange(8), make(objective)
    mask = torch.ones(8, PIXELS, dtype=torch.bool)
    mask[:, 4:] = False
    found = bounds(made, pair, torch.where(mask, x, math.nan), rows, mask=mask)
    assert all(value.isfinite().all() for value in gradients(pair).values())
    torch.testing.assert_close(found, bounds(made, pair, 1 - torch.where(mask, 1 - x, 0.0), rows, mask=mask))
    gradients(pair)
    few = BernoulliLikelihood((4,))
    last = [layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear)][-1]
    last.weight, last.bias = nn.Parameter(last.weight[:4].detach()), nn.Parameter(last.bias[:4].detach())
    model.likelihood, model.decoder.raw_shape = few, few.raw_shape

    def padded(x, **given):
        return guide(torch.cat([x, torch.zeros(len(x), 2).to(x)], 1))

    torch.testing.assert_close(found, bounds(make(objective), (model, padded), x[:, :4], rows), rtol=0, atol=1e-6)


def test_dreams_have_the_masks_of_the_batch():
    """A pixel that no row shows tells the guide nothing, in dreams neither."""
    model, guide = belief_network()
    mask = torch.arange(PIXELS).expand(8, PIXELS) < 4
    WakeSleep(1).loss_and_grads(model, guide, torch.where(mask, data(), math.nan), mask=mask)
    gradient = guide.upward[0].layers[0].weight.grad
    assert (gradient[:, :4] != 0).all()
    assert (gradient[:, 4:] == 0).all()


@every
def test_kl_weight_weighs_prior_and_posterior(pair, objective):
    model, guide = PAIRS[pair]()
    x, rows = data(), torch.arange(8)
    made = make(objective)
    with KLWeightMessenger(0.3):
        found = bounds(made, (model, guide), x, rows)
    trace = poutine.trace(pyro.plate("particles", K, dim=-2)(FixedNoise(rows)(guide))).get_trace(x)
    joint = poutine.trace(pyro.plate("particles", K, dim=-2)(poutine.replay(model, trace=trace))).get_trace(x)
    for each in (trace, joint):
        each.compute_log_prob()
    divergence = sum(
        joint.nodes[name]["log_prob"] - trace.nodes[name]["log_prob"]
        for name in ("z", "z1", "z2", "b")
        if name in joint
    )
    log_weight = (joint.nodes["x"]["log_prob"] + 0.3 * divergence).detach()
    order = 0.5 if objective == "renyi" else 1.0
    torch.testing.assert_close(found, (order * log_weight).exp().mean(0).log() / order)


@pytest.mark.parametrize("objective", GENERAL)
def test_subsampling_scales_losses_and_gradients(objective):
    """By 40 / 8, outside of the logarithm of the mean weight."""
    x, results = data(), []
    for size in (None, 40):
        torch.manual_seed(1)
        pair = mixed(size)
        loss = make(objective).loss_and_grads(*pair, x)
        results.append((loss, gradients(pair)))
    (loss, gradient), (scaled_loss, scaled_gradient) = results
    assert scaled_loss == pytest.approx(5 * loss)
    for name, value in gradient.items():
        assert value.abs().sum() > 0
        torch.testing.assert_close(scaled_gradient[name], 5 * value)


@every
def test_looped_particles_are_as_good_as_vectorised_ones(pair, objective):
    """The same bound on average: particles that share draws, or sums in place of means, would show."""
    pair, x = PAIRS[pair](), data(2).repeat(2000, 1)
    for program in pair:
        for parameter in program.parameters():
            parameter.data *= 3  # weights far enough apart for the number of particles to matter
    together, looped = (make(objective, vectorize_particles=way).loss(*pair, x) / 4000 for way in (True, False))
    assert together == pytest.approx(looped, abs=0.05)


# -- what may go wrong ------------------------------------------------------------------------------------------------


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
        with pytest.raises(ValueError, match=r"latent site 'scale' lies outside the plate.*condition="):
            make(objective).loss(model, guide, torch.zeros(5))


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


# -- stock Pyro -------------------------------------------------------------------------------------------------------


@every
def test_training_with_svi(pair, objective):
    """The loss falls, and every parameter of model and guide moves."""
    model, guide = PAIRS[pair]()
    x, made = data(1).repeat(30, 1), make(objective)
    before = [parameter.detach().clone() for program in (model, guide) for parameter in program.parameters()]
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), made)
    losses = [svi.step(x) for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    for old, new in zip(before, [*model.parameters(), *guide.parameters()], strict=True):
        assert not torch.equal(old, new)
    assert svi.evaluate_loss(x) < losses[0]


def test_baseline_learns_with_svi():
    """Its net comes to tell the data apart whose bounds differ, and so explains the signal."""
    x = torch.cat([torch.zeros(20, PIXELS), torch.ones(20, PIXELS)]).double()
    model, guide = belief_network()
    with torch.no_grad():
        model.decoder.net.layers[-1].bias.fill_(3.0)
    made = NVIL(1, baseline="input", decay=0.5)
    svi = SVI(model, guide, pyro.optim.Adam(lambda name: {"lr": 0.05 if "baseline" in name else 1e-6}), made)
    for _ in range(150):
        svi.step(x)
    value = made.module(x).detach()
    signal = made.bound(made._pair(model, guide, (x,), {})).detach()
    assert signal[20:].mean() - signal[:20].mean() > 10
    for half in (slice(20), slice(20, 40)):
        assert float(value[half].mean()) == pytest.approx(float(signal[half].mean()), abs=1.0)


def test_losses_of_wake_sleep():
    """The model's is that of the importance-weighted bound; the guide's are cross-entropies."""
    model, guide = belief_network()
    x = data(2).repeat(1000, 1)
    losses = ReweightedWakeSleep(5).losses(model, guide, x)
    assert losses.model == pytest.approx(IWAE(5).loss(model, guide, x), rel=0.02)
    parts = [ReweightedWakeSleep(5, wake_phi=w, sleep_phi=1 - w).losses(model, guide, x).guide for w in (0.0, 1.0)]
    assert losses.guide == pytest.approx(sum(parts) / 2, rel=0.02)


def test_every_name_makes_an_objective():
    for name in objective_names():
        made = make_objective(name, num_particles=3)
        assert made.num_particles == 3
        assert type(make_objective(name.replace("-", "_"), num_particles=3)) is type(made)
