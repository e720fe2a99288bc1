"""`pyrovae evaluate RUN --missing`: tables and figures of the errors of hidden entries."""

import csv
import json

import numpy as np
import pytest
import torch
from command_line import error_of

from pyrovae import data, metrics
from pyrovae.cli import main
from pyrovae.data import hdf5
from pyrovae.data.patterns import random_mask
from pyrovae.runs import Run

TRAIN = ["--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--likelihood", "bernoulli", "--quiet"]


@pytest.fixture
def files(folder):
    """A run on HDF5 files, with files with holes beside the clean one."""
    digits = data.load("digits")
    hdf5.write_clean(digits, "digits.h5")
    hdf5.write_missing(digits, "digits.h5", [0.3, 0.7])
    assert main(["train", "gaussian", "--data", "digits.h5", "--kind", "unit", "--out", "run", *TRAIN]) == 0
    return folder


def lines(path):
    with open(path) as file:
        return [
            {name: float(value) for name, value in line.items() if name not in ("split", "weights")}
            for line in csv.DictReader(file)
        ]


def test_random_masks(folder, out):
    words = ["evaluate", "gaussian", "--missing", "0.2:0.8:0.3", "--num-samples", "3", "--num-rows", "30"]
    assert main(words) == 0
    shown = out().splitlines()
    assert [float(line.split()[0]) for line in shown[1:4]] == [0.2, 0.5, 0.8]
    found = lines("gaussian/missing-random.csv")
    assert [line["ratio"] for line in found] == [0.2, 0.5, 0.8]
    assert all(line["num_rows"] == 30 and line["error_of_mean"] > 0 for line in found)
    assert (folder / "gaussian" / "figures" / "missing_errors.png").stat().st_size > 1000
    assert main([*words, "--json"]) == 0
    again = json.loads(out())
    assert [error["error_missing"] for error in again] == [line["error_missing"] for line in found]
    assert main([*words, "--seed", "1", "--json"]) == 0
    assert json.loads(out())[0]["error_missing"] != again[0]["error_missing"]


def test_figures_are_those_of_the_library(folder, out):
    assert main(["evaluate", "gaussian", "--missing", "0.4", "--num-samples", "3", "--json"]) == 0
    (found,) = json.loads(out())
    run = Run.open("gaussian")
    rows = run.dataset().test
    mask = random_mask(rows.x.shape[1:], len(rows), 0.4, generator=torch.Generator().manual_seed(0))
    (expected,) = metrics.missing_errors(run.load_vae(), rows, {0.4: mask}, num_samples=3)
    assert found["error_all"] == pytest.approx(expected.error_all, rel=1e-6)


def test_refined_and_blocks_have_files_of_their_own(folder, out):
    words = ["evaluate", "gaussian", "--missing", "0.5", "--num-samples", "3", "--num-rows", "20"]
    assert main(words) == 0
    assert main([*words, "--refine", "3"]) == 0
    assert main([*words, "--missing-pattern", "block"]) == 0
    names = {path.name for path in (folder / "gaussian").glob("missing*.csv")}
    assert names == {"missing-random.csv", "missing-random-refined-3.csv", "missing-random-block.csv"}
    out()
    assert main(["plot", "gaussian"]) == 0
    assert "gaussian/figures/missing_errors.png" in out().splitlines()


def test_an_auto_decoder_is_fitted(folder, out):
    words = ["--data", "digits", "--binarize", "static", *TRAIN]
    assert main(["train", "auto-decoder", "--out", "vad", *words]) == 0
    assert (
        main(["evaluate", "vad", "--missing", "0.5", "--num-rows", "20", "--fit-steps", "5", "--num-samples", "3"]) == 0
    )
    assert lines("vad/missing-random.csv")[0]["num_rows"] == 20


def test_fixed_masks_are_those_of_the_files(files, out):
    assert main(["evaluate", "run", "--missing", "0.3,0.7", "--missing-mode", "fixed", "--num-samples", "3"]) == 0
    found = lines("run/missing-fixed.csv")
    truth, holes = hdf5.read_missing("digits_0.7.h5")
    assert found[1]["share_missing"] == pytest.approx(float((~holes.mask).mean()))
    rows, mask = data.Rows(torch.tensor(truth.x)), torch.tensor(holes.mask)
    (expected,) = metrics.missing_errors(Run.open("run").load_vae(), rows, {0.7: mask}, num_samples=3)
    assert found[1]["error_missing"] == pytest.approx(expected.error_missing, rel=1e-5)


def test_a_sweep_draws_what_its_points_have(folder, out):
    grid = {"pair": "gaussian", "data": "digits", "epochs": 1, "hidden": "8", "latent_dim": [2, 3]}
    (folder / "grid.json").write_text(json.dumps({**grid, "likelihood": "bernoulli"}))
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet"]) == 0
    for name in ("latent_dim=2", "latent_dim=3"):
        assert main(["evaluate", f"grid/{name}", "--missing", "0.5", "--num-samples", "2", "--num-rows", "9"]) == 0
    out()
    assert main(["sweep", "--collect", "grid"]) == 0
    assert out().splitlines()[1] == "grid/figures/missing_errors.png"
    with open("grid/results.csv") as file:
        collected = list(csv.DictReader(file))
    for row in collected:
        (found,) = lines(f"grid/{row['run']}/missing-random.csv")
        assert float(row["error_missing.random.0.5"]) == found["error_missing"]


def test_errors_of_earlier_weights_are_left_out(folder, out, capsys):
    grid = {"pair": "gaussian", "data": "digits", "epochs": 1, "hidden": "8", "latent_dim": [2, 3]}
    (folder / "grid.json").write_text(json.dumps({**grid, "likelihood": "bernoulli"}))
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet", "--evaluate"]) == 0
    words = ["--missing", "0.5", "--num-samples", "2", "--num-rows", "9"]
    for name in ("latent_dim=2", "latent_dim=3"):
        assert main(["evaluate", f"grid/{name}", *words]) == 0
    assert main(["resume", "grid/latent_dim=3", "--epochs", "4", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["sweep", "--collect", "grid"]) == 0
    assert "latent_dim=3: errors of missing entries (random) were measured with earlier" in capsys.readouterr().err
    with open("grid/results.csv") as file:
        first, second = csv.DictReader(file)
    assert float(first["error_missing.random.0.5"]) > 0
    assert second["error_missing.random.0.5"] == ""
    # The figures of the point are those of the longer training, and its old evaluation is none of them.
    epochs = Run.open("grid/latent_dim=3").folder.read_metrics()
    assert (int(first["epochs_done"]), int(second["epochs_done"])) == (1, 4)
    assert float(second["loss"]) == pytest.approx(epochs[int(second["best_epoch"]) - 1]["loss"])
    assert float(first["test_cross_entropy"]) > 0
    assert second["test_cross_entropy"] == ""
    assert main(["plot", "grid/latent_dim=3"]) == 0
    captured = capsys.readouterr()
    assert "missing_errors" not in captured.out
    assert "measured with earlier weights" in captured.err
    assert main(["evaluate", "grid/latent_dim=3", *words]) == 0
    assert main(["evaluate", "grid/latent_dim=3", "--num-samples", "20"]) == 0
    assert main(["sweep", "--collect", "grid"]) == 0
    with open("grid/results.csv") as file:
        _, second = csv.DictReader(file)
    assert float(second["error_missing.random.0.5"]) > 0
    assert float(second["test_cross_entropy"]) > 0


def test_other_rows_than_test_rows_have_files_of_their_own(folder, out):
    words = ["evaluate", "gaussian", "--missing", "0.5", "--num-samples", "2", "--num-rows", "9"]
    assert main(words) == 0
    held_out = (folder / "gaussian" / "missing-random.csv").read_text()
    assert main([*words, "--split", "train"]) == 0
    digits = data.load("digits")
    other = {"x_train": digits.train.x[:50], "x_validation": digits.train.x[50:90], "x_test": digits.train.x[100:140]}
    np.savez(folder / "others.npz", **{name: x.numpy() for name, x in other.items()})
    assert main([*words, "--data", "others.npz"]) == 0
    assert {path.name for path in (folder / "gaussian").glob("missing-*")} == {
        f"missing-random{more}.csv" for more in ("", "-train", "-others")
    }
    assert (folder / "gaussian" / "missing-random.csv").read_text() == held_out
    assert ",train," in (folder / "gaussian" / "missing-random-train.csv").read_text().splitlines()[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gaussian", "--missing", "0.1:1.5:0.7"], "shares between 0 and 1"),
        (["gaussian", "--missing", "half"], "shares between 0 and 1"),
        (["gaussian", "--missing", "0.5:0.1:0.1"], "shares between 0 and 1"),
        (["gaussian", "--missing", "0.5", "--missing-pattern", "points"], "has no points"),
        (["gaussian", "--missing", "0.5", "--refine", "-2"], "--refine must be at least 0, got -2"),
        (["gaussian", "--missing", "0.5", "--num-rows", "0"], "--num-rows must be at least 1, got 0"),
        (["gaussian", "--missing", "0.5", "--num-samples", "0"], "--num-samples must be at least 1, got 0"),
        (["gaussian", "--missing", "0.5", "--condition", "mu=1"], "--condition is not for --missing"),
        (["gaussian", "--refine", "3"], "--refine is for evaluate --missing"),
        (["gaussian", "--missing-pattern", "block"], "--missing-pattern is for evaluate --missing"),
        (["gaussian", "--missing", "0.5", "--missing-mode", "fixed"], "these are digits; give --data PREFIX.h5"),
        (
            ["run", "--missing", "0.3,0.5", "--missing-mode", "fixed"],
            "share of 0.5 missing beside digits.h5, only of 0.3",
        ),
        (["run", "--missing", "0.3", "--missing-mode", "fixed", "--split", "train"], "takes test rows"),
    ],
)
def test_refused(words, message, files, capsys, out):
    out()
    assert message in error_of(["evaluate", *words], capsys)
    assert not list(files.glob("*/missing*"))


def test_tables_have_figures_of_their_own(folder, capsys, out):
    words = ["--data", "clinic", "--epochs", "1", "--latent-dim", "2", "--hidden", "8", "--quiet"]
    assert main(["train", "tabular", "--out", "table", *words]) == 0
    out()
    assert "hides entries of tables as it is" in error_of(["evaluate", "table", "--missing", "0.5"], capsys)


def test_a_damaged_table_of_errors(folder, capsys, out):
    (folder / "gaussian" / "missing-random.csv").write_text("ratio,error\n0.5,1\n")
    assert main(["plot", "gaussian"]) == 2
    assert "missing-random.csv is damaged" in capsys.readouterr().err
