"""Rows that several processes evaluate and complete: the figures and the table are those of one process."""

import json

import numpy as np
import pairs_of_processes as together
import pandas as pd
import pytest

from pyrovae.cli import main

SMALL = ["--epochs", "3", "--latent-dim", "2", "--hidden", "16", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of a table that was trained by one process, and a table to complete."""
    folder = tmp_path_factory.mktemp("verbs")
    generator = np.random.default_rng(0)
    size = generator.normal(100, 20, 150)
    table = pd.DataFrame({"size": size, "price": 3 * size + generator.normal(0, 9, 150)})
    table["kind"] = np.where(size > 100, "house", "flat")
    table.to_csv(folder / "all.csv", index=False)
    some = table.iloc[:31].mask(generator.random((31, 3)) < 0.3)
    some.to_csv(folder / "some.csv", index=False)
    assert main(["train", "tabular", "--data", str(folder / "all.csv"), "--out", str(folder / "run"), *SMALL]) == 0
    return folder


def of_two(words):
    """What the first of two processes prints; the second one prints nothing."""
    (output, status), (nothing, other) = together.ended(together.started(2, ["-m", "pyrovae", *words]))
    assert (status, other, nothing) == (0, 0, ""), output
    return output


def parts_of(figures, name=""):
    """Figures by their names, those within others too; how long something took is none."""
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from parts_of(value, f"{name}{key}.")
        elif not f"{name}{key}".startswith("imputation_seconds"):
            yield f"{name}{key}", value


def test_evaluate(place, capsys):
    words = ["evaluate", str(place / "run"), "--num-samples", "20", "--json", "--device", "cpu", "--split", "train"]
    capsys.readouterr()
    assert main(words) == 0
    alone, shared = json.loads(capsys.readouterr().out), json.loads(of_two(words).splitlines()[-1])
    for (name, value), (other, expected) in zip(parts_of(shared), parts_of(alone), strict=True):
        assert name == other
        assert value == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected), name


@pytest.mark.parametrize("more", [[], ["--intervals", "0.8"], ["--draws", "3"]])
def test_impute(place, more):
    words = ["impute", str(place / "run"), "--input", str(place / "some.csv"), *more, "--device", "cpu"]
    assert main([*words, "--out", str(place / "alone.csv"), "--overwrite"]) == 0
    of_two([*words, "--out", str(place / "shared.csv"), "--overwrite"])
    alone, shared = (pd.read_csv(place / f"{name}.csv") for name in ("alone", "shared"))
    pd.testing.assert_frame_equal(shared, alone, rtol=1e-9)


def test_encode(place):
    words = ["encode", str(place / "run"), "--split", "all", "--device", "cpu"]
    assert main([*words, "--out", str(place / "alone.npz")]) == 0
    of_two([*words, "--out", str(place / "shared.npz")])
    alone, shared = (np.load(place / f"{name}.npz") for name in ("alone", "shared"))
    assert shared.files == alone.files
    for name in alone.files:
        if alone[name].dtype.kind == "f":
            np.testing.assert_allclose(shared[name], alone[name], rtol=1e-4, atol=1e-6)
        else:
            assert (shared[name] == alone[name]).all()
