"""`headstart build`, `predict` and `serve`: the whole job, again, and what it answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from conftest import paint, write_tiny_backbone
from elsewhere import WEB
from text_models import write_table, write_words

import headstart.building
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.store import FeatureStore


def test_the_whole_job_and_only_what_changed(
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    command: Callable,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = []

    def train(*arguments: Any) -> Any:
        looked.append(arguments[-1].backbone)
        return real(*arguments)

    real = headstart.building.train
    monkeypatch.setattr("headstart.building.train", train)
    work = tmp_path / "work"
    job = ("build", photos, "-o", work, "--backbone", tiny_backbone, "--runtime", WEB)
    first = command(*job)
    assert first.code == 0, first.err
    assert looked == [str(work / "backbone.onnx")]  # the report shows where the head looked
    assert first.out.startswith("accuracy    ")
    for line in (
        "examples    60 embedded",
        f"edge model  {work / 'edge.onnx'}",
        f"page        {work / 'page'}",
        f"try it      python -m headstart serve {work / 'edge.onnx'}",
    ):
        assert line in first.out
    assert "on 15 held-out examples" in first.out
    assert (work / "model" / "report.html").exists()
    again = command(*job, "--json")
    built = json.loads(again.out)
    assert set(built["parts"].values()) == {"unchanged"}
    assert (built["examples"], built["classes"]) == (60, ["blue", "green", "red"])
    assert built["bytes"]["edge"] == (work / "edge.onnx").stat().st_size
    page = json.loads((work / "page" / "site.json").read_text())
    assert page["title"] == "photos"

    job = (*job, "--title", "Colours", "--page-examples")
    titled = json.loads(command(*job, "--json").out)["parts"]
    assert [part for part, state in titled.items() if state != "unchanged"] == ["page"]
    assert len(list((work / "page" / "examples").iterdir())) == 6
    (work / "edge.onnx").write_bytes(b"something else")  # it exists, and is not what was written
    fixed = json.loads(command(*job, "--json").out)["parts"]
    assert [part for part, state in fixed.items() if state != "unchanged"] == ["edge model"]
    for index in range(4):
        paint(photos / "red" / f"new{index}.png", (200, 60, 60), 900 + index)
    grown = json.loads(command(*job, "--json", "--no-report").out)
    assert grown["examples"] == 64
    changed = [part for part, state in grown["parts"].items() if state == "built"]
    assert changed == ["features", "model", "edge model", "page"]
    assert FeatureStore.open(work / "features").manifest.inferences == 64  # none was made twice

    write_tiny_backbone(tmp_path / "other.onnx", seed=1)
    other = command(*job[:4], "--backbone", tmp_path / "other.onnx", "--no-page", "--no-report")
    assert other.code == 0, other.err
    assert "the backbone is another one: all features are extracted again" in other.err
    assert FeatureStore.open(work / "features").manifest.inferences == 64


def test_words_and_a_lower_precision(
    tmp_path: Path, command: Callable, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.export.text.build.SECONDS", 0.1)
    table = f"{write_table(tmp_path / 'texts.csv', 8)}#text"
    words = ("--words", write_words(tmp_path / "words.txt"), "--most-words", 38)
    work = tmp_path / "work"
    job = ("build", table, "-o", work, *words, "--no-page", "--no-report", "--examples", 5)
    made = json.loads(command(*job, "--json").out)
    assert (made["network"], made["parts"]["page"]) == ("words.txt", "skipped")
    tokenizer = json.loads((work / "edge.tokenizer.json").read_text())
    assert len(tokenizer["model"]["vocab"]) == 40  # with padding and unknown words
    lower = command(*job, "--backbone-precision", "fp16")
    assert lower.code == 0, lower.err
    assert "the backbone is another one: all features are extracted again" in lower.err
    assert load_backbone(work / "backbone.onnx").fingerprint.precision == "fp16"
    closer = json.loads(
        command(*job, "--backbone-precision", "fp16", "--examples", 6, "--json").out
    )
    assert [part for part, state in closer["parts"].items() if state == "built"] == ["edge model"]


def test_mistakes_are_found_before_any_work(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for name in ("green", "red"):
        shutil.rmtree(photos / name)
    said = command("build", photos, "-o", mine, "--backbone", tiny_backbone, "--size", 9)
    assert said.code == 2
    assert said.err == (
        f"error: 1. {tiny_backbone} is a backbone file, which is used as it was exported\n"
        "  Leave out the options of the network, such as --size, or name the network.\n"
        f"2. {photos} has one class ('blue'); a classifier needs at least two\n"
        "  Sort the files into a folder for each class, or give a manifest with a column "
        "'label'.\n"
        f"3. {mine} contains other files, such as letter.txt\n"
        "  Choose an empty or new folder with -o.\n"
    )
    assert [path.name for path in mine.iterdir()] == ["letter.txt"]
    wrong = command(
        *("build", photos, "-o", tmp_path / "new", "--head", "forest", "--workers", 0),
        *("--words", "glove.txt", "--backbone", tiny_backbone, "--hop", 2, "--examples", 0),
    )
    assert wrong.code == 2
    assert [line for line in wrong.err.splitlines() if line[:1] != " "] == [
        "error: 1. unknown head 'forest'",
        "2. --workers 0 is not possible",
        "3. give either --backbone or --words FILE",
        "4. --hop can only be used with --sound",
        "5. --examples 0 would compare nothing",
    ]
    low = (
        "--backbone-precision",
        "int4",
        "--views",
        "eight",
        "--sound",
        "loud",
        "--calibrate",
        "x",
    )
    said = command("build", photos, "-o", tmp_path / "new", *low)
    for word in ("unknown --precision 'int4'", "unknown --views 'eight'", "unknown --sound 'loud'"):
        assert word in said.err
    assert not (tmp_path / "new").exists()


def test_answers_without_ray(
    photos: Path,
    edge: Path,
    model: Path,
    tmp_path: Path,
    command: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_ray(*arguments: object, **named: object) -> None:
        raise AssertionError("Ray is not needed")

    monkeypatch.setattr("headstart.classify.prediction.edge.ray_session", no_ray)
    one, other = photos / "red" / "00.png", photos / "blue" / "07.png"
    said = command("predict", edge, one, other)
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines()]
    assert [line[:2] for line in lines] == [[str(one), "red"], [str(other), "blue"]]
    assert 0.5 < float(lines[0][2]) <= 1
    assert command("predict", model, one, other).out == said.out  # its backbone lies beside it
    answers = json.loads(command("predict", edge, photos / "green", one, "--json").out)
    assert [answer["prediction"] for answer in answers] == ["green"] * 20 + ["red"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert list(answers[0]["probabilities"]) == ["blue", "green", "red"]

    output = tmp_path / "answers.csv"
    said = command("predict", edge, photos, "-o", output)
    assert said.out.endswith(f"... and 10 more\nwrote 60 predictions to {output}\n")
    assert len(output.read_text().splitlines()) == 61

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    said = command("predict", edge, broken)
    assert (said.code, said.out) == (3, f"{broken}  not classified: empty: the file has no bytes\n")
    assert said.err == (
        "error: 1 of 1 file could not be classified, more than --max-bad 5.0%\n"
        "  The reason is behind the name of each.\n"
    )


def test_what_cannot_be_answered(
    features: Path, edge: Path, model: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    missing = command("predict", edge, tmp_path / "no.png", features)
    assert missing.code == 2
    assert missing.err == (
        f"error: 1. {tmp_path / 'no.png'}: no such photograph, folder or manifest\n"
        "  Check the path.\n"
        f"2. {features} is a feature store, not photographs\n"
        f"  Use it with a model folder: python -m classify predict MODEL {features} -o OUTPUT\n"
    )
    both = command("predict", edge, tmp_path, "--backbone", tiny_backbone)
    assert both.err == (
        f"error: --backbone cannot be used with the edge model {edge}, which has its own inside\n"
        "  Leave it out.\n"
    )
    tiny_backbone.unlink()
    lost = command("predict", model, tmp_path)
    assert lost.code == 2
    assert lost.err.startswith(f"error: the backbone of {model} was not found: tiny ")
    assert "\n  Name it: --backbone FILE. There is none of this fingerprint in " in lost.err


def test_the_page_on_loopback_until_ctrl_c(edge: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "headstart", "serve", edge, "--no-browser", "--runtime", WEB)
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONUNBUFFERED": "1"}
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    said = process.stdout.readline().decode()
    address = said.split()[2]
    assert said == f"{edge} on {address}  (Ctrl-C ends it)\n"
    assert address.startswith("http://127.0.0.1:")
    with urlopen(f"{address}/site.json") as answer:
        assert json.load(answer)["title"] == "edge"
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(f"{address}/site.json", headers={"Host": "elsewhere.example"}))
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert time.monotonic() - sent < 5  # a second, where nothing else runs
    assert process.stderr.read().decode() == "writing the page ...\n"
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_port_that_is_taken(edge: Path, command: Callable) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = command("serve", edge, "--port", port, "--no-browser")
    assert (said.code, said.err) == (
        2,
        f"error: --port {port} cannot be used: Address already in use\n"
        "  Choose another, or leave it out.\n",
    )
