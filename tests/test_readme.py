"""What the README shows works as it stands."""

import os
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

from pyrovae.cli.arguments import make_parser, named_pair

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PYTHON = [text for language, text in BLOCKS if language == "python"]
LINES = [line for language, text in BLOCKS if not language for line in text.splitlines()]
COMMANDS = [line.partition("#")[0].strip() for line in LINES if line.startswith("pyrovae ")]
MENTIONED = sorted(set(re.findall(r"`pyrovae (\w+)", README)))


def run_shortly(code, trainings):
    """What an example leaves behind, of as many trainings as expected, of two epochs each."""
    short, count = re.subn(r"epochs=\d+", "epochs=2, progress=False", code)
    assert count == trainings
    names = {"__name__": "example"}
    exec(compile(short, "README.md", "exec"), names)
    return names


def test_example(capsys):
    names = run_shortly(PYTHON[0], trainings=1)
    likelihood, shapes = capsys.readouterr().out.splitlines()
    assert shapes == "torch.Size([16, 1, 8, 8]) torch.Size([297, 4])"
    assert -64 < float(re.search(r"-[\d.]+", likelihood).group()) < 0
    assert torch.is_tensor(names["digits"].test.x)


def test_the_example_is_about_twenty_lines():
    assert sum(bool(line.strip()) for line in PYTHON[0].splitlines()) <= 25


def test_example_of_stacked_pairs(capsys):
    _, code = PYTHON
    names = run_shortly(code, trainings=2)
    assert re.fullmatch(r"\d+\.\d% of the test pictures are put into the wrong class\n", capsys.readouterr().out)
    assert names["features"].kind == "real"


def test_there_are_commands():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, tmp_path, monkeypatch):
    """Verbs and options exist; pairs of the reader's own are not looked for."""
    words = shlex.split(command)[1:]
    pair = None if "mymodule:make_vae" in words else named_pair(words)
    _, unknown = make_parser(pair).parse_known_args(words)
    assert not unknown


@pytest.mark.parametrize("verb", MENTIONED)
def test_verbs_that_the_text_mentions(verb):
    with pytest.raises(SystemExit) as stop:
        make_parser().parse_args([verb, "--help"])
    assert stop.value.code == 0


def test_every_verb_is_shown():
    assert {shlex.split(command)[1] for command in COMMANDS} == {
        "train",
        "resume",
        "grow",
        "evaluate",
        "sample",
        "plot",
        "datasets",
        "models",
    }


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [target for target in targets if "://" not in target and not os.path.exists(ROOT / target)]
    assert not missing


def test_the_picture_can_be_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_figures.py", "--epochs", "1", "--out", str(tmp_path / "digits.png")])
    runpy.run_path(str(ROOT / "tutorials/make_figures.py"), run_name="__main__")
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("pattern", ["*.md", "benchmarks/*.md", "tutorials/*.ipynb"])
def test_no_figure_is_left_to_be_filled_in(pattern):
    paths = list(ROOT.glob(pattern))
    assert paths
    assert not [path for path in paths if re.search(r"@[A-Z][A-Z_]+\b", path.read_text())]
