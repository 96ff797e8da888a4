"""The main job, end to end, by its commands: scans of digits in, one edge model out."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from headstart.data.examples.opening import open_source
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.data.samples import SAMPLES, lay_out


@pytest.mark.timeout(1200)  # the main job is its fixture
def test_the_main_job_on_digits(digits_job: Path, tmp_path: Path, command: Callable) -> None:
    digits, backbone = digits_job / "digits", digits_job / "backbone.onnx"
    features, model, edge = digits_job / "features", digits_job / "model", tmp_path / "edge.onnx"
    for arguments in (
        ("export", "classifier", model, "--backbone", backbone, "-o", edge),
        ("classify", "predict", model, features, "-o", tmp_path / "p.csv"),
    ):
        answer = command(*arguments)
        assert answer.code == 0, answer.err
        assert "wrote" in answer.out
    evaluated = json.loads(command("classify", "evaluate", model, features, "--json").out)
    assert evaluated["examples"] == 450
    assert evaluated["accuracy"] >= 0.95
    session = onnxruntime.InferenceSession(edge.read_bytes())
    classes = json.loads(session.get_modelmeta().custom_metadata_map["headstart.classes"])
    with (tmp_path / "p.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    for row in predictions[::60]:
        image = decode((digits / row["id"]).read_bytes(), Preprocessing(112, 112))
        (label,), probabilities = session.run(None, {"image": image[None]})
        assert classes[label] == row["prediction"]
        assert probabilities.max() == pytest.approx(float(row["confidence"]), abs=1e-3)


def test_the_elpv_sample_is_written_with_its_licence(tmp_path: Path, command: Callable) -> None:
    answer = command("data", "sample", "elpv", tmp_path / "elpv")
    assert "CC BY-NC-SA 4.0: not for commercial use" in answer.out
    assert "CC BY-NC-SA 4.0" in (tmp_path / "elpv" / "LICENCE.txt").read_text()
    source = open_source(tmp_path / "elpv")
    assert (len(source), source.classes) == (2624, ["defective", "functional"])
    table = open_source(tmp_path / "elpv" / "manifest.csv").examples
    assert table["label"].to_pylist().count("defective") == 821
    assert set(table["type"].to_pylist()) == {"mono", "poly"}
    assert set(table["id"].to_pylist()) == set(source.examples["id"].to_pylist())


def test_samples_that_cannot_be_written(tmp_path: Path, command: Callable) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    answer = command("data", "sample", "digits", tmp_path)
    assert (answer.code, answer.err) == (
        2,
        f"error: {tmp_path} is not empty\n  Choose an empty or new folder.\n",
    )
    answer = command("data", "sample", "digit", tmp_path / "x")
    assert answer.err == "error: unknown sample set 'digit'\n  Did you mean digits?\n"


def test_a_missing_sample_package_is_named_with_its_fix(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    answer = command("data", "sample", "elpv", tmp_path / "x")
    assert answer.code == 2
    assert answer.err.endswith(
        "error: the photographs come from the package elpv-dataset, which is not installed\n"
        "  Install it with: pip install 'headstart[samples]'\n"
    )


def test_digits_are_the_scans_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    folder = lay_out("digits", tmp_path / "d")
    assert len(folder.names()) == SAMPLES["digits"].count == 1797
    content = folder.read("0/scan0000.png")
    pixels = decode(content, Preprocessing(8, 8))[..., 0] / 255 * 16
    assert abs(pixels - load_digits().images[0]).max() < 0.04
