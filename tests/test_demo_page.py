"""The demo page in Debian's Chromium, from a plain static server: desktop and phone."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from browser import open_fresh, press, requested, resize, serious, served
from conftest import COLOURS, paint
from elsewhere import WEB, choose
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from headstart.classify.heads.calibration import AnswerOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.common.errors import InputError
from headstart.export.demo.site import SITE, write_demo
from headstart.export.edge.classifier import export_classifier

WILD = '<img src=x onerror="alert(1)"> & Ünïcödé'
LONG = "a" * 120


@pytest.fixture
def site(edge: Path, tmp_path: Path) -> Path:
    write_demo(edge, tmp_path / "site", "Colours", WEB)
    return tmp_path / "site"


def open_page(browser: webdriver.Chrome, address: str) -> None:
    open_fresh(browser, address)
    WebDriverWait(browser, 60).until(
        lambda page: page.find_element(By.ID, "title").text != "Classifier"
    )


def cards(browser: webdriver.Chrome) -> list[str]:
    return [card.text for card in browser.find_elements(By.CSS_SELECTOR, ".card")]


def test_photographs_are_classified_and_nothing_is_sent(
    browser: webdriver.Chrome, site: Path, photos: Path, tmp_path: Path
) -> None:
    resize(browser, 1280)
    (tmp_path / "notes.txt").write_text("no photograph")
    with served(site) as address:
        open_page(browser, address)
        files = [photos / name / "03.png" for name in COLOURS]
        choose(browser, files)
        choose(browser, [tmp_path / "notes.txt", files[0]])
        asked = requested(browser)
    bad, newest, *others = cards(browser)
    assert bad == (
        "No answer\nnotes.txt: this browser cannot open it as a photograph; save it as JPEG or "
        "PNG, and choose that"
    )
    # The newest are above, in the order in which they were chosen.
    assert [text.split(",")[0] for text in (newest, *others)] == ["blue", "blue", "green", "red"]
    assert "03.png: 24 x 24 pixels; " in newest
    assert browser.title == browser.find_element(By.ID, "title").text == "Colours"
    about = browser.find_element(By.ID, "about").text
    assert about == (
        "Tells 3 classes apart (blue, green, red). Photographs stay on this device: nothing is "
        "sent anywhere."
    )
    assert not browser.find_element(By.ID, "loading").is_displayed()
    announced = browser.find_element(By.ID, "announce").get_attribute("textContent")
    assert announced.startswith("03.png: blue, ")
    assert browser.get_log("browser") == []
    assert {url for url in asked if not url.startswith(("blob:", address))} == set()


def test_a_drop(browser: webdriver.Chrome, site: Path) -> None:
    with served(site) as address:
        open_page(browser, address)
        browser.execute_script(
            """
            const canvas = new OffscreenCanvas(30, 20);
            const context = canvas.getContext("2d");
            context.fillStyle = "rgb(200, 60, 60)";
            context.fillRect(0, 0, 30, 20);
            return canvas.convertToBlob().then((blob) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([blob], "dropped.png", { type: "image/png" }));
                const how = { dataTransfer: transfer, bubbles: true, cancelable: true };
                const drop = new DragEvent("drop", how);
                document.getElementById("drop").dispatchEvent(drop);
            });
            """
        )
        WebDriverWait(browser, 60).until(
            lambda page: page.find_elements(By.CSS_SELECTOR, ".card[data-label]")
        )
    assert cards(browser)[0].startswith("red, ")


def test_unknown_is_said(
    browser: webdriver.Chrome, features: Path, tiny_backbone: Path, photos: Path, tmp_path: Path
) -> None:
    options = FitOptions(answers=AnswerOptions(coverage=0.5))
    train(features, tmp_path / "sure", options, run=RunOptions(report=False))
    export_classifier(tmp_path / "sure", tiny_backbone, tmp_path / "edge.onnx")
    write_demo(tmp_path / "edge.onnx", tmp_path / "site", runtime=WEB)
    with served(tmp_path / "site") as address:
        browser.get(address)
        choose(browser, sorted(photos.rglob("*.png")))
    said = cards(browser)
    unknown = [text.splitlines()[0] for text in said if text.startswith("unknown")]
    assert 0 < len(unknown) < 60
    assert all(
        re.fullmatch(r"unknown: \w+ has [\d.]+ %, and [\d.]+ % are needed", text)
        for text in unknown
    )
    assert 'or "unknown" below ' in browser.find_element(By.ID, "about").text


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_names_of_every_kind_and_many_classes(
    width: int, browser: webdriver.Chrome, site: Path, photos: Path
) -> None:
    about = json.loads((site / SITE).read_text())
    about |= {"classes": [WILD, LONG, "c"], "title": WILD}
    (site / SITE).write_text(json.dumps(about))
    resize(browser, width, "dark")
    with served(site) as address:
        open_page(browser, address)
        choose(browser, [photos / "blue" / "01.png"])
    assert WILD in cards(browser)[0]
    assert LONG in cards(browser)[0]
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    assert browser.get_log("browser") == []
    assert browser.find_elements(By.CSS_SELECTOR, "#results img[src=x]") == []
    for name in (".button", "#camera"):  # large enough for a finger (WCAG 2.2, 2.5.8)
        assert browser.find_element(By.CSS_SELECTOR, name).size["height"] >= 44
    resize(browser, 1280)


def test_a_photograph_that_is_too_large_is_scaled_down_first(
    browser: webdriver.Chrome, site: Path, tmp_path: Path
) -> None:
    picture = Image.fromarray(np.full((6000, 4000, 3), (60, 170, 80), np.uint8))
    picture.save(tmp_path / "large.jpg")
    with served(site) as address:
        open_page(browser, address)
        choose(browser, [tmp_path / "large.jpg"])
    assert cards(browser)[0].startswith("green, ")
    assert "4000 x 6000 pixels, scaled to 3266 x 4899 first; " in cards(browser)[0]


def test_the_camera(browser: webdriver.Chrome, site: Path) -> None:
    with served(site) as address:
        open_page(browser, address)
        browser.find_element(By.ID, "camera").click()
        WebDriverWait(browser, 60).until(
            lambda page: page.find_elements(By.CSS_SELECTOR, ".card[data-label]")
        )
        first = cards(browser)[0]
        WebDriverWait(browser, 60).until(lambda page: cards(page)[0] != first)  # it goes on
        browser.find_element(By.ID, "stop").click()
        WebDriverWait(browser, 60).until(
            lambda page: page.find_element(By.ID, "camera").is_displayed()
        )
        assert browser.execute_script(
            "return document.getElementById('video').srcObject.getTracks().every("
            "(track) => track.readyState === 'ended')"
        )
        time.sleep(0.3)
        last = cards(browser)[0]
        time.sleep(0.5)
        assert cards(browser)[0] == last
    assert len(cards(browser)) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("edge.onnx", "The classifier cannot be started: edge.onnx cannot be fetched: 404"),
        ("ort/ort.wasm", "The classifier cannot be started: ort/ort.wasm cannot be fetched: 404"),
        (SITE, "The classifier cannot be started: site.json cannot be fetched: 404"),
    ],
)
def test_a_file_that_is_missing_on_the_server(
    name: str, said: str, browser: webdriver.Chrome, site: Path, photos: Path
) -> None:
    (site / name).unlink()
    with served(site) as address:
        browser.get(address)
        status = browser.find_element(By.ID, "status")
        WebDriverWait(browser, 60).until(lambda page: status.text.startswith(said))
        if name != SITE:
            choose(browser, [photos / "red" / "01.png"])
            said = "the classifier could not be started; load the page again"
            assert said in cards(browser)[0]


def test_a_model_that_was_cut_off(browser: webdriver.Chrome, site: Path) -> None:
    content = (site / "edge.onnx").read_bytes()
    (site / "edge.onnx").write_bytes(content[:1000])
    with served(site) as address:
        browser.get(address)
        status = browser.find_element(By.ID, "status")
        cut = f"edge.onnx ended after 1000 of {len(content)} bytes"
        WebDriverWait(browser, 60).until(
            lambda page: (
                status.text == f"The classifier cannot be started: {cut}. Load the page again; if "
                "that does not help, put the whole folder of the page on the server again."
            )
        )


def test_it_is_usable_by_keyboard_alone(browser: webdriver.Chrome, site: Path) -> None:
    with served(site) as address:
        open_page(browser, address)
        reached = []
        for _ in range(2):
            webdriver.ActionChains(browser).send_keys(Keys.TAB).perform()
            reached.append(browser.switch_to.active_element.get_attribute("id"))
    assert reached == ["files", "camera"]


@pytest.fixture
def with_examples(edge: Path, model: Path, tmp_path: Path) -> Path:
    write_demo(edge, tmp_path / "examples", "", WEB, examples=model)
    return tmp_path / "examples"


def test_examples_that_were_held_out_by_keyboard_alone(
    browser: webdriver.Chrome, with_examples: Path
) -> None:
    offered = json.loads((with_examples / SITE).read_text())["examples"]
    assert len(offered) == 6
    assert sorted(each["label"] for each in offered) == sorted(2 * list(COLOURS))
    resize(browser, 1280)
    with served(with_examples) as address:
        open_page(browser, address)
        assert browser.title == "blue, green or red?"
        press(browser, *[Keys.TAB] * 3)
        assert browser.switch_to.active_element.accessible_name == "Example 1"
        press(browser, Keys.ENTER)
        WebDriverWait(browser, 60).until(
            lambda page: page.find_elements(By.CSS_SELECTOR, ".card[data-label]")
        )
        assert browser.get_log("browser") == []
    label = offered[0]["label"]
    assert cards(browser)[0].startswith(f"{label}, ")
    assert f"Example 1, labelled {label}: 24 x 24 pixels; " in cards(browser)[0]


def test_nothing_serious_for_people_who_need_help(
    browser: webdriver.Chrome, with_examples: Path, photos: Path, tmp_path: Path
) -> None:
    """By axe-core, on a desktop and on a telephone, in light and dark."""
    (tmp_path / "notes.txt").write_text("no photograph")
    with served(with_examples) as address:
        for width, scheme in ((1280, "light"), (390, "dark")):
            resize(browser, width, scheme)
            open_page(browser, address)
            choose(browser, [photos / "red" / "01.png", tmp_path / "notes.txt"])
            assert serious(browser) == []
            hint = browser.find_element(By.CSS_SELECTOR, ".hint")
            assert hint.is_displayed() == (width == 1280)  # nobody drops a file on a telephone
        bars = browser.execute_script(
            "return [...document.querySelectorAll('.card tr')].map(row =>"
            " [...row.cells].map(c => c.getBoundingClientRect())"
            ".map(r => [r.left, (r.top + r.bottom) / 2]))"
        )
    lefts = {tuple(round(left) for left, _ in row) for row in bars}
    assert len(lefts) == 1  # names, bars and shares stand below each other
    for row in bars:
        middles = [middle for _, middle in row]
        assert max(middles) - min(middles) < 1
    resize(browser, 1280)


def test_examples_of_another_model_are_refused(edge: Path, model: Path, tmp_path: Path) -> None:
    about = json.loads((model / "model.json").read_text())
    about["classes"][0] = "another"
    (model / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="has other classes than"):
        write_demo(edge, tmp_path / "page", runtime=WEB, examples=model)


def test_it_opens_beside_a_folder_of_photographs(
    browser: webdriver.Chrome, site: Path, tmp_path: Path
) -> None:
    """The page may lie at any path of a server."""
    below = tmp_path / "web" / "deep" / "er"
    below.parent.mkdir(parents=True)
    site.rename(below)
    paint(tmp_path / "a.png", COLOURS["red"], 5)
    with served(tmp_path / "web") as address:
        open_page(browser, f"{address}deep/er/")
        choose(browser, [tmp_path / "a.png"])
    assert cards(browser)[0].startswith("red, ")
