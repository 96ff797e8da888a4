"""Files of ours that someone else wrote or damaged: a sentence for each, and nothing outside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pyarrow.parquet as pq
import pytest
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import change_manifest, manifest_of
from onnx import helper

from headstart.classify.report.thumbnails import Thumbnails
from headstart.data.common import console
from headstart.data.common.errors import HeadstartError
from headstart.data.contracts.backbone import BackboneSpec, load_backbone, read_metadata
from headstart.data.contracts.calibration import Calibration
from headstart.data.contracts.edge import edge_metadata, read_edge
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.model import EXAMPLES, HEAD, MODEL, SKOPS, Model, ModelCard
from headstart.data.contracts.records import RUN, read_unfinished
from headstart.data.contracts.store import (
    MANIFEST,
    FeatureStore,
    PartRecord,
    StoreManifest,
    part_schema,
    read_manifest,
)
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.notes import to_note
from headstart.data.storage.places import folder_at
from headstart.extract.job import extract

MUTATED = int(os.environ.get("MUTATED_FILES", "300"))  # of each contract; `make fuzz` asks for more

PRINT = Fingerprint("tiny", "0" * 64, "8x8 squash bilinear", "fp32", 12)
COLUMNS = part_schema(PRINT.dim, [])
PART = PartRecord(
    name="part-00000-0123456789ab", rows=2, errors=0, rows_sha256="0" * 64, errors_sha256=None
)
CARD = ModelCard(
    classes=("a", "b"),
    fingerprint=PRINT,
    features="/f",
    root="/photos",
    head={"name": "logistic"},
    split="as declared",
    calibration=Calibration("decision_function", "temperature", 2.0),
)
SPEC = BackboneSpec(
    name="tiny",
    preprocessing=Preprocessing(8, 8),
    layers=("flat",),
    pooling="none",
    dim=12,
    weights="none",
    licence="Apache-2.0",
)

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../../outside/x", "\0", "9" * 400, "/etc/passwd", "\x1b[2J", "\u202e"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([10**30, -1]),
)


@st.composite
def tampered(draw: st.DrawFn, value: Any) -> Any:
    """JSON in which something, at any depth, is another thing, gone or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        how = draw(st.sampled_from(["inside", "gone", "new"]))
        if how == "gone":
            return {name: each for name, each in value.items() if name != key}
        if how == "new":
            return value | {draw(st.text(max_size=5)): draw(ODD)}
        return value | {key: draw(tampered(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 2)):
        place = draw(st.integers(0, len(value) - 1))
        if draw(st.booleans()):
            return [*value, value[place]]
        return [*value[:place], draw(tampered(value[place])), *value[place + 1 :]]
    return draw(ODD)


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


def only_sentences(read: Callable[[], Any]) -> Any:
    """What was read, or none if it is refused in words; anything else fails the test."""
    try:
        return read()
    except HeadstartError as error:
        assert str(error).count("\n") >= 1  # what to do next
        return None


@settings(max_examples=MUTATED, deadline=None)
@given(data=st.data())
def test_any_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = folder_at(tmp_path_factory.getbasetemp() / "manifest")
    good = StoreManifest(PRINT, "/photos", "/photos", ("a", "b"), (PART,))
    value = data.draw(tampered(json.loads(good.to_bytes())))
    folder.write(MANIFEST, to_note(written(value), COLUMNS))
    found = only_sentences(lambda: read_manifest(folder))
    for part in found.parts if found else ():
        assert "/" not in part.name
        assert isinstance(part.rows, int)


@settings(max_examples=MUTATED, deadline=None)
@given(data=st.data())
def test_any_record_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = folder_at(tmp_path_factory.getbasetemp() / "records")
    run = {"fingerprint": asdict(PRINT), "source": "/photos", "parts": [], "inferences": 0}
    folder.write(RUN, to_note(written(data.draw(st.just(run) | tampered(run))), COLUMNS))
    record = data.draw(tampered(asdict(PART)))
    folder.write(f"_records/{PART.name}.parquet", to_note(written(record), COLUMNS))
    found = only_sentences(lambda: read_unfinished(folder))
    for part in found.parts if found else ():
        assert "/" not in part.name


@settings(max_examples=MUTATED, deadline=None)
@given(data=st.data())
def test_any_model_card_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "model"
    path.mkdir(exist_ok=True)
    for name in (HEAD, SKOPS, EXAMPLES):
        (path / name).touch()
    (path / MODEL).write_bytes(written(data.draw(tampered(json.loads(CARD.to_bytes())))))
    found = only_sentences(lambda: Model.open(path))
    assert found is None or all(isinstance(name, str) for name in found.card.classes)


TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["[" * 10_000, "9" * 5000, "NaN", "-1", "1e400"])
)


@settings(max_examples=MUTATED, deadline=None)
@given(key=st.sampled_from(sorted(SPEC.to_metadata())), text=TEXTS)
def test_any_metadata_of_a_backbone_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "backbone.onnx"
    model = tiny_model()
    helper.set_model_props(model, SPEC.to_metadata() | {key: text})
    path.write_bytes(model.SerializeToString())
    found = only_sentences(lambda: load_backbone(path))
    assert found is None or found.spec.dim == 12


@settings(max_examples=MUTATED, deadline=None)
@given(key=st.sampled_from(sorted(edge_metadata(SPEC, CARD))), text=TEXTS)
def test_any_metadata_of_an_edge_model_is_read_or_refused(key: str, text: str) -> None:
    model = tiny_model()
    for name, kind, shape in (
        ("label", onnx.TensorProto.INT64, ["batch"]),
        ("probabilities", onnx.TensorProto.FLOAT, ["batch", 2]),
    ):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    helper.set_model_props(model, edge_metadata(SPEC, CARD) | {key: text})
    found = only_sentences(lambda: read_edge("e.onnx", model.SerializeToString()))
    assert found is None or len(found.classes) == 2


# What a store of someone else's may reach


def test_a_part_outside_the_store_is_neither_read_nor_copied(
    features: Path, tmp_path: Path, command: Callable
) -> None:
    part = manifest_of(features)["parts"][0]
    outside = tmp_path / "outside"
    outside.mkdir()
    name = f"{part['name']}.parquet"
    (features / name).rename(outside / name)
    parts = [part | {"name": f"../outside/{part['name']}"}]
    change_manifest(features, manifest_of(features) | {"parts": parts})
    before = sorted(tmp_path.rglob("*"))
    for asked in (("data", "verify", features, "--repair"), ("classify", "train", features)):
        where = ("-o", tmp_path / "m") if asked[0] == "classify" else ()
        answer = command(*asked, *where)
        assert answer.code == 2
        assert f"'../outside/{part['name']}' is not the name of a part" in answer.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_part_that_is_listed_twice_is_refused(features: Path, command: Callable) -> None:
    parts = manifest_of(features)["parts"]
    change_manifest(features, manifest_of(features) | {"parts": [*parts, parts[0]]})
    answer = command("data", "verify", features)
    assert (answer.code, f"the part {parts[0]['name']} is listed twice" in answer.err) == (2, True)


@pytest.mark.parametrize("path", ["../private/secret.png", "/private/secret.png"])
def test_a_picture_outside_the_source_is_not_shown(photos: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "private").mkdir()
    secret = tmp_path / "private" / "secret.png"
    secret.write_bytes((photos / "red" / "00.png").read_bytes())
    named = path if path.startswith("..") else str(secret)
    thumbnail = Thumbnails(folder_at(photos)).of("a", named)
    assert (thumbnail.uri, thumbnail.reason) == ("", "its path leads outside the source's folder")


def test_a_backbone_whose_metadata_and_graph_disagree_is_refused(
    tiny_backbone: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    """Five equal numbers would be stored where one is broadcast."""
    model = onnx.load(tiny_backbone)
    for said in ("5", "1"):
        helper.set_model_props(model, read_metadata(model) | {"headstart.dim": said})
        tiny_backbone.write_bytes(model.SerializeToString())
        answer = command("extract", photos, "--backbone", tiny_backbone, "-o", tmp_path / "f")
        assert answer.code == 2
        assert f"makes embeddings 12 wide, but its metadata says {said}" in answer.err


def test_an_edge_model_with_one_name_for_two_classes_is_refused(
    model: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    card = json.loads((model / MODEL).read_text())
    (model / MODEL).write_text(json.dumps(card | {"classes": ["blue", "green"]}))
    out = tmp_path / "edge.onnx"
    answer = command("export", "classifier", model, "--backbone", tiny_backbone, "-o", out)
    assert answer.code != 0
    assert "Traceback" not in answer.err
    assert not out.exists()
    (model / MODEL).write_text(json.dumps(card | {"classes": ["blue", "blue", "red"]}))
    answer = command("export", "classifier", model, "--backbone", tiny_backbone, "-o", out)
    assert (answer.code, "its classes are ['blue', 'blue', 'red']" in answer.err) == (2, True)


# What reaches the terminal


@given(st.text())
def test_no_control_reaches_the_terminal(text: str) -> None:
    shown = console.visible(text)
    assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in shown)
    assert not any(letter in shown for letter in "\x1b\x9b\x7f\u202e\u2066\u200f")


def test_labels_are_shown_as_text(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable, local_ray: None
) -> None:
    (photos / "red").rename(photos / "\x1b[31mred\u202e")
    extract(photos, tiny_backbone, tmp_path / "f")
    said = [
        command("data", "inspect", photos),
        command("classify", "train", tmp_path / "f", "-o", tmp_path / "m"),
        command("classify", "evaluate", tmp_path / "m", tmp_path / "f"),
    ]
    for answer in said:
        assert answer.code == 0, answer.err
        assert "\x1b" not in answer.out + answer.err
        assert "\u202e" not in answer.out + answer.err
        assert "\\x1b[31mred\\u202e" in answer.out
    assert pq.read_table(tmp_path / "m" / EXAMPLES)["label"].to_pylist().count("\x1b[31mred\u202e")
    assert FeatureStore.open(tmp_path / "f").manifest.classes[0] == "\x1b[31mred\u202e"
