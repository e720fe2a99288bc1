"""The step of `Trace_ELBO` that the Trainer takes: draws, loss and gradients of Pyro's own."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import PAIRS, data_for, linear_pair, same_weights, weights_of
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyrovae import VAE, data
from pyrovae.infer.direct_elbo import Estimator, direct_elbo
from pyrovae.infer.kl_weight import KLWeightMessenger
from pyrovae.infer.mean_field import MeanField
from pyrovae.pairs import find_pair
from pyrovae.programs import with_param_site, without_param_sites
from pyrovae.training import Trainer

X = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))


class Program(PyroModule):
    """A guide, or a model, whose latent is of some distribution."""

    def __init__(self, site):
        super().__init__()
        self.logits, self.site = nn.Parameter(torch.tensor([0.3, -0.4])), site

    def forward(self, x):
        with pyro.plate("data", len(x)):
            self.site(self.logits, x)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def binary_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor([0.2, 0.7])).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)


def normal(logits, x):
    pyro.sample("z", dist.Normal(logits + x, logits.exp()).to_event(1))


def binary(logits, x):
    pyro.sample("z", dist.Bernoulli(logits=logits + x).to_event(1))


def masked(logits, x):
    with poutine.mask(mask=x[:, 0] > 0):
        normal(logits, x)


def masked_itself(logits, x):
    pyro.sample("z", dist.Normal(logits + x, logits.exp()).to_event(1).mask(x[:, 0] > 0))


def with_factor(logits, x):
    normal(logits, x)
    pyro.factor("extra", (logits * x).sum(-1), has_rsample=True)


def with_scored_factor(logits, x):
    normal(logits, x)
    pyro.factor("extra", (logits * x).sum(-1), has_rsample=False)


GUIDES = {
    "normal": (normal, model),
    "binary": (binary, binary_model),
    "masked": (masked, poutine.mask(model, mask=X[:, 0] > 0)),
    "masked itself": (masked_itself, model),
    "factor": (with_factor, model),
    "scored factor": (with_scored_factor, model),
}


def result(step, parameters):
    torch.manual_seed(0)
    loss = step()
    found = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    return loss, found, torch.get_rng_state()


def assert_same(first, second, divided=1):
    assert first[0] == pytest.approx(second[0], rel=1e-6)
    for ours, theirs in zip(first[1], second[1], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours * divided, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(first[2], second[2])


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("name", GUIDES)
def test_the_step_of_pyro(name, beta):
    site, of_model = GUIDES[name]
    guide = Program(site)
    with KLWeightMessenger(beta), poutine.scale(scale=0.7):
        pyros = result(lambda: Trace_ELBO().loss_and_grads(of_model, guide, X), [*guide.parameters()])
        ours = result(lambda: direct_elbo(Trace_ELBO(), of_model, guide, 4, X), [*guide.parameters()])
    assert_same(ours, pyros, divided=4)
    assert pyros[1][0] is not None


@pytest.mark.parametrize("objective", [Trace_ELBO(), MeanField()], ids=["elbo", "mean-field"])
@pytest.mark.parametrize("kind", PAIRS)
def test_every_kind_of_pair(kind, objective):
    vae, x = PAIRS[kind](), data_for(kind, 6)
    vae.prepare(x)
    with vae.scope():
        shown = with_param_site(vae.model, vae.parameters()) if kind == "plain-modules" else vae.model
        step = Estimator(objective, vae, shown)
        pyros = result(lambda: objective.loss_and_grads(shown, vae.guide, x), [*vae.parameters()])
        ours = result(lambda: step(len(x), x), [*vae.parameters()])
    assert_same(ours, pyros, divided=len(x) if step.divides else 1)
    assert step.divides == (type(objective) is Trace_ELBO)


def test_modules_of_this_library_show_no_parameters_and_others_do():
    """Nor do those with parameters in a constraint, or random ones, or parts that are programs."""
    library, users = PAIRS["library"](), linear_pair()
    x = data_for("library", 3)
    shown = poutine.trace(library.guide).get_trace(x)
    assert shown.param_nodes
    hidden = poutine.trace(without_param_sites(library.guide)).get_trace(x)
    assert not hidden.param_nodes
    assert hidden.stochastic_nodes == shown.stochastic_nodes
    assert without_param_sites(users.guide) is users.guide
    constrained = PAIRS["library"]().model
    constrained.scale = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)
    assert without_param_sites(constrained) is constrained
    parts = PAIRS["library"]().model
    parts.decoder = users.model
    assert without_param_sites(parts) is parts


def test_a_guide_of_messengers_is_left_to_pyro():
    from pyro.infer.autoguide.effect import AutoNormalMessenger

    vae = VAE(model, lambda x: None)
    guide = AutoNormalMessenger(model)
    object.__setattr__(vae, "guide", guide)
    step = Estimator(Trace_ELBO(), vae, model)
    assert step.run.args == (model, guide)


@pytest.mark.parametrize("name", ["gaussian", "stick-breaking", "hierarchical", "sbn"])
def test_the_training_of_registered_pairs(name):
    """Three epochs with this step and three with Pyro's: the same losses."""

    class Own(Trace_ELBO):
        """Which the Trainer takes as it is."""

    digits = data.load("digits", binarize="static")
    rows = digits.train.take(slice(64))
    found = []
    for objective in ("elbo", Own(max_plate_nesting=1)):
        torch.manual_seed(0)
        options = {"sizes": (8,)} if name == "sbn" else {"hidden": (8,)}
        vae = find_pair(name).build(digits, **options)
        history = Trainer(objective, epochs=3, batch_size=20, progress=False).fit(vae, rows.x)
        found.append(([row["loss"] for row in history.rows], weights_of(vae)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for key, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][key], rtol=1e-2, atol=1e-3)
    assert not same_weights(found[0][1], weights_of(find_pair(name).build(digits, **options)))
