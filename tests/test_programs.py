"""What a Pyro program shows from outside."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import LinearModel, TutorialVAE, library_pair
from pyro import poutine
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyrovae import layout, programs, sites

NET = nn.Linear(2, 2)


def uses_global(x):
    return NET(x)


def test_modules_of_every_kind_of_program():
    module, local = TutorialVAE(), nn.Linear(1, 1)

    def uses_closure(x):
        return local(x)

    class Holder:
        def __init__(self):
            self.net = local

        def run(self, x):
            return self.net(x)

        def __call__(self, x):
            return self.net(x)

    def takes_net(x, net):
        return net(x)

    assert programs.owned_modules(module) == {"": module}
    assert programs.owned_modules(module.guide) == {"": module}
    assert programs.owned_modules(uses_global) == {"NET": NET}
    assert programs.owned_modules(uses_closure) == {"local": local}
    assert programs.owned_modules(Holder().run) == {"net": local}
    assert programs.owned_modules(Holder()) == {"net": local}
    assert programs.owned_modules(functools.partial(takes_net, net=local)) == {"argument0": local}
    assert programs.owned_modules(len) == {}


def test_which_functions_a_copy_would_leave_on_the_old_modules():
    assert programs.is_function_of_modules(uses_global)
    assert programs.is_function_of_modules(functools.partial(uses_global))
    assert not programs.is_function_of_modules(TutorialVAE().model)
    assert not programs.is_function_of_modules(lambda x: x)


def test_arguments():
    def narrow(x):
        return x

    def open_ended(x, **data):
        return data

    model = library_pair().model
    found = [programs.accepts(p, "mask") for p in (narrow, open_ended, model, model.forward)]
    assert found == [False, False, True, True]
    assert programs.keywords(open_ended, mask=torch.ones(1)).keys() == {"mask"}  # the caller named it
    assert [programs.runs_without_data(p) for p in (narrow, open_ended, model)] == [False, False, True]
    mask = torch.ones(1)
    assert programs.keywords(model, mask=mask, y=None) == {"mask": mask}
    with pytest.raises(TypeError, match=r"msk= was given, but GaussianVAE takes no argument 'msk'"):
        programs.keywords(model, msk=mask)


def test_names_of_parameters_are_those_of_the_store():
    """Nested modules, constrained parameters and plain children, against what Pyro itself registers."""

    class Outer(PyroModule):
        def __init__(self):
            super().__init__()
            self.inner = LinearModel(3, 2)
            self.net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
            self.scale = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)

        def forward(self, x):
            _ = self.scale, self.net
            self.inner(x)

    module = Outer()
    poutine.trace(module).get_trace(torch.zeros(2, 3))
    registered = dict(pyro.get_param_store().named_parameters())
    found = programs.module_parameters(module)
    assert found.keys() == registered.keys()
    assert all(found[name] is registered[name] for name in found)


def test_sites_are_sorted_by_role():
    def model(x):
        with pyro.plate("outer", 5, subsample_size=2, dim=-2), pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    trace = poutine.trace(model).get_trace(torch.zeros(3))
    assert list(sites.sample_sites(trace)) == ["z", "x"]
    assert sites.plate_nesting(trace) == 2
    found = layout.find_layout(trace, trace, 3)
    assert found == (frozenset({"data"}), 3, 2, (), (), (), (), ())
    found = layout.find_sites(trace, trace, found, latent=("z",))
    assert found == ("x", ("z",), 2, (), (), ("x",), frozenset({"data"}))


def test_evaluation_mode_is_undone_part_by_part():
    net = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    net[1].eval()
    with programs.evaluating(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("weight", "parameter 'encoder.weight' of the guide"),
        ("draw", "site 'z' of the guide, whose value is not finite"),
        ("likelihood", "site 'x' of the model, whose log-probability is not finite"),
        ("nowhere", "no single site: the loss itself is not finite"),
    ],
)
def test_where_it_first_goes_wrong(where, message):
    encoder = nn.Linear(1, 1)
    if where == "weight":
        nn.init.constant_(encoder.weight, torch.nan)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            scale = 0.0 if where == "likelihood" else 1.0
            pyro.sample("x", dist.Normal(z * 0, scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = encoder(x) + (torch.inf if where == "draw" else 0.0)
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    assert programs.find_non_finite(model, guide, torch.ones(3, 1)) == message


def test_data_are_blamed_unless_a_mask_hides_them():
    def model(x, mask):
        with pyro.plate("data", len(x)), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x, mask):
        return None

    x = torch.tensor([1.0, torch.nan])
    message = programs.find_non_finite(model, guide, x, torch.tensor([True, True]))
    assert message == "site 'x' of the model, whose value is not finite"
    assert "no single site" in programs.find_non_finite(model, guide, x, torch.tensor([True, False]))
