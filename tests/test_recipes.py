"""The recipes of `examples/`, by their scripts, on small data that is made here: no download."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import packed_files
import pyarrow.parquet as pq
import pytest
import sounds
import text_models
from conftest import exit_code_of, write_tiny_backbone
from PIL import Image

from headstart.classify.pareto.trend import trend
from headstart.data.contracts.model import Model
from headstart.data.contracts.tuned import Tuned
from headstart.extract.job import extract

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = ("--backbone", "timm:test_efficientnet", "--weights", "none")
Recipe = Callable[..., str]


@pytest.fixture
def recipe(
    local_ray: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Recipe:
    """Run a script's `main`, its commands in this process; what they printed."""
    monkeypatch.setattr("headstart.scripts._process", lambda words: exit_code_of(tuple(words)))

    def run(path: str, *arguments: object) -> str:
        spec = importlib.util.spec_from_file_location("recipe", EXAMPLES / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        module.main(*map(str, arguments))
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


def accuracy(model: Path) -> float:
    """Of a model folder, on its held-out examples."""
    found = Model.open(model).card.metrics["test"]["accuracy"]
    print(f"{model.parent.parent.name}: {found:.4f}")  # for the recipes' pages: pytest -rP
    return float(found)


def test_who_is_speaking(recipe: Recipe, lite0: Path, tmp_path: Path) -> None:
    voices = sounds.write_voices(tmp_path / "voices", 20)
    said = recipe("speakers/speakers.py", tmp_path / "work", "--recordings", voices)
    assert "--sound stft --size 100" in said
    assert accuracy(tmp_path / "work" / "model") >= 0.98
    rows = pq.read_table(tmp_path / "work" / "model" / "examples.parquet").to_pylist()
    test = {row["group"] or row["path"] for row in rows if row["split"] == "test"}
    assert len(test) == 12  # of 60 recordings
    assert "edge.onnx voices/" in said.replace(f"{tmp_path}/", "").replace("work/", "")
    again = recipe("speakers/speakers.py", tmp_path / "work", "--recordings", voices)
    assert again.count("$ headstart") == 1  # only the prediction


def test_cifar10_on_a_frozen_network_with_two_dense_layers(
    recipe: Recipe, lite0: Path, tmp_path: Path
) -> None:
    archive = packed_files.write_tar(
        tmp_path / "cifar-10-binary.tar.gz", packed_files.cifar10_binary(150)
    )
    work = tmp_path / "work"
    script = "cifar10-vgg16/cifar10_vgg16.py"
    lite = ("--backbone", "efficientnet_lite0", "--samples-per-class", 30)
    recipe(script, work, "--source", archive, *lite)
    card = Model.open(work / "model").card
    rows = pq.read_table(work / "model" / "examples.parquet").to_pylist()
    assert [row["split"] for row in rows].count("train") == 300
    assert [row["split"] for row in rows].count("test") == 150
    assert card.head["name"] == "keras"
    assert accuracy(work / "model") >= 0.8


def photographs(folder: Path, each: int = 40) -> Path:
    """Scans of 3 and 8 in train and validation."""
    pixels, labels = packed_files.digits(1200, 40)
    for name, digit in (("three", 3), ("eight", 8)):
        for number, row in enumerate(np.flatnonzero(labels == digit)[: 2 * each]):
            place = folder / ("validation" if number % 2 else "train") / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[row].transpose(1, 2, 0)).save(place / f"{number:03d}.png")
    return folder


def test_a_frozen_head_first_then_finetuning(recipe: Recipe, tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos")
    zipped = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos))
    work = tmp_path / "work"
    size = ("--size", 64, "--train-blocks", 1, "--max-epochs", 2)
    said = recipe("cats-and-dogs/cats_and_dogs.py", zipped, work, *SMALL, *size)
    assert Image.open(work / "nine.png").size == (3 * 172 + 12, 3 * 192 + 12)
    assert "parameters are trained, 514 of them the head's" in said
    assert accuracy(work / "frozen") >= 0.85
    assert Tuned.open(work / "tuned").card.metrics["test"]["accuracy"] >= 0.85
    assert "points of accuracy" in said


def test_scaled_up_then_a_sweep(recipe: Recipe, tmp_path: Path) -> None:
    archive = packed_files.write_tar(
        tmp_path / "cifar-10-python.tar.gz", packed_files.cifar10_python(60)
    )
    work = tmp_path / "work"
    said = recipe(
        *("cifar10-efficientnet/cifar10_efficientnet.py", work, "--source", archive, *SMALL),
        *("--sizes", "16,64", "--rates", "0.0005,0.0015", "--max-epochs", 4),
    )
    assert (work / "sizes.png").stat().st_size > 10_000
    found = trend([work / "features-16", work / "features-64"])
    small, large = found.points
    assert (small.at, large.at) == (16, 64)
    assert large.accuracy > small.accuracy
    trials = Tuned.open(work / "tuned").card.recipe
    assert trials["head_rate"] in (0.0005, 0.0015)
    assert trials["dropout"] in (0.25, 0.35)
    assert "rank" in said


def test_accuracy_by_layer_of_three_sets(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    sets = [photos, photographs(tmp_path / "threes", 20), tmp_path / "shapes"]
    for number in range(40):
        size = (8 + number % 8, 24) if number % 2 else (24, 8 + number % 8)
        path = sets[2] / ("high" if number % 2 else "wide") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)
        picture = Image.open(path)
        picture.paste((200, 90, 40 + number), (2, 2, *size))
        picture.save(path)
    work = tmp_path / "work"
    network = ("--network", "timm:test_efficientnet", "--weights", "none", "--size", 32)
    layers = "blocks.1,blocks.4"
    said = recipe(
        *("layers-and-words/layers.py", *sets, "--work", work, *network, "--layers", layers)
    )
    assert (work / "layers.png").stat().st_size > 10_000
    lines = [line for line in said.splitlines() if line.strip().startswith("blocks.")]
    assert [line.split()[0] for line in lines] == layers.split(",")
    assert all(line.count("+-") == 3 for line in lines)


def test_words_beside_an_encoder(recipe: Recipe, tmp_path: Path) -> None:
    texts = text_models.write_table(tmp_path / "texts.csv")
    encoder = text_models.write_encoder(tmp_path / "encoder")
    words = text_models.write_words(tmp_path / "words.txt")
    work = tmp_path / "work"
    said = recipe(
        *("layers-and-words/words.py", texts, "--words", words, "--encoder", encoder),
        *("--work", work),
    )
    assert (work / "words.png").stat().st_size > 10_000
    assert said.count("+-") == 2


@pytest.mark.timeout(600)
def test_from_scratch_against_frozen(tmp_path: Path, lite0: Path) -> None:
    """In processes of their own: Keras runs on PyTorch in the last one."""
    photos = photographs(tmp_path / "photos", 20)
    work = tmp_path / "work"
    work.mkdir()
    (work / "backbone.onnx").write_bytes(lite0.read_bytes())
    done = subprocess.run(
        [
            *(sys.executable, EXAMPLES / "layers-and-words" / "scratch.py", photos),
            *("--work", work, "--max-epochs", "2"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert "241,090 of 241,090 parameters are trained, 258 of them the head's" in done.stderr
    tuned = Tuned.open(work / "from-scratch")
    assert tuned.card.network == "small_cnn"
    assert accuracy(work / "frozen") >= 0.85
    assert "points of accuracy" in done.stdout
    assert done.stdout.count(" s)\n") == 3


def test_a_trend_over_size_layer_or_width(
    features: Path, photos: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    for size in (2, 4):
        write_tiny_backbone(tmp_path / f"{size}.onnx", size=size)
        extract(photos, tmp_path / f"{size}.onnx", tmp_path / f"at-{size}")
    stores = (tmp_path / "at-4", features, tmp_path / "at-2")
    answer = command("classify", "trend", *stores, "-o", tmp_path / "t.html")
    assert answer.code == 0, answer.err
    rows = [line.split() for line in answer.out.splitlines()]
    assert [row[0] for row in rows[:4]] == ["size", "2", "4", "8"]
    assert rows[0] == ["size", "tiny"]
    page = (tmp_path / "t.html").read_text()
    assert page.count("<tr>") == 4
    assert "input size, pixels" in page
    asked = command("classify", "trend", *stores, "--json")
    points = json.loads(asked.out)["points"]
    assert [point["at"] for point in points] == [4, 8, 2]
    assert command("classify", "pareto", features, "--json").code == 0
    twice = command("classify", "trend", features, features, "--over", "width")
    assert twice.code == 0
    same = command("classify", "trend", *stores, "--over", "width")
    assert "stores are at the same width of one line" in same.err
    unnamed = command("classify", "trend", features, "--over", "layer")
    assert "Name its backbone file: --backbone FILE" in unnamed.err
    wrong = command("classify", "trend", features, "--over", "depth")
    assert "unknown --over 'depth'" in wrong.err


@pytest.mark.parametrize(
    ("script", "given", "words"),
    [
        ("cifar10-vgg16/cifar10_vgg16.py", ("--source", "c.tar.gz"), "--source c.tar.gz"),
        (
            "cifar10-efficientnet/cifar10_efficientnet.py",
            ("--source", "c.tar.gz", "--weights", "b7.h5"),
            "--source c.tar.gz, --weights b7.h5",
        ),
        ("cats-and-dogs/cats_and_dogs.py", ("p.zip", "--weights", "none"), "PHOTOS p.zip"),
        ("speakers/speakers.py", ("--recordings", "voices"), "--recordings voices"),
        ("layers-and-words/layers.py", ("s3://x/y", "digits"), "SOURCE digits"),
        ("layers-and-words/scratch.py", ("photos",), "PHOTOS photos"),
        (
            "layers-and-words/words.py",
            ("t.csv", "--words", "glove.txt", "--encoder", "minilm"),
            "TEXTS t.csv, --words glove.txt, --encoder minilm",
        ),
    ],
)
def test_what_is_missing_is_said_at_once(
    script: str, given: tuple, words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no such file or folder: {words}\n")
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


def test_every_recipe_has_a_page_and_a_script_of_sixty_lines() -> None:
    for folder in (path for path in EXAMPLES.iterdir() if path.is_dir()):
        if folder.name.startswith((".", "_")):
            continue
        scripts = sorted(folder.glob("*.py"))
        page = (folder / "README.md").read_text()
        assert scripts, folder
        for script in scripts:
            assert len(script.read_text().splitlines()) <= 60, script
            assert f"python examples/{folder.name}/{script.name}" in page, script
