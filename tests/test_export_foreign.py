"""Networks of other people, in ONNX: what was read wrongly once, and is read as it is now.

Every expected number is computed here, in numpy or by ONNX Runtime from the network itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.data.common.errors import BackboneError
from headstart.export.backbone.build import BackboneExport, export_backbone
from headstart.export.networks.layers import list_layers
from headstart.export.options import BackboneOptions, FeatureOptions

UNIT = BackboneOptions(scaling="unit")
CHANNELS, CLASSES = 24, 5
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32)
DENSE = RANDOM.normal(0, 0.3, (CHANNELS, CLASSES)).astype(np.float32)
BODY = [
    helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4, strides=[2, 2]),
    helper.make_node("Relu", ["a"], ["map"]),
]
POOLED = [
    *BODY,
    helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
]


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


def constant(array: Any, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[str] = ("y",),
    shape: Sequence[int | str | None] | None = ("N", 3, 32, 32),
    opset: int = 17,
    element: int = TensorProto.FLOAT,
    **model: Any,
) -> str:
    """Write a network from `x` to outputs; `w` is the kernel of `BODY`, `k` a classifier's."""
    initializers = [*constants]
    made = {tensor.name for tensor in initializers} | {o for each in nodes for o in each.output}
    read = {name for each in nodes for name in each.input}
    for name, array in (("w", KERNEL), ("k", DENSE)):
        if name in read - made:
            initializers.append(constant(array, name))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, shape)],
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if nodes[-1].op_type == "ArgMax" else element, None
            )
            for name in outputs
        ],
        initializers,
    )
    model = {"ir_version": 8} | model
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **model), path
    )
    return str(path)


def exported(
    network: str, options: BackboneOptions = UNIT, features: FeatureOptions = FeatureOptions()
) -> BackboneExport:
    return export_backbone(
        Path(network).with_suffix(".backbone"), network, options, features, overwrite=True
    )


def embedding(written: BackboneExport, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(written.backbone.content)
    return np.asarray(session.run(None, {"image": images})[0])


def pictures(*size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def agree(written: BackboneExport, images: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Whether the embedding is what `POOLED` computes."""
    return np.allclose(embedding(written, images), features_of(images), rtol=tolerance, atol=1e-5)


def features_of(images: np.ndarray) -> np.ndarray:
    """What `POOLED` computes: the convolution in numpy, ReLU, the mean over all places."""
    height, width = images.shape[1:3]
    padded = np.pad(images / 255, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [
        padded[:, y : y + height : 2, x : x + width : 2] @ KERNEL[:, :, y, x].T
        for y in range(3)
        for x in range(3)
    ]
    return np.asarray(np.maximum(sum(windows), 0).mean(axis=(1, 2)))


# --- layouts


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 32)])
def test_a_map_that_is_not_square_is_pooled_over_its_places(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    nodes = [*POOLED, node("MatMul", "flat k", "y")]
    written = exported(saved(tmp_path / "n.onnx", nodes, shape=("N", 3, *size)))
    assert written.backbone.spec.layers == ("map",)
    images = pictures(*size)
    assert agree(written, images)


def test_a_map_of_as_many_channels_as_rows_is_pooled_over_its_places(tmp_path: Path) -> None:
    """24 channels at 24 x 16: no shape tells which are the channels."""
    network = saved(
        tmp_path / "n.onnx", [*BODY, node("Flatten", "map", "y")], shape=("N", 3, 48, 32)
    )
    written = exported(network, features=FeatureOptions(("map",), ("avg",)))
    images = pictures(48, 32)
    assert agree(written, images)


def test_channels_last_inside_a_channels_first_network(tmp_path: Path) -> None:
    """As ConvNeXt and Swin have them; here with fixed sizes, so that only operators tell."""
    nodes = [*BODY, node("Transpose", "map", "t", perm=[0, 2, 3, 1]), node("Tanh", "t", "y")]
    network = saved(tmp_path / "n.onnx", nodes, shape=("N", 3, 32, 64))
    assert {layer.name: layer.shape for layer in list_layers(network, UNIT)}["y"] == (16, 32, 24)
    written = exported(network, features=FeatureOptions(("y",), ("avg",)))
    assert written.backbone.spec.dim == CHANNELS


@pytest.mark.parametrize("shape", [("N", "c", "h", "w"), None])
def test_an_input_without_sizes_is_read_by_its_convolutions(
    tmp_path: Path, shape: Sequence[str] | None
) -> None:
    options = BackboneOptions(scaling="unit", size=48)
    network = saved(tmp_path / "n.onnx", [*POOLED, node("MatMul", "flat k", "y")], shape=shape)
    images = pictures(48, 48)
    assert np.allclose(
        embedding(exported(network, options), images), features_of(images), rtol=1e-4
    )
    turned = [node("Transpose", "x", "turned", perm=[0, 3, 1, 2]), *POOLED[1:]]
    turned.insert(1, node("Conv", "turned w", "a", pads=[1] * 4, strides=[2, 2]))
    network = saved(tmp_path / "last.onnx", [*turned, node("MatMul", "flat k", "y")], shape=shape)
    assert np.allclose(
        embedding(exported(network, options), images), features_of(images), rtol=1e-4
    )


# --- where the classifier begins

QUANTIZED = [
    constant((DENSE * 100).round().astype(np.int8), "kq"),
    constant(np.float32(0.01), "scale"),
    constant(np.int8(0), "zero"),
]
ENDS = {
    "gemm": ([node("Gemm", "flat k", "y")], []),
    "constant node": (
        [node("Constant", "", "c", value=constant(DENSE, "")), node("MatMul", "flat c", "y")],
        [],
    ),
    "transposed": (
        [node("Transpose", "kt", "kk", perm=[1, 0]), node("MatMul", "flat kk", "y")],
        [constant(DENSE.T.copy(), "kt")],
    ),
    "quantized weights": (
        [node("DequantizeLinear", "kq scale zero", "kk"), node("MatMul", "flat kk", "y")],
        QUANTIZED,
    ),
    "dynamically quantized": (
        [
            node("DynamicQuantizeLinear", "flat", "q qs qz"),
            node("MatMulInteger", "q kq qz zero", "product"),
            node("Cast", "product", "wide", to=1),
            node("Mul", "qs scale", "both"),
            node("Mul", "wide both", "y"),
        ],
        QUANTIZED,
    ),
    "bias, scale, softmax, answer": (
        [
            node("MatMul", "flat k", "m"),
            node("Add", "m b", "logits"),
            node("Mul", "logits t", "hot"),
            node("Softmax", "hot", "p"),
            node("ArgMax", "p", "y", axis=1),
        ],
        [constant(np.ones(CLASSES, np.float32), "b"), constant(np.float32(2), "t")],
    ),
    "convolution of one place": (
        [node("Conv", "pooled kc", "c"), node("Flatten", "c", "y")],
        [constant(DENSE.T[..., None, None].copy(), "kc")],
    ),
    "convolution, pool, softmax": (
        [
            node("Conv", "map kc", "c"),
            node("Relu", "c", "cr"),
            node("GlobalAveragePool", "cr", "cp"),
            node("Flatten", "cp", "cf"),
            node("Softmax", "cf", "y"),
        ],
        [constant(DENSE.T[..., None, None].copy(), "kc")],
    ),
    "squeeze and excitation inside": (
        [
            node("MatMul", "flat down", "squeezed"),
            node("MatMul", "squeezed up", "excited"),
            node("Sigmoid", "excited", "gates"),
            node("Reshape", "gates places", "gate"),
            node("Mul", "map gate", "gated"),
            node("Conv", "gated kc", "c"),
            node("GlobalAveragePool", "c", "cp"),
            node("Flatten", "cp", "cf"),
            node("Softmax", "cf", "y"),
        ],
        [
            constant(np.ones((CHANNELS, 2), np.float32), "down"),
            constant(np.ones((2, CHANNELS), np.float32), "up"),
            constant(np.array([0, CHANNELS, 1, 1]), "places"),
            constant(DENSE.T[..., None, None].copy(), "kc"),
        ],
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_embedding_is_what_the_classifier_sees(tmp_path: Path, end: str) -> None:
    nodes, constants = ENDS[end]
    spec = exported(saved(tmp_path / "n.onnx", [*POOLED, *nodes], constants)).backbone.spec
    assert spec.layers == ("gated" if "excitation" in end else "map",)
    assert spec.dim == CHANNELS


@pytest.mark.parametrize("swapped", [False, True])
def test_several_classifiers_have_what_all_of_them_see(tmp_path: Path, swapped: bool) -> None:
    """Age and gender: one number and five classes, in either order, one with a hidden layer."""
    nodes = [
        *POOLED,
        node("MatMul", "flat k", "gender"),
        node("MatMul", "flat hidden", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r last", "age"),
    ]
    constants = [
        constant(np.ones((CHANNELS, 3), np.float32), "hidden"),
        constant(np.ones((3, 1), np.float32), "last"),
    ]
    outputs = ("age", "gender")[:: -1 if swapped else 1]
    spec = exported(saved(tmp_path / "n.onnx", nodes, constants, outputs)).backbone.spec
    assert (spec.layers, spec.dim) == (("map",), CHANNELS)


def test_features_beside_the_classes_are_the_embedding(tmp_path: Path) -> None:
    nodes = [*POOLED, node("MatMul", "flat k", "y")]
    for outputs in (("flat", "y"), ("y", "flat")):
        assert exported(saved(tmp_path / "n.onnx", nodes, outputs=outputs)).backbone.spec.dim == 24


def test_class_scores_of_unclear_origin_are_no_embedding(tmp_path: Path) -> None:
    nodes = [*POOLED, node("Mul", "flat flat", "squares"), node("Softmax", "squares", "y")]
    network = saved(tmp_path / "n.onnx", nodes)
    with pytest.raises(BackboneError) as caught:
        exported(network)
    assert str(caught.value) == (
        "n ends in class scores, and which layer they are computed from is not clear\n"
        "  Name one: --layer NAME (`python -m export layers` lists them)."
    )
    assert exported(network, features=FeatureOptions(("map",))).backbone.spec.dim == CHANNELS


# --- names, versions, batches


@pytest.mark.parametrize("names", [("image", "embedding"), ("embedding", "image"), ("x", "image")])
def test_tensors_may_have_our_names(tmp_path: Path, names: tuple[str, str]) -> None:
    path = tmp_path / "n.onnx"
    model = onnx.load(saved(path, [*POOLED, node("MatMul", "flat k", "y")]))
    renamed = {"x": names[0], "map": names[1], "a": "headstart/before/Cast_0"}
    for each in model.graph.node:
        for field in (each.input, each.output):
            field[:] = [renamed.get(name, name) for name in field]
    model.graph.input[0].name = names[0]
    onnx.save(model, path)
    images = pictures(32, 32)
    assert agree(exported(str(path)), images)


def test_a_fixed_batch_behind_the_layer_does_not_matter(tmp_path: Path) -> None:
    nodes = [*POOLED[:-1], node("Reshape", "pooled s", "flat"), node("MatMul", "flat k", "y")]
    shape = [constant(np.array([1, CHANNELS]), "s")]
    written = exported(saved(tmp_path / "n.onnx", nodes, shape, shape=(1, 3, 32, 32)))
    images = pictures(32, 32)
    assert agree(written, images)


def test_newer_operators_are_taken_apart_and_older_files_read(tmp_path: Path) -> None:
    gelu = [BODY[0], node("Gelu", "a", "map"), *POOLED[2:], node("Gemm", "flat k", "y")]
    new = exported(saved(tmp_path / "new.onnx", gelu, opset=20, ir_version=9))
    model = onnx.load_model_from_string(new.backbone.content)
    assert [each.version for each in model.opset_import] == [18]
    assert (new.backbone.spec.layers, new.backbone.spec.dim) == (("map",), CHANNELS)
    path = tmp_path / "old.onnx"
    old = onnx.load(saved(path, [*POOLED, node("MatMul", "flat k", "y")], opset=8, ir_version=3))
    for tensor in old.graph.initializer:  # before IR version 4, they were inputs too
        old.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    onnx.save(old, path)
    images = pictures(32, 32)
    assert agree(exported(str(path)), images)


def test_functions_of_a_file_are_put_where_they_are_called(tmp_path: Path) -> None:
    path = tmp_path / "n.onnx"
    nodes = [BODY[0], helper.make_node("Own", ["a"], ["map"], domain="mine"), *POOLED[2:]]
    model = onnx.load(saved(path, [*nodes, node("MatMul", "flat k", "y")]))
    own = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["in"], ["out"])]
    model.functions.append(helper.make_function("mine", "Own", ["in"], ["out"], body, own))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    onnx.save(model, path)
    images = pictures(32, 32)
    assert agree(exported(str(path)), images)


def test_half_precision_inside_becomes_float32_outside(tmp_path: Path) -> None:
    half = TensorProto.FLOAT16
    constants = [constant(KERNEL.astype(np.float16), "w"), constant(DENSE.astype(np.float16), "k")]
    nodes = [*POOLED, node("MatMul", "flat k", "y")]
    images = pictures(32, 32)
    got = embedding(exported(saved(tmp_path / "n.onnx", nodes, constants, element=half)), images)
    assert got.dtype == np.float32
    assert np.allclose(got, features_of(images), rtol=2e-2, atol=1e-3)
