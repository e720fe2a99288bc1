"""Held-out figures that a run folder keeps: which are kept, and that they are those that were found."""

import json
import math

import numpy as np
import pytest
import torch

from pyrovae.data import load
from pyrovae.runs import Run, evaluations
from pyrovae.storage import CheckpointError, digest_of

TINY = {"epochs": 1, "batch_size": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    data = {"name": "digits", "binarize": "static"}
    Run.create(path, "gaussian", {"latent_dim": 2, "hidden": (8,)}, data, TINY).train(progress=False)
    return path


@pytest.fixture
def run(folder):
    (folder / "metrics.json").unlink(missing_ok=True)
    return Run.open(folder)


def test_figures_are_kept_by_split(run):
    assert evaluations.kept(run.folder) == {}
    run.evaluate(num_samples=2)
    assert evaluations.kept(run.folder) == {}  # only on request
    first = run.evaluate("validation", num_samples=2, keep=True)
    test = run.evaluate(num_samples=2, seed=3, num_rows=20, keep=True)
    found = evaluations.kept(run.folder)
    assert {split: part.figures for split, part in found.items()} == {"validation": first, "test": test}
    assert (found["validation"].seed, found["test"].seed) == (0, 3)
    assert found["test"].weights == digest_of((run.folder.path / "model.safetensors").read_bytes())
    again = run.evaluate("validation", num_samples=3, keep=True)
    assert evaluations.kept(run.folder)["validation"].figures == again != first


def test_figures_of_other_data_are_not_kept(run):
    other = load("digits", binarize="static", seed=5)
    run.on(other).evaluate(num_samples=2, keep=True)
    assert not (run.folder.path / "metrics.json").exists()


def test_a_new_training_forgets_them(tmp_path):
    run = Run.create(tmp_path / "run", "gaussian", {"latent_dim": 2, "hidden": (4,)}, {"name": "digits"}, TINY)
    run.train(progress=False)
    run.evaluate(num_samples=1, keep=True)
    told = ("metrics.json", "inference-gap.csv", "missing-random.csv", "report.html")
    for name in told[1:]:
        (run.folder.path / name).write_text("of the first training")
    run.train(progress=False, overwrite=True)
    assert evaluations.kept(run.folder) == {}
    assert not any((run.folder.path / name).exists() for name in told)


@pytest.mark.parametrize("text", ["", "[]3", "7", '{"test": 3}', '{"test": {"figures": {"split": "train"}}}', "[[1]]"])
def test_a_damaged_file_is_one_line(run, text):
    path = run.folder.path / "metrics.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"metrics.json is damaged .*evaluate again") as refused:
        evaluations.kept(run.folder)
    assert "\n" not in str(refused.value)
    record = run.evaluate(num_samples=2, keep=True)  # which replaces it
    assert json.loads(path.read_text())["test"]["figures"] == record


def test_a_folder_that_cannot_be_written_to_loses_no_figures(run, monkeypatch, caplog):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluations, "write_atomically", full)
    assert run.evaluate(num_samples=2, keep=True)["num_samples"] == 2
    assert "the figures are not kept" in caplog.text
    assert "No space left on device" in caplog.text


def test_standard_errors_are_those_of_the_rows(run):
    """The bound and the KL of single rows, drawn anew, have means that lie as far apart as the errors say."""
    record = run.evaluate(num_samples=2)
    vae, rows = run.load_vae(), run.dataset().test
    with torch.no_grad():
        _, nll, kl = vae.bound_terms(rows.x)
        wrong = (vae.reconstruct(rows.x) - rows.x).square().flatten(1).mean(1)
    errors = record["standard_errors"]
    number = len(rows)
    assert errors["kl"] == pytest.approx(float(np.std(kl.numpy(), ddof=1)) / math.sqrt(number), rel=1e-4)
    assert errors["bound"] == pytest.approx(
        float(np.std((nll + kl).numpy(), ddof=1)) / math.sqrt(number), rel=0.25
    )  # of two draws
    assert errors["reconstruction_error"] == pytest.approx(np.std(wrong.numpy(), ddof=1) / math.sqrt(number), rel=1e-3)
    share = record["knn_error_5"]
    # A binomial count of so many rows.
    assert errors["knn_error_5"] == pytest.approx(
        np.std([1.0] * round(share * number) + [0.0] * round((1 - share) * number)) / math.sqrt(number)
    )
    assert run.evaluate(num_samples=2, num_rows=1)["standard_errors"]["kl"] is None


def test_the_configuration_holds_versions(folder):
    versions = Run.open(folder).config["versions"]
    assert versions["torch"] == torch.__version__
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"python", "torch", "pyro-ppl", "numpy", "scikit-learn"}
