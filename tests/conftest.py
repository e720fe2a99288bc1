"""What every test starts from: a fixed seed, an empty parameter store, validation on, warnings as errors."""

import pyro
import pytest
import torch


def pytest_configure(config):
    torch.set_num_threads(1)
    config.addinivalue_line("filterwarnings", "error")
    # torch.utils.tensorboard asks for NumPy's version through a module that setuptools deprecates.
    config.addinivalue_line("filterwarnings", "ignore:pkg_resources is deprecated:UserWarning")


@pytest.fixture(autouse=True)
def fresh_start():
    """A fixed seed, and nothing in Pyro's global parameter store before and after."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def validation():
    """Check arguments and values of distributions, shapes of sites, and pairs of model and guide."""
    with pyro.validation_enabled(True):
        yield


@pytest.fixture
def store():
    """Pyro's parameter store with an entry of somebody else's; the test must leave it as it is."""
    store = pyro.get_param_store()
    theirs = pyro.param("theirs", torch.tensor([2.0, 3.0]), constraint=pyro.distributions.constraints.positive)
    before = store.get_state()
    yield store
    after = store.get_state()
    assert list(after["params"]) == ["theirs"]
    assert after["params"]["theirs"] is before["params"]["theirs"]
    assert torch.equal(store["theirs"], theirs)
    assert after["constraints"] == before["constraints"]


@pytest.fixture
def caller_rng():
    """The caller's random numbers; the test must not use any."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
