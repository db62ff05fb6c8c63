"""The page in Chromium: it is drawn, in light and dark, wide and narrow, and nothing else happens."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.read import read
from frontrunner.analysis.report.page import write
from frontrunner.analysis.sweeps import read_sweeps
from support.reports import study, sweep_file

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium"),
    pytest.mark.timeout(900),
]
PATIENCE_MS = 240_000
SCREENS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    swept = read_sweeps([sweep_file(tmp_path_factory.mktemp("sweep"))])
    write(analyze(read([study(folder)]), "lumi-g", swept), path)
    return path


@pytest.fixture(scope="module", params=SCREENS)
def shown(request: pytest.FixtureRequest, browser: Any, file: Path) -> Iterator[tuple[str, Any, list[str]]]:
    """The name of the screen, the page once it is drawn, and what went wrong."""
    page = browser.new_page(**SCREENS[request.param])
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "blob:", "data:")) else wrong.append(asked.url),
    )
    page.goto(file.as_uri())
    wait_until_drawn(page)
    yield request.param, page, wrong
    page.close()


def wait_until_drawn(page: Any, theme: str = "") -> None:
    """Wait for the figures, from outside: the page's policy forbids what Playwright's own waiting does."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not (drawn := page.evaluate("document.documentElement.dataset.drawn")) or drawn != (theme or drawn):
        assert time.monotonic() < deadline, f"drawn: {drawn}"
        time.sleep(0.1)


def colors(image: bytes) -> int:
    found = Image.open(io.BytesIO(image)).convert("RGB").getcolors(1 << 24)
    return len(found or [])


@pytest.mark.long_except("phone")
def test_everything_is_drawn_and_nothing_else_happens(shown: tuple[str, Any, list[str]]) -> None:
    name, page, wrong = shown
    assert wrong == []
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.documentElement.dataset.drawn") == ("dark" if name == "dark" else "light")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is no wider"
    charts = page.locator(".chart")
    assert charts.count() >= 9
    assert page.locator(".chart:has(.trace)").count() == charts.count(), "each has lines, points or bars"
    for index in range(charts.count()):
        assert colors(charts.nth(index).screenshot(timeout=PATIENCE_MS)) > 20, "a figure is blank"


def test_wide_tables_say_that_they_scroll(shown: tuple[str, Any, list[str]]) -> None:
    name, page, _ = shown
    told = page.evaluate(
        """[...document.querySelectorAll(".scroll")].filter(each => !each.closest("details")).map(each => [
            each.scrollWidth > each.clientWidth + 1, !each.previousElementSibling.hidden])"""
    )
    assert all(wide == hint for wide, hint in told)
    assert any(wide for wide, _ in told) or name != "phone"


def test_an_entry_of_a_legend_hides_its_lines(browser: Any, file: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(file.as_uri())
    wait_until_drawn(page)
    lines = "document.querySelectorAll('#chart-scaling-1 .scatterlayer .trace').length"
    before = page.evaluate(lines)
    entry = page.locator("#legend-scaling-1 button").first
    entry.click()
    assert entry.get_attribute("aria-pressed") == "false"
    assert page.evaluate(lines) == before - 1
    entry.click()
    assert page.evaluate(lines) == before
    page.close()


def test_the_theme_can_be_changed_with_the_keyboard(browser: Any, file: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(file.as_uri())
    wait_until_drawn(page, "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_until_drawn(page, "dark")
    assert page.evaluate("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    page.close()


def test_print_is_light_and_has_all_pages(browser: Any, file: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.set_default_timeout(PATIENCE_MS)
    page.goto(file.as_uri())
    wait_until_drawn(page, "dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    wait_until_drawn(page, "light")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    wait_until_drawn(page, "dark")
    assert page.pdf(format="A4").count(b"/Type /Page\n") >= 4
    page.close()
