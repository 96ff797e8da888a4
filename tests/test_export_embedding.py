"""Scaling, views, pooling and the signed square root, in the graph and in numpy."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headstart.data.common.errors import BackboneError, ManyInputErrors
from headstart.export.backbone.embedding import assemble, plan, width
from headstart.export.backbone.reference import embed
from headstart.export.networks.catalogue import APPLICATIONS
from headstart.export.networks.keras.applications import application_functions
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.network import Weights, axes_that_grow, prefix_of
from headstart.export.networks.onnx.network import OnnxNetwork
from headstart.export.networks.onnx.surgery import drop_unused_constants, number_names, order_nodes
from headstart.export.networks.scaling import RULES, from_unit
from headstart.export.options import BackboneOptions, FeatureOptions, PrecisionOptions

SIZE = 12


def small(first: bool = False, tokens: bool = False, size: int = SIZE) -> onnx.ModelProto:
    """A network of two convolutions, `a` and `b` (and tokens of `b`), seeded."""
    random = np.random.default_rng(3)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        array = random.normal(size=shape).astype(np.float32) / 3
        return onnx.numpy_helper.from_array(array, name)

    shape = ["n", 3, size, size] if first else ["n", size, size, 3]
    nodes = [] if first else [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])]
    nodes += [
        helper.make_node("Conv", ["x" if first else "t", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["ra"]),
        helper.make_node("Conv", ["ra", "v"], ["b"], strides=[2, 2]),
    ]
    constants = [constant("w", 5, 3, 3, 3), constant("v", 7, 5, 2, 2)]
    if tokens:  # a class token before the flattened places
        ends = onnx.numpy_helper.from_array(np.array([0, 7, -1], np.int64), "ends")
        constants += [ends, constant("one", 1, 1, 7), constant("axes", 1)]
        pads = onnx.numpy_helper.from_array(np.array([0, 1, 0, 0, 0, 0], np.int64), "pads")
        constants[-1] = pads
        nodes += [
            helper.make_node("Reshape", ["b", "ends"], ["flat"]),
            helper.make_node("Transpose", ["flat"], ["places"], perm=[0, 2, 1]),
            helper.make_node("Pad", ["places", "pads"], ["padded"]),
            helper.make_node("Add", ["padded", "one"], ["tokens"]),
        ]
    out = helper.make_tensor_value_info("tokens" if tokens else "b", TensorProto.FLOAT, None)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "small", [image], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def network(scaling: str = "tf", **options: bool) -> OnnxNetwork:
    return OnnxNetwork(
        small(**options), "small", Weights("none (random)"), BackboneOptions(scaling=scaling)
    )


def both(
    original: OnnxNetwork, features: FeatureOptions, batch: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """The embedding by the graph, and by numpy (before the signed square root)."""
    recipe = plan(original, features)
    proto = original.to_onnx(recipe.layers)
    assemble(proto, recipe, original.scaling, (SIZE, SIZE))
    onnx.checker.check_model(proto, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (got,) = session.run(["embedding"], {"image": images})
    assert got.shape == (batch, width(recipe))
    return got, embed(original, recipe, images)


@settings(max_examples=40, deadline=None)
@given(
    first=st.booleans(),
    scaling=st.sampled_from(list(RULES)),
    layers=st.sampled_from([("a",), ("b",), ("a", "ra"), ("b=max+std", "a")]),
    pools=st.lists(st.sampled_from(["avg", "max", "std", "gem", "flatten"]), unique=True),
    views=st.sampled_from(["none", "mirror", "flips"]),
    power=st.booleans(),
)
def test_every_choice_is_the_same_in_numpy(
    first: bool, scaling: str, layers: tuple, pools: list, views: str, power: bool
) -> None:
    options = FeatureOptions(layers, tuple(pools), power, views)
    got, expected = both(network(scaling, first=first), options)
    if power:
        expected = np.sign(expected) * np.sqrt(np.abs(expected))
    assert np.abs(got - expected).max() <= 2e-4 * np.abs(expected).max()


def test_pools_by_hand() -> None:
    """Against arithmetic written out, not against our own numpy."""
    original = network("none")
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    (a,) = original.run(image.astype(np.float32), ["a"])  # [1, 5, 12, 12]
    got, _ = both(original, FeatureOptions(("a",), ("avg", "max", "std", "gem")), batch=1)
    places = a[0].reshape(5, -1)
    mean = places.sum(axis=1) / 144
    by_hand = [
        mean,
        np.sort(places, axis=1)[:, -1],
        np.sqrt(((places - mean[:, None]) ** 2).sum(axis=1) / 144),
        np.cbrt((np.maximum(places, 1e-6) ** 3).sum(axis=1) / 144),
    ]
    assert np.allclose(got[0], np.concatenate(by_hand), rtol=1e-4)


def test_views_do_not_see_which_way_a_picture_was_turned() -> None:
    """The mean over both views is the same for a picture and for its mirror image."""
    original = network()
    recipe = plan(original, FeatureOptions(("b",), ("avg", "max"), views="mirror"))
    proto = original.to_onnx(recipe.layers)
    assemble(proto, recipe, original.scaling, (SIZE, SIZE))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    (one,) = session.run(None, {"image": images})
    (other,) = session.run(None, {"image": np.ascontiguousarray(images[:, :, ::-1])})
    assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_class_token_stands_apart_from_the_places() -> None:
    original = network(tokens=True)
    (layer,) = original.find(["tokens"])
    assert (layer.layout, layer.prefix, layer.shape) == ("tokens", 1, (37, 7))
    got, expected = both(original, FeatureOptions(("tokens",), ("token", "avg", "max")))
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert got.shape == (3, 21)


def test_shallower_layers_make_a_smaller_file() -> None:
    original = network()
    nodes = []
    for layer in ("a", "b"):
        recipe = plan(original, FeatureOptions((layer,)))
        proto = original.to_onnx(recipe.layers)
        assemble(proto, recipe, original.scaling, (SIZE, SIZE))
        nodes.append([node.op_type for node in proto.graph.node].count("Conv"))
        assert len(proto.graph.input) == 1
    assert nodes == [1, 2]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            FeatureOptions(("aa",)),
            "small has no layer 'aa'\n  Similar names: a, ra.",
        ),
        (FeatureOptions(("a", "a")), "layer 'a' is named twice\n  Pool it in several ways: "),
        (
            FeatureOptions(("a",), ("token",)),
            "layer 'a' of small has no class token (shape [5, 12, 12])\n  Choose another --pool",
        ),
        (
            FeatureOptions(("a=none",)),
            "layer 'a' of small has the shape [5, 12, 12]: it has to be pooled\n  Choose avg, max",
        ),
    ],
)
def test_layers_that_cannot_be_had(features: FeatureOptions, words: str) -> None:
    with pytest.raises(BackboneError) as caught:
        plan(network(), features)
    assert str(caught.value).startswith(words)


def test_options_say_all_that_is_wrong_with_them() -> None:
    with pytest.raises(ManyInputErrors) as caught:
        FeatureOptions(("a=mean",), ("gen",), views="flip").check()
    assert str(caught.value) == (
        "1. unknown --pool 'gen'\n  Did you mean gem?\n"
        "2. unknown --pool 'mean'\n  Did you mean max?\n"
        "3. unknown --views 'flip'\n  Did you mean flips?"
    )
    with pytest.raises(BackboneError, match="--calibrate has no effect with --precision fp16"):
        PrecisionOptions("fp16", "photos").check()


def test_a_layout_is_told_by_what_grows_with_the_picture() -> None:
    assert axes_that_grow((64, 7, 9), (64, 11, 13)) is True
    assert axes_that_grow((7, 9, 64), (11, 13, 64)) is False
    assert axes_that_grow((64, 1, 1), (64, 1, 1)) is None
    assert axes_that_grow((64, 7, 9), ()) is None


def test_tokens_before_the_patches_are_counted_for_any_shape_of_picture() -> None:
    """Patches of 16 pixels: 14 x 14; 10 x 20, which is no square; and the end of a Swin network."""
    found = [
        prefix_of((tokens, 8), *size)
        for tokens, size in (
            (197, (224, 224)),
            (198, (224, 224)),
            (201, (160, 320)),
            (261, (224, 224)),
            (49, (224, 224)),
        )
    ]
    assert found == [1, 2, 1, 5, 0]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_scaling_is_the_familys_own(name: str) -> None:
    """The graph's scaling against `keras.applications.<family>.preprocess_input`, random uint8."""
    keras = import_keras()
    _, preprocess = application_functions(keras)[name]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE, SIZE, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIZE, SIZE, 3])
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "same", [image], [out])
    same = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = BackboneOptions(scaling=APPLICATIONS[name].scaling)
    original = OnnxNetwork(same, "same", Weights("none"), options)
    recipe = plan(original, FeatureOptions(("y",), ("flatten",)))
    proto = original.to_onnx(recipe.layers)
    assemble(proto, recipe, original.scaling, (SIZE, SIZE))
    images = np.random.default_rng(7).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    (got,) = session.run(None, {"image": images})
    expected = preprocess(images.astype(np.float32))
    assert np.allclose(got.reshape(expected.shape), expected, rtol=1e-5, atol=1e-4)


def test_a_rule_of_another_library_is_known_by_its_numbers() -> None:
    assert from_unit((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).name == "torch"
    assert from_unit((0.5,) * 3, (0.5,) * 3).name == "tf"
    assert from_unit((0.0,) * 3, (1.0,) * 3).name == "unit"
    own = from_unit((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert own.name == "custom"
    image = np.full((1, 1, 1, 3), 255, np.uint8)
    assert np.allclose(own.apply(image), [(0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6)])


def by_chance(count: int, constant: str) -> Any:
    """A graph with a branch in it; a converter counted its names from `count` on."""
    flat, turned = f"Flat__{count + 3}:0", f"Turn__{count}:0"  # counted 0 soon, as one inside is
    numbers = numpy_helper.from_array(np.ones(3, np.float32), constant)
    always = numpy_helper.from_array(np.array(True), "always")
    branches = [
        helper.make_graph(
            [helper.make_node(kind, [turned, constant], ["Turn__0:0"])],
            kind,
            [],
            [helper.make_tensor_value_info("Turn__0:0", TensorProto.FLOAT, None)],
        )
        for kind in ("Mul", "Add")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], [turned], f"Turn__{count}"),
        helper.make_node(
            "If", ["always"], [flat], "If", then_branch=branches[0], else_branch=branches[1]
        ),
        helper.make_node("Relu", [flat], ["y"], f"Relu__{count + 9}"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 4, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 4, 3])
    graph = helper.make_graph(nodes, "chance", [image], [out], [numbers, always])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_the_same_network_is_the_same_file_in_whatever_order_its_nodes_came() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sub", ["x", "a"], ["b"]),
        helper.make_node("Sub", ["b", "a"], ["c"]),
        helper.make_node("Neg", ["c"], ["unused"]),
        helper.make_node("Mul", ["b", "c"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    files = set()
    for order in permutations(nodes):
        graph = helper.make_graph(order, "order", ends[:1], ends[1:])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        order_nodes(proto)
        files.add(proto.SerializeToString())
    (content,) = files
    onnx.checker.check_model(onnx.load_model_from_string(content))  # also that no node is early
    (got,) = onnxruntime.InferenceSession(content).run(None, {"x": np.float32([-2, 3])})
    assert got.tolist() == [4, 0]  # (x - a) * (x - a - a) with a = relu(x)


def test_the_same_network_is_the_same_file_whatever_its_converter_counted() -> None:
    one, other = by_chance(974, "x__1"), by_chance(12, "Const__7")
    assert one.SerializeToString() != other.SerializeToString()
    for proto in (one, other):
        drop_unused_constants(proto)
        number_names(proto)
    assert one.SerializeToString() == other.SerializeToString()
    assert [node.name for node in one.graph.node] == ["Turn__0", "If", "Relu__2"]
    onnx.checker.check_model(one)  # nothing inside has a name from outside
    image = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    (got,) = onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"x": image})
    assert np.array_equal(got, np.maximum(image, 0))
