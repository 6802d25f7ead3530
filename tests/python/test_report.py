"""The page of `sweep --report`, as a browser shows it: on a desk and on a phone."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Fewbits
from models import NOTEBOOK

# Flags that keep the browser from asking the network for anything of its own.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = [1280, 390]
SCHEMES = ["light", "dark"]
POINT_KEYS = ["metric", "file_bytes", "weight_bytes", "agreement", "latency_ms"]

# The width of the paper's colour around a label, on both sides.
HALO = 4

# What a text needs against its background (WCAG 2.2, 1.4.3).
LEAST_CONTRAST = 4.5


@dataclass
class Swept:
    """A page, and what the command said of the same run."""

    page: Path
    result: dict[str, Any]


def missing(what: str) -> None:
    """A machine without a browser skips these tests; CI may not."""
    reason = f"{what} is missing: the page is not looked at in a browser"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    print(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def swept(fewbits: Fewbits, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    page = tmp_path_factory.mktemp("report") / "report.html"
    arguments = ["--data", NOTEBOOK / "test.csv", "--bits", "1..8", "--report", page, "--json"]
    done = fewbits("sweep", NOTEBOOK / "model.onnx", *arguments).assert_done()
    return Swept(page, done.json())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Shown:
    """An open page, and what it did while it loaded."""

    page: Any
    said: list[str]
    requests: list[str]


@pytest.fixture(params=[(w, s) for w in WIDTHS for s in SCHEMES], ids=lambda p: f"{p[0]}-{p[1]}")
def shown(browser: Any, swept: Swept, request: pytest.FixtureRequest) -> Iterator[Shown]:
    width, scheme = request.param
    size = {"width": width, "height": 800}
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    result = Shown(page, [], [])
    page.on("console", lambda message: result.said.append(message.text))
    page.on("pageerror", lambda error: result.said.append(str(error)))
    page.on("request", lambda asked: result.requests.append(asked.url))
    page.goto(swept.page.as_uri())
    for fold in page.locator("details").all():
        fold.evaluate("fold => fold.open = true")
    yield result
    context.close()


def test_it_stands_alone(shown: Shown, swept: Swept) -> None:
    assert shown.requests == [swept.page.as_uri()]
    assert shown.said == []
    assert shown.page.locator("script").count() == 0


def test_it_fits_the_screen(shown: Shown) -> None:
    wide, screen = shown.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= screen
    # A table that is wider than the screen scrolls in its box, which a keyboard can reach.
    for box in shown.page.locator(".scroll").all():
        assert box.get_attribute("tabindex") == "0"
        assert box.bounding_box()["width"] <= screen


def test_plots_have_a_text_alternative(shown: Shown, swept: Swept) -> None:
    plots = shown.page.locator("svg").all()
    assert len(plots) >= 2, "metric against bytes and against latency"
    for plot in plots:
        assert plot.get_attribute("role") == "img"
        for part in ("title", "desc"):
            assert plot.locator(f"> {part}").text_content().strip()
    for point in swept.result["points"]:
        assert f"{point['file_bytes']:,} bytes" in plots[0].locator("> desc").text_content()
    # The browser's own idea of the names, as a screen reader gets them.
    assert shown.page.get_by_role("img").count() == len(plots)


def test_every_width_is_labelled(shown: Shown, swept: Swept) -> None:
    labels = shown.page.locator("svg").first.locator("text.label")
    written = {name for label in labels.all_text_contents() for name in label.split(", ")}
    assert {str(point["bits"]) for point in swept.result["points"]} <= written
    boxes = [label.bounding_box() for label in labels.all()]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
            down = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
            # A box holds the halo around the letters, and is a little higher than they are.
            assert across <= HALO or down <= a["height"] / 3, (a, b)


def test_headings_are_in_order(shown: Shown) -> None:
    levels = [int(tag[1]) for tag in shown.page.locator("h1, h2, h3, h4").evaluate_all(
        "all => all.map(heading => heading.tagName)"
    )]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    assert shown.page.locator("html").get_attribute("lang") == "en"
    first = shown.page.locator("p, table, svg").first
    assert first.get_attribute("class") == "verdict"
    assert first.text_content().strip()


def test_text_has_contrast(shown: Shown) -> None:
    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = shown.page.evaluate(
        """() => {
            const rgb = text => text.match(/[\\d.]+/g).map(Number);
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const c = rgb(getComputedStyle(e).backgroundColor);
                    if (c.length === 3 || c[3] > 0) return c.slice(0, 3);
                }
                return [255, 255, 255];
            };
            const found = {};
            for (const e of document.querySelectorAll("body *")) {
                const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
                if (!own || ["TITLE", "DESC"].includes(e.tagName.toUpperCase())) continue;
                const style = getComputedStyle(e);
                const ink = rgb(e.tagName === "text" ? style.fill : style.color).slice(0, 3);
                const words = e.textContent.trim().slice(0, 30);
                found[[ink, behind(e)].join(" ")] = [ink, behind(e), words];
            }
            return Object.values(found);
        }"""
    )
    assert pairs
    for ink, paper, words in pairs:
        a, b = (luminance([c / 255 for c in colour]) for colour in (ink, paper))
        contrast = (max(a, b) + 0.05) / (min(a, b) + 0.05)
        assert contrast >= LEAST_CONTRAST, f"{contrast:.2f}: {words!r}, {ink} on {paper}"


def test_numbers_are_those_of_the_json(shown: Shown, swept: Swept) -> None:
    cells = shown.page.locator("[data-key]").evaluate_all(
        "all => all.map(cell => [cell.dataset.key, cell.dataset.value, cell.textContent])"
    )
    page = {key: (json.loads(value), text) for key, value, text in cells}
    assert len(page) == len(cells), "a key occurs twice"
    points = swept.result["points"]
    assert len(points) == 8
    for i, point in enumerate(points):
        for key in POINT_KEYS:
            value, text = page[f"points.{i}.{key}"]
            assert value == point[key], (i, key)
            assert close_to(text, value), (text, value)
    assert f"points.{len(points)}.metric" not in page


def close_to(text: str, value: float | None) -> bool:
    """Whether a number as people read it is that of the JSON, but for rounding."""
    if value is None:
        return text.strip() == "–"
    number = float(text.replace(",", "").replace("−", "-").split(" ")[0])
    if "%" in text:
        number /= 100
    return abs(number - value) <= max(0.006 * abs(value), 0.00005)
