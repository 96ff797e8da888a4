"""A third modality, defined by the tests, works end to end with one file and a table entry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import vectors as module
from conftest import paint
from vectors import Vectors, write_vector_backbone, write_vectors

from headstart.data.contracts.edge import load_edge
from headstart.data.contracts.store import FeatureStore
from headstart.data.examples.opening import open_source
from headstart.data.modalities import known


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of vectors, beside a backbone for them; the modality is in the table."""
    import ray.cloudpickle

    monkeypatch.setitem(known.MODALITIES, "vector", Vectors())
    write_vector_backbone(tmp_path / "backbone.onnx")
    ray.cloudpickle.register_pickle_by_value(module)  # workers cannot import the tests
    yield write_vectors(tmp_path / "vectors")
    ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.usefixtures("local_ray")
def test_what_a_worker_lacks_is_named(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short memory is named only if no better reason is known."""
    monkeypatch.setitem(known.MODALITIES, "vector", Vectors())
    write_vector_backbone(tmp_path / "backbone.onnx")
    vectors = write_vectors(tmp_path / "vectors")
    asked = ("extract", vectors, "--backbone", tmp_path / "backbone.onnx", "-o", tmp_path / "f")
    answer = command(*asked)
    assert answer.code == 1
    assert "while starting: ModuleNotFoundError: No module named 'vectors'\n" in answer.err


@pytest.mark.usefixtures("local_ray")
def test_a_third_modality_works_end_to_end(
    vectors: Path, tmp_path: Path, command: Callable
) -> None:
    (vectors / "low" / "00.vec").write_text("one two")
    (vectors / "low" / "01.vec").write_text("1 2 3")
    inspected = command("data", "inspect", vectors, "--json")
    found = json.loads(inspected.out)
    assert (found["examples"], found["sizes"]) == (40, {"4": 38, "3": 1})
    assert found["broken"]["low/00.vec"].startswith("decode/not_numbers: ")
    backbone, features = tmp_path / "backbone.onnx", tmp_path / "features"
    asked = ("extract", vectors, "--backbone", backbone, "-o", features)
    first = command(*asked)
    assert first.code == 0, first.err  # two of 40 do not exceed --max-bad
    store = FeatureStore.open(features)
    assert (store.manifest.rows, store.manifest.modality) == (38, "vector")
    reasons = {row["id"]: row["reason"] for row in store.read_errors().to_pylist()}
    assert reasons == {"low/00.vec": "not_numbers", "low/01.vec": "wrong_size"}
    (vectors / "low" / "00.vec").write_text("-2 -2 -2 -2")
    again = command(*asked, "--json")
    assert (again.code, json.loads(again.out)["inferences"]) == (0, 1)
    model, edge = tmp_path / "model", tmp_path / "edge.onnx"
    trained = command("classify", "train", features, "-o", model)
    assert trained.code == 0, trained.err
    exported = command("export", "classifier", model, "--backbone", backbone, "-o", edge)
    assert exported.code == 0, exported.err
    assert json.loads(load_edge(edge).labels())["vector"] == {"size": 4, "any_size": False}
    answers = tmp_path / "p.parquet"
    assert command("classify", "predict", edge, vectors, "-o", answers).code == 0
    rows = pq.read_table(answers).to_pylist()
    assert len(rows) == 40
    assert all(row["prediction"] == row["label"] for row in rows if not row["error"])
    assert [row["error"] for row in rows if row["error"]] == ["wrong_size: 3 numbers instead of 4"]
    verified = command("data", "verify", features, "--json")
    assert (verified.code, json.loads(verified.out)["missing"]) == (0, 0)


def test_what_is_for_photographs_alone_is_refused(
    vectors: Path, tmp_path: Path, command: Callable, local_ray: None
) -> None:
    backbone, features = tmp_path / "backbone.onnx", tmp_path / "features"
    assert command("extract", vectors, "--backbone", backbone, "-o", features).code == 0
    assert command("classify", "train", features, "-o", tmp_path / "m").code == 0
    asked = ("export", "classifier", tmp_path / "m", "--backbone", backbone, "-o", tmp_path / "e")
    answer = command(*asked, "--any-size")
    assert (answer.code, answer.err) == (
        2,
        "error: only a graph for photographs can resize; this one is for vector\n"
        "  Leave --any-size out.\n",
    )


def test_a_source_is_read_as_the_backbones_modality(vectors: Path, tmp_path: Path) -> None:
    """One folder may hold several kinds of files; each backbone takes those of its modality."""
    paint(vectors / "low" / "photo.png", (1, 2, 3), 0)
    assert len(open_source(vectors)) == 40  # most of the files
    assert open_source(vectors).left_out == {".png": 1}
    photographs = open_source(vectors, modality=known.MODALITIES["image"])
    assert photographs.examples["id"].to_pylist() == ["low/photo.png"]
    assert photographs.left_out == {".vec": 40}


def test_a_source_without_the_backbones_modality(
    vectors: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    asked = ("extract", vectors, "--backbone", tiny_backbone, "-o", tmp_path / "f")
    answer = command(*asked)
    assert answer.code == 2
    assert answer.err.startswith(
        f"error: {vectors} holds no photographs; it has .vec files\n  Known extensions are .avif"
    )


def test_a_backbone_of_an_unknown_modality(
    vectors: Path, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(known.MODALITIES, "vector")
    paint(vectors / "low" / "photo.png", (1, 2, 3), 0)
    asked = ("extract", vectors, "--backbone", tmp_path / "backbone.onnx", "-o", tmp_path / "f")
    answer = command(*asked)
    assert answer.code == 2
    assert answer.err == (
        f"error: {tmp_path / 'backbone.onnx'} is a backbone of an unknown modality 'vector'\n"
        "  Supported: image, sound, text. Update headstart, or use another backbone.\n"
    )
