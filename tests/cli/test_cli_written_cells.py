"""Completed CSV files keep what is written: codes with zeros in front, long numbers, spellings of levels."""

import csv

import numpy as np
from command_line import enter

from pyrovae.cli import main

ROWS = 60


def _columns():
    rng = np.random.default_rng(0)
    size = rng.normal(size=ROWS)
    return {
        "size": [f"{value:.2f}0" for value in size],
        "number": [str(12345678901234567 + i) for i in range(ROWS)],
        "code": [f"{i % 3:03d}" for i in range(ROWS)],
        "cents": [f"{i % 40}.00" for i in range(ROWS)],
        "signed": [f"{i - 20}.0" if i != 20 else "-0.0" for i in range(ROWS)],
        "flag": ["TRUE" if value > 0 else "FALSE" for value in size],
        "since": [f"2024-01-{1 + i % 28:02d}T08:00:00" for i in range(ROWS)],
        "words": ['a, "b"' if value > 0 else "c" for value in size],
    }


def _write(path, named_rows):
    hidden = np.random.default_rng(1).random((ROWS, 8)) < 0.1
    columns = _columns()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([""] * named_rows + list(columns))
        for i in range(ROWS):
            cells = ["" if hidden[i, j] else column[i] for j, column in enumerate(columns.values())]
            writer.writerow([f"row {i}"] * named_rows + cells)


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_observed_cells_stay_as_they_are_written(tmp_path, monkeypatch, capsys):
    enter(tmp_path, monkeypatch)
    given, out = tmp_path / "given.csv", tmp_path / "out.csv"
    train = ["train", "tabular", "--data", "given.csv", "--out", "run", "--no-trees", "--num-nets", "1"]
    impute = ["impute", "run", "--input", "given.csv", "--out", "out.csv", "--overwrite"]
    for named_rows in (False, True):
        _write(given, named_rows)
        if not named_rows:
            assert main([*train, "--hidden", "8", "--latent-dim", "2", "--epochs", "2", "--quiet"]) == 0
        for more, times in (([], 1), (["--draws", "2"], 2), (["--intervals", "0.8"], 1)):
            assert main([*impute, *more]) == 0
            before, after = _rows(given), _rows(out)
            assert len(after) == 1 + times * ROWS
            places = [after[0].index(name) for name in before[0]]
            for i, row in enumerate(after[1:]):
                for place, cell in zip(places, before[1 + i % ROWS], strict=True):
                    assert row[place] == cell if cell else row[place] != ""
            codes = {row[after[0].index("code")] for row in after[1:]}
            assert codes == {"000", "001", "002"}, "filled levels are written as the file writes them"
            assert {row[after[0].index("flag")] for row in after[1:]} == {"TRUE", "FALSE"}
            if "--intervals" in more:
                low = [row[after[0].index("number_low")] for row in after[1:]]
                seen = [row[before[0].index("number")] for row in before[1:]]
                assert all(end == cell for end, cell in zip(low, seen, strict=True) if cell)
    capsys.readouterr()
