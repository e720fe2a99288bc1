"""Named groups of parameters: learning rates of their own, and parameters that stay as they are."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pairs import LinearGuide, LinearModel, linear_pair, weights_of
from pyro.nn import PyroModule
from torch import nn

from pyrovae import VAE
from pyrovae.infer import NVIL
from pyrovae.infer.objectives import objective_names
from pyrovae.training import Trainer, parse_rates


def rows(num=40):
    return torch.randn(num, 5)


def moved(vae, before):
    return {name: float((value - before[name]).abs().max()) for name, value in weights_of(vae).items()}


def test_groups_by_program():
    vae = linear_pair().prepare(rows(2))
    names = {id(p): name for name, p in vae.named_parameters()}
    groups = {group: {names[id(p)] for p in found} for group, found in vae.parameter_groups().items()}
    assert groups["model"] == {"owners.model.loadings", "owners.model.offset", "owners.model.noise_unconstrained"}
    assert groups["guide"] == {name for name in names.values() if name.startswith("owners.guide")}


def test_rates_of_their_own():
    """With plain gradient descent a parameter moves in proportion to the rate of its group."""
    x, distances = rows(), {}
    for rate in (0.01, 0.02):
        torch.manual_seed(1)
        vae = linear_pair()
        before = weights_of(vae)
        lr = {"model": rate, "guide": 0.01}
        settings = {"objective": "mean-field", "optimizer": "sgd", "epochs": 1, "batch_size": 40, "progress": False}
        history = Trainer(lr=lr, **settings).fit(vae, x)
        distances[rate] = moved(vae, before)
    for name, distance in distances[0.01].items():
        factor = 2 if name.startswith("owners.model") else 1
        assert distances[0.02][name] == pytest.approx(factor * distance, rel=1e-4), name
    assert (history.rows[0]["lr_model"], history.rows[0]["lr_guide"]) == (0.02, 0.01)


def test_what_an_objective_learns_is_a_group():
    vae, trainers = linear_pair(), []
    objective = NVIL(num_particles=2, baseline="input")

    def make(groups):
        trainers.append({group["name"]: group.get("lr") for group in groups})
        return torch.optim.Adam(groups, lr=0.5)

    settings = {"epochs": 1, "progress": False, "optimizer": make}
    Trainer(objective=objective, lr={"objective": 0.1, "guide": 0.2}, **settings).fit(vae, rows())
    assert trainers == [{"model": 1e-3, "guide": 0.2, "objective": 0.1}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoder=0.1", "lr names the group 'encoder'; the groups are model, guide, objective"),
        ("model=fast", "lr must be positive, .* got 'fast'"),
        ("nan", "lr must be positive, .* got 'nan'"),
        ("inf", "lr must be positive, .* got 'inf'"),
        ({"guide": -1}, "lr must be positive, .* got -1"),
    ],
)
def test_refused_rates(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rates(text)


class Frozen(PyroModule):
    """A model whose first layer is not to be trained."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 4)
        self.first.requires_grad_(False)
        self.offset = nn.Parameter(torch.ones(5), requires_grad=False)
        self.second = nn.Linear(4, 5)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = self.second(self.first(z)) + self.offset
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


@pytest.mark.filterwarnings(
    "ignore:.*was not registered in the param store", "ignore:TraceEnum_ELBO found no sample sites"
)
@pytest.mark.parametrize("objective", objective_names())
def test_frozen_parameters_stay_bit_for_bit(objective):
    vae = VAE(Frozen(), LinearGuide(5, 2))
    before = weights_of(vae)
    settings = {"epochs": 2, "batch_size": 16, "gradient_clip": 1.0, "progress": False}
    Trainer(objective=objective, optimizer_options={"weight_decay": 0.1}, **settings).fit(vae, rows())
    distances = moved(vae, before)
    frozen = {name for name in distances if ".first." in name or name.endswith(".offset")}
    assert len(frozen) == 3
    for name, distance in distances.items():
        assert (distance == 0) == (name in frozen), name
    assert {name for name, p in vae.named_parameters() if not p.requires_grad} == frozen


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
def test_a_pair_without_parameters_to_train():
    vae = VAE(LinearModel(5, 2), LinearGuide(5, 2))
    vae.requires_grad_(False)
    with pytest.raises(ValueError, match="has no parameters to train"):
        Trainer(epochs=1, progress=False).fit(vae, rows())
