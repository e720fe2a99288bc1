"""Options of the command line that would change nothing are refused, each in one line with status 2."""

import json

import pytest

from pyrovae.cli import main

TINY = "--data digits --binarize static --epochs 1 --hidden 4 --quiet"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idle") / "run"
    assert main(f"train gaussian {TINY} --latent-dim 2 --out {folder}".split()) == 0
    return folder


COMMANDS = {
    "evaluate RUN --baselines knn": "baselines are imputers of tables",
    "evaluate RUN --fit-steps 7": "--fit-steps is for an auto-decoder, whose held-out rows are fitted, got 7",
    "evaluate RUN --missing-mode fixed": "--missing-mode is for evaluate --missing; give --missing too",
    "evaluate RUN --missing-pattern block": "--missing-pattern is for evaluate --missing",
    "evaluate RUN --refine 3": "--refine is for evaluate --missing",
    "evaluate RUN --missing 0.5 --chunk-size 3": "--chunk-size is not for --missing; leave out one of them",
    "evaluate RUN --missing 0.5 --baselines knn": "--baselines is not for --missing",
    "evaluate RUN --missing 0.5 --fit-steps 7": "--fit-steps is for an auto-decoder",
    "evaluate RUN --missing 0.5 --compile": "--compile is not for --missing",
    "evaluate RUN --inference-gap --condition a=1": "--condition is not for --inference-gap",
    "evaluate RUN --inference-gap --baselines knn": "--baselines is not for --inference-gap",
    "evaluate RUN --inference-gap --fit-steps 7": "--fit-steps is not for --inference-gap",
    "evaluate RUN --inference-gap --refine 3": "--refine is not for --inference-gap",
    "evaluate RUN --inference-gap --missing 0.5": "are two evaluations",
    "sample RUN --out OUT.npz --data digits": "--data is for --like",
    "encode RUN --out OUT.csv --fit-steps 7": "--fit-steps is for an auto-decoder",
    "plot RUN --out OUT --fit-steps 7": "--fit-steps is for an auto-decoder",
    "report RUN --out OUT.html --fit-steps 7": "--fit-steps is for an auto-decoder",
    "sweep --collect RUN --jobs 3": "--jobs is for training; --collect trains nothing",
    "sweep --collect RUN --evaluate": "--evaluate is for training",
    f"train gaussian {TINY} --out OUT --activation tanh": "activation is for plain and residual layers",
    f"train gaussian {TINY} --out OUT --lr objective=0.1": "lr names the group 'objective', which has no parameters",
    f"train semi-supervised {TINY} --out OUT --truncation 9": "truncation is for a stick-breaking latent, got 9",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_refused_in_one_line(command, run, tmp_path, capsys):
    words = command.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")).split()
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert COMMANDS[command] in said[-1]
    assert not (tmp_path / "out").exists()


def test_a_grid_says_so_before_anything_runs(tmp_path, capsys):
    """And a list of grids, which the message asks for, is taken."""
    grid = {"pair": "semi-supervised", "data": "digits", "latent": ["gaussian", "stick-breaking"], "truncation": 4}
    small = {"epochs": 1, "hidden": "4", "labels": 0.5, "binarize": "static"}
    (tmp_path / "grid.json").write_text(json.dumps(grid | small))
    words = ["sweep", str(tmp_path / "grid.json"), "--out", str(tmp_path / "sweep"), "--quiet"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "truncation is for a stick-breaking latent, got 4" in said
    assert "a list of grids" in said
    assert not (tmp_path / "sweep").exists()
    sticks = {**grid, **small, "latent": "stick-breaking"}
    normal = {k: v for k, v in {**sticks, "latent": "gaussian", "latent_dim": 2}.items() if k != "truncation"}
    (tmp_path / "grid.json").write_text(json.dumps([sticks, normal]))
    assert main(words) == 0
