"""What README.md and the pages in docs/ show works as it stands."""

import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pyrovae import families
from pyrovae.cli.arguments import make_parser, named_pair
from pyrovae.pairs import registry

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}


class Block(NamedTuple):
    """A piece of code, or of commands, of a page."""

    page: str
    number: int
    language: str
    text: str


BLOCKS = [
    Block(page, number, *found)
    for page, text in sorted(PAGES.items())
    for number, found in enumerate(re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
]
PYTHON = [block for block in BLOCKS if block.language == "python"]
LINES = [line for block in BLOCKS if not block.language for line in block.text.splitlines()]
COMMANDS = sorted({line.partition("#")[0].strip() for line in LINES if line.startswith("pyrovae ")})
MENTIONED = sorted({verb for text in PAGES.values() for verb in re.findall(r"`pyrovae (\w+)", text)})


def example(page, text):
    """The text of the only Python block of a page that holds this text."""
    (block,) = (block for block in PYTHON if block.page == page and text in block.text)
    return block.text


def run_shortly(code, page="README.md"):
    """What an example leaves behind, with trainings of two epochs."""
    short = re.sub(r"epochs=\d+", "epochs=2", code).replace("Trainer(", "Trainer(progress=False, ")
    names = {"__name__": "example"}
    exec(compile(short, page, "exec"), names)
    return names


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """An empty working directory and registries of one's own, so that examples leave nothing behind."""
    monkeypatch.chdir(tmp_path)
    families.families()
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    monkeypatch.setattr(registry, "_PAIRS", dict(registry._PAIRS))


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """The module `mymodule` of docs/pairs.md in the working directory."""
    (tmp_path / "mymodule.py").write_text(example("docs/pairs.md", "def make_vae"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield
    sys.modules.pop("mymodule", None)


# Pyro's, of parameters that are not trained.
@pytest.mark.filterwarnings("ignore:.*was not registered in the param store")
@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}-{block.number}")
def test_examples_run(block, reader):
    """Each on its own, since a reader may copy any of them."""
    run_shortly(block.text, block.page)


def test_example_of_the_readme(capsys, reader):
    names = run_shortly(example("README.md", "VAE(model, guide)"))
    likelihood, shapes = capsys.readouterr().out.splitlines()
    assert shapes == "torch.Size([16, 1, 8, 8]) torch.Size([297, 4])"
    assert -64 < float(re.search(r"-[\d.]+", likelihood).group()) < 0
    assert torch.is_tensor(names["digits"].test.x)


def test_the_example_is_about_twenty_lines():
    lines = example("README.md", "VAE(model, guide)").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 25


def test_example_of_stacked_pairs(capsys, reader):
    names = run_shortly(example("docs/estimators.md", "LatentFeatures"))
    assert re.fullmatch(r"\d+\.\d% of the test pictures are put into the wrong class\n", capsys.readouterr().out)
    assert names["features"].kind == "real"


def test_numbers_that_comments_promise(capsys, reader):
    """Comments behind a print say what it prints."""
    run_shortly(example("docs/data.md", 'binarize="dynamic"'))
    run_shortly(example("docs/data.md", "np.savez"))
    assert capsys.readouterr().out.splitlines() == [
        "torch.Size([1200, 1, 8, 8]) binary",
        "300 297 10",
        "140 20 40",
        "real 3",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command, own_module):
    """Verbs, pairs and options exist."""
    words = shlex.split(command)[1:]
    _, unknown = make_parser(named_pair(words)).parse_known_args(words)
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
        "sweep",
        "evaluate",
        "sample",
        "encode",
        "impute",
        "plot",
        "report",
        "schema",
        "datasets",
        "models",
    }


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        found = (ROOT / page).parent / path
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], target


def test_every_page_is_linked():
    assert {page for page in PAGES if page != "README.md"} == set(re.findall(r"\((docs/\w+\.md)\)", PAGES["README.md"]))


@pytest.mark.parametrize("page", sorted(PAGES))
def test_pages_are_short(page):
    assert len(PAGES[page].splitlines()) <= (110 if page == "README.md" else 150)


def test_the_picture_can_be_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_figures.py", "--epochs", "1", "--out", str(tmp_path / "digits.png")])
    runpy.run_path(str(ROOT / "tutorials/make_figures.py"), run_name="__main__")
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("pattern", ["*.md", "docs/*.md", "benchmarks/*.md", "tutorials/*.ipynb"])
def test_no_figure_is_left_to_be_filled_in(pattern):
    paths = list(ROOT.glob(pattern))
    assert paths
    assert not [path for path in paths if re.search(r"@[A-Z][A-Z_]+\b", path.read_text())]
