"""Networks in files of the user's own: Keras, SavedModel and ONNX; good ones and bad ones."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from test_export_embedding import small

from headstart.data.common.errors import BackboneError
from headstart.data.contracts.backbone import load_backbone
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.keras.network import KerasNetwork
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.layers import list_layers
from headstart.export.networks.network import Weights
from headstart.export.networks.scaling import RULES
from headstart.export.options import BackboneOptions, FeatureOptions

SIZE = 12
RAW = BackboneOptions(scaling="none")


def classifier(keras: Any, *extra: Any) -> Any:
    """A model in a model, as users build them: scaling, a network, pooling, classes."""
    keras.utils.set_random_seed(1)
    base = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="first"),
            keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="second"),
        ],
        name="base",
    )
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 127.5, offset=-1, name="scale"),
            base,
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dropout(0.2, name="drop"),
            *extra,
            layers.Dense(5, activation="softmax", name="classes"),
        ]
    )


@pytest.fixture(scope="session")
def keras() -> Any:
    return import_keras()


def embed(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(load_backbone(path).content)
    (got,) = session.run(["embedding"], {"image": images})
    return np.asarray(got)


IMAGES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_is_cut_off_at_the_embedding(tmp_path: Path, keras: Any, suffix: str) -> None:
    model, out = classifier(keras), tmp_path / "b.onnx"
    file = tmp_path / f"mine{suffix}"
    model.save(file)
    spec = export_backbone(out, str(file)).backbone.spec
    assert (spec.name, spec.layers, spec.dim, spec.scaling) == ("mine", ("base",), 6, "none")
    assert spec.weights.startswith(f"file mine{suffix} (sha256 ")
    pooled = keras.Model(model.inputs, model.get_layer("pool").output)
    assert np.allclose(embed(out, IMAGES), pooled(IMAGES), rtol=1e-4, atol=1e-6)
    names = [layer.name for layer in list_layers(str(file), BackboneOptions())]
    assert names == ["scale", "base/first", "base/second", "base", "pool", "drop", "classes"]
    features = FeatureOptions(("base/first", "base/second=max"), ("std",))
    assert (
        export_backbone(out, str(file), features=features, overwrite=True).backbone.spec.dim == 10
    )


def test_a_file_of_keras_2_is_read(tmp_path: Path, keras: Any) -> None:
    """Keras 2 wrote `groups` of layers that have none, as in Teachable Machine's files."""
    import h5py

    keras.utils.set_random_seed(3)
    layers, file = keras.layers, tmp_path / "keras_model.h5"
    body = [
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(6, 3),
        layers.Conv2DTranspose(18, 3, name="last"),
        layers.GlobalAveragePooling2D(),
    ]
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *body])
    top = keras.Sequential([keras.Input((18,)), layers.Dense(3, activation="softmax")])
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), inner, top])
    model.save(file)
    with h5py.File(file, "r+") as opened:
        config = opened.attrs["model_config"]
        for kind in ("DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"):
            start = f'"class_name": "{kind}", "config": {{'
            assert start in config
            config = config.replace(start, start + '"groups": 1, ')
        opened.attrs["model_config"] = config
    export_backbone(tmp_path / "b.onnx", str(file), RAW)
    expected = np.asarray(inner(IMAGES.astype(np.float32)))
    assert np.allclose(embed(tmp_path / "b.onnx", IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_several_heads_have_what_all_of_them_see(tmp_path: Path, keras: Any) -> None:
    """Classes and a number, behind a squeeze-and-excitation block, whose layers are Dense too."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    pixels = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(18, 3, activation="relu")(pixels)
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(18, activation="sigmoid")(layers.Dense(2, activation="relu")(gate))
    x = layers.Multiply(name="gated")([x, layers.Reshape((1, 1, 18))(gate)])
    shared = layers.GlobalAveragePooling2D(name="shared")(x)
    age = layers.Dense(1, name="age")(layers.Dense(4, activation="relu")(shared))
    gender = layers.Dense(2, activation="softmax", name="gender")(shared)
    expected = np.asarray(keras.Model(pixels, shared)(IMAGES.astype(np.float32)))
    for outputs in ([age, gender], [gender, age]):
        keras.Model(pixels, outputs).save(tmp_path / "faces.keras")
        written = export_backbone(
            tmp_path / "b.onnx", str(tmp_path / "faces.keras"), RAW, overwrite=True
        )
        assert written.backbone.spec.layers == ("gated",)
        assert np.allclose(embed(tmp_path / "b.onnx", IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_layers_are_listed_with_shape_and_cost(
    tmp_path: Path, keras: Any, command: Callable
) -> None:
    model, file = classifier(keras), tmp_path / "mine.keras"
    model.save(file)
    table = command("export", "layers", file).out.splitlines()
    assert table[0].split() == ["layer", "kind", "shape", "million", "mult-adds", "MB"]
    assert table[2].split() == ["base/first", "Conv2D", "10x10x4", "0.0", "0.0"]
    found = {layer.name: layer for layer in list_layers(str(file), BackboneOptions())}
    first, second = found["base/first"], found["base/second"]
    assert (first.kind, first.shape) == ("Conv2D", (10, 10, 4))
    assert first.multiply_adds == 10 * 10 * 4 * 3 * 3 * 3
    assert second.multiply_adds == first.multiply_adds + 4 * 4 * 6 * 4 * 3 * 3
    assert second.parameters - first.parameters == 6 * 4 * 9  # its bias, of zeros, is left out


def test_fully_connected_layers_that_are_used_twice_or_have_an_adapter(
    tmp_path: Path, keras: Any
) -> None:
    """Their kernels are kept out of the conversion, and come back as what they are."""
    keras.utils.set_random_seed(2)
    shared = keras.layers.Dense(6, activation="gelu", name="shared")
    adapted = keras.layers.Dense(6, name="adapted")
    pixels = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(6, 3, strides=4, name="patches")(pixels)
    x = adapted(shared(shared(x)) + x)
    model = keras.Model(pixels, keras.layers.Dense(5)(keras.layers.GlobalMaxPooling2D()(x)))
    adapted.enable_lora(2)
    adapted.lora_kernel_b.assign(np.ones(adapted.lora_kernel_b.shape))  # zeros change nothing
    model.save(tmp_path / "mine.keras")
    out = tmp_path / "b.onnx"
    features = FeatureOptions(("shared", "adapted"), ("avg",))
    export = export_backbone(out, str(tmp_path / "mine.keras"), RAW, features)
    assert export.backbone.spec.dim == 12
    layer = keras.Model(model.inputs, model.get_layer("adapted").output)
    expected = np.asarray(layer(IMAGES.astype(np.float32))).mean((1, 2))
    assert np.allclose(embed(out, IMAGES)[:, 6:], expected, rtol=1e-4, atol=1e-6)


def test_a_subclassed_model_with_a_layer_that_it_never_calls(tmp_path: Path, keras: Any) -> None:
    class Mine(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.look = keras.layers.Conv2D(6, 3, name="look")
            self.mix = keras.layers.Dense(7, activation="relu", name="mix")
            self.spare = keras.layers.Dense(5, name="spare")

        def call(self, pixels: Any) -> Any:
            return self.mix(self.look(pixels))

    keras.utils.set_random_seed(3)
    model = Mine()
    expected = np.asarray(model(IMAGES.astype(np.float32))).mean((1, 2))
    network = KerasNetwork(
        keras, model, "mine", (SIZE, SIZE), RULES["none"], Weights("made by code"), ("mix",)
    )
    export_backbone(tmp_path / "b.onnx", network)
    assert np.allclose(embed(tmp_path / "b.onnx", IMAGES), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", [False, True])
def test_an_onnx_file_from_anywhere(tmp_path: Path, first: bool) -> None:
    """Older opset, a symbolic batch, channels first or last, a classifier behind it."""
    proto = small(first=first)
    proto.opset_import[0].version = 13
    weights = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "dense"))
    proto.graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["b"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "dense"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["classes"]),
        ]
    )
    proto.graph.output[0].name = "classes"
    path, out = tmp_path / "theirs.onnx", tmp_path / "b.onnx"
    onnx.save(proto, path)
    spec = export_backbone(out, str(path), BackboneOptions(scaling="torch")).backbone.spec
    assert (spec.layers, spec.dim, spec.scaling) == (("b",), 7, "torch")
    made = onnx.load(out)
    assert "Gemm" not in {node.op_type for node in made.graph.node}
    assert made.opset_import[0].version == 18
    spec = export_backbone(
        out, str(path), RAW, FeatureOptions(("classes",)), overwrite=True
    ).backbone.spec
    assert (spec.dim, spec.pooling) == (4, "none")


def test_tensors_in_a_file_beside_it(tmp_path: Path) -> None:
    path, out = tmp_path / "n.onnx", tmp_path / "b.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="n.data", size_threshold=0)
    assert export_backbone(out, str(path), RAW).backbone.spec.dim == 7
    data = (tmp_path / "n.data").read_bytes()
    (tmp_path / "n.data").write_bytes(data[:-5])
    assert "stores tensors in n.data, which is truncated\n" in fails(path)
    (tmp_path / "n.data").unlink()
    assert "stores tensors in n.data, which does not exist\n  Export it again, or" in fails(path)
    secret = tmp_path / "elsewhere" / "secret.data"
    secret.parent.mkdir()
    secret.write_bytes(data)
    (tmp_path / "n.data").symlink_to(secret)
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "n.onnx").write_bytes(path.read_bytes())
    (inside / "n.data").symlink_to(secret)
    words = (
        "refers to 'n.data', which is not in its folder\n"
        "  All files of a network must be in one folder."
    )
    assert words in fails(inside / "n.onnx")
    for location in ("../elsewhere/secret.data", str(secret)):
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        (inside / "n.onnx").write_bytes(proto.SerializeToString())
        assert f"refers to '{location}', which is not in its folder" in fails(inside / "n.onnx")


def fails(path: Path, options: BackboneOptions = RAW, **features: Any) -> str:
    with pytest.raises(BackboneError) as caught:
        export_backbone(path.parent / "out.onnx", str(path), options, FeatureOptions(**features))
    assert not (path.parent / "out.onnx").exists()
    return str(caught.value)


def one_input(tmp_path: Path, element: int, shape: list, node: Any = None, opset: int = 18) -> Path:
    """An ONNX file of one node whose input is as told."""
    image = helper.make_tensor_value_info("x", element, shape)
    out = helper.make_tensor_value_info("y", element, None)
    graph = helper.make_graph([node or helper.make_node("Relu", ["x"], ["y"])], "g", [image], [out])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "n.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def test_onnx_files_that_cannot_be_used(tmp_path: Path) -> None:
    double = one_input(tmp_path, TensorProto.DOUBLE, ["n", 3, 8, 8])
    assert fails(double) == (
        "n takes float64 [n, 3, 8, 8] as its input 'x'; supported are float32, float16 and uint8\n"
        "  Export it again with a float32 input (in PyTorch: model.float())."
    )
    tall = one_input(tmp_path, TensorProto.FLOAT, ["n", 3, "height", 8])
    assert fails(tall) == ("n takes images of any size\n  Choose one: --size PIXELS (such as 224).")
    fixed = one_input(tmp_path, TensorProto.FLOAT, ["n", 3, 8, 8])
    assert fails(fixed, BackboneOptions(size=9, scaling="none")) == (
        "n takes images of 8x8, not 9x9\n  Leave --size out."
    )
    assert fails(fixed, BackboneOptions()).startswith(
        "n does not say how its pixels are scaled\n  Give the scaling that it was trained with, "
        "--scaling RULE: none"
    )
    flat = one_input(tmp_path, TensorProto.FLOAT, ["n", 192])
    assert fails(flat) == (
        "n takes float32 [n, 192] as its input 'x', which is not an image\n"
        "  An image is [batch, height, width, 3] or [batch, 3, height, width]."
    )
    magic = helper.make_node("Magic", ["x"], ["y"], domain="com.example")
    foreign = one_input(tmp_path, TensorProto.FLOAT, ["n", 3, 8, 8], magic)
    assert fails(foreign).startswith(
        "n has operators that are not part of ONNX: com.example.Magic\n"
        "  Export it again with ONNX's own operators"
    )


@pytest.mark.parametrize(
    ("node", "opset", "words"),
    [
        (
            helper.make_node("Magic", ["x"], ["y"]),
            18,
            "n has operators that are not valid ONNX: Magic (No Op registered for Magic "
            "with domain_version of 18)\n  Build the network without them, or choose another one.",
        ),
        (
            helper.make_node("MaxPool", ["x"], ["y"]),
            18,
            "n has operators that are not valid ONNX: MaxPool (Required attribute "
            "'kernel_shape' is missing.)\n  Build the network without them, or choose another one.",
        ),
        (
            helper.make_node("Relu", ["x"], ["y"]),
            999,
            "n has opset 999 and IR version 8; this onnx supports up to opset "
            f"{onnx.defs.onnx_opset_version()} and IR version {onnx.IR_VERSION}\n"
            "  Export it again with opset 18.",
        ),
    ],
)
def test_an_onnx_file_that_no_one_can_run(
    tmp_path: Path, node: Any, opset: int, words: str
) -> None:
    path = one_input(tmp_path, TensorProto.FLOAT, ["n", 3, 8, 8], node, opset)
    assert fails(path) == words


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_branches_that_use_what_lies_around_them(tmp_path: Path, domain: str) -> None:
    proto = small()
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    branches = [
        helper.make_graph(
            [helper.make_node(operator, ["b"], [operator], domain=domain)],
            operator,
            [],
            [helper.make_tensor_value_info(operator, TensorProto.FLOAT, None)],
        )
        for operator in ("Neg", "Abs")
    ]
    node = helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1])
    proto.graph.node.append(node)
    proto.graph.output[0].name = "y"
    proto.opset_import[0].domain = domain
    path, out = tmp_path / "n.onnx", tmp_path / "b.onnx"
    onnx.save(proto, path)
    export_backbone(out, str(path), RAW, FeatureOptions(("y",), ("avg",)))
    plain = export_backbone(tmp_path / "p.onnx", str(path), RAW, FeatureOptions(("b",), ("avg",)))
    assert plain.backbone.spec.dim == 7
    assert np.allclose(embed(out, IMAGES), -embed(tmp_path / "p.onnx", IMAGES))


def test_a_shape_that_does_not_follow(tmp_path: Path) -> None:
    """Which elements are not zero depends on the picture."""
    node = helper.make_node("NonZero", ["x"], ["y"])
    assert fails(one_input(tmp_path, TensorProto.FLOAT, ["n", 3, 8, 8], node)) == (
        "the shape of 'y', the output of n, cannot be inferred from its graph\n"
        "  Name a layer: `python -m export layers` lists those whose shape is known."
    )


def test_a_symbolic_height_is_filled_in(tmp_path: Path) -> None:
    path = one_input(tmp_path, TensorProto.FLOAT, ["n", 3, "height", "width"])
    options = BackboneOptions(size=16, scaling="unit")
    spec = export_backbone(tmp_path / "b.onnx", str(path), options).backbone.spec
    assert (spec.preprocessing.height, spec.preprocessing.width, spec.dim) == (16, 16, 3)


def test_an_onnx_file_with_four_inputs(tmp_path: Path) -> None:
    names = ["x", "mask", "age", "y"]
    shapes: list[list] = [["n", 3, 8, 8], ["n", 8, 8, 3], ["n", 1], ["n", 4]]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip(names, shapes, strict=True)
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Concat", ["f", "age", "y"], ["out"], axis=1),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [out])
    path = tmp_path / "four.onnx"
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    assert fails(path) == (
        "four has 4 inputs and several could be the image: x float32 [n, 3, 8, 8], "
        "mask float32 [n, 8, 8, 3], age float32 [n, 1], y float32 [n, 4]\n"
        "  Name it: --input NAME (an image is [batch, height, width, 3] or [batch, 3, height, "
        "width])."
    )
    named = BackboneOptions(scaling="none", input="x")
    assert fails(path, named, layers=("out",)) == (
        "four needs 'age', 'y' in addition to the image 'x'\n  Choose a layer that is computed "
        "from the "
        "image alone, or export the network with these inputs as constants."
    )
    assert export_backbone(tmp_path / "b.onnx", str(path), named, FeatureOptions(("r",)))
    wrong = BackboneOptions(scaling="none", input="picture")
    assert fails(path, wrong).startswith("four has no input 'picture'\n  It has x float32")


def test_a_batch_that_is_fixed_inside_is_found(tmp_path: Path) -> None:
    proto = small()
    shape = onnx.numpy_helper.from_array(np.array([1, -1], np.int64), "one")
    proto.graph.initializer.append(shape)
    proto.graph.node.append(helper.make_node("Reshape", ["b", "one"], ["flat"]))
    proto.graph.output[0].name = "flat"
    onnx.save(proto, tmp_path / "n.onnx")
    words = fails(tmp_path / "n.onnx")
    assert words.startswith("the ONNX export of n is broken: its embedding is float32 [1, ")


def test_a_network_without_height_and_width(tmp_path: Path) -> None:
    """An embedding of a flat layer is taken as it is; there is nothing to pool."""
    proto = small()
    proto.graph.node.append(helper.make_node("Flatten", ["b"], ["flat"]))
    proto.graph.output[0].name = "flat"
    path = tmp_path / "n.onnx"
    onnx.save(proto, path)
    assert fails(path, pools=("max",)) == (
        "layer 'flat' of n has no height and width (shape [252]): there is nothing to pool with "
        "max\n  Choose another layer, or pass --layer flat=none."
    )
    spec = export_backbone(tmp_path / "b.onnx", str(path), RAW).backbone.spec
    assert (spec.pooling, spec.dim) == ("none", 252)


def test_files_that_are_damaged_or_none(tmp_path: Path, keras: Any) -> None:
    path = tmp_path / "n.onnx"
    onnx.save(small(), path)
    path.write_bytes(path.read_bytes()[:100])
    assert fails(path) == (
        f"{path} is not a valid ONNX file\n  Export it again, or copy it again with all its files."
    )
    saved = tmp_path / "m.keras"
    classifier(keras).save(saved)
    saved.write_bytes(saved.read_bytes()[:-200])
    assert fails(saved).startswith(f"{saved} is not a valid Keras file (")
    (tmp_path / "m.h5").write_bytes(b"\x89HDF")
    assert fails(tmp_path / "m.h5").startswith(f"{tmp_path / 'm.h5'} is not a valid Keras file (")
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert fails(tmp_path / "w.pth").startswith(
        f"{tmp_path / 'w.pth'} contains weights, but not the network that they belong to\n  Name it"
    )
    assert fails(tmp_path / "no.onnx") == f"{tmp_path / 'no.onnx'}: no such file\n  Check the path."


def test_weights_alone_are_no_network(tmp_path: Path, keras: Any) -> None:
    file = tmp_path / "mine.weights.h5"
    classifier(keras).save_weights(file)
    assert fails(file) == (
        f"{file} contains weights, but not the network that they belong to\n"
        f"  Name it too: python -m export backbone NAME --weights {file}"
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_code_and_needs_trust(
    tmp_path: Path, keras: Any, suffix: str, command: Callable
) -> None:
    layer = keras.layers.Lambda(lambda x: x * 2, output_shape=(6,), name="code")
    file = tmp_path / f"code{suffix}"
    classifier(keras, layer).save(file)
    out = tmp_path / "b.onnx"
    answer = command("export", "backbone", file, "-o", out)
    assert answer.code == 2
    assert answer.err.endswith(
        f"error: {file} has a Lambda layer: Python code from the file's author, which would be "
        "run\n  Pass --trust if you trust the author, or replace the layer and save the model "
        "again.\n"
    )
    assert not out.exists()
    answer = command("export", "backbone", file, "-o", out, "--trust", "--layer=code", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["dim"] == 6


def test_a_layer_of_the_users_own_is_named(tmp_path: Path, keras: Any) -> None:
    file = tmp_path / "m.keras"
    classifier(keras).save(file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"Dropout"', b'"Mystery"')
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    words = fails(file)
    assert "cannot be loaded: Could not deserialize 'keras.layers.Mystery'" in words
    assert "headstart.export.networks.keras.network.KerasNetwork" in words


def test_an_h5_file_that_reaches_elsewhere(tmp_path: Path, keras: Any) -> None:
    import h5py

    file = tmp_path / "m.h5"
    classifier(keras).save(file)
    with h5py.File(file, "a") as content:
        content["model_weights/link"] = h5py.ExternalLink("/etc/other.h5", "/")
    assert fails(file) == (
        f"{file} refers to another file (in 'link')\n  Save the model again, as one file."
    )


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path, keras: Any) -> None:
    class Strange(keras.layers.Layer):  # type: ignore[name-defined,misc]
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return tf.math.igamma(tf.abs(x) + 1.0, tf.abs(x))

    from headstart.export.networks.keras.network import KerasNetwork
    from headstart.export.networks.network import Weights
    from headstart.export.networks.scaling import RULES

    pixels = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(pixels, Strange(name="strange")(pixels))
    original = KerasNetwork(
        keras, model, "odd", (SIZE, SIZE), RULES["unit"], Weights("none"), ("strange",)
    )
    with pytest.raises(BackboneError) as caught:
        export_backbone(tmp_path / "b.onnx", original)
    assert "Igamma" in caught.value.message
    assert "python -m export layers" in caught.value.fix or "Choose another" in caught.value.fix


def test_a_network_of_more_than_two_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limit of one protobuf message set low: only what is needed has to be below it."""
    proto = small()
    wide = np.ones((7, 4000), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(wide, "wide"))
    proto.graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["b"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "wide"], ["huge"]),
        ]
    )
    proto.graph.output[0].name = "huge"
    path = tmp_path / "n.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="n.data", size_threshold=9000)
    for module in (
        "headstart.export.networks.onnx.surgery",
        "headstart.export.networks.onnx.network",
        "headstart.export.networks.onnx.file",
    ):
        monkeypatch.setattr(f"{module}.LARGEST_FILE", 50_000)
    assert export_backbone(tmp_path / "b.onnx", str(path), RAW).backbone.spec.layers == ("b",)
    assert fails(path, layers=("huge",)) == (
        "n would be a file of 0.0 GB; an ONNX file holds at most 2.1 GB\n"
        "  Choose shallower layers: what comes after the last of them is removed "
        "(`python -m export layers` lists them with their sizes)."
    )
