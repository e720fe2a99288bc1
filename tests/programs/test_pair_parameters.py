"""Frozen parameters, groups by program, modules behind wrappers, and Pyro's own store."""

import copy
import functools
import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import PAIRS, LinearGuide, LinearModel, data_for, tutorial_pair
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE
from pyrovae.infer import make_objective
from pyrovae.training import Trainer

OBJECTIVES = (
    "elbo",
    "mean-field",
    "graph",
    "iwae",
    "iwae-stl",
    "iwae-dreg",
    "renyi",
    "vimco",
    "nvil",
    "rws",
    "wake-sleep",
)


class Guide(LinearGuide):
    """With a plain parameter, which Pyro would switch on when it is read."""

    def __init__(self):
        super().__init__(5, 2)
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.mean(x) + self.shift, self.scale).to_event(1))


def with_param_sites():
    decoder, encoder = nn.Linear(2, 5), nn.Linear(5, 2)

    def model(x):
        pyro.module("decoder", decoder)
        noise = pyro.param("noise", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), noise).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", torch.full((2,), 0.6), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), scale).to_event(1))

    return VAE(model, guide, example=torch.zeros(2, 5))


FROZEN = {
    "pyro-modules": lambda: VAE(LinearModel(5, 2), Guide(), example=torch.zeros(2, 5)),
    "param-sites": with_param_sites,
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("group", ["model", "guide"])
def test_frozen_parameters_stay_bit_for_bit(objective, kind, group):
    vae = FROZEN[kind]()
    for parameter in vae.parameter_groups()[group]:
        parameter.requires_grad_(False)
    before = {id(p): p.detach().clone() for p in vae.parameters()}
    Trainer(objective=objective, epochs=2, lr=0.1, gradient_clip=1e-3, progress=False).fit(vae, torch.randn(20, 5))
    groups = vae.parameter_groups()
    assert groups[group]
    for label, parameters in groups.items():
        for parameter in parameters:
            assert parameter.requires_grad == (label != group)
            assert torch.equal(parameter, before[id(parameter)]) == (label == group)
            assert label != group or parameter.grad is None


def test_one_frozen_attribute_of_a_pyro_module():
    vae = VAE(LinearModel(5, 2), Guide())
    vae.guide.shift.requires_grad_(False)
    x = torch.randn(20, 5)
    vae.prepare(x)
    vae.encode(x)
    vae.log_likelihood(x, 3)
    vae(x).kl.sum().backward()
    with vae.scope():
        make_objective("iwae").loss_and_grads(vae.model, vae.guide, x)
    assert not vae.guide.shift.requires_grad
    assert vae.guide.shift.grad is None
    assert vae.guide.mean.weight.requires_grad


def test_groups_by_program():
    for kind, make in PAIRS.items():
        vae = make()
        if kind != "library":
            vae.prepare(data_for(kind, 3))
        groups = vae.parameter_groups()
        assert list(groups) == ["model", "guide"]
        everything = [id(p) for parameters in groups.values() for p in parameters]
        assert sorted(everything) == sorted(id(p) for p in vae.parameters())
        if kind != "functions":
            assert groups["model"]
            assert groups["guide"]


def test_groups_of_one_module_with_two_methods():
    vae = tutorial_pair().prepare(data_for("tutorial", 3))
    net, groups = vae.model.__self__, vae.parameter_groups()
    assert {id(p) for p in groups["model"]} == {id(p) for p in net.decoder.parameters()}
    assert {id(p) for p in groups["guide"]} == {id(p) for p in net.encoder.parameters()}


def test_parameter_of_both_stands_with_the_model():
    def model(x):
        scale = pyro.param("scale", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        scale, loc = pyro.param("scale", torch.tensor(2.0)), pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + loc, scale))

    vae = VAE(model, guide, example=torch.zeros(3))
    groups = vae.parameter_groups()
    assert groups == {"model": [vae.param_sites["scale"]], "guide": [vae.param_sites["loc"]]}


# -- wrapped programs -------------------------------------------------------------------------------------------------

ENCODER = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def guide_of_file(x):
    a, b = ENCODER(x).chunk(2, -1)
    with pyro.plate("d", len(x)):
        pyro.sample("z", dist.Normal(a, b.exp()).to_event(1))


def decorated(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


WRAPS = {
    "enumerate": config_enumerate,
    "scale": lambda guide: poutine.scale(guide, scale=1.0),
    "handlers": lambda guide: poutine.scale(poutine.mask(guide, mask=True), scale=2.0),
    "messenger": lambda guide: poutine.scale(scale=2.0)(guide),
    "decorator": decorated,
    "wraps": lambda guide: functools.wraps(guide)(lambda *args: guide(*args)),
    "partial": functools.partial,
    "lambda": lambda guide: lambda x: guide(x),
    "file": lambda guide: lambda x: guide_of_file(x),
    "twice": lambda guide: config_enumerate(decorated(functools.partial(guide))),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_modules_behind_wrappers_are_reached(wrap, tmp_path):
    decoder, encoder = nn.Linear(2, 4), copy.deepcopy(ENCODER)

    def model(x):
        with pyro.plate("d", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        a, b = encoder(x).chunk(2, -1)
        with pyro.plate("d", len(x)):
            pyro.sample("z", dist.Normal(a, b.exp()).to_event(1))

    vae = VAE(model, WRAPS[wrap](guide), example=torch.randn(8, 4)).eval()
    used = ENCODER if wrap == "file" else encoder
    assert not used.training
    assert torch.equal(vae.encode(torch.ones(3, 4)).mean, vae.encode(torch.ones(3, 4)).mean)
    assert any("running_mean" in name for name in vae.state_dict())
    assert len(list(vae.parameters())) == 6
    with pytest.raises(TypeError, match="takes no argument 'y'"):
        vae.encode(torch.ones(3, 4), y=torch.zeros(3))
    with pytest.raises(TypeError, match="works with modules of its own"):
        copy.deepcopy(vae)
    used.train()


def test_wrapped_module_is_copied_with_its_wrapper():
    vae = VAE(LinearModel(5, 2), config_enumerate(LinearGuide(5, 2)), example=torch.zeros(2, 5))
    twin = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.fill_(3.0)
    assert all((p != 3.0).any() for p in twin.parameters())
    x = torch.randn(4, 5)
    assert not torch.equal(twin.encode(x).mean, vae.encode(x).mean)


def test_options_of_a_program_are_no_sign_that_it_takes_an_index():
    def prior(n, scale=1.0):
        return dist.Normal(torch.zeros(n), scale)

    def model(x, **options):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior(len(x), **options))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, **options):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0).expand([len(x)]))

    assert len(Trainer(epochs=1, progress=False).fit(VAE(model, guide), torch.randn(20)).rows) == 1


# -- Pyro's own store -------------------------------------------------------------------------------------------------


def model(x):
    b = pyro.param("b", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        return pyro.sample("x", dist.Normal(z + b, 1.0), obs=x)


def guide(x):
    b = pyro.param("b", torch.tensor(0.0))
    s = pyro.param("s", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - b) / 2, s))


def test_values_that_svi_trained_are_taken(caplog):
    x = torch.randn(200) + 5
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(100):
        svi.step(x)
    with caplog.at_level(logging.INFO, logger="pyrovae"):
        vae = VAE(model, guide, example=x)
    assert sorted(r.message.split(" takes")[0] for r in caplog.records) == ["param site 'b'", "param site 's'"]
    b, s = pyro.param("b").detach(), pyro.param("s").detach()
    assert b > 3
    assert torch.equal(vae.param_sites["b"], b)
    torch.testing.assert_close(vae.encode(x).scale, s.expand(200))
    exact = dist.Normal(b, 2**0.5).log_prob(x)
    torch.testing.assert_close(vae.log_likelihood(x, 2000), exact, rtol=0, atol=0.1)
    Trainer(epochs=1, progress=False).fit(vae, x)
    assert torch.equal(pyro.param("b"), b)  # it is a copy


def test_a_value_of_another_shape_is_not_taken(caplog):
    pyro.param("b", torch.ones(7))
    with caplog.at_level(logging.INFO, logger="pyrovae"):
        vae = VAE(model, guide, example=torch.zeros(3))
    assert vae.param_sites["b"].item() == 0
    assert "param site 'b' starts at its initial value" in caplog.text


def test_pairs_in_each_others_scope_stay_apart():
    first = VAE(model, guide, example=torch.zeros(3))
    with torch.no_grad():
        first.param_sites["b"].fill_(9.0)
    with first.scope():
        second = VAE(model, guide, example=torch.zeros(3))
    assert second.param_sites["b"].item() == 0


def test_values_are_written_for_other_tools():
    x = torch.randn(200) + 5
    vae = VAE(model, guide)
    Trainer(epochs=100, lr=0.1, progress=False).fit(vae, x)
    assert not list(pyro.get_param_store())
    vae.to_param_store()
    assert pyro.param("b").item() == vae.param_sites["b"].item()
    draws = Predictive(poutine.uncondition(model), guide=guide, num_samples=200)(x)["x"]
    assert draws.mean().item() == pytest.approx(5.0, abs=0.3)
    with torch.no_grad():
        vae.param_sites["b"].fill_(-3.0)
    assert pyro.param("b").item() > 3
    vae.to_param_store()
    assert pyro.param("b").item() == -3.0


def test_modules_are_written_as_they_are():
    vae = VAE(LinearModel(5, 2), LinearGuide(5, 2), example=torch.zeros(2, 5))
    vae.to_param_store()
    names = dict(pyro.get_param_store().named_parameters())
    assert names["loadings"] is vae.model.loadings
    assert names["noise"] is vae.model.noise_unconstrained
    vae.model(torch.zeros(2, 5))
    assert dict(vae.named_parameters())["owners.model.loadings"] is vae.model.loadings
    assert isinstance(vae.model, PyroModule)


def test_two_parts_of_one_module_do_not_clash():
    """Pyro calls their parameters by the whole path, so that those of one name are two."""

    class Net(PyroModule):
        def __init__(self):
            super().__init__()
            self.model, self.guide = LinearModel(5, 2), LinearGuide(5, 2)
            self.guide.noise = nn.Parameter(torch.ones(3))

    net = Net()
    vae = VAE(net.model, net.guide, example=torch.randn(4, 5))
    groups = vae.parameter_groups()
    assert {id(p) for p in groups["model"]} == {id(p) for p in net.model.parameters()}
    assert {id(p) for p in groups["guide"]} == {id(p) for p in net.guide.parameters()}
