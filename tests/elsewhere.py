"""One edge model in Python, in Node, in C and in the browser, against training's path.

    python tests/elsewhere.py MODEL BACKBONE [--examples 500] [--jpeg]

The model's held-out photographs go through all of them, each with its own decoder; the table says
how many labels are training's, and the largest difference of a probability, with Pillow's resizing
and with that of extraction, which shrinks faster and is a level off here and there (docs/speed.md).
`--jpeg` saves them as JPEG first, of which each decoder makes slightly other pixels. The first
answer is that of a browser just started: a photograph is chosen as soon as the page is there,
before anything is loaded.
`--screenshots FOLDER` keeps pictures of the page. Exits with 1 if a label differs (with `--jpeg`:
more than 1 % of them), or without `--jpeg` a probability by more than 1e-3 with Pillow's resizing,
or if the first answer takes more than 2 seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.compute as pc
from browser import chromium, resize, served
from compiled import SOURCES, compiled
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.model import Model
from headstart.data.modalities.image.decoding import open_image
from headstart.data.modalities.image.preprocessing import decode
from headstart.export.demo.site import write_demo
from headstart.export.edge.classifier import export_classifier
from headstart.export.edge.parity import training_answers
from headstart.export.edge.ready_code import write_code
from headstart.export.options import EdgeOptions

NODE = Path(__file__).parent / "node"
WEB = NODE / "node_modules" / "onnxruntime-web"
TOLERANCE, MOST_CHANGED, MOST_SECONDS = 1e-3, 0.01, 2.0
DONE = ".card[data-label], .card.wrong"


@dataclass(frozen=True)
class Answers:
    """Labels int64 `[photographs]`, probabilities `[photographs, classes]`."""

    labels: np.ndarray
    probabilities: np.ndarray

    def against(self, other: Answers) -> tuple[int, float]:
        """How many labels differ, and the largest difference of a probability."""
        apart = np.abs(self.probabilities - other.probabilities).max()
        return int((self.labels != other.labels).sum()), float(apart)


def in_python(edge: Path, files: list[Path]) -> Answers:
    """By onnxruntime, photographs as they are."""
    session = onnxruntime.InferenceSession(edge.read_bytes())
    found = [
        session.run(["label", "probabilities"], {"image": decode(file.read_bytes(), None)[None]})
        for file in files
    ]
    labels, probabilities = (np.concatenate(values) for values in zip(*found, strict=True))
    return Answers(labels, probabilities)


def in_node(edge: Path, files: list[Path]) -> Answers:
    """By the code that `export code` writes; npm's packages are linked beside it."""
    with tempfile.TemporaryDirectory(prefix="node-") as name:
        folder = Path(name)
        (folder / "node_modules").symlink_to(NODE / "node_modules")
        write_code(edge, folder, overwrite=False)
        command = ["node", NODE / "answers.mjs", folder / "classify_photo.mjs", edge]
        lines = subprocess.run(
            command, check=True, input="\n".join(map(str, files)), stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    probabilities = np.array([answer["probabilities"] for answer in found], np.float32)
    return Answers(np.array([answer["label"] for answer in found]), probabilities)


def in_c(edge: Path, files: list[Path]) -> Answers:
    """By the code that `export code` writes, compiled."""
    with tempfile.TemporaryDirectory(prefix="c-") as name:
        write_code(edge, name, overwrite=False)
        program = compiled(SOURCES / "answers.c", Path(name, "answers"))
        lines = subprocess.run(
            [program, edge],
            check=True,
            input="\n".join(map(str, files)),
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    found = np.loadtxt(lines.splitlines(), ndmin=2)
    return Answers(found[:, 0].astype(int), found[:, 1:].astype(np.float32))


def choose(browser: webdriver.Chrome, files: list[Path], seconds: float = 300) -> None:
    """Choose files on the page, and wait until each has its answer."""
    before = len(browser.find_elements(By.CSS_SELECTOR, DONE))
    browser.find_element(By.ID, "files").send_keys("\n".join(map(str, files)))
    wanted = before + len(files)
    WebDriverWait(browser, seconds, 0.02).until(
        lambda page: len(page.find_elements(By.CSS_SELECTOR, DONE)) == wanted
    )


def in_browser(browser: webdriver.Chrome, files: list[Path]) -> Answers:
    """By the page that is open, which shows nothing yet; at most 50 classes are shown."""
    choose(browser, files)
    shown = browser.execute_script(
        """return [...document.querySelectorAll(".card")].map((card) => [
            Number(card.dataset.label),
            [...card.querySelectorAll("tr")].map(({ dataset }) => [
                Number(dataset.index), Number(dataset.probability)])])"""
    )
    probabilities = [[value for _, value in sorted(rows)] for _, rows in shown]
    return Answers(np.array([label for label, _ in shown]), np.array(probabilities))


def first_answer(address: str, file: Path) -> tuple[float, float]:
    """Seconds to the first answer in a new browser: from the choice, and from the opening on."""
    with chromium() as browser:
        opened = time.perf_counter()
        browser.get(address)
        WebDriverWait(browser, 60, 0.01).until(
            lambda page: page.find_element(By.ID, "status").text == "Loading the classifier"
        )
        chosen = time.perf_counter()
        choose(browser, [file])
        ended = time.perf_counter()
    return ended - chosen, ended - opened


def screenshots(browser: webdriver.Chrome, folder: Path, address: str, files: list[Path]) -> None:
    """The page with a few answers, on a desktop and on a phone in the dark."""
    for name, width, scheme in (("desktop", 1000, "light"), ("phone", 390, "dark")):
        resize(browser, width, scheme)
        browser.get(address)
        choose(browser, files)
        browser.save_screenshot(str(folder / f"demo-{name}.png"))


def held_out(model: Model) -> list[Path]:
    """The files of the photographs that training did not see."""
    known = model.examples()
    paths = known.filter(pc.equal(known["split"], "test"))["path"].to_pylist()
    return [Path(model.card.root, path) for path in paths]


def in_training(model: Model, backbone: Path, files: list[Path], fast: bool = True) -> Answers:
    """Decoded, embedded, and classified by the estimator; `fast`: resized as by extraction."""
    loaded = load_backbone(backbone)
    rule = loaded.spec.preprocessing
    probabilities, _ = training_answers(loaded, model)
    images = (decode(file.read_bytes(), rule, fast) for file in files)
    answers = np.concatenate([probabilities(image[None]) for image in images])
    return Answers(answers.argmax(axis=1), answers)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("backbone", type=Path)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--jpeg", action="store_true")
    parser.add_argument("--screenshots", type=Path)
    asked = parser.parse_args()
    model = Model.open(asked.model)
    if model.card.threshold is not None or len(model.card.classes) > 50:
        sys.exit("choose a model of at most 50 classes, without a threshold")
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as name:
        folder = Path(name)
        edge = folder / "edge.onnx"
        export_classifier(asked.model, asked.backbone, edge, EdgeOptions(any_size=True))
        write_demo(edge, folder / "site", f"{len(model.card.classes)} classes", WEB)
        files = held_out(model)[: asked.examples]
        if asked.jpeg:
            originals, files = files, [folder / f"{number}.jpg" for number in range(len(files))]
            for original, file in zip(originals, files, strict=True):
                open_image(original.read_bytes()).save(file, "JPEG", quality=90)
        expected = in_training(model, asked.backbone, files, fast=False)
        extracted = in_training(model, asked.backbone, files)
        found = {"Python": in_python(edge, files), "Node": in_node(edge, files)}
        found["C"] = in_c(edge, files)
        with served(folder / "site") as address, chromium() as browser:
            browser.get(address)
            found["Chromium"] = in_browser(browser, files)
            if asked.screenshots:
                screenshots(browser, asked.screenshots, address, files[:3])
        with served(folder / "site") as address:
            seconds, since_opening = first_answer(address, files[0])
    print(f"{len(files)} held-out photographs\n")
    print("| where | labels that differ | largest difference | as extracted: labels | difference |")
    print("|---|---|---|---|---|")
    worst, most = 0.0, 0
    for where, answers in found.items():
        changed, apart = answers.against(expected)
        others, away = answers.against(extracted)
        worst, most = max(worst, apart), max(most, changed, others)
        print(f"| {where} | {changed} | {apart:.1e} | {others} | {away:.1e} |")
    print(
        f"\nfirst answer {seconds:.2f} s after the choice, {since_opening:.2f} s after the opening"
    )
    if seconds > MOST_SECONDS:
        sys.exit("over the limit: the first answer takes more than 2 seconds")
    if most > (MOST_CHANGED * len(files) if asked.jpeg else 0):
        sys.exit("over the limit: too many labels differ")
    if not asked.jpeg and worst > TOLERANCE:
        sys.exit("over the limit: a probability differs by more than 1e-3")


if __name__ == "__main__":
    main()
