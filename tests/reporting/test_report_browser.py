"""The page in a browser without a window: nothing is wider than a phone, and texts are legible in light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

from pyrovae.reporting import report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: none of {', '.join(NAMES)}")

# The page stands in a frame of the width of the device; what is measured is written into the title.
FRAME = """<!doctype html><body style="margin:0">
<iframe id="frame" style="border:0;width:{width}px;height:900px" srcdoc="{page}"></iframe><script>
const luminance = c => {{
  const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}};
const behind = e => {{
  for (; e; e = e.parentElement) {{
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c !== "transparent") return c;
  }}
  return "rgb(255, 255, 255)";
}};
onload = () => {{
  const page = document.getElementById("frame").contentDocument, root = page.documentElement;
  const inner = page.defaultView;
  const texts = [...page.querySelectorAll("h1,h2,p,th,td,a,caption,figcaption,pre,span,footer")];
  const contrast = texts.map(e => {{
    const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), e.tagName];
  }});
  const images = [...page.images];
  const sections = [...page.querySelectorAll("section")];
  const found = {{
    width: inner.innerWidth, scroll: root.scrollWidth,
    sections: Math.max(...sections.map(s => s.getBoundingClientRect().right)),
    spilled: [...page.querySelectorAll("pre,p,h1,h2,caption,td.code")].filter(e => e.scrollWidth > e.clientWidth + 1
      && getComputedStyle(e).display !== "inline").map(e => e.tagName),
    broken: images.filter(i => !i.complete || !i.naturalWidth).length, images: images.length,
    narrow: images.filter(i => !i.style.minWidth && i.getBoundingClientRect().width > inner.innerWidth).length,
    contrast: contrast.reduce((a, b) => a[0] < b[0] ? a : b),
    background: getComputedStyle(page.body).backgroundColor,
    loaded: inner.performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:")),
    size: Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize))),
  }};
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    one = report(folder / "plain").read_text()
    several = report([folder / "plain", folder / "wide"], folder / "both.html").read_text()
    return {"one": one, "several": several}


def opened(text, width, scheme, folder):
    framed = folder / "frame.html"
    framed.write_text(FRAME.format(width=width, page=html.escape(text, quote=True)))
    command = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=20000"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000"),
        *(f"--blink-settings=preferredColorScheme={1 if scheme == 'light' else 0}", framed.as_uri()),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.DOTALL)
    assert found, run.stderr[-2000:]
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.parametrize("which", ["one", "several"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(which, width, page, tmp_path):
    backgrounds = {}
    for scheme in ("light", "dark"):
        found = opened(page[which], width, scheme, tmp_path)
        assert found["width"] == width
        assert found["scroll"] <= width  # nothing is wider than the page
        assert found["sections"] <= width
        assert found["spilled"] == []
        assert (found["broken"], found["narrow"]) == (0, 0)
        assert found["images"] > 5
        assert found["contrast"][0] >= 4.5, found["contrast"]  # what WCAG asks of texts
        assert found["size"] >= 12
        assert found["loaded"] == []
        backgrounds[scheme] = found["background"]
    assert backgrounds["light"] != backgrounds["dark"]
