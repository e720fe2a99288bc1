"""A reloaded VAE is the one that was trained: one more step of training gives the same loss and the same weights."""

from dataclasses import replace

import pytest
import torch
from pairs import same_weights, weights_of

from pyrovae import data
from pyrovae.data import Dataset, Rows
from pyrovae.data.dataset import DataSpec
from pyrovae.pairs import find_pair, pairs
from pyrovae.runs import Run, configuration
from pyrovae.storage import CheckpointError
from pyrovae.training import Trainer

SMALL = {
    "gaussian": [
        {"hidden": (8,), "prior": "vamp", "num_components": 5},
        {"net": "conv", "hidden": (8,), "channels": (2, 3)},
    ],
    "stick-breaking": [
        {"hidden": (8,), "truncation": 6, "concentration_is": "inferred"},
        {"hidden": (8,), "truncation": 6, "posterior": "gamma"},
    ],
    "semi-supervised": [
        {"hidden": (8,), "latent_dim": 3, "classification_weight": 2.0},
        {"hidden": (8,), "latent": "stick-breaking", "truncation": 4},
    ],
    "sbn": [{"sizes": (6, 4)}, {"sizes": (6,), "draws": "relaxed"}],
    "tabular": [{"hidden": (8,), "latent_dim": 3, "prior": "vamp", "num_components": 4}],
    "auto-decoder": [{"hidden": (8,), "latent_dim": 2, "posterior_scale": "learned", "likelihood": "bernoulli"}],
    "landmarks": [{"shape_latents": 2, "hidden": (8,), "encoder_hidden": (8,)}],
    "categorical": [{"num_variables": 3, "num_classes": 4, "hidden": (8,)}],
    "hierarchical": [
        {"latent_dims": (5, 3), "hidden": (8,), "hidden_between": (6,), "prior": "vamp", "num_components": 4}
    ],
}


CASES = [
    pytest.param(pair.name, options, id=f"{pair.name}-{number}")
    for pair in pairs()
    for number, options in enumerate(SMALL[pair.name])
]


@pytest.mark.parametrize(("pair", "options"), CASES)
def test_one_more_step_is_the_same_on_a_reloaded_pair(pair, options, tmp_path):
    if find_pair(pair).data_kind == "table":
        digits = data.load("clinic", validation=50)
    elif pair == "landmarks":
        digits = data.load("landmarks")
    else:
        digits = data.load("digits", binarize="static", labels=0.05)
    small = replace(digits, train=digits.train.take(slice(300)), validation=digits.validation.take(slice(50)))
    run = Run.create(tmp_path / "run", pair, options, small, {"epochs": 1, "batch_size": 100, "lr": 0.01})
    vae = run.pair.build(small, **options)
    run.train(progress=False, vae=vae)
    again = Run.open(tmp_path / "run").load_vae()
    assert same_weights(weights_of(vae), weights_of(again))
    settings = {**run.config["training"], "epochs": 1, "batch_size": 300, "progress": False, "patience": None}
    losses = [Trainer(**settings).fit(each, small).rows[0] for each in (vae, again)]
    for name in ("loss",) if pair == "auto-decoder" else ("loss", "validation_loss"):
        assert losses[0][name] == losses[1][name], name
    assert same_weights(weights_of(vae), weights_of(again))


def test_the_spec_and_not_a_stand_in_sets_the_weight_of_labels(tmp_path):
    digits = data.load("digits", binarize="static", labels=0.05)
    run = Run.create(tmp_path / "run", "semi-supervised", {"hidden": (8,)}, digits, {"epochs": 1})
    run.train(progress=False)
    again = Run.open(tmp_path / "run").load_vae()
    assert again.guide.classification_weight == pytest.approx(20.0)
    assert again.made_by.spec == digits.spec
    assert again.made_by.spec.num_labelled == 60


def test_rows_of_a_run_from_python_are_asked_for_again(tmp_path):
    rows = Rows(torch.rand(30, 4).round())
    mine = Dataset("mine", rows, rows, rows, "binary")
    run = Run.create(tmp_path / "run", "gaussian", {"hidden": (8,), "latent_dim": 2}, mine, {"epochs": 1})
    run.train(progress=False)
    opened = Run.open(tmp_path / "run")
    assert opened.load_vae().sample(3).shape == (3, 4)
    with pytest.raises(CheckpointError, match=r"does not say what data to load.*; .* --data FILE_OR_NAME"):
        opened.evaluate(num_samples=5)
    assert Run.open(tmp_path / "run", data=mine).evaluate(num_samples=5)["num_rows"] == 30
    other = Dataset("other", Rows(torch.rand(30, 5)), rows := Rows(torch.rand(3, 5)), rows, "unit")
    with pytest.raises(ValueError, match=r"other has shape \(5,\), and the run was trained on data with shape \(4,\)"):
        Run.open(tmp_path / "run", data=other)


def test_a_number_of_components_that_earlier_versions_made_nothing_of():
    spec = DataSpec("mine", (6,), "binary", 20)
    config = {"pair_options": {"prior": "standard-normal", "num_components": 20, "hidden": [4]}}
    configuration.build(find_pair("gaussian"), spec, config)
    with pytest.raises(ValueError, match="num_components is for the priors mixture and vamp"):
        configuration.build(find_pair("gaussian"), spec, config, stored=False)
