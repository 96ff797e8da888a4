"""fp16 and int8: what they say of themselves, and heads that are trained on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.data.common.errors import BackboneError
from headstart.data.contracts.backbone import load_backbone
from headstart.data.examples.opening import open_source
from headstart.data.modalities.image.preprocessing import decode
from headstart.export.backbone.build import export_backbone
from headstart.export.backbone.quantize import Quantized
from headstart.export.networks.keras.network import KerasNetwork
from headstart.export.networks.resolve import open_original
from headstart.export.options import BackboneOptions, FeatureOptions, PrecisionOptions


def digits(folder: Path, count: int) -> Path:
    from sklearn.datasets import load_digits

    from headstart.data.samples import SAMPLES
    from headstart.data.storage.places import folder_at

    target = folder_at(folder)
    for number, (name, content) in enumerate(SAMPLES["digits"].files()):
        if number == count:
            break
        target.write(name, content)
    assert len(load_digits().images) >= count
    return folder


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 scanned digits, a folder a class."""
    return digits(tmp_path_factory.mktemp("scans"), 600)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> dict[str, Path]:
    """EfficientNet-Lite0 with its real weights at 64 pixels, in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    options = BackboneOptions(size=64)
    network = open_original("efficientnet_lite0", options)
    convert = cache(network.to_onnx)
    network.to_onnx = lambda layers: deepcopy(convert(tuple(layers)))  # type: ignore[method-assign]
    for name in ("fp32", "fp16", "int8"):
        lower = PrecisionOptions(name, str(scans) if name == "int8" else None)
        export_backbone(folder / f"{name}.onnx", network, options, precision=lower)
    return {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}


@cache
def embed(path: Path, photographs: Path) -> tuple[np.ndarray, np.ndarray]:
    backbone, source = load_backbone(path), open_source(photographs)
    images = [
        decode(source.folder.read(name), backbone.spec.preprocessing)
        for name in source.examples["path"].to_pylist()
    ]
    session = onnxruntime.InferenceSession(backbone.content)
    (got,) = session.run(None, {"image": np.stack(images)})
    return got, np.array(source.examples["label"].to_pylist())


def test_a_file_says_its_precision_and_shrinks(files: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert 0.45 < sizes["fp16"] / sizes["fp32"] < 0.55
    assert 0.24 < sizes["int8"] / sizes["fp32"] < 0.32
    prints = {name: load_backbone(path).fingerprint for name, path in files.items()}
    assert {name: value.precision for name, value in prints.items()} == {
        name: name for name in files
    }
    assert len({value.sha256 for value in prints.values()}) == 3


def test_int8_is_static_per_channel_and_leaves_the_contract_alone(files: dict[str, Path]) -> None:
    model = onnx.load(files["int8"])
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert not kinds & {"DynamicQuantizeLinear", "BatchNormalization"}
    scales = {t.name: t for t in model.graph.initializer if t.name.endswith("_scale")}
    assert any(list(scale.dims) == [1280] for scale in scales.values())
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    own = [node for node in model.graph.node if node.name.startswith("headstart/after")]
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    assert own
    for node in own:
        assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        assert all(made_by.get(name) != "QuantizeLinear" for name in node.input)


def test_embeddings_are_close(files: dict[str, Path], scans: Path) -> None:
    fp32, _ = embed(files["fp32"], scans)
    fp16, _ = embed(files["fp16"], scans)
    int8, _ = embed(files["int8"], scans)

    def cosine(other: np.ndarray) -> np.ndarray:
        return (fp32 * other).sum(1) / np.linalg.norm(fp32, axis=1) / np.linalg.norm(other, axis=1)

    assert cosine(fp16).min() > 0.9999
    assert cosine(int8).mean() > 0.85


def test_a_head_trained_on_int8_is_as_good(files: dict[str, Path], scans: Path) -> None:
    """Quantize before you train. (Of 300 test scans; docs/precision.md has a real measurement.)"""
    scores = {}
    for name in ("fp32", "int8"):
        features, labels = embed(files[name], scans)
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        head.fit(features[::2], labels[::2])
        scores[name] = head.score(features[1::2], labels[1::2])
    assert scores["fp32"] > 0.9
    assert scores["int8"] > scores["fp32"] - 0.03


def test_the_report(
    tmp_path: Path, scans: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, converted = KerasNetwork.to_onnx, {}

    def once(network: KerasNetwork, layers: Sequence[str]) -> onnx.ModelProto:
        if tuple(layers) not in converted:
            converted[tuple(layers)] = original(network, layers)
        return deepcopy(converted[tuple(layers)])

    monkeypatch.setattr(KerasNetwork, "to_onnx", once)
    arguments = ("export", "backbone", "mobilenetv3small", "-o", tmp_path / "b.onnx", "--size=32")
    arguments += ("--weights=none", "--precision=int8", "--calibrate", scans)
    answer = command(*arguments)
    assert answer.code == 0, answer.err
    rows = dict(line.split(None, 1) for line in answer.out.splitlines())
    assert ", int8)" in rows["backbone"]
    assert rows["size"].count("MB") == 2
    assert "times as fast (this machine, one thread)" in rows["speed"]
    assert rows["cosine"].startswith("to fp32: mean ")
    assert rows["cosine"].endswith("(128 photographs)")
    answer = command(*arguments, "--overwrite", "--json")
    about = json.loads(answer.out)
    assert about["precision"] == "int8"
    assert {"ratio", "speed", "fp32_speed", "cosine_mean", "cosine_worst", "warnings"} <= set(
        about["quantized"]
    )


def test_what_should_be_known_is_said(tiny_backbone: Path) -> None:
    """Built by hand: which of a machine's speeds comes out is no matter for a test."""
    spec = replace(load_backbone(tiny_backbone).spec, precision="int8")
    slow = Quantized(
        content=b"",
        fp32_bytes=1,
        speed=50.0,
        fp32_speed=100.0,
        cosine_mean=0.95,
        cosine_worst=0.5,
        photographs=128,
        random=False,
    )
    first, second = slow.warnings(spec)
    assert first.startswith("int8 is slower than fp32 on this machine (0.50 times as fast). ")
    assert "(cosine 0.500). Calibrate on photographs like those you will extract" in second
    assert replace(slow, speed=200.0, cosine_mean=0.99, cosine_worst=0.95).warnings(spec) == []
    half = replace(slow, speed=90.0, cosine_mean=1.0, cosine_worst=1.0, random=True)
    assert half.warnings(replace(spec, precision="fp16")) == [
        "fp16 is slower than fp32 on this machine (0.90 times as fast): it is meant for "
        "GPUs, and for files of half the size."
    ]


def test_calibration_needs_photographs(tmp_path: Path, scans: Path) -> None:
    few = digits(tmp_path / "few", 5)
    with pytest.raises(BackboneError) as caught:
        export_backbone(
            tmp_path / "b.onnx",
            "mobilenetv2",
            BackboneOptions(weights="none", size=32),
            precision=PrecisionOptions("int8", str(few)),
        )
    assert str(caught.value) == (
        f"{few} has 5 photographs that can be read; int8 calibration needs at least 8, and 128 are "
        "better\n  Name another --calibrate SOURCE."
    )


def test_views_and_power_go_with_int8(tmp_path: Path, scans: Path) -> None:
    features = FeatureOptions(("block3", "block5=max"), ("avg", "std"), True, "flips")
    lower = PrecisionOptions("int8", str(scans))
    export = export_backbone(
        tmp_path / "b.onnx", options=BackboneOptions(size=32), features=features, precision=lower
    )
    assert export.quantized is not None
    assert export.quantized.cosine_mean > 0.9
    assert export.backbone.spec.name == "efficientnet_lite0"  # as nothing else is said
    assert export.backbone.spec.views == "flips"
