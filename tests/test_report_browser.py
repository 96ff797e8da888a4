"""The report in Debian's Chromium: on a desktop and on a telephone, in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from browser import open_fresh, requested, resize
from report_content import WILD, full_content
from selenium import webdriver

from headstart.classify.report.page import render

WIDTHS = (1280, 390, 360)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on classes and ids that nobody should have."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    path.write_text(render(full_content(folder / "photographs", WILD, WILD)), encoding="utf-8")
    return path


def show(browser: webdriver.Chrome, path: Path, width: int, scheme: str = "light") -> None:
    resize(browser, width, scheme)
    open_fresh(browser, path.as_uri())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it(browser: webdriver.Chrome, report: Path, width: int) -> None:
    show(browser, report, width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
    pictures = browser.execute_script(
        "return [...document.images].map(i => i.complete && i.naturalWidth > 0)"
    )
    assert len(pictures) > 20
    assert all(pictures)
    assert browser.execute_script("return typeof window.ran") == "undefined"
    assert browser.get_log("browser") == []
    urls = requested(browser)
    assert report.as_uri() in urls
    assert {url.split(":")[0] for url in urls} <= {"file", "data"}
    assert len([url for url in urls if url.startswith("file")]) == 1


def test_nothing_sticks_out_of_its_box(browser: webdriver.Chrome, report: Path) -> None:
    show(browser, report, 360)
    outside = browser.execute_script(
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.scroll') || e.matches('.scroll'))"
        ".filter(e => !e.closest('svg') || e.matches('svg'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_can_be_read_in_light_and_dark(
    browser: webdriver.Chrome, report: Path, scheme: str, dark: bool
) -> None:
    show(browser, report, 390, scheme)
    page, ink, tick, size = browser.execute_script(
        "const style = e => getComputedStyle(e);"
        "const tick = document.querySelector('#calibration svg[role=img] text');"
        "return [style(document.body).backgroundColor, style(document.body).color,"
        " style(tick).fill, tick.getBoundingClientRect().height]"
    )
    assert (luminance(page) < 0.5) == dark
    for text in (ink, tick):
        low, high = sorted([luminance(text), luminance(page)])
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, 1.4.3
    assert size >= 10


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    values = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("width", [1280, 360])
def test_a_label_neither_turns_nor_hides_the_figure_beside_it(
    browser: webdriver.Chrome, report: Path, width: int
) -> None:
    show(browser, report, width)
    keys = browser.execute_script(
        "return [...document.querySelectorAll('#ranking .keys li')].map(li => {"
        " const figure = li.querySelector('span'), name = li.querySelector('bdi');"
        " return [figure.textContent, name.textContent.includes(figure.textContent),"
        " figure.scrollWidth <= li.clientWidth,"
        " figure.getBoundingClientRect().left >= name.getBoundingClientRect().right,"
        " figure.getBoundingClientRect().right <= innerWidth]})"
    )
    assert len(keys) == 2 * len(WILD)
    for figure, in_the_name, *fits in keys:
        assert re.fullmatch(r"[01]\.\d{3}", figure)
        assert not in_the_name
        assert all(fits)
