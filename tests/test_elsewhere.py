"""The edge model in Python, in Node, in C and in the browser predicts as in training."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browser import open_fresh, served
from conftest import COLOURS
from elsewhere import (
    NODE,
    TOLERANCE,
    WEB,
    held_out,
    in_browser,
    in_c,
    in_node,
    in_python,
    in_training,
)
from PIL import Image
from selenium import webdriver
from test_heads import QUICK, digits, finished

from headstart.classify.heads.estimators import HEADS, HeadOptions
from headstart.classify.heads.to_onnx import head_to_onnx
from headstart.classify.prediction.features import run_head
from headstart.classify.training import RunOptions, train
from headstart.data.contracts.model import Model
from headstart.export.demo.site import write_demo
from headstart.export.edge.classifier import export_classifier
from headstart.export.options import EdgeOptions


def everywhere(edge: Path, files: list[Path], site: Path, browser: webdriver.Chrome) -> dict:
    write_demo(edge, site, runtime=WEB)
    with served(site) as address:
        open_fresh(browser, address)
        found = {"browser": in_browser(browser, files)}
        assert browser.get_log("browser") == []
    return found | {"Python": in_python(edge, files), "Node": in_node(edge, files)}


@pytest.mark.timeout(1200)  # the main job is its fixture
def test_held_out_digits(
    digits_job: Path, tmp_path: Path, browser: webdriver.Chrome, command: Callable
) -> None:
    """From their files, each with its own decoder: all 450 in Python, by the command, and a third
    of them everywhere."""
    model, backbone = Model.open(digits_job / "model"), digits_job / "backbone.onnx"
    edge = tmp_path / "edge.onnx"
    options = ("--any-size", "--examples", 450)
    answer = command(
        *("export", "classifier", digits_job / "model", "--backbone", backbone, "-o", edge),
        *options,
    )
    assert "450 examples from their files, 450 of them held out of training" in answer.out
    assert len(held_out(model)) == 450
    files = held_out(model)[::3]
    expected = in_training(model, backbone, files)
    found = everywhere(edge, files, tmp_path / "site", browser) | {"C": in_c(edge, files)}
    assert len(set(expected.labels)) == 10  # they are of every class
    for where, answers in found.items():
        changed, apart = answers.against(expected)
        print(f"{where}: {changed} labels differ, probabilities by at most {apart:.1e}")
        assert changed == 0, where
        assert apart <= TOLERANCE, where


def odd_photographs(folder: Path) -> list[Path]:
    """Smooth pictures in the colours of the classes, in files of every kind that cameras write."""
    folder.mkdir()
    y, x = np.mgrid[:97, :131]
    shades = 40 * np.sin(x / 20) * np.cos(y / 15)
    files = []
    for name, colour in COLOURS.items():
        picture = Image.fromarray(
            (np.array(colour) + shades[..., None]).clip(0, 255).astype(np.uint8)
        )
        turned = Image.Exif()
        turned[0x0112] = 6  # to be turned by a quarter
        clear = picture.convert("RGBA")
        clear.putalpha(Image.fromarray((x * 255 // 130).astype(np.uint8)))
        for kind, image, options in (
            ("png", picture, {}),
            ("grey.png", picture.convert("L"), {}),
            ("clear.png", clear, {}),
            ("palette.png", picture.quantize(64), {}),
            ("turned.jpg", picture, {"quality": 95, "exif": turned, "subsampling": 0}),
            ("lossless.webp", picture, {"lossless": True}),
            ("narrow.png", picture.crop((0, 0, 1, 97)), {}),
        ):
            files.append(folder / f"{name}.{kind}")
            image.save(files[-1], **options)
    return files


def test_odd_photographs(
    model: Path, tiny_backbone: Path, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    """A tiny backbone is sensitive to single pixels, so differences between decoders show."""
    edge = tmp_path / "edge.onnx"
    export_classifier(model, tiny_backbone, edge, EdgeOptions(any_size=True))
    files = odd_photographs(tmp_path / "odd")
    expected = in_training(Model.open(model), tiny_backbone, files)
    for where, answers in everywhere(edge, files, tmp_path / "site", browser).items():
        assert answers.against(expected)[0] == 0, where
        apart = np.abs(answers.probabilities - expected.probabilities).max(axis=1)
        for file, difference in zip(files, apart, strict=True):
            assert difference <= 0.03, f"{file.name} in {where}"  # a level, here and there


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_every_head_runs_on_the_web(method: str, tmp_path: Path) -> None:
    training = digits(3, 150)
    embeddings = np.concatenate([training.embeddings, training.embeddings[::-1] * 0.7])
    (tmp_path / "embeddings.f32").write_bytes(embeddings.tobytes())
    for name in HEADS:
        head = finished(HeadOptions(name, QUICK.get(name, {})), training, method)
        content = head_to_onnx(head, training.embeddings).content
        (tmp_path / f"{name}.onnx").write_bytes(content)
    paths = [tmp_path / f"{name}.onnx" for name in HEADS]
    lines = subprocess.run(
        ["node", NODE / "heads.mjs", tmp_path / "embeddings.f32", "64", *paths],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.splitlines()
    assert len(lines) == len(HEADS)
    for path, line in zip(paths, lines, strict=True):
        found = json.loads(line)
        labels, probabilities = run_head(path.read_bytes(), embeddings)
        apart = np.abs(np.reshape(found["probabilities"], probabilities.shape) - probabilities)
        assert apart.max() <= 1e-5, path.stem
        assert (np.array(found["labels"]) != labels).mean() <= 0.01, path.stem


def test_the_code_for_node_says_what_it_cannot_use(
    model: Path, tiny_backbone: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    edge = tmp_path / "there" / "edge.onnx"
    export_classifier(model, tiny_backbone, edge, EdgeOptions())
    answer = command("export", "code", edge)
    assert answer.out.startswith("wrote  ")
    code = edge.parent / "classify_photo.mjs"
    assert (edge.parent / "classify_photo.py").exists()
    again = command("export", "code", edge)
    assert again.code == 2
    assert again.err == (
        f"error: 1. {edge.parent / 'classify_photo.py'} exists already\n"
        "  Pass --overwrite to replace it.\n"
        f"2. {code} exists already\n  Pass --overwrite to replace it.\n"
        f"3. {edge.parent / 'classify_photo.c'} exists already\n  Pass --overwrite to replace it.\n"
    )
    (edge.parent / "node_modules").symlink_to(NODE / "node_modules")

    def run(*arguments: Path) -> subprocess.CompletedProcess:
        command = ["node", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    photo = photos / "red" / "00.png"
    assert (run().returncode, run().stderr) == (
        1,
        "usage: node classify_photo.mjs edge.onnx photo.jpg [photo.jpg ...]\n",
    )
    fixed = run(edge, photo)
    assert (fixed.returncode, fixed.stderr) == (
        1,
        f"{edge} cannot be used: it was exported without --any-size, and resizes nothing by "
        "itself\n",
    )
    export_classifier(model, tiny_backbone, edge, EdgeOptions(any_size=True, overwrite=True))
    some = run(edge, tmp_path / "no.png", photo)
    assert some.returncode == 1
    assert some.stderr.startswith(f"{tmp_path / 'no.png'} cannot be read: ")
    assert some.stdout.startswith(f"{photo}  red  ")


def test_unknown_in_node_c_and_python(
    features: Path, tiny_backbone: Path, photos: Path, tmp_path: Path
) -> None:
    from headstart.classify.heads.calibration import AnswerOptions
    from headstart.classify.heads.fitting import FitOptions

    options = FitOptions(answers=AnswerOptions(coverage=0.5))
    train(features, tmp_path / "sure", options, run=RunOptions(report=False))
    edge = tmp_path / "edge.onnx"
    export_classifier(tmp_path / "sure", tiny_backbone, edge, EdgeOptions(any_size=True))
    files = sorted(photos.rglob("*.png"))
    python = in_python(edge, files)
    assert python.against(in_node(edge, files))[0] == 0
    assert python.against(in_c(edge, files))[0] == 0
    assert 0 < (python.labels == -1).sum() < len(files)
