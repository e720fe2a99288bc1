"""Training of rows of parameters: the same steps as dense ones on a full batch, resumed bit for bit, compiled."""

import logging
from functools import partial

import pytest
import torch
from row_pairs import amortised_pair, decoder_model, pictures, row_pair

from pyrovae import VAE
from pyrovae.data import Rows
from pyrovae.guides import PerDatum
from pyrovae.infer import CompiledLoss
from pyrovae.nn.row_table import RowTable
from pyrovae.storage import module_tensors
from pyrovae.training import Callback, Trainer, TrainingData, compiling, loop
from pyrovae.training.row_steps import row_steps

OPTIMIZERS = {
    "adam": (torch.optim.Adam, {"lr": 0.05}),
    "adam-decay": (torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-6}),
    "adam-decoupled": (torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {"lr": 0.3, "weight_decay": 0.1}),
}


def gradient(values, step):
    """Some gradient that depends on the values."""
    return values * torch.linspace(0.5, 2.0, values.shape[1]) + (step + 1) ** -0.5 * torch.sin(3 * values)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_steps_of_torch_on_a_full_batch(name):
    kind, options = OPTIMIZERS[name]
    start = torch.randn(9, 4)
    dense = torch.nn.Parameter(start.clone())
    theirs, table = kind([dense], **options), RowTable(start.clone())
    optimizer = kind([table.values], **options)
    ours = row_steps(optimizer, [table])
    for step in range(30):
        dense.grad = gradient(dense.detach(), step)
        theirs.step()
        index = torch.randperm(9)
        with ours.picking(index) as leaves:
            leaves[0].grad = gradient(leaves[0].detach(), step)
        optimizer.step()
        ours.step(index, leaves)
    assert torch.allclose(table.values, dense, atol=1e-6)


def test_only_the_rows_of_a_batch_move_and_each_counts_its_own_steps():
    """Two rows that take the same gradients at different times end at the same place, as two optimizers would."""
    table = RowTable(torch.zeros(5, 2))
    optimizer = torch.optim.Adam([table.values], lr=0.1)
    steps = row_steps(optimizer, [table])
    gradients = torch.randn(6, 2)
    for row in (1, 3):
        for part in gradients:
            with steps.picking(torch.tensor([row])) as leaves:
                leaves[0].grad = part[None]
            steps.step(torch.tensor([row]), leaves)
    assert torch.equal(table.values[1], table.values[3])
    assert bool((table.values[[0, 2, 4]] == 0).all())
    assert optimizer.state[table.values]["step"].tolist() == [0, 6, 0, 6, 0]


def test_a_row_that_stands_twice_in_a_batch_gets_both_gradients():
    ends = []
    for index, parts in (([2, 2], [[1.0], [2.0]]), ([2], [[3.0]])):
        table = RowTable(torch.ones(3, 1))
        optimizer = torch.optim.SGD([table.values], lr=0.1)
        steps = row_steps(optimizer, [table])
        with steps.picking(torch.tensor(index)) as leaves:
            leaves[0].grad = torch.tensor(parts)
        steps.step(torch.tensor(index), leaves)
        ends.append(table.values.detach().clone())
    assert torch.equal(*ends)


@pytest.mark.parametrize("objective", ["elbo", "mean-field", "iwae", "wake-wake"])
def test_a_training_by_rows_is_that_of_dense_parameters(objective, monkeypatch):
    """One batch of all rows, where lazy steps and dense ones are the same."""
    x, ends = pictures(12), []
    for by_rows in (True, False):
        if not by_rows:
            monkeypatch.setattr(loop, "row_steps", lambda *a: None)
        vae = row_pair(12, scale="learned")
        settings = {"batch_size": 12, "epochs": 10, "lr": 0.03, "gradient_clip": 0.2, "progress": False}
        history = Trainer(objective=objective, **settings).fit(vae, x)
        ends.append((history.rows[-1]["loss"], vae.guide.table.values.detach()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    assert torch.allclose(ends[0][1], ends[1][1], atol=1e-5)


class Stop(Callback):
    def __init__(self, after):
        self.left = after

    def on_batch(self, progress):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options", [{}, {"lr_schedule": "plateau"}, {"optimizer": "sgd"}], ids=["adam", "plateau", "sgd"]
)
def test_a_killed_training_resumes_bit_for_bit(options, tmp_path):
    x = pictures(20)
    settings = {"batch_size": 8, "epochs": 6, "lr": {"model": 0.003, "guide": 0.05}, "progress": False, **options}
    whole = row_pair(20)
    Trainer(**settings).fit(whole, x, run=tmp_path / "whole")
    killed = row_pair(20)
    with pytest.raises(KeyboardInterrupt):
        Trainer(**settings, checkpoint_seconds=0.0, callbacks=[Stop(8)]).fit(killed, x, run=tmp_path / "killed")
    resumed = row_pair(20)
    Trainer(**settings).fit(resumed, x, run=tmp_path / "killed", resume=True)
    for name, value in module_tensors(whole).items():
        assert torch.equal(value, module_tensors(resumed)[name]), name


def test_compiled_steps_are_the_same(monkeypatch):
    """What is recorded runs as it is, because compiling it takes long."""
    monkeypatch.setattr(compiling, "CompiledLoss", partial(CompiledLoss, backend="eager"))
    x, ends = pictures(20), []
    for compiled in (False, True):
        vae = row_pair(20)
        settings = {"batch_size": 8, "epochs": 3, "lr": 0.05, "progress": False}
        Trainer(objective="iwae", num_particles=2, compile=compiled, **settings).fit(vae, x)
        ends.append(vae.guide.table.values.detach())
    assert torch.allclose(*ends, atol=1e-5)


def test_optimizers_without_such_steps_move_all_rows(caplog):
    vae = row_pair(12)
    with caplog.at_level(logging.INFO, "pyrovae"):
        history = Trainer(optimizer="adamax", lr=0.05, epochs=30, batch_size=5, progress=False).fit(vae, pictures(12))
    assert "Adamax moves the parameters of all rows in each step" in caplog.text
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]


def test_validation_rows_without_parameters_are_left_out(caplog):
    x = pictures(12)
    with caplog.at_level(logging.INFO, "pyrovae"):
        history = Trainer(epochs=2, progress=False).fit(row_pair(12), TrainingData(Rows(x), Rows(pictures(4))))
    assert "the 4 validation rows have no parameters of their own" in caplog.text
    assert "validation_loss" not in history.rows[0]
    with pytest.raises(ValueError, match="early stopping watches validation_loss, and there are no validation data"):
        Trainer(epochs=2, patience=1, progress=False).fit(row_pair(12), TrainingData(Rows(x), Rows(pictures(4))))


def test_too_few_rows_in_the_guide():
    with pytest.raises(ValueError, match=r"index 1[0-9] is out of range: there are parameters of 10 rows"):
        Trainer(epochs=2, progress=False).fit(row_pair(10), pictures(12))


@pytest.mark.parametrize("objective", ["elbo", "mean-field", "iwae"])
def test_refined_training_teaches_both_programs(objective):
    vae, x = amortised_pair(), pictures(60)
    before = {name: value.clone() for name, value in module_tensors(vae).items()}
    settings = {"epochs": 2, "batch_size": 20, "progress": False, "objective": objective}
    history = Trainer(refine_steps=4, **settings).fit(vae, TrainingData(Rows(x), Rows(pictures(10, 3))))
    assert all(bool((value != before[name]).any()) for name, value in module_tensors(vae).items())
    assert {"loss", "validation_loss"} <= history.rows[0].keys()


def test_the_model_learns_at_refined_posteriors():
    """With an encoder that is never trained, the model still reaches what a good posterior gives it."""
    x, losses = pictures(80), {}
    for steps, refined in ((0, {}), (15, {"refine_steps": 15, "refine_lr": 0.1})):
        vae = VAE(decoder_model(), amortised_pair().guide)
        for parameter in vae.guide.parameters():
            parameter.requires_grad_(False)
        settings = {"epochs": 15, "batch_size": 40, "lr": 0.01, "progress": False, "objective": "elbo"}
        history = Trainer(**refined, **settings).fit(vae, x)
        losses[steps] = history.rows[-1]["loss"]
    assert losses[15] < losses[0] - 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refine_steps": -1}, "refine_steps must be a whole number of at least 0"),
        ({"refine_steps": 2, "compile": True}, "steps that refine answers are not compiled"),
        ({"refine_steps": 2, "refine_lr": 0.0}, "refine_lr must be positive"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(**options)


def test_rows_are_not_refined_in_training():
    with pytest.raises(ValueError, match="refine_steps refines the answer of an encoder"):
        Trainer(refine_steps=2, epochs=1, progress=False).fit(row_pair(12), pictures(12))
    assert PerDatum(12, 2).num_data == 12
