"""The contracts on disk: backbone file, feature store, model folder; old ones are still read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
from conftest import tiny_model, write_tiny_backbone

from headstart.classify.prediction.features import HeadSession
from headstart.data.common.errors import BackboneError, ModelError, StoreError, first_line
from headstart.data.contracts.backbone import BackboneSpec, load_backbone
from headstart.data.contracts.edge import read_edge
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.model import Model
from headstart.data.contracts.records import PartContent, begin, write_part
from headstart.data.contracts.store import (
    ERROR_SCHEMA,
    MANIFEST,
    FeatureStore,
    StoreManifest,
    embeddings_of,
    part_schema,
)
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.files import write_whole
from headstart.data.storage.folder import Folder
from headstart.data.storage.places import folder_at

GOLDEN = Path(__file__).parent / "golden"
PRINT = Fingerprint("tiny", "ab" * 32, "8x8 squash bilinear", "fp32", 3)


def fails(path: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(path)
    return str(caught.value)


def test_a_backbone_file_contains_its_own_description(tmp_path: Path) -> None:
    backbone = write_tiny_backbone(tmp_path / "b.onnx")
    assert backbone.spec == BackboneSpec(
        "tiny", Preprocessing(8, 8), ("flat",), "none", 12, "none (random)", "Apache-2.0"
    )
    assert BackboneSpec.from_metadata(backbone.spec.to_metadata()) == backbone.spec
    assert str(backbone.fingerprint) == (
        f"tiny {backbone.fingerprint.sha256[:12]} (8x8 squash bilinear, fp32)"
    )


HOW = "\n  Export one with: python -m export backbone NAME -o backbone.onnx"


def test_files_that_are_not_backbones(tmp_path: Path) -> None:
    path = tmp_path / "b.onnx"
    assert fails(path) == f"{path}: no such backbone file{HOW}"
    for content in (b"", b"hello", np.random.default_rng(0).bytes(5000)):
        path.write_bytes(content)
        assert fails(path) == f"{path} is not a valid ONNX file{HOW}"
    path.write_bytes(tiny_model().SerializeToString())
    assert fails(path) == (
        f"{path} is an ONNX file, but not a headstart backbone (it has no headstart metadata){HOW}"
    )
    assert fails(tmp_path) == f"{tmp_path} cannot be read: Is a directory{HOW}"


def test_backbones_cut_off_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "b.onnx"
    content = write_tiny_backbone(path).content
    path.write_bytes(content[: len(content) // 2])
    assert fails(path) == f"{path} is not a valid ONNX file{HOW}"

    def change(**metadata: str) -> str:
        model = onnx.load_model_from_string(content)
        props = {entry.key: entry.value for entry in model.metadata_props}
        del model.metadata_props[:]
        props |= {f"headstart.{key}": value for key, value in metadata.items()}
        onnx.helper.set_model_props(model, props)
        path.write_bytes(model.SerializeToString())
        return fails(path)

    assert change(kind="classifier") == f"{path} is a headstart classifier, not a backbone{HOW}"
    assert change(format_version="3") == (
        f"{path} is a backbone file of format 3; this headstart reads 1 and 2\n"
        "  Update headstart, or export the backbone again."
    )
    assert "has damaged headstart metadata: ValueError" in change(height="tall")
    assert "has damaged headstart metadata: InputError" in change(resize="stretch")
    for fraction in ("0", "nan", "1.5"):
        assert "has damaged headstart metadata: InputError" in change(crop_fraction=fraction)
    assert change(height="9") == (
        f"{path} takes inputs of [8, 8, 3], but its metadata says [9, 8, 3]\n"
        "  Export the backbone again."
    )


def with_tensor_outside(model: onnx.ModelProto, where: str) -> None:
    """Let a tensor be in another file: one of the graph's, an attribute's, or a function's."""
    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="etc/passwd")
    node = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    if where == "graph":
        model.graph.initializer.append(tensor)
    elif where == "attribute":
        model.graph.node.append(node)
    elif where == "branch":
        inside = onnx.helper.make_graph([node], "inside", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["c"], [], then_branch=inside))
    elif where == "function":
        opsets = [onnx.helper.make_opsetid("", 18)]
        model.functions.append(onnx.helper.make_function("", "f", [], ["c"], [node], opsets))
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)


@pytest.mark.parametrize("where", ["graph", "attribute", "branch", "function", "sparse"])
def test_our_files_do_not_open_others(tmp_path: Path, where: str) -> None:
    """ONNX Runtime would read them from the current folder, and no fingerprint has them."""
    path = tmp_path / "b.onnx"
    content = write_tiny_backbone(path).content

    def changed(content: bytes) -> bytes:
        proto = onnx.load_model_from_string(content)
        with_tensor_outside(proto, where)
        return bytes(proto.SerializeToString())

    path.write_bytes(changed(content))
    name = "outside"
    assert fails(path) == (
        f"{path} keeps the tensor {name!r} in another file; a file of headstart's has all of them "
        "inside\n  It was changed after it was written. Export it again."
    )
    proto = onnx.load_model_from_string(content)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    metadata |= {"headstart.kind": "classifier", "headstart.classes": "[]"}
    onnx.helper.set_model_props(proto, metadata)
    with pytest.raises(ModelError, match="edge keeps the tensor 'outside' in another file"):
        read_edge("edge", changed(proto.SerializeToString()))


def test_a_head_does_not_read_the_current_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prediction has ONNX Runtime alone, which is told so."""
    head = onnx.load(model / "head.onnx")
    weights = max(head.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    (tmp_path / "secret").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="secret")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"head.onnx cannot be loaded: .*External data path"):
        HeadSession(head.SerializeToString())


def test_operators_that_may_open_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.onnx"
    proto = onnx.load_model_from_string(write_tiny_backbone(path).content)
    node = onnx.helper.make_node("EPContext", [], ["c"], domain="com.microsoft")
    node.attribute.append(onnx.helper.make_attribute("ep_cache_context", "/etc/passwd"))
    proto.graph.node.append(node)
    path.write_bytes(proto.SerializeToString())
    assert fails(path) == (
        f"{path} has operators that are not ONNX's own, and may open files: EPContext\n"
        "  It was changed after it was written. Export it again."
    )


def write_store(folder: Folder, rows: int = 4) -> StoreManifest:
    schema = part_schema(3, [pa.field("age", pa.int64())])
    ids = pa.array([f"{number}" for number in range(rows)])
    nothing = pa.nulls(rows, pa.string())
    flat = pa.array(np.arange(rows * 3, dtype=np.float32))
    embedding = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    columns = [ids, ids, ids, ids, ids, nothing, nothing, embedding, pa.array(range(rows))]
    table = pa.table(columns, schema=schema)
    begin(folder, PRINT, "/photos")
    errors = pa.table([["9"], ["read"], ["missing"], ["gone"], [None], ["9"]], schema=ERROR_SCHEMA)
    parts = (
        write_part(folder, "part-00000-aa", PartContent(PRINT, table, errors)),
        write_part(
            folder,
            "part-00001-bb",
            PartContent(PRINT, table.slice(0, 2), ERROR_SCHEMA.empty_table()),
        ),
    )
    return StoreManifest(
        fingerprint=PRINT,
        source="photos",
        root="/photos",
        classes=("0", "1"),
        parts=parts,
    )


def test_a_store_counts_once_its_manifest_is_written(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "f")
    manifest = write_store(folder)
    with pytest.raises(StoreError) as caught:
        FeatureStore.open(tmp_path / "f")
    assert str(caught.value) == (
        f"{tmp_path / 'f'} is a feature store whose extraction has not finished\n"
        "  Run the same `python -m extract` command again: it continues where it stopped."
    )
    folder.write(MANIFEST, manifest.to_bytes())
    store = FeatureStore.open(tmp_path / "f")
    assert store.manifest == manifest
    assert (manifest.rows, manifest.errors) == (6, 1)
    assert embeddings_of(store.read()).tolist()[-1] == [3, 4, 5]
    assert store.read(["id", "age"]).column_names == ["id", "age"]
    assert store.read_errors().to_pylist() == [
        {
            "id": "9",
            "stage": "read",
            "reason": "missing",
            "message": "gone",
            "stamp": None,
            "path": "9",
        }
    ]


def test_other_readers_open_a_store_as_it_is(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "f")
    folder.write(MANIFEST, write_store(folder).to_bytes())
    frame = pd.read_parquet(tmp_path / "f")
    assert frame.shape == (6, 9)
    assert frame["embedding"][1].tolist() == [3, 4, 5]


def test_stores_that_cannot_be_opened(tmp_path: Path) -> None:
    def fails() -> str:
        with pytest.raises(StoreError) as caught:
            FeatureStore.open(path)
        return str(caught.value)

    path = tmp_path / "f"
    how = "\n  Make one with: python -m extract SOURCE --backbone backbone.onnx -o FEATURES"
    assert fails() == f"{path}: no such feature store{how}"
    path.mkdir()
    assert fails() == f"{path} is not a feature store (it has no _headstart.parquet){how}"
    folder = folder_at(path)
    content = write_store(folder).to_bytes()
    folder.write(MANIFEST, content[:50])
    assert f"{path / MANIFEST} is damaged: Expecting property name" in fails()
    folder.write(MANIFEST, content.replace(b'"format_version": 2', b'"format_version": 7'))
    assert fails() == (
        f"{path} is a feature store of format 7; this headstart reads 1 and 2\n"
        "  Update headstart, or extract again into another folder."
    )
    folder.write(MANIFEST, content)
    part = path / "part-00000-aa.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-20])
    with pytest.raises(StoreError, match=f"{part} is damaged: "):
        FeatureStore.open(path).read()
    part.write_bytes((path / "part-00001-bb.parquet").read_bytes())
    with pytest.raises(StoreError, match=f"{part} is damaged: 2 rows instead of 4"):
        FeatureStore.open(path).read()
    part.unlink()
    assert fails() == (
        f"{path} lacks 1 of its parts, such as part-00000-aa.parquet\n"
        f"  Restore them, or continue without them: python -m data verify {path} --repair"
    )


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_half_a_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars and DuckDB would read it."""
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(sorted(os.listdir(tmp_path))))
    write_whole(tmp_path / "file", b"new")
    monkeypatch.delattr(os, "O_TMPFILE")
    write_whole(tmp_path / "file", b"newer")  # as on a file system that cannot do it
    assert seen == [[], [f"_tmp-{os.getpid()}-file", "file"]]
    assert (tmp_path / "file").read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["file"]


def test_models_that_cannot_be_opened(tmp_path: Path, model: Path) -> None:
    def fails(path: Path) -> str:
        with pytest.raises(ModelError) as caught:
            Model.open(path)
        return str(caught.value)

    how = "\n  Train one with: python -m classify train FEATURES -o MODEL"
    assert fails(tmp_path / "no") == f"{tmp_path / 'no'}: no such model folder{how}"
    assert fails(tmp_path) == f"{tmp_path} is not a model folder (it has no model.json){how}"
    card = (model / "model.json").read_bytes()
    (model / "model.json").write_bytes(card[:99])
    assert "model.json is damaged: Unterminated string" in fails(model)
    changed = json.loads(card) | {"format_version": 2}
    (model / "model.json").write_text(json.dumps(changed))
    assert fails(model) == (
        f"{model} is a model of format 2; this headstart reads 1\n"
        "  Update headstart, or train again."
    )
    (model / "model.json").write_bytes(card)
    (model / "head.onnx").unlink()
    assert fails(model) == f"{model} lacks head.onnx{how}"


def test_files_of_format_version_1_are_still_read() -> None:
    """Written by headstart 0.1.0; never regenerated: a new version gets another folder."""
    from headstart.classify.scores.evaluation import evaluate

    old = GOLDEN / "v1"
    assert load_backbone(old / "backbone.onnx").spec.name == "tiny"
    assert FeatureStore.open(old / "features").read().num_rows == 60
    assert Model.open(old / "model").card.classes == ("blue", "green", "red")
    assert evaluate(old / "model", old / "features").scores.accuracy == 1.0


def test_an_error_of_another_library_has_one_line_even_if_it_is_empty() -> None:
    assert first_line(ValueError("\n  what is wrong  \nand a stack")) == "what is wrong"
    assert first_line(AssertionError()) == "AssertionError"
