"""What a page is made of, and the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import NamedTuple

import jinja2
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pyrovae._version import __version__

GENERATOR = f"pyrovae {__version__}"
_DPI = 120
_NARROW, _WIDE = 5.2, 7.0
"""Inches: figures between these two are drawn as narrow as the first, which a phone shows with legible texts."""
_LEGIBLE = 62  # pixels for each inch, at which texts of usual size can be read


class Picture(NamedTuple):
    """A picture of the page."""

    name: str
    title: str
    source: str
    """The file itself, as a `data:` URI."""
    width: int
    """In pixels of CSS."""
    height: int
    least: int
    """The least width at which texts are legible, in pixels of CSS; a narrower page scrolls it. 0 for any."""
    drawn: bool = False
    """Whether it holds lines, points and texts alone, so that a dark page may turn white into black."""


class Cell(NamedTuple):
    """A cell of a table."""

    text: str
    value: str = ""
    """The value in full, as JSON has it; "" where the text says it all."""


class Row(NamedTuple):
    """A line of a table."""

    name: str
    cells: Sequence[Cell]
    meaning: str = ""
    """A sentence on what the line is."""
    key: str = ""
    """What a program finds the line by."""


class Table(NamedTuple):
    """A table: a name and some cells in each line."""

    header: Sequence[str]
    """The first is that of the names; () for none."""
    rows: Sequence[Row]
    caption: str = ""
    folded: bool = False
    """Whether it is shown on a click."""
    code: bool = False
    """Whether the cells are values of a program."""

    @property
    def look(self) -> str:
        """The class of its looks: a phone stacks the cells of lines that explain themselves."""
        return "code" if self.code else "figures" if any(row.meaning for row in self.rows) else "numbers"


class Command(NamedTuple):
    """Lines to be typed, or to be put into a file."""

    text: str
    caption: str = ""


@dataclass
class Section:
    """A part of the page with a heading."""

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Its name in links of the page."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())

    def __bool__(self) -> bool:
        return bool(self.notes or self.tables or self.pictures or self.commands)


@dataclass
class Page:
    """The page."""

    title: str
    summary: str
    notes: list[str]
    sections: list[Section]


def render(page: Page) -> str:
    """The page as HTML, which needs no other file and no network."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = resources.files("pyrovae.reporting").joinpath("report.html").read_text(encoding="utf-8")
    shown = [section for section in page.sections if section]
    return environment.from_string(template).render(page=page, sections=shown, generator=GENERATOR) + "\n"


def picture(name: str, figure: Figure, title: str) -> Picture:
    """A figure as a picture of the page.

    Parameters
    ----------
    name : str
        Its name.
    figure : Figure
        The figure; it may be made narrower.
    title : str
        What it shows, for those who do not see it.
    """
    width, height = figure.get_size_inches()
    if _NARROW < width <= _WIDE and len(figure.axes) > 0 and figure.get_layout_engine() is not None:
        square = figure.axes[0].get_aspect() != "auto"  # its height goes by its width
        figure.set_size_inches(_NARROW, height * _NARROW / width if square else height)
        width = _NARROW
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, bbox_inches="tight", facecolor="white")
    data = content.getvalue()
    pixels = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")  # of the header of a PNG
    across, down = (round(number * 96 / _DPI) for number in pixels)
    source = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    least = 0 if width <= _WIDE else round(min(across, width * _LEGIBLE))
    drawn = not figure.findobj(AxesImage)  # greys of an image mean values, which stay as they are
    return Picture(name, title, source, across, down, least, drawn)
