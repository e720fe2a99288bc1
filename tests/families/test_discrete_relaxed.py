"""Relaxed discrete latents: variables, gradients and the schedule of the temperature."""

import pytest
import torch
from discrete_pairs import (
    PIXELS,
    belief_network,
    binary,
    categorical_vae,
    exact_categorical_joint,
    exact_joint,
    tiny_dataset,
)
from pairs import weights_of
from pyro.distributions import Bernoulli, OneHotCategorical

from pyrovae.infer import IWAE
from pyrovae.nn import Bits, OneHot, RelaxedBits, RelaxedOneHot
from pyrovae.pairs import find_pair
from pyrovae.training import Callback, TemperatureSchedule, Trainer
from pyrovae.training.checkpoint import RunFolder
from pyrovae.training.schedules import WarmUp

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
    vae = find_pair(pair).build(dataset, draws=draws, **options)
    before = weights_of(vae)
    trainer = Trainer(objective="elbo", lr=0.01, epochs=15, batch_size=32, progress=False)
    history = trainer.fit(vae, dataset.train.x)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    for name, value in vae.named_parameters():
        assert not torch.equal(value, before[name]), name
    assert vae.sample(3).shape == (3, 1, 4, 4)
    exact = find_pair(pair).build(dataset, **options)
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
    trainer_with_schedule(5, seen).fit(vae, binary(PIXELS).repeat(4, 1))  # two batches per epoch
    assert seen.temperatures == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2]
    # The best weights come with the temperature that they were best at.
    assert float(vae.model.variable.temperature) == float(vae.guide.layer_variable.temperature) <= 1.0


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
