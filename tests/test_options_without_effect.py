"""An option that changes nothing is refused: every option of every pair, beside every choice of the others."""

import numpy as np
import pandas as pd
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.utils.data import DataLoader

from pyrovae import data
from pyrovae.batches import arguments
from pyrovae.infer import make_objective, objective_names
from pyrovae.pairs import find_pair, pairs, register_pair
from pyrovae.pairs.needs import Needs, when
from pyrovae.pairs.registry import _PAIRS
from pyrovae.runs import configuration
from pyrovae.training import Trainer
from pyrovae.training.options import without_idle

SMALL = {
    "auto-decoder": {"latent_dim": 3, "hidden": (6,)},
    "categorical": {"num_variables": 2, "num_classes": 3, "hidden": (6,)},
    "gaussian": {"latent_dim": 2, "hidden": (6,)},
    "hierarchical": {"latent_dims": (3, 2), "hidden": (6,), "hidden_between": (5,)},
    "landmarks": {"hidden": (6,), "encoder_hidden": (6,)},
    "sbn": {"sizes": (3, 2), "hidden": (4,)},
    "semi-supervised": {"latent_dim": 2, "hidden": (6,)},
    "stick-breaking": {"truncation": 4, "hidden": (6,)},
    "tabular": {"latent_dim": 2, "hidden": (6,)},
}
OTHER_VALUES = {
    "activation": ["elu", "tanh"],
    "layer": ["plain", "residual", "gated"],
    "init": ["zeros", "normal"],
    "posterior_scale": ["learned", "none", "fixed"],
    "log_var": [-1.0],
    "missingness": ["self-masking"],
    "hidden": [(7,), (7, 8)],
}
"""Values of options that have no default to start from, or few that are allowed."""
FURTHER = {
    "sbn": [{"hidden": ()}],
    "categorical": [{"hidden": ()}],
    "hierarchical": [{"latent_dims": (3,)}],
    "tabular": [{"hidden": ()}],
    "auto-decoder": [{"hidden": ()}, {"posterior_scale": "none"}, {"posterior_scale": "learned"}],
    "semi-supervised": [{"consistency_weight": 1.0}],
}
"""Values of options that are no choices, and that others may depend on."""


def table(folder):
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"real": draws.normal(size=60), "positive": draws.gamma(2.0, size=60)})
    frame["level"] = np.array([*"abc"])[draws.integers(0, 3, 60)]
    frame["count"] = draws.poisson(3, 60)
    for name in ("real", "count"):
        frame[name] = frame[name].where(draws.random(60) > 0.2)
    return loaded(frame, folder / "table.csv")


def levels(folder):
    """A table without numbers."""
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({name: np.array([*"abcd"])[draws.integers(0, n, 60)] for name, n in (("x", 2), ("y", 4))})
    return loaded(frame, folder / "levels.csv")


def heavy_tails(folder):
    """A table whose columns have no natural parameters."""
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draws.normal(size=60), "y": draws.normal(size=60)})
    return loaded(frame, folder / "heavy_tails.csv", likelihoods={"real": "student-t"})


def loaded(frame, path, **options):
    frame.to_csv(path, index=False)
    return data.load(path, kind="table", **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    digits = data.load("digits", binarize="static", labels=0.5)
    folder = tmp_path_factory.mktemp("tables")
    tables = {"table": table(folder), "levels": levels(folder), "heavy tails": heavy_tails(folder)}
    return {"pictures": digits, "points": data.load("landmarks"), **tables}


def data_of(name):
    tables = ["table", "levels", "heavy tails"]
    own = {"landmarks": ["points"], "tabular": tables, "auto-decoder": ["pictures", *tables]}
    return own.get(name, ["pictures"])


def others(option, now):
    """Some other values of an option."""
    if option.name in OTHER_VALUES:
        found = OTHER_VALUES[option.name]
    elif option.choices:
        found = option.choices
    elif option.type is bool:
        found = [True, False]
    elif isinstance(now, tuple):
        found = [(*now[:-1], now[-1] + 1)] if now else [(4,)]
    else:
        found = [now + 1 if option.type is int else now + 0.5]
    return [value for value in found if value != now]


def contexts(pair):
    """Options of a pair with each choice and each switch once at each of its values."""
    chosen = [{}, *FURTHER.get(pair.name, [])]
    for option in pair.options:
        if option.choices or option.type is bool:
            chosen += [{option.name: value} for value in others(option, option.default)]
    chosen += [{"net": "conv", "layer": "residual"}] if any(o.name == "net" for o in pair.options) else []
    return [{**SMALL[pair.name], **choice} for choice in chosen]


def built(pair, dataset, options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pair.build(dataset, **options)


def differ(first, second, dataset, objective):
    """Whether two VAEs that began with the same random numbers are different ones, or train in different ways."""
    state, other = first.state_dict(), second.state_dict()
    if state.keys() != other.keys() or any(
        value.shape != other[name].shape or not torch.equal(value, other[name]) for name, value in state.items()
    ):
        return True
    return step_of(first, dataset, objective) != step_of(second, dataset, objective)


def step_of(vae, dataset, objective):
    """The first loss and its gradients."""
    x, given = arguments(vae, dataset.train.take(slice(24)))
    vae.train()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        loss = make_objective(objective).loss_and_grads(vae.model, vae.guide, x, **given)
    gradients = [(name, p.grad.tolist()) for name, p in vae.named_parameters() if p.grad is not None]
    vae.zero_grad()
    return loss, gradients


def without_effect(pair, dataset):
    """The options that were taken and changed nothing, each with the options beside it."""
    found = []
    for beside in contexts(pair):
        relaxed = beside.get("draws", "exact") != "exact"
        objective = "iwae" if relaxed else pair.training.get("objective", "elbo")
        try:
            usual = built(pair, dataset, beside)
        except ValueError:
            if beside == SMALL[pair.name]:
                raise
            continue  # such a choice is refused for these data
        for option in pair.options:
            now = beside.get(option.name, option.default)
            outcomes = []
            for value in others(option, now):
                try:
                    changed = built(pair, dataset, {**beside, option.name: value})
                except ValueError:
                    continue
                outcomes.append(differ(usual, changed, dataset, objective))
                if outcomes[-1]:
                    break
            if outcomes and not any(outcomes):
                found.append((option.name, beside))
    return found


@pytest.mark.parametrize("name", [pair.name for pair in pairs() if not pair.own])
def test_an_option_that_changes_nothing_is_refused(name, made):
    """A value that is the default in other words changes nothing either, so an option has to have one that does."""
    pair = find_pair(name)
    for kind in data_of(name):
        assert without_effect(pair, made[kind]) == []


def test_every_registered_pair_is_looked_at():
    assert {pair.name for pair in pairs() if pair.builder.__module__.startswith("pyrovae.")} == set(SMALL)


def test_a_forgotten_option_is_found(made, monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setitem(SMALL, "forgetful", {"latent_dim": 2})
    monkeypatch.setattr("pyrovae.pairs.registry._PAIRS", dict(_PAIRS))

    @register_pair("forgetful", summary="")
    def forgetful(spec, rows=None, *, latent_dim: int = 2, depth: int = 3):
        return find_pair("gaussian").build(spec, latent_dim=latent_dim, hidden=(6,))

    assert without_effect(find_pair("forgetful"), made["pictures"]) == [("depth", {"latent_dim": 2})]


REFUSED = {
    "semi-supervised latent_dim": (
        {"latent": "stick-breaking", "latent_dim": 8},
        "latent_dim is for a Gaussian latent",
    ),
    "semi-supervised truncation": ({"truncation": 8}, "truncation is for a stick-breaking latent, got 8; leave it out"),
    "semi-supervised concentration": ({"concentration": 2.0}, "or give latent='stick-breaking'"),
    "semi-supervised consistency_radius": ({"consistency_radius": 0.7}, "or give consistency_weight=1"),
    "gaussian activation": ({"activation": "tanh"}, "activation is for plain and residual layers, .* got tanh"),
    "stick-breaking hyperprior_shape": ({"hyperprior_shape": 2.0}, "or give concentration_is='inferred'"),
    "auto-decoder concentration": ({"concentration": 2.0}, "concentration is for sticks, got 2.0"),
    "auto-decoder scale_floor": ({"scale_floor": 0.1}, "scale_floor is for tables, got 0.1; leave it out$"),
    "sbn temperature": ({"temperature": 0.5}, "temperature is for relaxed draws, got 0.5"),
    "sbn activation": ({"activation": "relu"}, "activation is for hidden layers, got relu"),
    "hierarchical hidden_between": ({"latent_dims": (3,), "hidden_between": (3,)}, "is for several latent layers"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_the_refusal_says_what_the_option_is_for(options, message, made, request):
    name = request.node.callspec.id.split()[0]
    with pytest.raises(ValueError, match=message):
        find_pair(name).build(made["pictures"], **options)


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_a_stored_run_with_such_an_option_opens(options, message, made, request):
    """Earlier versions took it and made nothing of it."""
    pair = find_pair(request.node.callspec.id.split()[0])
    small = {k: v for k, v in SMALL[pair.name].items() if k not in ("hidden", "latent_dim", "truncation")}
    config = {"pair_options": {**small, **options}}
    idle = config["pair_options"].keys() - pair.without_idle(config["pair_options"], made["pictures"].spec).keys()
    assert len(idle) == 1
    configuration.build(pair, made["pictures"], config, stored=True)
    configuration.build(pair, made["pictures"].spec, config)
    with pytest.raises(ValueError, match=message):
        configuration.build(pair, made["pictures"], config, stored=False)


def test_a_default_that_is_spelt_out_is_taken(made):
    find_pair("semi-supervised").build(made["pictures"], truncation=50, concentration=5.0, hidden=[6])


def test_needs_hold_for_calls_of_the_builder_too(made):
    """And the builder keeps its signature."""
    from pyrovae.pairs import semi_supervised

    with pytest.raises(ValueError, match="truncation is for a stick-breaking latent"):
        semi_supervised(made["pictures"].spec, truncation=8)


def test_needs_name_options_that_exist():
    for pair in pairs():
        names = {option.name for option in pair.options}
        for need in pair.needs:
            assert set(need.options) <= names
            assert need.met({option.name: option.default for option in pair.options}, None) in (True, False)


def test_a_pair_of_ones_own_may_have_needs(monkeypatch, made):
    monkeypatch.setattr("pyrovae.pairs.registry._PAIRS", dict(_PAIRS))
    needs = (Needs(("depth",), when("deep", True), "deep nets", "deep=True"),)

    @register_pair("mine", summary="", needs=needs)
    def mine(spec, rows=None, *, deep: bool = False, depth: int = 3):
        raise AssertionError

    with pytest.raises(ValueError, match="depth is for deep nets, got 4; leave it out, or give deep=True"):
        find_pair("mine").build(made["pictures"], depth=4)


class TestOptionsOfTrainings:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"refine_lr": 0.1}, "refine_lr is for refine_steps, got 0.1; leave it out"),
            ({"objective": Trace_ELBO(), "num_particles": 3}, "num_particles is for an objective given by name, got 3"),
        ],
    )
    def test_refused_at_once(self, options, message):
        with pytest.raises(ValueError, match=message):
            Trainer(**options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lr": {"objective": 0.1}}, "lr names the group 'objective', which has no parameters to learn here"),
            ({"optimizer": {"objective": "sgd"}}, "optimizer names the group 'objective', which has no parameters"),
        ],
    )
    def test_refused_for_a_training(self, options, message, made):
        vae = find_pair("gaussian").build(made["pictures"], **SMALL["gaussian"])
        with pytest.raises(ValueError, match=message):
            Trainer(epochs=1, progress=False, **options).fit(vae, made["pictures"])

    def test_a_stream_has_batches_of_its_own(self, made):
        vae = find_pair("gaussian").build(made["pictures"], **SMALL["gaussian"])
        loader = DataLoader(made["pictures"].train.x[:64], batch_size=32)
        with pytest.raises(ValueError, match="batch_size is for rows that the Trainer cuts into batches, got 16"):
            Trainer(epochs=1, batch_size=16, progress=False).fit(vae, loader)

    @pytest.mark.parametrize("name", objective_names())
    def test_every_objective_reads_the_number_of_particles(self, name, made):
        pair = find_pair({"vimco": "sbn", "enum": "semi-supervised"}.get(name, "gaussian"))
        vae = built(pair, made["pictures"], SMALL[pair.name])
        steps = []
        for number in (2, 3):
            with torch.random.fork_rng():
                torch.manual_seed(1)
                objective = make_objective(name, num_particles=number)
                objective.loss_and_grads(vae.model, vae.guide, made["pictures"].train.x[:24])
            steps.append([p.grad.tolist() for p in vae.parameters() if p.grad is not None])
            vae.zero_grad()
        assert steps[0] != steps[1]

    def test_a_stored_training_with_such_an_option_goes_on(self):
        stored = {"refine_lr": 0.1, "epochs": 3}
        assert without_idle(stored) == {"epochs": 3}
        assert without_idle({**stored, "refine_steps": 2}) == {**stored, "refine_steps": 2}
