"""The report in Debian's Chromium: on a desktop and on a telephone, in light and dark."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from browser import downloads, open_fresh, press, requested, resize, serious
from report_content import WILD, full_content
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from headstart.classify.report.page import render
from headstart.data.contracts.corrections import Correction, read_corrections

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


# What a person does with it


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_serious_for_people_who_need_help(
    browser: webdriver.Chrome, report: Path, width: int, scheme: str
) -> None:
    """By axe-core, with a point of the map, a decision and a picture open."""
    show(browser, report, width, scheme)
    focus(browser, ".points")
    press(browser, Keys.ARROW_RIGHT)
    focus(browser, "#suspects .question input")
    press(browser, Keys.ARROW_DOWN)
    assert serious(browser) == []
    focus(browser, "#mistakes .enlarge")
    press(browser, Keys.ENTER)
    assert serious(browser) == []


def focus(browser: webdriver.Chrome, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)


def reached(browser: webdriver.Chrome, selector: str, most: int = 80) -> int:
    """Press the tab key until an element has the focus; returns how often."""
    for count in range(1, most):
        press(browser, Keys.TAB)
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return count
    raise AssertionError(f"{selector} is not reached by the keyboard")


def test_no_table_is_cut_on_a_telephone(browser: webdriver.Chrome, report: Path) -> None:
    show(browser, report, 390)
    cut = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.offsetParent)"
        ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    )
    assert cut == []
    assert browser.find_element(By.CSS_SELECTOR, "#confusion .instead").is_displayed()


def test_pictures_enlarge_by_keyboard_alone(browser: webdriver.Chrome, report: Path) -> None:
    show(browser, report, 1280)
    focus(browser, "#mistakes .filter select")
    reached(browser, "#mistakes .enlarge")
    press(browser, Keys.ENTER)
    viewer = browser.find_element(By.ID, "viewer")
    assert viewer.is_displayed()
    title = browser.find_element(By.ID, "viewer-title")
    first = title.text
    picture = viewer.find_element(By.CSS_SELECTOR, "#viewer-picture img")
    assert picture.size["height"] > 300
    press(browser, Keys.ARROW_RIGHT)
    assert title.text != first
    press(browser, Keys.ARROW_LEFT)
    assert title.text == first
    press(browser, Keys.ESCAPE)
    assert not viewer.is_displayed()
    assert browser.switch_to.active_element.get_attribute("class") == "enlarge"


def test_points_of_the_map_say_what_they_are(browser: webdriver.Chrome, report: Path) -> None:
    show(browser, report, 1280)
    focus(browser, "#learning [tabindex], #rejection")
    reached(browser, ".points")
    panel = browser.find_element(By.CSS_SELECTOR, ".point")
    assert panel.is_displayed()  # the first one is a mistake or in doubt
    said = {panel.text}
    for key in (Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ARROW_DOWN) * 2:
        press(browser, key)
        said.add(panel.text)
    assert len(said) >= 3
    # By pointer: at the place of a point, its text.
    where = browser.execute_script(
        "const d = document.querySelector('.points'); d.scrollIntoView({block: 'center'});"
        "const box = d.getBoundingClientRect();"
        "const {points} = JSON.parse(document.getElementById('map-points').textContent);"
        "return points.map(([x, y, lines, picture]) =>"
        " [box.left + x / 1000 * box.width, box.top + y / 1000 * box.height, lines, picture])"
    )
    x, y, lines, number = next(point for point in where if "label in doubt" in point[2])
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    assert panel.text.split("\n") == [line for line in map(str.strip, lines) if line]
    assert number >= 0
    assert panel.find_element(By.TAG_NAME, "img").get_attribute("src").startswith("data:image")
    assert len(where) == 40
    assert {point[3] for point in where} == {-1, *range(39)}  # one file is missing


def test_cards_are_filtered_by_class(browser: webdriver.Chrome, report: Path) -> None:
    show(browser, report, 1280)
    for section in ("mistakes", "suspects", "inside"):
        found = browser.find_element(By.ID, section)
        select = Select(found.find_element(By.CSS_SELECTOR, ".filter select"))
        cards = found.find_elements(By.CSS_SELECTOR, ".card")
        names = [option.get_attribute("value") for option in select.options]
        assert names[0] == ""
        assert set(names[1:]) <= set(WILD)
        select.select_by_index(1)
        shown = [card for card in cards if card.is_displayed()]
        assert 0 < len(shown) <= len(cards)
        classes = [json.loads(card.get_attribute("data-classes") or "") for card in shown]
        assert all(names[1] in each for each in classes)
        assert found.find_element(By.CSS_SELECTOR, ".filter output").text == (
            f"{len(shown)} of {len(cards)}"
        )
        select.select_by_index(0)
        assert all(card.is_displayed() for card in cards)


def test_decisions_are_saved_by_keyboard_alone(
    browser: webdriver.Chrome, report: Path, tmp_path: Path
) -> None:
    """Of ids and classes that nobody should have."""
    show(browser, report, 1280)
    downloads(browser, tmp_path)
    focus(browser, "#suspects .filter select")
    reached(browser, "#suspects .card:nth-child(1) input")
    press(browser, Keys.ARROW_DOWN)  # keep
    reached(browser, "#suspects .card:nth-child(2) input")
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_DOWN)  # change
    reached(browser, "#suspects .card:nth-child(3) input")
    press(browser, Keys.ARROW_UP)  # remove
    assert browser.find_element(By.ID, "decided").text == "3 decisions"
    focus(browser, "#label-next .filter select")
    reached(browser, "#label-next .card:nth-child(4) input")
    press(browser, Keys.ARROW_DOWN)  # label
    reached(browser, "#save", 300)
    press(browser, Keys.ENTER)
    saved = tmp_path / "corrections.csv"
    WebDriverWait(browser, 60).until(lambda _: saved.exists())
    ids = pa.chunked_array([list(WILD)])
    assert read_corrections(saved, ids, WILD) == (
        Correction(WILD[0], "keep"),
        Correction(WILD[1], "change", WILD[2]),
        Correction(WILD[2], "remove"),
        Correction(WILD[3], "change", WILD[3]),
    )
    assert browser.find_element(By.ID, "decided").text == "4 corrections saved"
    assert browser.get_log("browser") == []
