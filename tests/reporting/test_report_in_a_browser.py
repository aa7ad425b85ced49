"""The page in a browser: no errors, nothing that axe-core calls serious, everything within reach of the keyboard.

It needs Chromium (CHROMIUM names it, or it is on the PATH) and the extra `browser`.
"""

import base64
import importlib.util
import io
import os
import pathlib
import shutil

import numpy as np
import pages
import pytest
from PIL import Image

from emokd.reporting.report import render_report

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
MISSING = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: put it on the PATH, or name it in CHROMIUM"),
    pytest.mark.skipif(bool(MISSING), reason=f"pip install 'emokd[browser]': no {', '.join(MISSING)}"),
]

VIEWS = {"light": (1200, "light", "screen"), "dark": (1200, "dark", "screen"), "phone": (360, "light", "screen"),
         "dark phone": (360, "dark", "screen"), "print": (800, "dark", "print")}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = pages.whole_run(tmp_path_factory.mktemp("run"))
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(buffer, format="JPEG")
    jpeg = base64.b64encode(buffer.getvalue()).decode()
    path = folder / "page.html"
    path.write_text(render_report(folder, thumbnails={(i, i): (f"{i}.png", jpeg) for i in range(90)}))
    return path


def opened(browser, file, view, **options):
    """The page, and what the browser complained of."""
    width, scheme, media = VIEWS[view]
    page = browser.new_context(viewport={"width": width, "height": 800}, **options).new_page()
    page.emulate_media(media=media, color_scheme=scheme)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url[:80]) if request.url[:5] == "http:" else None)
    page.goto(file.as_uri())
    return page, complaints


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious_and_the_browser_nothing_at_all(browser, file, view):
    import axe_playwright_python

    axe = (pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
    page, complaints = opened(browser, file, view, bypass_csp=True)  # axe itself is a script
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    grave = [(v["id"], v["nodes"][0]["html"]) for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert grave == [] and complaints == []
    assert {"image-alt", "svg-img-alt", "color-contrast"} <= {
        rule["id"] for rule in found["passes"] + found["incomplete"]
    }
    # No line of the page is wider than the screen: what is wide scrolls in a box of its own.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_axe_and_the_policy_would_notice(browser, file, tmp_path):
    import axe_playwright_python

    bad = tmp_path / "bad.html"
    bad.write_text(
        file.read_text().replace("</main>", "<img src='data:,'><script>document.title = 'run'</script></main>")
    )
    page, complaints = opened(browser, bad, "light")
    assert page.title() != "run" and any("Content Security Policy" in text for text in complaints)
    page, _ = opened(browser, bad, "light", bypass_csp=True)
    page.evaluate((pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    assert "image-alt" in [violation["id"] for violation in page.evaluate("axe.run()")["violations"]]


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const found = [];
  const texts = 'h1, h2, h3, p, li, a, td, th, caption, summary, code, figcaption, text';
  for (const node of document.querySelectorAll(texts)) {
    if (node.matches('.skip') || !node.textContent.trim()) continue;
    const style = getComputedStyle(node);
    let under = node;
    while (under && rgb(getComputedStyle(under).backgroundColor)[3] < 255) under = under.parentElement;
    const [a, b] = [rgb(node.tagName === 'text' ? style.fill : style.color),
      rgb(getComputedStyle(under ?? document.body).backgroundColor)].map(c => light(c.slice(0, 3)));
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.tagName, node.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.mark.parametrize("view", VIEWS)
def test_every_text_has_contrast(browser, file, view):
    """WCAG 2.2's ratio of at least 4.5, shaded cells and texts in figures too, which axe leaves to people."""
    page, _ = opened(browser, file, view)
    found = page.evaluate(CONTRAST)
    assert len(found) > 200 and found[0][0] >= 4.5, found[:5]


def test_the_keyboard_reaches_and_opens_everything(browser, file):
    page, _ = opened(browser, file, "phone")
    wanted = page.evaluate(
        "[...document.querySelectorAll('a, summary, pre, .wide')].filter(n => n.checkVisibility()).length"
    )
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        place = "n => [...document.querySelectorAll('*')].indexOf(document.activeElement)"
        reached.add(page.evaluate(place))
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.parentElement.open")
            page.keyboard.press("Enter")
    assert len(reached - {-1}) >= wanted
    page.goto(file.as_uri())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "first"  # the link past the navigation
