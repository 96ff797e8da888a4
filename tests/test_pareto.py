"""What a backbone is worth: stores of the same examples by accuracy and cost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_bf16, paint, write_tiny_backbone
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.classify.pareto.compare import Candidate, Cost, Pareto, pareto, pareto_optimal
from headstart.classify.pareto.plot import draw, short_names, write_plot
from headstart.classify.report.drawing import STYLE
from headstart.classify.training import RunOptions, train
from headstart.data.common.errors import InputError, ManyInputErrors, StoreError
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.extract.job import extract


@pytest.fixture
def narrow(photos: Path, tmp_path: Path, local_ray: None) -> Path:
    """A store of the same photographs by another backbone, of one number each."""
    write_tiny_backbone(tmp_path / "narrow.onnx", dim=1)
    extract(photos, tmp_path / "narrow.onnx", tmp_path / "one")
    return tmp_path / "one"


def test_a_table_of_stores(features: Path, narrow: Path, tmp_path: Path, command: Callable) -> None:
    answer = command("classify", "pareto", narrow, features)
    assert answer.code == 0, answer.err
    first, *rows = answer.out.splitlines()
    assert re.split(r"  +", first.strip()) == [
        *("store", "Pareto", "accuracy", "backbone", "input", "precision", "dim"),
        "bytes per example",
    ]
    assert [row.split()[0] for row in rows] == [str(features), str(narrow)]
    assert answer.err.endswith(
        "Logistic head on 60 examples of 3 classes: mean and standard deviation of the accuracy "
        "over 5 splits (stratified 75%/25%, seed 0).\n"
    )
    plot = tmp_path / "p.svg"
    backbones = ("--backbone", tmp_path / "tiny.onnx", "--backbone", tmp_path / "narrow.onnx")
    answer = command("classify", "pareto", narrow, features, *backbones, "-o", plot)
    assert answer.code == 0, answer.err
    assert re.split(r"  +", answer.out.splitlines()[0].strip())[-5:] == [
        *("dim", "bytes per example", "file", "per second", "layers")
    ]
    assert "flat (none)" in answer.out
    assert answer.out.endswith(f"wrote {plot}\n")
    assert plot.read_bytes().startswith(b"<?xml")


def test_the_accuracy_is_that_of_scikit_learn(features: Path, narrow: Path) -> None:
    found = pareto([features, narrow], seed=4)
    assert (found.examples, found.classes, found.repeats) == (60, 3, 5)
    assert {each.store for each in found.candidates} == {str(features), str(narrow)}
    for each in found.candidates:
        table = FeatureStore.open(each.store).read().sort_by("id")
        numbers, labels = embeddings_of(table), np.array(table["label"].to_pylist())
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        splits = StratifiedShuffleSplit(5, test_size=0.25, random_state=4).split(numbers, labels)
        scores = [
            head.fit(numbers[a], labels[a]).score(numbers[b], labels[b])
            for a, b in ((np.sort(a), np.sort(b)) for a, b in splits)
        ]
        assert each.accuracy == pytest.approx(np.mean(scores))
        assert each.std == pytest.approx(np.std(scores, ddof=1))
        assert each.fingerprint == FeatureStore.open(each.store).fingerprint
        assert each.cost is None
        # Little is compressed of random numbers, and a file has some bytes around them.
        assert 3 * each.fingerprint.dim < each.bytes_per_example < 4 * each.fingerprint.dim + 10
    best, other = found.candidates
    assert (best.store, best.accuracy) == (str(features), 1)
    assert 0.5 < other.accuracy < 0.9
    assert other.std > 0
    assert best.best
    assert other.best  # it is narrower


def test_it_agrees_with_training(features: Path, tmp_path: Path) -> None:
    """Where the store has its rows in the order of the ids."""
    from headstart.classify.heads.fitting import FitOptions
    from headstart.classify.splits.splitting import SplitOptions

    ids = FeatureStore.open(features).read(["id"])["id"].to_pylist()
    assert ids == sorted(ids)
    trained = train(
        *(features, tmp_path / "m", FitOptions(), SplitOptions(repeats=5)),
        RunOptions(report=False),
    )
    (only,) = pareto([features]).candidates
    assert trained.repeated is not None
    assert only.accuracy == pytest.approx(trained.repeated.mean["accuracy"])
    assert only.std == pytest.approx(trained.repeated.std["accuracy"])


def test_rows_may_stand_in_any_order(narrow: Path, tmp_path: Path) -> None:
    other = shutil.copytree(narrow, tmp_path / "turned")
    for part in other.glob("part-*.parquet"):
        table = pq.read_table(part)
        pq.write_table(table.take(np.arange(table.num_rows)[::-1]), part)
    a, b = pareto([narrow, other]).candidates
    assert (a.accuracy, a.std, a.best) == (b.accuracy, b.std, b.best)


def test_json_has_what_the_backbones_cost(
    features: Path, narrow: Path, tmp_path: Path, command: Callable
) -> None:
    backbones = ("--backbone", tmp_path / "tiny.onnx", "--backbone", tmp_path / "narrow.onnx")
    answer = command("classify", "pareto", features, narrow, *backbones, "--json")
    for each in json.loads(answer.out)["candidates"]:
        file = load_backbone(each["cost"]["path"])
        assert each["fingerprint"] == file.fingerprint.to_json()
        assert each["cost"]["size"] == len(file.content)
        assert each["cost"]["images_per_second"] > 0
        assert each["cost"]["layers"] == ["flat"]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_pareto_optimal(merits: list[tuple[float, ...]]) -> None:
    """By the definition: no other is as good in everything and better in something."""
    marks = pareto_optimal(merits)
    assert any(marks)
    for own, mark in zip(merits, marks, strict=True):
        beaten = [
            all(a >= b for a, b in zip(other, own, strict=True))
            and any(a > b for a, b in zip(other, own, strict=True))
            for other in merits
        ]
        assert mark == (not any(beaten))


def candidate(name: str, accuracy: float, speed: float | None, dim: int = 1280) -> Candidate:
    made = Fingerprint("net", "0" * 64, "224x224 squash bilinear", "fp32", dim)
    cost = None if speed is None else Cost("b.onnx", ("head",), "avg", 10**7, speed)
    return Candidate(
        store=name,
        fingerprint=made,
        accuracy=accuracy,
        std=0.01,
        bytes_per_example=4.0 * dim,
        cost=cost,
        best=True,
    )


def found(*candidates: Candidate) -> Pareto:
    return Pareto(candidates, 2624, 2, 5, "stratified 75%/25%, seed 0")


LIKE_OURS = found(
    candidate("f/lite2-views", 0.887, 12),
    candidate("f/lite1-four", 0.8715, 55),
    replace(candidate("f/resnet50", 0.868, 14), best=False),
    candidate("f/lite0-four", 0.866, 78),
    candidate("f/lite0-fp16", 0.866, 61),
    candidate("f/lite0-int8", 0.8645, 118),
    replace(candidate("f/mobilenetv2", 0.86, 95), best=False),
    replace(candidate("f/lite0-head", 0.852, 80), best=False),
)


@pytest.mark.parametrize("kind", [".png", ".svg", ".html"])
def test_a_plot_is_the_same_every_time(kind: str, tmp_path: Path) -> None:
    for name in "ab":
        write_plot(LIKE_OURS, tmp_path / f"{name}{kind}")
    content = (tmp_path / f"a{kind}").read_bytes()
    assert content == (tmp_path / f"b{kind}").read_bytes()
    if kind == ".png":
        with Image.open(tmp_path / "a.png") as image:
            assert image.size == (1200, 750)
    else:
        assert content.decode().count("lite0-four") == (1 if kind == ".svg" else 2)
        assert b"lite0-four" in content


def test_no_label_lies_on_another_or_on_a_dot() -> None:
    with matplotlib.rc_context(STYLE):
        figure = draw(LIKE_OURS)
        figure.draw_without_rendering()
        (axes,) = figure.axes
        boxes = [text.get_window_extent() for text in axes.texts]
        assert [text.get_text() for text in axes.texts] == [
            each.store.split("/")[1] for each in LIKE_OURS.candidates
        ]
        assert all(not a.overlaps(b) for a, b in combinations(boxes, 2))
        dots = axes.transData.transform(
            [(each.cost.images_per_second, 100 * each.accuracy) for each in LIKE_OURS.candidates]  # type: ignore[union-attr]
        )
        assert not any(box.contains(*dot) for box in boxes for dot in dots)
        assert all(axes.bbox.containsx(box.x0) and axes.bbox.containsy(box.y1) for box in boxes)


def test_the_line_is_what_can_be_had_for_a_cost() -> None:
    """From the slowest and best to the fastest; without speeds, from narrow to wide."""
    with matplotlib.rc_context(STYLE):
        (axes,) = draw(LIKE_OURS).axes
        steps = axes.lines[-1].get_xydata()
        assert steps[1::2].round(2).tolist() == [
            *([118, 86.45], [78, 86.6], [55, 87.15], [12, 88.7])
        ]
        assert steps[2:-1:2].round(2).tolist() == [[78, 86.45], [55, 86.6], [12, 87.15]]
        wide = found(
            candidate("a", 0.85, None, 100),
            candidate("b", 0.84, None, 200),
            candidate("c", 0.9, None, 300),
        )
        (axes,) = draw(wide).axes
        assert axes.lines[-1].get_xydata()[1:4].tolist() == [[100, 85], [300, 85], [300, 90]]


def test_odd_names_are_only_names(tmp_path: Path) -> None:
    name = "<script>alert(1)</script> $x_1$ \u7279\u5fb4"
    write_plot(found(candidate(name, 0.9, 10)), tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "<script" not in text
    assert text.count("\u7279\u5fb4") == 2
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    write_plot(found(candidate(name, 0.9, None)), tmp_path / "a.png")


def test_short_names() -> None:
    assert short_names(["a/b/features", "a/c/features"]) == ["b/features", "c/features"]
    assert short_names(["s3://bucket/x", "y"]) == ["x", "y"]
    assert short_names(["x", "x"]) == ["x", "x"]
    assert short_names(["x", "y/x"]) == ["x", "y/x"]


def test_other_examples_or_labels(
    features: Path, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    shutil.move(photos / "red" / "00.png", photos / "green" / "zz.png")
    paint(photos / "red" / "01.png", (200, 60, 60), 999)
    extract(photos, tiny_backbone, tmp_path / "moved")
    with pytest.raises(StoreError) as caught:
        pareto([features, tmp_path / "moved"])
    assert str(caught.value) == (
        f"{features} and {tmp_path / 'moved'} do not hold the same labelled examples: "
        "1 only in the first, such as 'red/00.png'; 1 only in the second, such as "
        "'green/zz.png'; 1 with other bytes, such as 'red/01.png'\n  Extract both from the same "
        "source; if examples failed, again with --retry-failed."
    )
    rows = [f"{p.relative_to(photos)},red" for p in sorted(photos.rglob("*.png"))]
    (photos / "m.csv").write_text("\n".join(["path,label", *rows, ""]))
    extract(photos / "m.csv", tiny_backbone, tmp_path / "all-red")
    with pytest.raises(StoreError, match=r": 41 with another label, such as 'blue/00\.png'\n"):
        pareto([tmp_path / "moved", tmp_path / "all-red"])


def test_backbones_that_do_not_belong(features: Path, narrow: Path, tmp_path: Path) -> None:
    other = write_tiny_backbone(tmp_path / "other.onnx", seed=9)
    with pytest.raises(ManyInputErrors) as caught:
        pareto([features, narrow], [tmp_path / "other.onnx", tmp_path / "tiny.onnx"])
    assert str(caught.value) == (
        f"1. no store was made with the backbone {tmp_path / 'other.onnx'}: {other.fingerprint}\n"
        "  Leave it out, or name the store.\n"
        f"2. the backbone of {narrow} is not given: {FeatureStore.open(narrow).fingerprint}\n"
        "  Name it with --backbone, or leave all of them out: a store without a speed cannot be "
        "compared."
    )


def test_features_in_bf16_cost_what_their_file_costs(
    features: Path, tmp_path: Path, command: Callable
) -> None:
    """The edge runs the file as it is; extraction runs one in fp32 in bf16 where the CPU has it."""
    in_bf16, tiny = tmp_path / "in-bf16", tmp_path / "tiny.onnx"
    shutil.copytree(features, in_bf16)
    make_bf16(in_bf16)
    answer = command("classify", "pareto", features, in_bf16, "--backbone", tiny, "--json")
    assert answer.code == 0, answer.err
    first, second = json.loads(answer.out)["candidates"]
    precisions = {each["fingerprint"]["precision"] for each in (first, second)}
    assert precisions == {"fp32", "bf16"}
    assert first["cost"] == second["cost"]
    words = " Where features are in bf16, the speed is in fp32, as at the edge.\n"
    assert command("classify", "pareto", in_bf16, "--backbone", tiny).err.endswith(words)
    assert words not in command("classify", "pareto", features, "--backbone", tiny).err


def test_mistakes_are_told_at_once(tmp_path: Path, command: Callable) -> None:
    arguments = ("--backbone", tmp_path / "b.onnx", "-o", tmp_path / "p.pdf", "--seed", -1)
    answer = command("classify", "pareto", tmp_path / "none", *arguments)
    assert answer.code == 2
    assert answer.err == (
        "error: 1. --seed -1 is not possible\n  Give 0 or more.\n"
        f"2. {tmp_path / 'p.pdf'} is not a plot that can be written\n"
        "  Choose from .png, .svg, .html.\n"
        f"3. {tmp_path / 'none'}: no such feature store\n"
        "  Make one with: python -m extract SOURCE --backbone backbone.onnx -o FEATURES\n"
        f"4. {tmp_path / 'b.onnx'}: no such backbone file\n"
        "  Export one with: python -m export backbone NAME -o backbone.onnx\n"
    )


def test_a_plot_is_not_replaced(narrow: Path, tmp_path: Path, command: Callable) -> None:
    plot = tmp_path / "p.html"
    plot.write_text("mine")
    answer = command("classify", "pareto", narrow, "-o", plot)
    assert answer.err == (f"error: {plot} exists already\n  Pass --overwrite to replace it.\n")
    assert plot.read_text() == "mine"
    assert command("classify", "pareto", narrow, "-o", plot, "--overwrite").code == 0
    assert plot.read_text().startswith("<!doctype html>")


def test_a_store_larger_than_memory(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.classify.pareto.compare.memory_budget", lambda: 1000)
    with pytest.raises(InputError) as caught:
        pareto([narrow])
    assert str(caught.value) == (
        f"comparing {narrow} takes 5.3 kB of memory, and there are 1.0 kB\n"
        "  Extract a part of the examples for the comparison."
    )
