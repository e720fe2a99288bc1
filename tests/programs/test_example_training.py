"""Example programs from start to end: learning, Pyro's own objective, streams, compiled steps, the command line."""

import json
import os
import re
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from examples import air, cevae, dmm, prodlda, scanvi
from examples.catalogue import EXAMPLES, split
from pyro.contrib.cevae import TraceCausalEffect_ELBO
from torch.utils.data import DataLoader

from pyrovae.cli import main
from pyrovae.data import Rows
from pyrovae.infer import CompiledLoss, CompileError, make_objective
from pyrovae.metrics import classification_error, evaluate
from pyrovae.training import RunFolder, Trainer


@pytest.mark.parametrize("objective", ["vimco", "graph"])
def test_steps_of_a_scene_learn(objective):
    """A short training; the long one, that counts, is benchmarks/air.py."""
    torch.manual_seed(0)
    vae, (x, _) = air.make_vae(), air.scenes(192)
    particles = 3 if objective == "vimco" else 1
    trainer = Trainer(objective=objective, num_particles=particles, epochs=5, batch_size=32, lr=3e-3, progress=False)
    history = trainer.fit(vae, x)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"] - (1 if objective == "vimco" else 10)
    assert set(air.counted(vae, x).tolist()) <= {0, 1, 2, 3}


def test_known_types_teach_the_rest():
    torch.manual_seed(0)
    (data, types), vae = scanvi.cells(200, known=0.3), scanvi.make_vae()
    Trainer(objective="enum", epochs=15, batch_size=50, lr=0.01, progress=False).fit(vae, data)
    unknown = data["y"] < 0
    assert classification_error(vae, Rows(data["x"][unknown], y=types[unknown])) < 0.1


def test_pyros_objective_of_causal_effects():
    """Treatments and outcomes are predicted for new patients; the bound is that of Pyro's class at the same draws."""
    torch.manual_seed(0)
    vae, data = cevae.make_vae(), cevae.patients(300)
    x, given = split(data)
    vae.prepare(x, **given)
    with vae.scope(), torch.no_grad():
        before = TraceCausalEffect_ELBO().loss(vae.model, vae.guide, x, **given) / 300
    history = Trainer(objective=TraceCausalEffect_ELBO(), epochs=30, batch_size=100, lr=0.02, progress=False).fit(
        vae, data
    )
    assert history.rows[0]["loss"] < before + 0.5
    assert history.rows[-1]["loss"] < before - 2
    t = vae.guide.propensity(x).squeeze(-1) > 0
    assert float((t == given["t"].bool()).double().mean()) > 0.6
    with torch.no_grad():
        treated, untreated = (net(x)[:, 0].mean() for net in (vae.guide.treated, vae.guide.untreated))
    assert float(treated - untreated) == pytest.approx(2, abs=0.6)


def test_sequences_of_several_lengths_by_batch():
    """Batches of other lengths than the first one, from a loader that holds them as they are."""
    batches = [dmm.melodies(8, length=length, seed=length) for length in (4, 2, 3)]
    loader = DataLoader(batches, batch_size=None)
    vae = dmm.make_vae()
    history = Trainer(objective="iwae", num_particles=2, epochs=4, lr=0.02, progress=False).fit(vae, loader)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    for batch in batches:
        x, given = split(batch)
        assert len(vae.reconstruct(x, **given)) == x.shape[1]
        assert evaluate(vae, Rows.of(x, **given), num_samples=10).num_rows == 8


@pytest.mark.parametrize("name", ["cvae", "dmm-flow", "scanvi", "air"])
def test_training_resumes(name, tmp_path):
    """Stopped and resumed is the same, bit for bit."""
    weights = []
    for parts in ((4,), (2, 4)):
        torch.manual_seed(0)
        vae, data = EXAMPLES[name].make_vae(), EXAMPLES[name].data(12)
        run = RunFolder(tmp_path / str(len(parts)))
        for i, epochs in enumerate(parts):
            trainer = Trainer(objective="vimco", num_particles=2, epochs=epochs, batch_size=6, progress=False)
            trainer.fit(vae, data, run=run, resume=i > 0)
        weights.append(vae.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


# -- compiled ---------------------------------------------------------------------------------------------------------

BACKEND = os.environ.get("PYROVAE_TEST_BACKEND", "eager")
"""The compiler: "inductor", which CI leaves out for its minute and a half, makes real code of these programs."""
COMPILED = {
    "cvae": EXAMPLES["cvae"],
    "prodlda": EXAMPLES["prodlda"]._replace(make_vae=partial(prodlda.make_vae, words=25)),
    "scanvi": EXAMPLES["scanvi"],
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_steps(name):
    """One-hot draws, partly known labels, batch normalisation and dropout; the same loss and gradients."""
    data, vae = COMPILED[name].data(6), COMPILED[name].make_vae()
    x, given = split(data)
    vae.prepare(x, **given).train()
    objective = make_objective("iwae", num_particles=1)
    compiled = CompiledLoss(vae, objective, backend=BACKEND)
    compiled.prepare(x, **given)
    pyro.set_rng_seed(1)
    loss = float(compiled(x, **given))
    gradients = {key: value.grad.clone() for key, value in vae.named_parameters()}
    vae.zero_grad()
    pyro.set_rng_seed(1)
    with vae.scope():
        expected = objective.loss_and_grads(vae.model, vae.guide, x, **given)
    assert loss == pytest.approx(expected, rel=1e-5)
    for key, value in vae.named_parameters():
        torch.testing.assert_close(gradients[key], value.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prodlda", r"cannot be compiled, prodlda.py line \d+: total = int\(x.sum\(-1\).max\(\)\)"),
        ("dmm-flow", r"cannot be compiled at site 'z_1' \(a value of a tensor is needed in Python\)"),
    ],
)
def test_what_cannot_be_compiled_is_said_where(name, message):
    data, vae = EXAMPLES[name].data(4), EXAMPLES[name].make_vae()
    x, given = split(data)
    vae.prepare(x, **given)
    with pytest.raises(CompileError, match=message):
        CompiledLoss(vae, make_objective("iwae", num_particles=1), backend="eager")(x, **given)


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["air", "prodlda", "scanvi"])
def test_command_line_on_a_file(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", **{key: value.numpy() for key, value in EXAMPLES[name].data(30).items()})
    pair = f"examples.{name}:make_vae"
    objective = ["--objective", "enum"] if name == "scanvi" else []
    assert main(["train", pair, "--data", "rows.npz", "--epochs", "1", "--out", "run", "--quiet", *objective]) == 0
    assert main(["resume", "run", "--pair", pair, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--pair", pair, "--num-samples", "5", "--json"]) == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["log_likelihood"])
    assert main(["plot", "run", "--pair", pair]) == 0


@pytest.mark.parametrize("name", ["cvae", "dmm", "cevae"])
def test_command_line_on_arguments_by_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair, data = f"examples.{name}:make_vae", f"examples.{name}:make_data"
    assert main(["train", pair, "--data", data, "--epochs", "1", "--out", "run", "--quiet"]) == 0
    again = ["--pair", pair, "--data", data]
    assert main(["resume", "run", *again, "--quiet"]) == 0
    np.savez("rows.npz", x=np.zeros((20, 5), np.float32))
    capsys.readouterr()
    if name != "cevae":
        assert main(["train", pair, "--data", "rows.npz", "--epochs", "1", "--out", "other", "--quiet"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert re.match("pyrovae: .* needs the argument '(c|lengths)', which the data do not have", lines[-1])
