"""Edge models compared: size, latency, memory, and predictions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import paint
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from headstart.classify.heads.calibration import AnswerOptions
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.common.errors import (
    HeadstartError,
    InputError,
    ManyInputErrors,
    ModelError,
    SourceError,
)
from headstart.data.common.intervals import proportion
from headstart.data.contracts.edge import load_edge
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.export.edge.classifier import export_classifier
from headstart.export.measure.agreement import agree, labelled_photographs
from headstart.export.measure.latency import measure_latency
from headstart.export.measure.measure import measure
from headstart.export.options import EdgeOptions, MeasureOptions

QUICK = MeasureOptions(20)


@pytest.fixture
def unsure(features: Path, tiny_backbone: Path, tmp_path: Path) -> Path:
    """Another head, which answers for a half, as an edge model of any size."""
    options = FitOptions(HeadOptions("ridge"), AnswerOptions(coverage=0.5))
    train(features, tmp_path / "unsure", options, run=RunOptions(report=False))
    any_size = EdgeOptions(any_size=True)
    export_classifier(tmp_path / "unsure", tiny_backbone, tmp_path / "b.onnx", any_size)
    return tmp_path / "b.onnx"


def rewritten(edge: Path, out: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(edge)
    change(proto)
    out.write_bytes(proto.SerializeToString())
    return out


def with_classes(*names: str) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        for entry in proto.metadata_props:
            if entry.key == "headstart.classes":
                entry.value = json.dumps(names)
        for output in proto.graph.output:  # or the names would not fit the graph
            if output.name == "probabilities":
                output.type.tensor_type.shape.dim[-1].dim_param = "classes"

    return change


def test_a_table_of_edge_models(edge: Path, unsure: Path, photos: Path, command: Callable) -> None:
    (photos / "red" / "00.png").write_bytes(b"")
    (photos / "red" / "01.png").write_bytes(b"no photograph")
    answer = command("export", "measure", edge, unsure, "--source", photos, "--runs", 20)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    heading = [word for word in lines[0].split("  ") if word]
    assert [word.strip() for word in heading] == [
        *("edge model", "precision", "MB", "threads", "median ms", "95 % ms"),
        *("times as fast", "memory MB"),
    ]
    rows = [line.split() for line in lines[1:5]]
    assert [row[0] for row in rows] == [str(edge)] * 2 + [str(unsure)] * 2
    assert [row[1] for row in rows] == ["fp32"] * 4
    assert [row[3] for row in rows] == ["1", "2"] * 2
    assert [row[6] for row in rows[:2]] == ["1.00", "1.00"]
    assert all(float(row[4]) <= float(row[5]) for row in rows)
    assert "58 examples\n" in answer.out
    assert "same label as the first" in answer.out
    assert f"recall of {edge}  points lost by {unsure}" in answer.out
    assert "left out: 2 that cannot be read: red/00.png (the file has no bytes); red/01.png (" in (
        answer.err
    )
    assert '"unknown" counts as wrong in the accuracy\n' in answer.err
    assert (
        "20 runs each, alternating; memory: the largest resident size of the process" in answer.err
    )


def test_the_answers_are_those_of_the_file(edge: Path, unsure: Path, photos: Path) -> None:
    """Counted by hand: one model wants its size, the other takes photographs as they are."""
    found = measure([edge, unsure], MeasureOptions(20, photos)).agreement
    assert found is not None
    sessions = [onnxruntime.InferenceSession(path.read_bytes()) for path in (edge, unsure)]
    names, said = [], []
    for path in sorted(photos.rglob("*.png")):
        content = path.read_bytes()
        images = (decode(content, Preprocessing(8, 8)), decode(content, None))
        names.append(path.parent.name)
        said.append(
            [
                int(session.run(["label"], {"image": image[None]})[0][0])
                for session, image in zip(sessions, images, strict=True)
            ]
        )
    labels = np.array([["blue", "green", "red"].index(name) for name in names])
    answers = np.array(said).T
    assert (answers[1] == -1).any()
    assert (answers[1] != -1).any()
    assert found.classes == ("blue", "green", "red")
    assert found.support.tolist() == [20, 20, 20]
    for own, scores, recall in zip(answers, found.scores, found.recall, strict=True):
        right, answered = int((own == labels).sum()), int((own != -1).sum())
        assert scores.accuracy == proportion(right, 60)
        assert scores.answered == proportion(answered, 60)
        assert scores.right_of_answers == proportion(right, answered)
        assert scores.agreement == proportion(int((own == answers[0]).sum()), 60)
        for index in range(3):
            assert recall[index] == (own[labels == index] == index).mean()


def test_json_holds_everything(edge: Path, photos: Path, command: Callable) -> None:
    for path in (photos / "red").iterdir():
        path.unlink()
    answer = command("export", "measure", edge, edge, "--source", photos, "--runs", 20, "--json")
    found = json.loads(answer.out)
    first, second = found["models"]
    assert first["path"] == str(edge)
    assert first["size"] == edge.stat().st_size
    assert first["precision"] == "fp32"
    assert first["times_as_fast"] == [1, 1]
    for own, before, faster in zip(
        second["latency"], first["latency"], second["times_as_fast"], strict=True
    ):
        assert faster == before["median"] / own["median"]
        assert 0 < own["median"] <= own["percentile95"]
        assert 10e6 < own["before"] <= own["peak_memory"]
    answers = found["agreement"]
    assert answers["photographs"] == 40
    assert answers["recall"][0][2] is None
    assert answers["support"] == [20, 20, 0]
    assert answers["scores"][1]["agreement"]["value"] == 1


@pytest.mark.alone
def test_memory_is_that_of_the_process_alone(edge: Path) -> None:
    """However large the process that starts it: Linux hands `ru_maxrss` down."""
    script = (
        "import sys\nfrom headstart.data.contracts.edge import load_edge\n"
        "from headstart.export.measure.latency import measure_latency\n"
        "large = bytearray(b'1') * 700_000_000\n"
        "((one, two),) = measure_latency([load_edge(sys.argv[1])], 20)\n"
        "print(one.peak_memory, one.before, one.threads, two.threads, len(large))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, edge],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    peak, before, *threads, _ = map(int, answer.stdout.split())
    assert before <= peak < 400e6
    assert threads == [1, 2]


def test_a_current_folder_with_our_names_does_no_harm(
    edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "export"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert len(measure_latency([load_edge(edge)], 20)) == 1


def test_classes_in_another_order_are_the_same_classes(
    edge: Path, photos: Path, tmp_path: Path
) -> None:
    """The same graph says 0 where the other's metadata says that 0 is red."""
    turned = rewritten(edge, tmp_path / "t.onnx", with_classes("red", "blue", "green"))
    found = measure([edge, turned], MeasureOptions(20, photos)).agreement
    assert found is not None
    assert found.scores[0].accuracy.value == 1
    assert found.scores[1].accuracy.value == found.scores[1].agreement.value == 0


def test_a_held_out_split_is_what_counts(edge: Path, photos: Path) -> None:
    rows = ["path,label,split"]
    for name in ("blue", "green", "red"):
        rows += [f"{name}/00.png,{name},train", f"{name}/01.png,{name},val"]
    rows += ["red/02.png,red,test", "red/03.png,red,test", "red/04.png,,test"]
    manifest = photos / "m.csv"
    manifest.write_text("\n".join(rows))
    found = labelled_photographs(manifest, ("blue", "green", "red"))
    assert (found.split, found.unlabelled) == ("test", 1)
    assert found.examples["id"].to_pylist() == ["red/02.png", "red/03.png"]
    assert found.labels.tolist() == [2, 2]


def test_worst_classes_of_many(edge: Path, tmp_path: Path, command: Callable) -> None:
    """Of 25 classes (22 of them never answered), ten are shown: those with the lowest recall."""
    names = ("blue", "green", "red", *(f"class {n:02d}" for n in range(22)))
    many = rewritten(edge, tmp_path / "many.onnx", with_classes(*names))
    for number, name in enumerate(names):
        paint(tmp_path / "many" / name / "a.png", (60, 80, 190), number)
    answer = command("export", "measure", many, "--source", tmp_path / "many", "--runs", 20)
    assert answer.code == 0, answer.err
    table = answer.out.split("the 10 classes that have the lowest recall\n")[1].splitlines()
    assert len(table) == 11
    assert all("0.000" in line for line in table[1:])
    answer = command("export", "measure", many, many, "--source", tmp_path / "many", "--runs", 20)
    assert "the 10 classes that lose the most recall\n" in answer.out


def test_mistakes_are_told_at_once(
    edge: Path, tiny_backbone: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    other = rewritten(edge, tmp_path / "o.onnx", with_classes("blue", "green", "violet"))
    paint(photos / "yellow" / "a.png", (200, 200, 60), 0)
    answer = command("export", "measure", edge, tiny_backbone, other, "--source", photos)
    assert answer.code == 2
    fix = "Write one with: python -m export classifier MODEL --backbone backbone.onnx -o edge.onnx"
    assert answer.err == (
        f"error: 1. {tiny_backbone} is a headstart backbone, not an edge model\n  {fix}\n"
        f"2. the edge models have different classes: only {edge} has 'red'; only {other} "
        "has 'violet'\n  Measure models of the same classes.\n"
        f"3. {photos} has labels that are not classes of the models: 'yellow'\n"
        "  Their classes are 'blue', 'green', 'red'.\n"
    )


def test_a_source_without_labels(edge: Path, photos: Path, tmp_path: Path) -> None:
    manifest = photos / "m.csv"
    manifest.write_text("path\nred/00.png\n")
    with pytest.raises(SourceError) as caught:
        measure([edge], MeasureOptions(20, manifest))
    fix = "Sort the files into one folder per class, or give a manifest with a column 'label'."
    assert str(caught.value) == (
        f"{manifest} has no labels, so accuracy cannot be measured\n  {fix}"
    )
    manifest.write_text("path,label,split\nred/00.png,red,train\nred/01.png,,test\n")
    with pytest.raises(SourceError) as caught:
        measure([edge], MeasureOptions(20, manifest))
    assert str(caught.value) == (
        f"the split 'test' of {manifest} has no labels, so accuracy cannot be measured\n  {fix}"
    )


def test_no_photograph_can_be_read(edge: Path, photos: Path) -> None:
    manifest = photos / "m.csv"
    manifest.write_text("path,label\nnone.png,red\ngone.png,red\n")
    with pytest.raises(SourceError) as caught:
        agree([load_edge(edge)], labelled_photographs(manifest, ("blue", "green", "red")))
    assert str(caught.value) == (
        f"none of the 2 examples of {manifest} can be read; 'none.png': there is no such file\n"
        f"  See what is broken: python -m data inspect {manifest}"
    )


def test_runs_too_few(edge: Path, command: Callable) -> None:
    answer = command("export", "measure", edge, "--runs", 19)
    assert answer.code == 2
    assert answer.err == ("error: --runs 19 is too few for a 95th percentile\n  Give 20 or more.\n")


def test_models_that_do_not_run(edge: Path, tmp_path: Path) -> None:
    """All of them are named, once each, though each would run in two processes."""

    def foreign(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].domain = "elsewhere"

    broken = [rewritten(edge, tmp_path / f"{n}.onnx", foreign) for n in "xy"]
    with pytest.raises(ManyInputErrors) as caught:
        measure([edge, *broken], QUICK)
    assert len(caught.value.errors) == 2
    for path, error in zip(broken, caught.value.errors, strict=True):
        assert isinstance(error, ModelError)
        node = onnx.load(path).graph.node[0].op_type
        assert error.message == (
            f"{path} has operators that are not ONNX's own, and may open files: {node}"
        )
        assert error.fix == "It was changed after it was written. Export it again."


def test_a_process_that_ends(edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.export.measure.latency.SCRIPT", "import sys; {!r}; sys.exit(9)")
    with pytest.raises(HeadstartError) as caught:
        measure([edge], QUICK)
    assert not isinstance(caught.value, InputError)
    assert str(caught.value) == (
        f"the process that ran {edge} ended (exit code 9)\n"
        "  Usually there is not enough memory: measure fewer models at once."
    )


@given(st.data())
def test_a_share_and_its_interval(data: st.DataObject) -> None:
    """Against SciPy's exact interval."""
    total = data.draw(st.integers(1, 10**6))
    hits = data.draw(st.integers(0, total))
    found = proportion(hits, total)
    exact = binomtest(hits, total).proportion_ci(0.95, "exact")
    assert found.value == hits / total
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low == pytest.approx(exact.low, abs=1e-9)
    assert found.high == pytest.approx(exact.high, abs=1e-9)


def test_what_training_held_out(
    edge: Path, unsure: Path, model: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    found = measure([edge, unsure], MeasureOptions(20, model=model)).agreement
    assert found is not None
    assert (found.photographs, found.split) == (15, "test")
    assert found.support.tolist() == [5, 5, 5]
    moved = photos.rename(tmp_path / "moved")
    answer = command(
        *("export", "measure", edge, "--model", model, "--source", moved, "--runs", 20)
    )
    assert "15 examples, the split 'test'" in answer.out
    with pytest.raises(SourceError, match=f"none of the 15 examples of {photos} can be read"):
        measure([edge], MeasureOptions(20, model=model))


def test_a_model_whose_held_out_photographs_say_nothing(
    edge: Path, model: Path, tmp_path: Path
) -> None:
    other = rewritten(edge, tmp_path / "c.onnx", with_classes("blue", "green", "pink"))
    with pytest.raises(ModelError) as caught:
        measure([other], MeasureOptions(20, model=model))
    assert str(caught.value) == (
        f"the model {model} has other classes than the edge models\n"
        "  Name the model that they were exported from."
    )
    examples = pq.read_table(model / "examples.parquet")
    train_only = examples.filter(pc.not_equal(examples["split"], "test"))
    pq.write_table(train_only, model / "examples.parquet")
    with pytest.raises(ModelError) as nothing:
        measure([edge], MeasureOptions(20, model=model))
    assert str(nothing.value) == (
        f"the model {model} held out no labelled examples\n  Name some with --source."
    )


def test_a_model_that_loses_too_much_is_an_error(
    edge: Path, unsure: Path, photos: Path, command: Callable
) -> None:
    arguments = ("export", "measure", edge, unsure, "--runs", 20, "--source", photos)
    found = measure([edge, unsure], MeasureOptions(20, photos)).agreement
    assert found
    first, second = (100 * scores.accuracy.value for scores in found.scores)
    assert second < first
    answer = command(*arguments, "--most-loss", f"{first - second - 0.5:.2f}")
    assert answer.code == 1
    assert "same label as the first" in answer.out  # what it rests on is shown first
    assert f"{unsure} loses {first - second:.2f} points of accuracy (--most-loss" in answer.err
    assert "Use the first model, or train a head on features of the lower" in answer.err
    assert command(*arguments, "--most-loss", f"{first - second + 0.5:.2f}").code == 0
    alone = command("export", "measure", edge, "--most-loss", 1)
    assert alone.code == 2
    assert "--most-loss needs photographs to measure the accuracy on" in alone.err
