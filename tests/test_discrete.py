"""Discrete latents: variables, networks and pairs, with enumeration as the oracle for every tool of VAE."""

import itertools
import math

import pyro
import pytest
import torch
from pairs import weights_of
from pyro.distributions import Bernoulli, OneHotCategorical

from pyrovae import VAE, data, discrete
from pyrovae.callbacks import Callback
from pyrovae.checkpoint import RunFolder
from pyrovae.data import Dataset, Split
from pyrovae.discrete import Bits, OneHot, RelaxedBits, RelaxedOneHot, TemperatureSchedule
from pyrovae.guides import AmortizedCategorical, BernoulliLayers
from pyrovae.infer import IWAE, VIMCO
from pyrovae.likelihoods import BernoulliLikelihood, NormalLikelihood
from pyrovae.models import CategoricalVAE, SigmoidBeliefNetwork
from pyrovae.nn import DenseDecoder, DenseEncoder
from pyrovae.pairs.discrete import categorical, sbn
from pyrovae.schedules import WarmUp
from pyrovae.training import Trainer

PIXELS = 4


def belief_network(sizes=(3, 2), hidden=(), variable=Bits, likelihood=BernoulliLikelihood) -> VAE:
    model = SigmoidBeliefNetwork(sizes, likelihood((PIXELS,)), hidden, variable=variable())
    vae = VAE(model, BernoulliLayers((PIXELS,), sizes, hidden, variable=variable()))
    return spread(vae)


def categorical_vae(num_variables=2, num_classes=3, learn_prior=True, variable=OneHot) -> VAE:
    likelihood = BernoulliLikelihood((PIXELS,))
    decoder = DenseDecoder(num_variables * num_classes, likelihood.raw_shape, ())
    options = {"learn_prior": learn_prior, "variable": variable()}
    model = CategoricalVAE(num_variables, num_classes, decoder, likelihood, **options)
    encoder = DenseEncoder((PIXELS,), (5,))
    return spread(VAE(model, AmortizedCategorical(encoder, num_variables, num_classes, variable=variable())))


def spread(vae: VAE) -> VAE:
    """Weights that make the latents matter, and differ from each other."""
    for parameter in vae.parameters():
        parameter.data = 0.6 * torch.randn_like(parameter)
    return vae


def binary(size: int) -> torch.Tensor:
    """All binary vectors, `[2 ** size, size]`."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)))


def bernoulli(value, logits):
    return -(torch.log1p(torch.exp(-logits)) * value + torch.log1p(torch.exp(logits)) * (1 - value))


def linear(layer, value):
    return value @ layer.weight.T + layer.bias


def exact_joint(vae: VAE, x, mask=None):
    """log p(x, z) `[Z, B]` for all states of a linear belief network of any depth, and those states by site."""
    sizes = [layer.out_features for layer in vae.guide.upward]
    states = binary(sum(sizes)).split(sizes, 1)
    joint = bernoulli(states[-1], vae.model.top_logits).sum(1)
    for below, above, net in zip(states[-2::-1], states[:0:-1], list(vae.model.downward)[::-1], strict=True):
        joint = joint + bernoulli(below, linear(net.layers[0], above)).sum(1)
    pixels = bernoulli(x, linear(vae.model.decoder.net.layers[0], states[0])[:, None])
    shown = torch.ones_like(x) if mask is None else mask.float()
    names = vae.model.names
    return joint[:, None] + (pixels * shown).sum(2), dict(zip(names, states, strict=True))


def exact_categorical_joint(vae: VAE, x):
    variables, classes = vae.guide.shape
    index = torch.tensor(list(itertools.product(range(classes), repeat=variables)))
    prior = vae.model.prior_logits.log_softmax(1)
    log_prior = torch.stack([sum(prior[v, i[v]] for v in range(variables)) for i in index])
    states = torch.eye(classes)[index]
    pixels = bernoulli(x, linear(vae.model.decoder.net.layers[0], states.reshape(len(index), -1))[:, None])
    return log_prior[:, None] + pixels.sum(2), states


SIZES = [(3,), (3, 2), (2, 3, 2)]


# -- the tools of VAE against enumeration -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_log_likelihood_of_belief_networks(sizes):
    vae, x = belief_network(sizes), binary(PIXELS)[::3]
    exact = exact_joint(vae, x)[0].logsumexp(0)
    found = vae.log_likelihood(x, 20_000, return_details=True)
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()
    assert (found.standard_error < 0.1).all()


def test_log_likelihood_of_categorical_latents():
    vae, x = categorical_vae(), binary(PIXELS)[::3]
    exact = exact_categorical_joint(vae, x)[0].logsumexp(0)
    found = vae.log_likelihood(x, 20_000, return_details=True)
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()


@pytest.mark.parametrize("sizes", SIZES)
def test_masked_entries_do_not_count(sizes):
    vae, x = belief_network(sizes), binary(PIXELS)[::3]
    mask = torch.rand(x.shape) < 0.6
    exact = exact_joint(vae, x, mask)[0].logsumexp(0)
    found = vae.log_likelihood(torch.where(mask, x, math.nan), 20_000, mask=mask, return_details=True)
    assert ((found.value - exact).abs() < 4 * found.standard_error + 1e-4).all()


@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_samples_have_the_exact_distribution(make):
    vae = make()
    x = binary(PIXELS)
    joint = exact_joint(vae, x)[0] if make is belief_network else exact_categorical_joint(vae, x)[0]
    exact = joint.logsumexp(0).exp().detach()
    assert float(exact.sum()) == pytest.approx(1.0, abs=1e-5)
    code = 2 ** torch.arange(PIXELS).flip(0)
    draws = vae.sample(20_000)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    shares = torch.bincount((draws @ code.float()).long(), minlength=16) / 20_000
    assert ((shares - exact).abs() < 4.5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-4).all()
    means = vae.sample(20_000, output="mean")
    torch.testing.assert_close(means.mean(0), (exact[:, None] * x).sum(0), rtol=0, atol=0.02)


def test_decode_and_reconstruct():
    vae, x = belief_network((3, 2)), binary(PIXELS)
    _, states = exact_joint(vae, x)
    p = vae.decode(states)
    expected = linear(vae.model.decoder.net.layers[0], states["z1"]).sigmoid()
    torch.testing.assert_close(p.mean, expected)
    # Latents that are not given come from the model; z2 does not reach the data but through z1.
    torch.testing.assert_close(vae.decode({"z1": states["z1"]}).mean, expected)
    posterior = linear(vae.guide.upward[0].layers[0], x).sigmoid()
    torch.testing.assert_close(vae.posterior(x)["z1"].mean, posterior)
    q = torch.stack([bernoulli(z, posterior.logit()).sum(1) for z in binary(3)]).exp()
    mean = (q[..., None] * linear(vae.model.decoder.net.layers[0], binary(3)).sigmoid()[:, None]).sum(0)
    found = vae.reconstruct(x.repeat(4000, 1)).unflatten(0, (4000, 16)).mean(0)
    torch.testing.assert_close(found, mean, rtol=0, atol=0.03)


def test_categorical_posterior_and_decoder():
    vae, x = categorical_vae(), binary(PIXELS)
    q = vae.encode(x)
    assert (q.batch_shape, q.event_shape) == ((16,), (2, 3))
    torch.testing.assert_close(q.base_dist.probs.sum(-1), torch.ones(16, 2))
    _, states = exact_categorical_joint(vae, x)
    expected = linear(vae.model.decoder.net.layers[0], states.flatten(1)).sigmoid()
    torch.testing.assert_close(vae.decode(states).mean, expected)
    draw = q.sample()
    assert ((draw == 0) | (draw == 1)).all()
    assert (draw.sum(-1) == 1).all()


@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_training_finds_what_the_data_are_made_of(make):
    """Two pictures, one of them three times as frequent: the best loss is their entropy, and 4 times that without z."""
    x = torch.tensor([[1.0, 1, 0, 0]] * 75 + [[0.0, 0, 1, 1]] * 25)
    vae = make()
    Trainer(objective="vimco", num_particles=5, lr=0.1, epochs=60, batch_size=50, progress=False).fit(vae, x)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy - 0.02 < float(-vae.log_likelihood(x, 1000).mean()) < 2 * entropy


def test_centre_of_the_guide():
    centre = torch.tensor([0.2, 0.4, 0.6, 0.8])
    plain, centred = (BernoulliLayers((PIXELS,), (3,), centre=c) for c in (None, centre))
    centred.upward.load_state_dict(plain.upward.state_dict())
    x, mask = torch.rand(5, PIXELS), torch.rand(5, PIXELS) < 0.5

    def logits(guide, x, **given):
        return pyro.poutine.trace(guide).get_trace(x, **given).nodes["z"]["fn"].base_dist.logits

    torch.testing.assert_close(logits(centred, x + centre), logits(plain, x))
    # A missing entry is one that equals the mean.
    hidden = torch.where(mask, x, math.nan)
    torch.testing.assert_close(logits(centred, hidden, mask=mask), logits(centred, torch.where(mask, x, centre)))


def test_nets_between_layers_have_the_hidden_layers_asked_for():
    vae = belief_network((3, 2), hidden=(7,))
    for nets in (vae.model.downward, vae.guide.upward):
        for net in nets:
            assert [layer.out_features for layer in net.layers[::2]] == [7, net.out_features]
    assert vae.log_likelihood(binary(PIXELS), 10).shape == (16,)
    assert belief_network((3, 2), likelihood=NormalLikelihood).log_likelihood(torch.randn(2, PIXELS), 5).shape == (2,)


# -- relaxations ------------------------------------------------------------------------------------------------------


def test_variables_say_what_the_next_net_sees():
    logits = torch.randn(7, 5)
    assert isinstance(Bits()(logits).base_dist, Bernoulli)
    assert torch.equal(Bits().features(logits), logits)
    logits = torch.randn(7, 2, 3)
    assert isinstance(OneHot()(logits).base_dist, OneHotCategorical)
    assert OneHot().features(logits).shape == (7, 6)
    for variable in (RelaxedOneHot(0.5), RelaxedOneHot(0.5, straight_through=True)):
        seen = variable.features(variable(logits).rsample()).unflatten(-1, (2, 3))
        torch.testing.assert_close(seen.sum(-1), torch.ones(7, 2))
        assert bool(((seen == 0) | (seen == 1)).all()) is variable.straight_through


@pytest.mark.parametrize("relaxed", [RelaxedBits, RelaxedOneHot])
def test_straight_through_has_hard_values_and_soft_gradients(relaxed):
    shape = (6, 3) if relaxed is RelaxedBits else (6, 2, 3)
    logits = torch.randn(shape, requires_grad=True)
    soft, hard = relaxed(0.5), relaxed(0.5, straight_through=True)
    z = soft(logits).rsample()
    weight = torch.randn(soft.features(z).shape)
    values, gradients = [], []
    for variable in (soft, hard):
        seen = variable.features(z)
        values.append(seen.detach())
        gradients.append(torch.autograd.grad((weight * seen).sum(), logits, retain_graph=True)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    if relaxed is RelaxedBits:
        nearest = values[0].round()
    else:
        nearest = torch.eye(3)[values[0].unflatten(-1, (2, 3)).argmax(-1)].flatten(-2)
    assert torch.equal(values[1], nearest)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_low_temperature_gives_the_discrete_model(make, straight_through):
    """Its likelihood, that is; the bound stays below the discrete one, as relaxed draws hold more than their bits."""
    x = binary(PIXELS)[::3]
    relaxed = RelaxedBits if make is belief_network else RelaxedOneHot
    exact = make()
    joint = exact_joint(exact, x)[0] if make is belief_network else exact_categorical_joint(exact, x)[0]
    truth = joint.logsumexp(0).detach()
    pair = {}
    for temperature in (2.0, 0.01):
        pair[temperature] = make(variable=lambda t=temperature: relaxed(t, straight_through=straight_through))
        pair[temperature].load_state_dict(exact.state_dict(), strict=False)
    found = pair[0.01].log_likelihood(x, 50_000, return_details=True)
    assert ((found.value - truth).abs() < 4 * found.standard_error + 0.01).all()
    assert (found.standard_error < 0.1).all()
    if not straight_through:  # hard values make the discrete likelihood at any temperature
        assert (pair[2.0].log_likelihood(x, 50_000) - truth).abs().max() > 0.05
    x = x.repeat(500, 1)
    bounds = [-IWAE(3).loss(vae.model, vae.guide, x) / len(x) for vae in (exact, pair[0.01])]
    assert bounds[1] < bounds[0] < float(truth.mean())


@pytest.mark.parametrize("draws", ["relaxed", "straight-through"])
@pytest.mark.parametrize("pair", ["sbn", "categorical"])
def test_relaxed_pairs_train_and_all_parameters_get_gradients(pair, draws):
    dataset = tiny_dataset()
    options = {"sizes": (4, 3)} if pair == "sbn" else {"num_variables": 3, "num_classes": 4, "hidden": (8,)}
    vae = {"sbn": sbn, "categorical": categorical}[pair](dataset, draws=draws, **options)
    before = weights_of(vae)
    trainer = Trainer(objective="elbo", lr=0.01, epochs=15, batch_size=32, progress=False)
    history = trainer.fit(vae, dataset.train.x)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    for name, value in vae.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert vae.sample(3).shape == (3, 1, 4, 4)
    exact = {"sbn": sbn, "categorical": categorical}[pair](dataset, **options)
    trainer = Trainer(objective="iwae-dreg", num_particles=2, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"site 'z1?' has no reparameterised draws"):
        trainer.fit(exact, dataset.train.x)


# -- the schedule of the temperature ----------------------------------------------------------------------------------


class Seen(Callback):
    def __init__(self):
        self.temperatures = []

    def on_start(self, progress):
        self.on_batch(progress)

    def on_batch(self, progress):
        self.temperatures.append(round(float(progress.vae.model.variable.temperature), 4))


def trainer_with_schedule(epochs, *more):
    schedule = TemperatureSchedule(WarmUp(epochs=4, start=1.0, end=0.2))
    return Trainer(epochs=epochs, batch_size=32, lr=0.01, progress=False, callbacks=[schedule, *more])


def relaxed_network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return belief_network(variable=lambda: RelaxedBits(0.9))


def test_temperature_follows_the_schedule_in_model_and_guide():
    seen, vae = Seen(), relaxed_network()
    trainer_with_schedule(5, seen).fit(vae, binary(PIXELS).repeat(4, 1))  # two batches an epoch
    assert seen.temperatures == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2]
    # The best weights come with the temperature that they were best at.
    assert float(vae.model.variable.temperature) == float(vae.guide.sampled_as.temperature) <= 1.0


def test_temperature_survives_a_stop(tmp_path):
    x = binary(PIXELS).repeat(4, 1)
    through, stopped = relaxed_network(), relaxed_network()
    trainer_with_schedule(4).fit(through, x, run=RunFolder(tmp_path / "through"))
    trainer_with_schedule(2).fit(stopped, x, run=RunFolder(tmp_path / "stopped"))
    seen, resumed = Seen(), relaxed_network()
    trainer_with_schedule(4, seen).fit(resumed, x, run=RunFolder(tmp_path / "stopped"), resume=True)
    assert seen.temperatures[0] == 0.6
    assert all(torch.equal(value, weights_of(resumed)[name]) for name, value in weights_of(through).items())


def test_schedule_needs_something_to_move():
    with pytest.raises(ValueError, match="no relaxed variable"):
        trainer_with_schedule(1).fit(belief_network(), binary(PIXELS))


# -- pairs by name, and errors ----------------------------------------------------------------------------------------


def tiny_dataset(kind="binary", rows=64) -> Dataset:
    x = data.load("digits", binarize="static").train.x[:rows, :, 2:6, 2:6]
    x = x if kind == "binary" else x - 0.5
    return Dataset("tiny", Split(x), Split(x[:8]), Split(x[:8]), kind)


def test_sbn_starts_at_the_mean_of_the_data():
    dataset = tiny_dataset()
    vae = sbn(dataset, sizes=(5, 3))
    mean = dataset.train.x.mean(0)
    assert torch.equal(vae.guide.centre, mean)
    bias = vae.model.decoder.net.layers[-1].bias.sigmoid().reshape(mean.shape)
    torch.testing.assert_close(bias, mean.clamp(0.01, 0.99))
    real = sbn(tiny_dataset("real"), sizes=(5,))
    assert isinstance(real.model.likelihood, NormalLikelihood)
    assert math.isfinite(VIMCO(3).loss(real.model, real.guide, tiny_dataset("real").train.x))


@pytest.mark.parametrize("learn_prior", [False, True])
def test_categorical_prior(learn_prior):
    vae = categorical(tiny_dataset(), num_variables=2, num_classes=3, learn_prior=learn_prior)
    assert ("owners.model.prior_logits" in dict(vae.named_parameters())) is learn_prior
    assert vae.model.prior_logits.shape == (2, 3)


def test_options_of_variables_reach_model_and_guide_separately():
    vae = sbn(tiny_dataset(), sizes=(3, 2), draws="straight-through", temperature=0.4)
    variables = vae.model.variable, vae.guide.sampled_as
    assert variables[0] is not variables[1]
    for variable in variables:
        assert float(variable.temperature) == pytest.approx(0.4)
        assert variable.straight_through


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SigmoidBeliefNetwork((), BernoulliLikelihood((4,))), r"at least one positive number, got \(\)"),
        (lambda: BernoulliLayers((4,), (3, 0)), r"at least one positive number, got \(3, 0\)"),
        (lambda: BernoulliLayers((4,), (3,), centre=torch.zeros(5)), r"shape of a datum \(4,\), got \(5,\)"),
        (lambda: CategoricalVAE(0, 3, None, None), "at least 1 variable of 2 classes, got 0 of 3"),
        (lambda: CategoricalVAE(2, 1, None, None), "at least 1 variable of 2 classes, got 2 of 1"),
        (lambda: AmortizedCategorical(DenseEncoder((4,), (3,)), 2, 1), "at least 1 variable of 2 classes, got 2 of 1"),
        (lambda: RelaxedBits(0.0), "temperature must be positive, got 0.0"),
        (lambda: RelaxedOneHot(-1.0), "temperature must be positive, got -1.0"),
        (
            lambda: sbn(tiny_dataset(), draws="soft"),
            "draws must be one of exact, relaxed, straight-through, got 'soft'",
        ),
        (lambda: SigmoidBeliefNetwork((3,), BernoulliLikelihood((4,)))(), "either data x or the number of rows"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_latents_of_several_layers_are_given_by_site():
    vae = belief_network((3, 2))
    with pytest.raises(ValueError, match="give a dictionary by site"):
        vae.decode(torch.zeros(2, 3))


@pytest.mark.parametrize("make", [belief_network, categorical_vae])
def test_exact_pair_of_a_relaxed_one(make):
    relaxed = make(variable=RelaxedBits if make is belief_network else RelaxedOneHot)
    there, x = discrete.exact(relaxed), binary(PIXELS)[::3]
    joint = exact_joint(there, x)[0] if make is belief_network else exact_categorical_joint(there, x)[0]
    found = there.log_likelihood(x, 20_000, return_details=True)
    assert ((found.value - joint.logsumexp(0)).abs() < 4 * found.standard_error + 1e-4).all()
    assert dict(relaxed.named_parameters()).keys() == dict(there.named_parameters()).keys()
    assert any("temperature" in name for name, _ in relaxed.named_buffers())  # the given one stays relaxed
