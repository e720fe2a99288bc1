"""Parameters of a pair: those of every kind of program are collected, once and by one name."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import PAIRS, data_for, function_pair, param_pair, pictures, tutorial_pair, weights_of
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE
from pyrovae.training import Trainer


def test_parameters_of_every_kind_of_program_are_collected():
    expected = {
        "library": 2 * (64 * 16 + 16) + 16 * 4 + 4 + 2 * 16 + 16 - 16 + 64 - 16 + 16,
        "functions": 0,
        "param-functions": 64 * 2 + 2 + 2 * 64 + 64 + 1 + 2,
        "tutorial": 64 * 16 + 16 + 16 * 4 + 4 + 2 * 16 + 16 + 16 * 64 + 64,
        "plain-modules": 2 * 64 + 64 + 64 * 2 + 2,
    }
    expected["library"] = expected["tutorial"]
    found = {}
    for kind in expected:
        vae = PAIRS[kind]().prepare(data_for(kind, 3))
        found[kind] = sum(p.numel() for p in vae.parameters())
    assert found == expected


def test_shared_module_is_registered_once():
    vae = tutorial_pair()
    names = [name for name, _ in vae.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == 8


def test_constrained_parameter_is_kept_unconstrained():
    vae = param_pair().prepare(pictures(2))
    assert vae.param_sites["noise"].item() == pytest.approx(math.log(0.7))
    with torch.no_grad():
        vae.param_sites["scale"].fill_(math.log(0.25))
    torch.testing.assert_close(vae.encode(pictures(2)).base_dist.scale, torch.full((2, 2), 0.25))


def test_module_known_to_the_program_only_is_collected():
    nets = [nn.Linear(64, 2)]  # a list hides it from the look at the function's variables

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat_interleave(32, -1), 1.0).to_event(1), obs=x)

    def guide(x):
        net = pyro.module("net", nets[0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x), 1.0).to_event(1))

    vae = VAE(model, guide, example=torch.zeros(2, 64))
    assert {id(p) for p in vae.parameters()} == {id(p) for p in nets[0].parameters()}


def test_parameters_made_at_the_first_call_are_collected():
    """Pyro itself cannot register a lazy module, so a plain function uses it."""
    net = nn.LazyLinear(2)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(net(x.flatten(1)), 1.0).to_event(1))

    vae = VAE(function_pair().model, guide)
    before = weights_of(vae.prepare(pictures(8)))
    Trainer(epochs=1, progress=False).fit(vae, pictures(8))
    after = weights_of(vae)
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert len(before) == 2


def test_parameters_of_a_pair_that_also_runs_without_data():
    """`sample` before any data finds the model's parameters, the first data find the guide's as well."""

    def model(x=None, *, size=None):
        loc = pyro.param("loc", lambda: torch.randn(3))
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z + loc, 1.0).to_event(1), obs=x)

    def guide(x):
        offset = pyro.param("offset", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + offset, 1.0).to_event(1))

    vae = VAE(model, guide)
    assert vae.sample(4).shape == (4, 3)
    loc = vae.param_sites["loc"].detach().clone()
    vae.prepare(torch.zeros(2, 3))
    assert set(vae.param_sites) == {"loc", "offset"}
    assert torch.equal(vae.param_sites["loc"], loc)


def test_two_different_parameters_of_one_name_are_refused():
    class Part(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"both have a parameter 'net\$\$\$\w+', and they are different tensors"):
        VAE(Part(), Part())


def test_two_different_modules_registered_under_one_name_are_refused():
    first, second = nn.Linear(64, 2), nn.Linear(64, 2)

    def model(x):
        pyro.module("net", first)
        function_pair().model(x)

    def guide(x):
        pyro.module("net", second)
        function_pair().guide(x)

    with pytest.raises(ValueError, match="different tensors; Pyro's parameter store would keep one of the two"):
        VAE(model, guide, example=pictures(2))


def test_one_parameter_may_serve_model_and_guide():
    def model(x):
        scale = pyro.param("scale", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, scale))

    assert len(list(VAE(model, guide, example=torch.zeros(3)).parameters())) == 1
