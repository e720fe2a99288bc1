"""A newcomer's table and folders: odd names, an empty column, a path with spaces, a folder that is not there."""

import numpy as np
import pandas as pd
import pytest

from pyrovae.cli import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table and a run of it."""
    folder = tmp_path_factory.mktemp("my folder")
    draws = np.random.default_rng(1)
    frame = pd.DataFrame({"Größe (cm)": draws.normal(170, 10, 60).round(1), "leer": np.nan, "const": 7})
    frame["Ort, Stadt"] = np.array(["Köln", "São Paulo"])[draws.integers(0, 2, 60)]
    frame["id"] = [f"p{number:03d}" for number in range(60)]
    frame.loc[::4, "Größe (cm)"] = np.nan
    frame.to_csv(folder / "Maße ä.csv", index=False)
    words = ["train", "tabular", "--data", str(folder / "Maße ä.csv"), "--out", str(folder / "der Lauf"), "--quiet"]
    assert main([*words, "--epochs", "1", "--hidden", "4", "--num-nets", "1", "--no-trees"]) == 0
    return folder


def test_a_column_without_a_value_stays_empty_and_is_named(place, capsys):
    """The table that a run was trained on is completed by it, whatever its columns hold."""
    out = place / "voll.csv"
    assert main(["impute", str(place / "der Lauf"), "--input", str(place / "Maße ä.csv"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "note: 'leer' had no value in the training, so nothing is known of it; it stays empty" in said.err
    assert "15 of 300 entries filled" in said.out
    completed = pd.read_csv(out)
    assert completed.pop("leer").isna().all()
    assert not completed.isna().any().any()


def test_values_that_no_training_row_has_are_told_by_column(place, caplog):
    words = ["train", "tabular", "--data", str(place / "Maße ä.csv"), "--out", str(place / "again"), "--quiet"]
    with caplog.at_level("INFO"):
        assert main([*words, "--epochs", "1", "--hidden", "4", "--num-nets", "1", "--no-trees"]) == 0
    assert "6 values of the test rows stand in no training row; taken as missing (6 of 'id')" in caplog.text


def test_a_folder_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 2
    assert f"{tmp_path / 'nowhere'} is no run folder: it does not exist" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 2
    assert f"{tmp_path} is no run folder: it has no config.json" in capsys.readouterr().err
