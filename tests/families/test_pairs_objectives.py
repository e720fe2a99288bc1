"""Every registered pair with every objective by name: steps that reach every parameter, or an error that says why."""

import functools
import math
from dataclasses import replace

import pytest
import torch
from pairs import same_weights, weights_of

from pyrovae import data, programs
from pyrovae.data import Dataset, Rows
from pyrovae.infer import objective_names
from pyrovae.pairs import Pair, pairs
from pyrovae.storage import load_weights, save_weights
from pyrovae.training import Trainer

OPTIONS = {
    "auto-decoder": {"latent_dim": 2, "hidden": (8,), "posterior_scale": "learned"},
    "sbn": {"sizes": (4, 3)},
    "hierarchical": {"latent_dims": (4, 3), "hidden": (8,), "hidden_between": (6,)},
    "categorical": {"num_variables": 2, "num_classes": 3, "hidden": (8,)},
    "semi-supervised": {"latent_dim": 2, "hidden": (8,)},
}
"""Small sizes of pairs; one that is not here is made with those of `SMALL` that it has."""
SMALL = {"latent_dim": 2, "hidden": (8,), "truncation": 4, "sizes": (4, 3)}

REASONS = {
    "iwae-stl": r"site '\w+' has no reparameterised draws",
    "iwae-dreg": r"site '\w+' has no reparameterised draws",
    "mean-field": r"has no reparameterised draws",
}
"""What an objective says to a pair with latents that it is not for; every other refusal is a fault."""

REPARAMETERISED = {"gaussian": True, "hierarchical": True, "sbn": False, "categorical": False}
"""Whether all latents of a pair are, for those where it is certain."""

by_name = pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair.name)


@functools.cache
def tiny_dataset() -> Dataset:
    """Labelled binary pictures of 4 by 4 pixels in three classes, half of the labels unknown."""
    digits = data.load("digits", binarize="static")
    x, y = digits.train.x[:48, :, 2:6, 2:6], digits.train.y[:48] % 3
    partly = torch.where(torch.arange(48) % 2 == 0, y, -1)
    return Dataset("tiny", Rows(x, partly), Rows(x[:12], y[:12]), Rows(x[12:24], y[12:24]), "binary")


@functools.cache
def tiny_table() -> Dataset:
    """The first rows of a table with holes, in the place of pictures."""
    clinic = data.load("clinic", test=12, validation=12)
    return replace(clinic, train=clinic.train.take(slice(48)))


@functools.cache
def tiny_landmarks() -> Dataset:
    """Five landmarks of some shapes, in the place of pictures."""
    x = data.load("landmarks").train.x[:72, :5]
    return Dataset("tiny", *(Rows(part) for part in x.split([48, 12, 12])), "real")


def rows_for(pair: Pair) -> Dataset:
    if pair.name == "landmarks":
        return tiny_landmarks()
    return tiny_table() if pair.data_kind == "table" else tiny_dataset()


def known_rows(pair: Pair) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Twelve rows that the guide of a pair answers for: training rows, if it has parameters for those alone."""
    rows = rows_for(pair).test
    if pair.name == "auto-decoder":
        rows = rows_for(pair).train.take(slice(12)).replace(y=None)
    return rows.x, {name: value for name, value in rows.fields().items() if name != "y"}


def build(pair: Pair, seed=0):
    names = {option.name for option in pair.options}
    options = OPTIONS.get(pair.name, {name: value for name, value in SMALL.items() if name in names})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pair.build(rows_for(pair), **options)


def reparameterised(vae, pair: Pair) -> bool:
    x, given = known_rows(pair)
    posterior = vae.posterior(x, **given)
    return all(q.has_rsample for q in posterior.values())


# What Pyro's own objectives remark on pairs that they are not made for, or on sites that they draw.
@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no sample sites")
@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
@pytest.mark.filterwarnings("ignore:(?s).*you need to use TraceEnum_ELBO instead")
@by_name
@pytest.mark.parametrize("objective", objective_names())
def test_steps_reach_every_parameter(pair, objective):
    vae = build(pair)
    before = weights_of(vae)
    options = {"lr": 0.01, "epochs": 1, "batch_size": 24, "progress": False}
    trainer = Trainer(objective=objective, num_particles=3, **options)
    if objective in REASONS and not reparameterised(vae, pair):
        with pytest.raises((ValueError, NotImplementedError), match=REASONS[objective]):
            trainer.fit(vae, rows_for(pair))
        assert same_weights(before, weights_of(vae))
        return
    if pair.name == "auto-decoder" and objective in ("rws", "wake-sleep"):
        with pytest.raises(ValueError, match="would give them to the wrong rows"):
            trainer.fit(vae, rows_for(pair))
        return
    row = trainer.fit(vae, rows_for(pair)).rows[-1]
    assert math.isfinite(row["loss"])
    assert math.isfinite(row["loss" if pair.name == "auto-decoder" else "validation_loss"])
    still = [name for name, value in vae.named_parameters() if torch.equal(value, before[name])]
    assert still == []


@by_name
def test_which_latents_are_reparameterised(pair):
    found = reparameterised(build(pair), pair)
    assert found is REPARAMETERISED.get(pair.name, found)


@by_name
def test_saved_weights_give_the_same_log_likelihood(pair, tmp_path):
    first, second = build(pair, seed=0), build(pair, seed=1)
    first.eval()
    second.eval()
    values = []
    x, given = known_rows(pair)
    for vae in (first, second):
        torch.manual_seed(0)
        values.append(vae.log_likelihood(x, 20, **given))
    assert not torch.equal(values[0], values[1])
    save_weights(first, tmp_path / "model.safetensors")
    load_weights(second, tmp_path / "model.safetensors")
    torch.manual_seed(0)
    assert torch.equal(second.log_likelihood(x, 20, **given), values[0])
    assert values[0].isfinite().all()


@by_name
def test_model_and_guide_share_no_name(pair):
    """Pyro's parameter store would keep one of two parameters of the same name, and the other would stop training."""
    vae = build(pair)
    names = []
    for program in (vae.model, vae.guide):
        assert isinstance(program, torch.nn.Module)
        direct = {name for name, _ in program.named_children()}
        direct |= {name for name, _ in program.named_parameters(recurse=False)}
        names.append((direct, set(programs.module_parameters(program))))
    for model, guide in zip(*names, strict=True):
        assert model & guide == set()
        assert model
        assert guide


@by_name
def test_own_training_options_train(pair):
    """The objective that a pair is registered with, particles included."""
    vae = build(pair)
    before = weights_of(vae)
    trainer = Trainer(**{**pair.training, "epochs": 1, "batch_size": 24, "progress": False})
    dataset = rows_for(pair)
    history = trainer.fit(vae, dataset)
    assert math.isfinite(history.rows[-1]["loss"])
    assert not same_weights(before, weights_of(vae))
    x, given = known_rows(pair)
    assert vae.sample(3).shape == (3, *dataset.shape)
    assert vae.reconstruct(x, **given).shape == (12, *dataset.shape)
