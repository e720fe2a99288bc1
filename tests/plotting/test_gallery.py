"""The gallery shows every figure, in small pictures that its script can make again."""

import inspect
import re
import runpy
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from pyrovae import plotting

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/gallery.md").read_text()
SHOWN = dict(re.findall(r"!\[(\w+)\]\(([\w/.]+)\)", PAGE))
MOST_BYTES = 60_000


def drawing_functions():
    """The public functions that return one figure."""
    found = {name: getattr(plotting, name) for name in plotting.__all__}
    functions = {name: part for name, part in found.items() if inspect.isfunction(part)}
    return {n for n, part in functions.items() if "Figure" in str(inspect.signature(part).return_annotation)}


def test_every_figure_is_shown():
    assert set(SHOWN) == drawing_functions() - {"run_figures"}  # which draws several of these
    assert len(SHOWN) > 15
    for name, path in SHOWN.items():
        assert path == f"gallery/{name}.png"
        assert f"`{name}(" in PAGE  # how it is called


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_pictures_are_small(name):
    path = ROOT / "docs" / SHOWN[name]
    assert path.stat().st_size <= MOST_BYTES
    with Image.open(path) as image:
        image.load()
        assert min(image.size) > 100
        assert image.convert("RGB").getcolors(3) is None  # more than three colours: something is drawn


def test_no_other_pictures_are_there():
    assert {path.name for path in (ROOT / "docs/gallery").iterdir()} == {f"{name}.png" for name in SHOWN}


@pytest.mark.parametrize("part", ["of_classes", "of_tables"])
def test_the_script_makes_them_again(part):
    made = runpy.run_path(str(ROOT / "tutorials/make_gallery.py"))
    figures = dict(made[part](1))
    assert figures.keys() <= SHOWN.keys()
    for figure in figures.values():
        assert isinstance(figure, Figure)
    name, figure = next(iter(figures.items()))
    assert len(made["as_png"](figure)) <= MOST_BYTES, name
