"""`pyrovae encode`, `sample --class`, `plot --out` and `datasets NAME`: as a newcomer asks for them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import TINY, error_of

from pyrovae.cli import main
from pyrovae.metrics import stick_weights
from pyrovae.runs import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One small run of each family, by name."""
    root = tmp_path_factory.mktemp("runs")
    words = {
        "gaussian": [*TINY],
        "sticks": ["--truncation", "4", "--epochs", "1", "--hidden", "8", "--quiet"],
        "classes": ["--epochs", "10", "--hidden", "64", "--latent-dim", "2", "--lr", "0.003", "--quiet"],
    }
    pairs = {"gaussian": "gaussian", "sticks": "stick-breaking", "classes": "semi-supervised"}
    for name, options in words.items():
        line = ["train", pairs[name], "--data", "digits", "--binarize", "static", "--out", str(root / name)]
        assert main([*line, *options]) == 0
    return root


def test_gaussian_latents_are_those_of_the_guide(runs, tmp_path, capsys):
    out = tmp_path / "latents.csv"
    assert main(["encode", str(runs / "gaussian"), "--out", str(out)]) == 0
    assert "297 test rows" in capsys.readouterr().out
    table, run = pd.read_csv(out), Run.open(runs / "gaussian")
    names = ["row", "label", "z_mean_1", "z_mean_2", "z_scale_1", "z_scale_2"]
    assert list(table) == names
    assert table.row.tolist() == list(range(297))
    test = run.dataset().test
    with torch.no_grad():
        q = run.load_vae().encode(test.x)
    np.testing.assert_allclose(table[names[2:4]], q.base_dist.loc, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table[names[4:]], q.base_dist.scale, rtol=1e-4, atol=1e-5)
    assert table.label.tolist() == test.y.tolist()


def test_formats_hold_the_same(runs, tmp_path, capsys):
    for name in ("a.csv", "a.csv.gz", "a.parquet", "a.npz"):
        assert main(["encode", str(runs / "gaussian"), "--split", "validation", "--out", str(tmp_path / name)]) == 0
    first, second = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(first, second.astype(float), rtol=1e-5)
    np.testing.assert_allclose(first, pd.read_csv(tmp_path / "a.csv.gz"))
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_allclose(arrays["z_mean"], first[["z_mean_1", "z_mean_2"]], rtol=1e-5)
        assert set(arrays) == {"row", "label", "z_mean", "z_scale"}


def test_all_splits_stand_one_after_the_other(runs, tmp_path, capsys):
    assert main(["encode", str(runs / "gaussian"), "--split", "all", "--out", str(tmp_path / "a.npz")]) == 0
    with np.load(tmp_path / "a.npz") as arrays:
        names, counts = np.unique(arrays["split"], return_counts=True)
        assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
            "test": 297,
            "train": 1200,
            "validation": 300,
        }


def test_weights_of_sticks(runs, tmp_path, capsys):
    assert main(["encode", str(runs / "sticks"), "--out", str(tmp_path / "a.npz")]) == 0
    run = Run.open(runs / "sticks")
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_allclose(arrays["weights"].sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(arrays["weights"], stick_weights(run.load_vae(), run.dataset().test.x), rtol=1e-5)
        fractions = arrays["z_mean"]
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_allclose(arrays["weights"][:, 1], (1 - fractions[:, 0]) * fractions[:, 1], rtol=1e-4)


def test_probabilities_of_classes(runs, tmp_path, capsys):
    """They are sums to one, and look at no label."""
    assert main(["encode", str(runs / "classes"), "--out", str(tmp_path / "a.csv")]) == 0
    table = pd.read_csv(tmp_path / "a.csv")
    found = table[[f"y_probability_{number}" for number in range(10)]].to_numpy()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    error = (found.argmax(1) != table.label).mean()
    assert main(["evaluate", str(runs / "classes"), "--num-samples", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["classification_error"] == pytest.approx(error)


def test_other_rows(runs, tmp_path, capsys):
    digits = Run.open(runs / "gaussian").dataset()
    np.save(tmp_path / "mine.npy", digits.test.x[:7].numpy())
    words = ["encode", str(runs / "gaussian"), "--input", str(tmp_path / "mine.npy"), "--out", str(tmp_path / "a.csv")]
    assert main(words) == 0
    assert len(pd.read_csv(tmp_path / "a.csv")) == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "a.txt"], "must end in .csv, .csv.gz, .parquet or .npz"),
        (["--out", "there.csv"], "exists; give another --out, or --overwrite"),
        (["--out", "a.csv", "--fit-steps", "-1"], "--fit-steps must be at least 0"),
        (["--out", "a.csv", "--input", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_what_encode_refuses(words, said, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    assert said in error_of(["encode", str(runs / "gaussian"), *words], capsys)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_samples_of_a_class(runs, tmp_path, capsys):
    """Digits of one class are alike; drawn means of a class are nearer to its own mean than to others'."""
    out, run = tmp_path / "threes.npz", Run.open(runs / "classes")
    words = ["sample", str(runs / "classes"), "--class", "0", "--num", "200", "--output", "mean", "--out", str(out)]
    assert main(words) == 0
    with np.load(out) as arrays:
        mean = torch.tensor(arrays["x"]).mean(0)
    train = run.dataset().train
    distances = [float((train.x[train.y == label].mean(0) - mean).square().sum()) for label in range(10)]
    assert np.argmin(distances) == 0
    capsys.readouterr()
    assert "exists" in error_of(words, capsys)
    assert "numbers from 0 to 9" in error_of([*words[:3], "10", *words[4:], "--overwrite"], capsys)


def test_a_class_of_another_pair(runs, tmp_path, capsys):
    words = ["sample", str(runs / "gaussian"), "--class", "3", "--out", str(tmp_path / "a.png")]
    assert "for pairs that infer a class" in error_of(words, capsys)


def test_figures_into_another_folder(runs, tmp_path, capsys):
    words = ["plot", str(runs / "gaussian"), "--out", str(tmp_path / "figures")]
    assert main(words) == 0
    assert (tmp_path / "figures" / "samples.png").exists()
    assert not (runs / "gaussian" / "figures" / "samples.png").exists()
    capsys.readouterr()
    before = (tmp_path / "figures" / "samples.png").read_bytes()
    assert "exists" in error_of(words, capsys)
    assert (tmp_path / "figures" / "samples.png").read_bytes() == before


def test_a_data_set_in_words(capsys):
    assert main(["datasets", "Digits"]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("1 x 8 x 8", "1200 for training", "scikit-learn", "built in"))
    assert "known are" in error_of(["datasets", "digitz"], capsys)


def test_default_folders_are_numbered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "gaussian-digits").mkdir(parents=True)
    (tmp_path / "runs" / "gaussian-digits" / "notes.txt").write_text("mine")
    for name in ("gaussian-digits-2", "gaussian-digits-3"):
        assert main(["train", "gaussian", "--data", "digits", *TINY]) == 0
        assert (tmp_path / "runs" / name / "model.safetensors").exists()
