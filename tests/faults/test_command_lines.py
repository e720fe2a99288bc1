"""Command lines of every verb, valid and mutated, where there is no run: each is right, or one line with status 2.

`benchmarks/faults.py words` draws them with runs of all families.
"""

import importlib.util
import random
from pathlib import Path

import pytest

from pyrovae.cli import main

ROOT = Path(__file__).parents[2]
TRAINS = ("train", "sweep")


def drawn(count, seed):
    """Lines of the generator of the campaign, but for those that would train."""
    spec = importlib.util.spec_from_file_location("command_lines", ROOT / "benchmarks" / "command_lines.py")
    lines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lines)
    generator = random.Random(seed)
    found = (lines.line(generator, number) for number in range(10 * count))
    return [words for words in found if words[0] not in TRAINS][:count]


def outcome(words, capsys):
    capsys.readouterr()
    try:
        status = main(words)
    except SystemExit as stop:  # after --help and --version
        status = stop.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize("seed", range(3))
def test_drawn_lines(seed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    counts = {0: 0, 2: 0}
    for words in drawn(50, seed):
        status, said = outcome(words, capsys)
        counts[status] += 1
        if status:
            assert sum(line.startswith("pyrovae: ") for line in said.splitlines()) == 1, (words, said)
    assert counts[2] > counts[0] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "gaussian", "--data", "digits", "--hidden", "--epochs", "1"], "--hidden: expected one argument"),
        (["train", "gaussian", "--data", "digits", "--epochs", "1" * 30, "--lr", "nan"], "lr must be positive"),
        (["train", "--data", "digits"], "train needs a pair and data"),
        (["encode", "run"], "required: --out"),
        (["sample", "run", "--out", ",.csv"], "run is no run folder"),
        (["evaluate", "run", "--num-rows", "cpu"], "--num-rows: invalid int value"),
        (["datasets", "a\nb"], "there is no data set"),
        (["plot", "run", "--overwrite"], "--overwrite is for --out DIR"),
        (["schema", "nowhere.csv"], "nowhere.csv"),
        ([""], "invalid choice"),
        ([], "required: VERB"),
    ],
)
def test_kinds_of_lines(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, line = outcome(words, capsys)
    assert status == 2
    assert said in line
    assert line.count("\n") == 1
    assert not list(tmp_path.iterdir())
