"""A page of HTML as a test reads it."""

import base64
import io
import json
import re
from html.parser import HTMLParser

from PIL import Image

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Parsed(HTMLParser):
    """What a page holds: its texts, pictures, links, notes, commands and figures."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.tags, self.pictures, self.links, self.notes, self.commands, self.headings = [], {}, [], [], [], []
        self.figures, self.captions = {}, {}
        self._open, self._figure, self._row = [], None, None
        self.feed(text)
        self.close()
        assert not self._open  # every element is closed

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "figure":
            self._figure = given["id"].removeprefix("figure-")
        if tag == "img":
            self.pictures[self._figure] = given
        if tag == "a":
            self.links.append(given["href"])
        if tag == "p" and given.get("class") == "note":
            self.notes.append("")
        if tag == "pre":
            self.commands.append("")
        if tag == "h2":
            self.headings.append("")
        if tag == "tr":
            self._row = given.get("data-figure")
        if tag == "td" and self._row and "data-value" in given:
            self.figures.setdefault(self._row, []).append(json.loads(given["data-value"]) if self.is_json() else None)
            self.captions.setdefault(self._row, []).append("")

    def is_json(self):
        return not self._row.startswith("data.")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        here = self._open[-1] if self._open else ""
        if here == "p" and self.notes and self.tags[-1] == ("p", {"class": "note"}):
            self.notes[-1] += data
        if here == "pre":
            self.commands[-1] += data
        if here == "h2":
            self.headings[-1] += data
        if here == "td" and self._row in self.captions:
            self.captions[self._row][-1] += data

    def image(self, name):
        """A picture, decoded."""
        kind, _, content = self.pictures[name]["src"].partition(",")
        assert kind == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        image.load()
        return image


def read(path):
    """A page, which loads nothing and whose pictures can be decoded."""
    page = Parsed(path.read_text(encoding="utf-8"))
    assert page.text.startswith("<!doctype html>\n")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, given in page.tags:
        for name, value in given.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href"):
                assert value.startswith(("data:image/png;base64,", "#")), (tag, value[:40])
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL).group(1)
    assert not re.search(r"url\(|@import|//", style)
    assert {link.removeprefix("#") for link in page.links} <= {g.get("id") for tag, g in page.tags if tag == "section"}
    for name, given in page.pictures.items():
        image = page.image(name)
        assert given["alt"]
        assert abs(int(given["width"]) / int(given["height"]) - image.width / image.height) < 0.02
        assert image.convert("RGB").getcolors(2) is None  # something is drawn
    return page
