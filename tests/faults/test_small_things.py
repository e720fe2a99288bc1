"""Odd numbers, options without effect, early Ctrl-C: one line each, or what is meant."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from pairs import linear_pair

from pyrovae import data
from pyrovae.cli import main
from pyrovae.estimators import VAEClassifier
from pyrovae.pairs import find_pair
from pyrovae.runs import Run
from pyrovae.storage import CheckpointError
from pyrovae.training import Callback, Trainer, TrainingInterrupted

TINY = {"hidden": (4,), "latent_dim": 2}


@pytest.mark.parametrize("labels", [float("inf"), float("nan"), -1.0, 0.0])
def test_labels(labels):
    with pytest.raises(ValueError, match="labels must be a share of the 1200 training rows"):
        data.load("digits", labels=labels)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("checkpoint_seconds", float("nan")),
        ("checkpoint_seconds", -1.0),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch_size", float("nan")),
        ("batch_size", float("inf")),
        ("patience", 1.5),
        ("gradient_clip", float("nan")),
    ],
)
def test_options_that_are_no_numbers(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        Trainer(**{option: value})


def test_numbers_of_numpy(tmp_path):
    training = {"epochs": np.int64(1), "batch_size": np.int32(500), "lr": np.float32(0.01), "seed": np.uint8(3)}
    options = {"latent_dim": np.int64(2), "hidden": (np.int64(4),)}
    run = Run.create(tmp_path / "run", "gaussian", options, {"name": "digits", "seed": 1}, training)
    run.train(progress=False)
    stored = Run.open(tmp_path / "run").config
    assert stored["training"]["epochs"] == 1
    assert stored["pair_options"] == {"latent_dim": 2, "hidden": [4]}
    vae = find_pair("gaussian").build(data.load("digits"), **options)
    vae.save(tmp_path / "saved")
    Trainer(epochs=np.int64(1), progress=False).fit(linear_pair(), torch.randn(40, 5), run=tmp_path / "own")
    Trainer(epochs=2, progress=False).fit(linear_pair(), torch.randn(40, 5), run=tmp_path / "own", overwrite=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"channels": (8, 16)}, "channels is for convolutional nets"),
        (
            {"likelihood_scale": 0.5, "likelihood": "bernoulli"},
            "likelihood_scale is for the likelihood normal, got 0.5",
        ),
        ({"likelihood_scale": 0.5, "likelihood": "normal-learned"}, "or give likelihood='normal'"),
        ({"num_components": 3}, "num_components is for the priors mixture and vamp, got 3; leave it out"),
    ],
    ids=str,
)
def test_options_without_effect(options, match):
    digits = data.load("digits")
    with pytest.raises(ValueError, match=match):
        find_pair("gaussian").build(digits, **TINY, **options)
    find_pair("gaussian").build(digits, **TINY, likelihood="normal", likelihood_scale=0.5)
    find_pair("gaussian").build(digits, hidden=(4,), latent_dim=2, net="conv", channels=(2, 3))


def test_score_of_rows_without_a_label():
    x = np.random.RandomState(0).normal(size=(40, 3))
    y = (x[:, 0] > 0).astype(int)
    y[:10] = -1
    classifier = VAEClassifier(epochs=1, hidden=(4,), n_components=2).fit(x, y)
    with pytest.raises(ValueError, match=r"10 of 40 rows have no label \(-1\)"):
        classifier.score(x, y)
    assert classifier.score(x[10:], y[10:]) == np.mean(classifier.predict(x[10:]) == y[10:])


def test_a_run_that_was_stopped_in_its_first_epoch(tmp_path, monkeypatch, capsys):
    class Stop(Callback):
        def on_batch(self, progress):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    options = {"epochs": 2, "batch_size": 500}
    run = Run.create("run", "gaussian", TINY, {"name": "digits"}, options)
    with pytest.raises(TrainingInterrupted):
        run.train(progress=False, callbacks=[Stop()])
    with pytest.raises(CheckpointError, match="stopped before its first epoch had ended, so nothing was trained yet"):
        Run.open("run").load_vae()
    assert main(["evaluate", "run", "--num-samples", "2"]) == 2
    assert "go on with it: pyrovae resume run" in capsys.readouterr().err
    assert main(["resume", "run", "--quiet"]) == 0
    assert Run.open("run").evaluate(num_samples=2)["num_rows"] == 297


def test_ctrl_c_in_the_first_second(tmp_path):
    """While the modules are imported, as well as later."""
    words = ["train", "gaussian", "--data", "digits", "--epochs", "100000", "--out", str(tmp_path / "run"), "--quiet"]
    code = f"import sys; from pyrovae.cli import main; print('on', flush=True); sys.exit(main({words}))"
    for delay in (0.0, 0.4):
        command = [sys.executable, "-c", code]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Whoever runs the tests in the background has Ctrl-C ignored, which a child inherits.
        heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(command, text=True, env=dict(os.environ), preexec_fn=heeds, **pipes) as process:
            assert process.stdout.readline() == "on\n"
            time.sleep(0.1 + delay)
            process.send_signal(signal.SIGINT)
            try:
                _, error = process.communicate(timeout=120)
            finally:
                process.kill()
        assert process.returncode == 130
        assert error == "pyrovae: interrupted\n"
