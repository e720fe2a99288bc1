"""What VAE leaves alone, and its copies, types and files."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from every_pair import every_pair
from pairs import PAIRS, TutorialVAE, data_for, function_pair, param_pair, pictures, same_weights, weights_of
from torch import nn

from pyrovae import VAE
from pyrovae.storage import load_weights, save_weights
from pyrovae.training import Trainer

# -- what is left alone -----------------------------------------------------------------------------------------------


@every_pair
@pytest.mark.usefixtures("store")
def test_training_leaves_the_parameter_store(kind):
    vae, x = PAIRS[kind](), data_for(kind, 16)
    if kind == "functions":
        with pytest.raises(ValueError, match="no parameters to train"):
            Trainer(epochs=1, progress=False).fit(vae, x)
    else:
        Trainer(epochs=1, batch_size=8, progress=False).fit(vae, x)


@pytest.mark.usefixtures("store")
def test_parameter_store_survives_an_error():
    def guide(x):
        pyro.param("loc", torch.zeros(2))
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        VAE(function_pair().model, guide).encode(pictures(2))


@every_pair
def test_preparation_uses_none_of_the_callers_random_numbers(kind):
    vae, x = PAIRS[kind](), data_for(kind, 3)
    before = torch.get_rng_state()
    vae.prepare(x)
    vae.vectorizes(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_trial_runs_leave_running_statistics():
    class Model(TutorialVAE):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 4))

    net = Model()
    vae = VAE(net.model, net.guide).prepare(pictures(4))
    vae.vectorizes(pictures(4))
    assert int(net.encoder[0].num_batches_tracked) == 0
    assert net.encoder[0].training


@pytest.mark.parametrize("kind", ["param-functions", "tutorial", "library"])
def test_two_pairs_trained_in_turn_are_as_if_alone(kind):
    x = data_for(kind, 32)
    trainer = Trainer(epochs=1, batch_size=8, progress=False)

    def fresh(seed):
        torch.manual_seed(seed)
        return PAIRS[kind]()

    alone = [fresh(1), fresh(2)]
    for vae in alone:
        trainer.fit(vae, x)
        trainer.fit(vae, x)
    together = [fresh(1), fresh(2)]
    for vae in together * 2:
        trainer.fit(vae, x)
    for first, second in zip(alone, together, strict=True):
        assert same_weights(weights_of(first), weights_of(second))
    assert not same_weights(weights_of(together[0]), weights_of(together[1]))


# -- copies, types, files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["library-conv", "pyro-modules", "tutorial", "plain-modules"])
def test_deep_copy_is_independent_and_complete(kind):
    x = data_for(kind, 8)
    vae = PAIRS[kind]().prepare(x)
    twin, before = copy.deepcopy(vae), weights_of(vae)
    Trainer(epochs=1, progress=False).fit(twin, x)
    assert same_weights(weights_of(vae), before)
    assert all(not torch.equal(before[name], value) for name, value in weights_of(twin).items())


def test_deep_copy_of_functions_with_params_is_independent():
    def guide(x):
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    vae = VAE(function_pair().model, guide, example=pictures(2))
    twin = copy.deepcopy(vae)
    with torch.no_grad():
        twin.param_sites["loc"].fill_(5.0)
    assert vae.encode(pictures(1)).mean.tolist() == [[0.0, 0.0]]
    assert twin.encode(pictures(1)).mean.tolist() == [[5.0, 5.0]]


def test_deep_copy_of_functions_with_modules_is_refused():
    with pytest.raises(TypeError, match=r"model is a function that works with modules of its own"):
        copy.deepcopy(param_pair())


@every_pair
def test_double_precision(kind):
    x = data_for(kind, 4)
    vae = PAIRS[kind]().prepare(x).to(torch.float64)
    for value in (vae.sample(3, "mean"), vae.reconstruct(x.double()), vae.log_likelihood(x.double(), 5)):
        assert value.dtype == torch.float64
        assert value.isfinite().all()


@every_pair
def test_weights_survive_a_file(kind, tmp_path):
    x = data_for(kind, 8)
    vae, other = PAIRS[kind]().prepare(x), PAIRS[kind]().prepare(x)
    save_weights(vae, tmp_path / "weights.safetensors", note="mine")
    assert load_weights(other, tmp_path / "weights.safetensors")["note"] == "mine"
    assert same_weights(weights_of(vae), weights_of(other))
    torch.manual_seed(0)
    first = vae.log_likelihood(x, 5)
    torch.manual_seed(0)
    assert torch.equal(first, other.log_likelihood(x, 5))


def test_state_dict_of_a_function_pair():
    x = pictures(4)
    vae, other = param_pair().prepare(x), param_pair().prepare(x)
    with torch.no_grad():
        vae.param_sites["scale"].fill_(-1.0)
    other.load_state_dict(vae.state_dict())
    torch.testing.assert_close(other.encode(x).base_dist.scale, torch.full((4, 2), math.exp(-1)))
