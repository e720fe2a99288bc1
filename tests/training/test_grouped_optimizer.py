"""An optimizer by group: each group moves as under an optimizer of its own, whole and resumed."""

import copy
import json
import logging
import os
import signal
from functools import partial

import pyro
import pytest
import torch
from pairs import same_weights, weights_of
from pyro.infer import TraceMeanField_ELBO
from training_runs import Watcher, rows, seeded

from pyrovae.cli.options import optimizer as typed
from pyrovae.nn.row_table import RowTable
from pyrovae.rng import begin
from pyrovae.training import RunFolder, Trainer, TrainingInterrupted
from pyrovae.training.grouped_optimizer import GroupedOptimizer
from pyrovae.training.row_steps import row_steps

MIXED = {
    "optimizer": {"model": "adam", "guide": torch.optim.SGD},
    "optimizer_options": {"model": {"betas": (0.8, 0.9)}, "guide": {"momentum": 0.5}},
    "lr": {"model": 0.02, "guide": 0.05},
}


def test_each_group_moves_by_its_own_optimizer(store):
    vae, twin = seeded(), seeded()
    objective = TraceMeanField_ELBO()
    Trainer(objective, **MIXED, epochs=4, batch_size=40, seed=5, progress=False).fit(vae, rows())
    groups = twin.parameter_groups()
    of_model = torch.optim.Adam(groups["model"], lr=0.02, betas=(0.8, 0.9))
    of_guide = torch.optim.SGD(groups["guide"], lr=0.05, momentum=0.5)
    begin(5)
    with pyro.get_param_store().scope():
        scaled = [pyro.poutine.scale(program, scale=1 / 40) for program in (twin.model, twin.guide)]
        for _ in range(4):
            objective.loss_and_grads(*scaled, rows())
            for one in (of_model, of_guide):
                one.step()
                one.zero_grad()
    # The weights are those of the best epoch, which is the last one here.
    for name, value in weights_of(vae).items():
        torch.testing.assert_close(value, weights_of(twin)[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_resumed_bit_for_bit(tmp_path, schedule):
    settings = {**MIXED, "batch_size": 16, "progress": False, "lr_schedule": schedule, "seed": 1}
    whole, broken = seeded(), seeded()
    history = Trainer(**settings, epochs=6).fit(whole, rows())
    run, interrupt = RunFolder(tmp_path), partial(os.kill, os.getpid(), signal.SIGINT)
    at_third = Watcher("on_epoch", lambda progress: interrupt() if progress.epoch == 3 else None)
    with pytest.raises(TrainingInterrupted):
        Trainer(**settings, epochs=6, callbacks=[at_third]).fit(broken, rows(), run=run)
    again = seeded(seed=3)
    resumed = Trainer(**settings, epochs=6).fit(again, rows(), run=run, resume=True)
    assert [row["loss"] for row in resumed.rows] == [row["loss"] for row in history.rows]
    assert same_weights(weights_of(whole), weights_of(again))


def test_rows_of_a_table_move_alone_under_any_pairing(caplog):
    table, weight = RowTable(torch.zeros(6, 2)), torch.nn.Parameter(torch.zeros(3))
    for kind, lazy in ((torch.optim.SGD, True), (torch.optim.AdamW, True), (torch.optim.Adamax, False)):
        parts = [torch.optim.Adamax([weight], lr=0.1), kind([table.values], lr=0.1)]
        with caplog.at_level(logging.INFO):
            assert (row_steps(GroupedOptimizer(parts), [table]) is not None) == lazy
    assert "Adamax moves the parameters of all rows" in caplog.text


def test_a_loaded_state_is_that_of_the_parts():
    def made():
        weights = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
        return weights, GroupedOptimizer([torch.optim.Adam(weights[:1]), torch.optim.SGD(weights[1:], momentum=0.9)])

    weights, optimizer = made()
    for _ in range(3):
        for weight in weights:
            weight.grad = weight.detach().clone()
        optimizer.step()
    copies, other = made()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for weight, twin in zip(weights, copies, strict=True):
        twin.data.copy_(weight.data)
        twin.grad = weight.grad = torch.ones_like(weight)
    optimizer.step()
    other.step()
    assert all(torch.equal(one, two) for one, two in zip(weights, copies, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": {"decoder": "adam"}}, "optimizer names the group 'decoder'; the groups are model, guide"),
        ({"optimizer": {"guide": "adagrad"}}, "unknown optimizer 'adagrad'; known are adam"),
        ({"optimizer": "model=adam,guide=lbfgs"}, "unknown optimizer 'lbfgs'"),
        ({"optimizer": {"guide": "sgd"}, "optimizer_options": {"momentum": 0.9}}, "names the group 'momentum'"),
        ({"optimizer": {"guide": "sgd"}, "optimizer_options": {"guide": 0.9}}, "go by group"),
    ],
)
def test_what_is_no_optimizer_by_group(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trainer(**arguments)


def test_the_command_line_takes_one_by_group(tmp_path):
    from pyrovae.cli import main

    assert typed("model=adam,guide=sgd") == {"model": "adam", "guide": "sgd"}
    run = tmp_path / "run"
    words = "train gaussian --data digits --epochs 1 --latent-dim 2 --quiet --optimizer model=adamw,guide=sgd"
    main([*words.split(), "--out", str(run)])
    config = json.loads((run / "config.json").read_text())
    assert config["training"]["optimizer"] == {"model": "adamw", "guide": "sgd"}
    main(["resume", str(run), "--epochs", "2", "--quiet"])
