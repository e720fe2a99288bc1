"""`pyrovae sweep`: grids of options of `train`, one run folder for each point."""

import csv
import json
import re

import pandas as pd
import pytest
from command_line import error_of, files_in

from pyrovae.cli import main
from pyrovae.cli.sweeping import words_of
from pyrovae.metrics.missing import MissingError
from pyrovae.runs import Run

BASE = {"pair": "gaussian", "data": "digits", "epochs": 2, "hidden": "8", "likelihood": "bernoulli"}


def write_grid(folder, **options):
    (folder / "grid.json").write_text(json.dumps({**BASE, **options}))


def test_points_are_trained_collected_and_not_trained_again(folder, out):
    write_grid(folder, latent_dim=[2, 3])
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet"]) == 0
    assert out() == "2 of 2 points finished; run folders in grid\n"
    before = files_in("grid")
    assert main(["sweep", "grid.json", "--out", "grid"]) == 0
    assert files_in("grid") == before
    assert "latent_dim=2: loss" in out()
    assert main(["sweep", "--collect", "grid"]) == 0
    assert out() == "2 points (2 finished): grid/results.csv\n"
    table = pd.read_csv("grid/results.csv")
    assert table["latent_dim"].tolist() == [2, 3]
    for name, loss in zip(table["run"], table["validation_loss"], strict=True):
        rows = Run.open(folder / "grid" / name).folder.read_metrics()
        assert loss == min(row["validation_loss"] for row in rows)


def test_failed_points_make_the_status(folder, out, capsys):
    write_grid(folder, latent_dim=[2, 0])
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet"]) == 1
    assert out().splitlines() == [
        "1 of 2 points finished; run folders in grid",
        "failed: latent_dim=0: ValueError: latent_dim must be at least 1, got 0",
        "the same command tries the failed points again",
    ]
    assert main(["sweep", "--collect", "grid", "--out", "mine.csv"]) == 0
    assert pd.read_csv("mine.csv").set_index("latent_dim")["state"].to_dict() == {2: "finished", 0: "failed"}


def test_a_broken_off_point_goes_on(folder, capsys, monkeypatch):
    options = {"pair": "mymodule:make_vae", "data": "digits", "epochs": 3, "z_dim": [2, 3], "binarize": "static"}
    (folder / "grid.json").write_text(json.dumps(options))
    monkeypatch.setenv("TEST_INTERRUPT_AT", "25")
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert (folder / "grid" / "z_dim=2" / "config.json").exists()
    monkeypatch.delenv("TEST_INTERRUPT_AT")
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet"]) == 0
    assert main(["sweep", "grid.json", "--out", "whole", "--quiet"]) == 0
    broken, whole = (Run.open(f"{name}/z_dim=2", "mymodule:make_vae") for name in ("grid", "whole"))
    assert broken.folder.weights_path.read_bytes() == whole.folder.weights_path.read_bytes()
    rows = zip(broken.folder.read_metrics(), whole.folder.read_metrics(), strict=True)
    assert all(one["loss"] == other["loss"] for one, other in rows)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({**BASE, "latent": 3}, "'latent', which train gaussian does not have; it has activation, "),
        ({**BASE, "truncation": [3]}, "'truncation', which train gaussian does not have"),
        ({**BASE, "latent_dim": [2, "many"]}, "--latent-dim: invalid int value: 'many'"),
        ({**BASE, "pair": ["gaussian", "gausian"]}, "unknown pair 'gausian'; known are "),
        ({"data": "digits"}, "must say 'pair'"),
        ({"pair": "gaussian"}, "must say 'data'"),
        ({**BASE, "out": "there"}, "'out' is no option of a grid"),
        ({**BASE, "latent_dim": True}, "takes a value, got true"),
        ({**BASE, "optimizer": "adamm"}, "adamm"),
        ({**BASE, "drop_last": "yes"}, "what train does not take: yes (option 'drop_last')"),
        ({**BASE, "epochs": [1, 0]}, "epochs must be positive, got 0"),
        ({**BASE, "data": ["digits", "digitz"]}, "no data set, file or folder 'digitz'; known are "),
        ({**BASE, "data": "mine.npz"}, "there is no file or folder mine.npz"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(grid, message, folder, capsys):
    (folder / "grid.json").write_text(json.dumps(grid))
    assert message in error_of(["sweep", "grid.json", "--out", "grid"], capsys)
    assert not (folder / "grid").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid.json"], "needs a grid and a folder"),
        (["--out", "grid"], "needs a grid and a folder"),
        (["grid.json", "--collect", "grid"], "takes no grid"),
        (["--collect", "nowhere"], "holds no points"),
        (["nowhere.json", "--out", "grid"], "nowhere.json: No such file"),
        (["half.json", "--out", "grid"], "half.json is no JSON file"),
        (["twice.json", "--out", "grid"], "twice.json names 'epochs' twice in one grid"),
        (["grid.json", "--out", "grid", "--jobs", "0"], "at least 1, got 0"),
        (["grid.json", "--out", "grid", "--backend", "slurm"], "slurm"),
    ],
)
def test_wrong_arguments(words, message, folder, capsys):
    write_grid(folder)
    (folder / "half.json").write_text('{"pair": ')
    (folder / "twice.json").write_text('{"pair": "gaussian", "data": "digits", "epochs": 1, "epochs": 2}')
    assert message in error_of(["sweep", *words, *([] if "--collect" in words else ["--quiet"])], capsys)


def test_words_are_those_of_train(folder):
    point = {"pair": "tabular", "data": "a.csv", "column-kind": ["a=real", "b=count"], "trees": False, "kl_weight": -1}
    assert " ".join(words_of(point, folder / "x")) == (
        f"train tabular --data a.csv --column-kind a=real --column-kind b=count --no-trees --kl-weight=-1 "
        f"--out {folder / 'x'} --quiet"
    )


def test_switches(folder, out):
    write_grid(folder, sees_mask=[True, False], compile=False, epochs=1)
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet", "--evaluate"]) == 0
    sizes = {}
    for name in ("sees_mask=True", "sees_mask=False"):
        run = Run.open(folder / "grid" / name)
        assert "compile" not in run.config["training"]
        sizes[name] = next(run.load_vae().guide.encoder.parameters()).shape[1]
        figures = json.loads((folder / "grid" / name / "result.json").read_text())["figures"]
        assert re.fullmatch(r"\d+\.\d+", str(figures["test_cross_entropy"]))
        kept = json.loads((folder / "grid" / name / "metrics.json").read_text())["test"]["figures"]
        assert kept["cross_entropy"] == figures["test_cross_entropy"], "reports show it"
    assert sizes == {"sees_mask=True": 128, "sees_mask=False": 64}


def test_the_folder_of_a_run_takes_no_sweep(folder, capsys):
    (folder / "grid.json").write_text(json.dumps(BASE))
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    assert main(["sweep", "grid.json", "--out", "run"]) == 2
    assert (
        capsys.readouterr().err == "pyrovae: run is the folder of a run; give another --out for the runs of a sweep\n"
    )
    assert [path.name for path in (folder / "run").iterdir()] == ["config.json"]


def test_points_that_are_damaged_or_older_do_not_end_the_collection(folder, out):
    write_grid(folder, latent_dim=[2, 3])
    assert main(["sweep", "grid.json", "--out", "grid", "--quiet"]) == 0
    points = sorted(path.parent for path in (folder / "grid").glob("*/point.json"))
    older = json.loads((points[0] / "result.json").read_text())
    del older["weights"]  # as of an earlier version
    (points[0] / "result.json").write_text(json.dumps(older))
    fields = MissingError._fields
    (points[0] / "missing-random.csv").write_text(f"{','.join(fields)}\n{','.join('1' for _ in fields)}\n")
    (points[1] / "last" / "state.safetensors").write_bytes(b"no state")
    out()
    assert main(["sweep", "--collect", "grid"]) == 0
    assert "1 damaged" in out()
    with open("grid/results.csv") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert float(rows[points[0].name]["loss"]) == older["figures"]["loss"]
    assert rows[points[1].name]["state"] == "damaged"
    assert "state.safetensors" in rows[points[1].name]["error"]
