"""Held-out likelihoods from recorded runs: the figures of the programs themselves, or no recording."""

import shutil

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import PAIRS, pictures
from torch import nn

from pyrovae import VAE
from pyrovae.infer import CompileError, likelihood, recorded
from pyrovae.infer.recorded import sharing_recordings
from pyrovae.pairs import find_pair

COMPILED = recorded.compiled
X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few samples are recorded too, and what is recorded runs as it is, because compiling it takes long."""
    monkeypatch.setattr(likelihood, "_WORTH", 2)
    monkeypatch.setattr(likelihood, "_FEW_CALLS", 2)
    monkeypatch.setattr(recorded, "compiled", lambda graph, example, backend: graph)


def each_way(vae, x, num_samples=40, **settings):
    """The figures of recordings and those of the programs, and whether the same random numbers were drawn."""
    found, states = [], []
    for compile in (True, "auto", False):
        torch.manual_seed(1)
        found.append(vae.log_likelihood(x, num_samples, return_details=True, compile=compile, **settings))
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[2])
    assert torch.equal(states[1], states[2])
    return found


def assert_same(vae, x, **settings):
    *recordings, plain = each_way(vae, x, **settings)
    for one in recordings:
        for name, value in one._asdict().items():
            torch.testing.assert_close(value, getattr(plain, name), rtol=1e-4, atol=1e-3, msg=name)


@pytest.fixture
def runs(monkeypatch):
    """How often the programs ran to weigh samples."""
    counted = []
    weights = likelihood._Group.weights

    def count(self, inputs, number):
        counted.append(number)
        return weights(self, inputs, number)

    monkeypatch.setattr(likelihood._Group, "weights", count)
    return counted


@pytest.mark.parametrize("kind", PAIRS)
def test_the_same_figures_for_every_kind_of_pair(kind):
    from pairs import data_for

    vae = PAIRS[kind]()
    assert_same(vae, data_for(kind, 9), chunk_size=36)


REGISTERED = {
    "gaussian": {"hidden": (8,)},
    "gaussian, vamp": {"hidden": (8,), "prior": "vamp"},
    "hierarchical": {"hidden": (8,)},
    "stick-breaking": {"hidden": (8,)},
    "sbn": {"sizes": (8, 4)},
    "categorical": {},
    "semi-supervised": {"hidden": (8,)},
}


@pytest.mark.parametrize("name", REGISTERED)
def test_the_same_figures_for_registered_pairs(name, digits):
    vae = find_pair(name.split(",")[0]).build(digits, **REGISTERED[name]).eval()
    rows = digits.test.take(slice(9))
    given = {"y": rows.y} if name == "semi-supervised" else {}
    assert_same(vae, rows.x, chunk_size=36, **given)


@pytest.fixture(scope="module")
def digits():
    from pyrovae import data

    return data.load("digits", binarize="static")


def test_a_mask(digits):
    vae = find_pair("gaussian").build(digits, hidden=(8,)).eval()
    x = digits.test.x[:9]
    assert_same(vae, x, chunk_size=36, mask=torch.rand(x.shape) < 0.5)


def test_the_programs_run_once_for_each_group(runs):
    vae = PAIRS["library"]()
    vae.log_likelihood(pictures(9), 40, chunk_size=144)
    # One group of nine rows: 16 samples by the programs, a recording and 16 samples of it, the last 8 by the programs.
    assert runs == [16, 16, 8]
    runs.clear()
    vae.log_likelihood(pictures(9), 40, chunk_size=144)  # the pair may be another one by now
    assert runs == [16, 16, 8]
    runs.clear()
    vae.log_likelihood(pictures(9), 40, chunk_size=144, compile=False)
    assert runs == [16, 16, 8]


def test_batches_of_an_evaluation_share_a_recording(runs):
    vae = PAIRS["library"]()
    with sharing_recordings(vae):
        for expected in ([16, 16, 8], [16, 8]):
            runs.clear()
            vae.log_likelihood(pictures(9), 40, chunk_size=144)
            assert runs == expected


class Program(nn.Module):
    """A model of normal data, with something done to each latent."""

    def __init__(self, change=lambda self, z: z, prior=None):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.change, self.prior, self.factor = change, prior or dist.Normal(0.0, 1.0), 1.0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior.expand([2]).to_event(1))
            loc = self.linear(self.change(self, z))
            pyro.sample("x", dist.Normal(loc, self.factor).to_event(1), obs=x)


GENERATOR = np.random.default_rng(0)


class NumPyNormal(dist.Normal):
    has_rsample = False

    def sample(self, shape=()):
        drawn = GENERATOR.standard_normal(self._extended_shape(shape))
        return self.loc + self.scale * torch.as_tensor(drawn, dtype=self.loc.dtype)


def guide(x, kind=dist.Normal):
    with pyro.plate("data", len(x)):
        pyro.sample("z", kind(x[:, :2] / 9, torch.tensor(1.0)).to_event(1))


@torch.no_grad()
def exact(vae):
    weight, offset = vae.model.linear.weight, vae.model.linear.bias
    return dist.MultivariateNormal(offset, weight @ weight.T + torch.eye(3)).log_prob(X)


def counts_in_place(self, z):
    self.calls += 1
    return z


def looks_with_numpy(self, z):
    return z * (2.0 if np.asarray(z.detach()).max() > 3 else 1.0)


def draws_with_numpy(self, z):
    return z * (2.0 if np.random.mtrand.rand() < 0.5 else 1.0)


def counts_in_python(self, z):
    self.factor += 0.0001
    return z


def asks_how_many(self, z):
    return z * (2.0 if z[z > 8].shape[0] else 1.0)


REFUSED = {
    "a branch": (lambda self, z: -z if z.sum() > 0 else z, "a value of a tensor is needed in Python"),
    "numpy": (looks_with_numpy, "a value of a tensor is needed in Python"),
    "a counter": (counts_in_place, "change a tensor in place that outlives their run"),
    "a number in Python": (counts_in_python, "change 'factor' in their run"),
    "a shape": (asks_how_many, "the shape of a tensor depends on values"),
    "random numbers": (draws_with_numpy, "random numbers of Python's or NumPy's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_recorded(name, caplog):
    """The programs run for all samples; only who insists on a recording gets an error."""
    change, reason = REFUSED[name]
    vae = VAE(Program(change), guide)
    vae.log_likelihood(X, 2, compile=False)  # the first one tries and checks the programs
    caplog.set_level("INFO")
    found = []
    for compile in ("auto", False):
        torch.manual_seed(0)
        np.random.mtrand.seed(0)
        vae.model.factor = 1.0
        found.append(vae.log_likelihood(X, 200, chunk_size=32, compile=compile))
    assert torch.equal(*found)
    assert caplog.text.count("the programs are run for all samples") == 1
    assert reason in caplog.text
    with pytest.raises(CompileError, match=reason):
        vae.log_likelihood(X, 200, chunk_size=32, compile=True)


def test_draws_that_torch_does_not_make(caplog):
    """A recording would repeat those of its own run for all samples; its log weights tell."""
    caplog.set_level("INFO")
    vae = VAE(Program(), lambda x: guide(x, NumPyNormal))
    with pytest.raises(CompileError, match="other log weights"):
        vae.log_likelihood(X, 200, chunk_size=32, compile=True)
    assert "the programs are run for all samples" in caplog.text
    torch.testing.assert_close(vae.log_likelihood(X, 20_000, chunk_size=256), exact(vae), rtol=0, atol=0.05)


def test_a_changed_pair_is_recorded_anew(runs):
    """Weights, and what is no tensor; with as many runs as before."""
    vae = VAE(Program(), guide)
    assert_same(vae, X, chunk_size=144)
    with torch.no_grad():
        vae.model.linear.weight.mul_(2)
    assert_same(vae, X, chunk_size=144)
    vae.model.factor = 0.3
    assert_same(vae, X, chunk_size=144)


def test_a_small_change_between_two_calls_counts():
    """One that no comparison of the first samples would tell from rounding."""
    vae = VAE(Program(lambda self, z: z + self.factor), guide)
    vae.model.factor = 1.0
    assert_same(vae, X, chunk_size=144)
    vae.model.factor = 1.0 + 1e-5
    assert_same(vae, X, chunk_size=144)


def test_sums_that_would_cancel_are_those_of_the_programs():
    class Sharp(nn.Module):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                logits = (z[..., :1] * 300).expand(*z.shape[:-1], 784) + 1000
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def of_pictures(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))

    vae, x = VAE(Sharp(), of_pictures), torch.ones(3, 784)
    found = []
    for compile in ("auto", False):
        torch.manual_seed(0)
        found.append(vae.log_likelihood(x, 2000, compile=compile))
    assert torch.equal(*found)


def test_a_constant_of_each_group_of_rows():
    """What a program takes from the data in Python counts for these rows alone."""
    seen = []

    def change(self, z):
        seen.append(1)
        return z * (1 + len(seen))  # another number in each run

    vae = VAE(Program(change), guide)
    with pytest.raises(CompileError, match="other log weights"):
        vae.log_likelihood(X, 40, chunk_size=36, compile=True)


@pytest.mark.parametrize("prior", [dist.Exponential(1.0), dist.Beta(2.0, 2.0)])
def test_draws_outside_of_the_support_of_the_model(prior):
    """One in thousands, so that the first samples pass; the error is that of the programs."""

    def narrow(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x), 2), 0.5), 0.125).to_event(1))

    vae = VAE(Program(prior=prior), narrow)
    for compile in (True, "auto", False):
        torch.manual_seed(3)
        with pytest.raises(ValueError, match="site 'z' has values outside of the support"):
            vae.log_likelihood(X, 10_000, chunk_size=144, compile=compile)


def test_figures_that_are_no_numbers_are_those_of_the_programs():
    with pyro.validation_enabled(False):
        vae = VAE(Program(lambda self, z: z.log()), guide)
        for found in each_way(vae, X, chunk_size=36):
            assert found.value.isnan().all()


def test_another_argument_is_refused():
    with pytest.raises(ValueError, match="compile must be True, False or 'auto', got 'always'"):
        VAE(Program(), guide).log_likelihood(X, 5, compile="always")


def test_many_groups_and_a_number_of_samples_that_no_chunk_divides():
    """Each group draws exactly as many samples; the estimate is near the exact one of a conjugate pair."""
    vae = VAE(Program(), guide)
    found = vae.log_likelihood(X, 20_011, chunk_size=256, compile=True)
    torch.testing.assert_close(found, exact(vae), rtol=0, atol=0.05)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_compiled_code(monkeypatch):
    monkeypatch.setattr(recorded, "compiled", COMPILED)
    assert_same(PAIRS["library"](), pictures(9), chunk_size=144)
