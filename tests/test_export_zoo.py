"""Named networks: one small one of each family, and EfficientNet-Lite with its real weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import skimage

from benchmarks.keras_lite import keras_lite
from headstart.data.contracts.backbone import Backbone
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.catalogue import (
    APPLICATIONS,
    LITE,
    cached_applications,
    lite_package,
    package_file,
)
from headstart.export.networks.keras.applications import application_functions
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.lite import VARIANTS
from headstart.export.networks.resolve import open_original
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import BackboneOptions, FeatureOptions

PICTURES = Path(skimage.__file__).parent / "data"
CATS, CUPS = {281, 282, 283, 284, 285}, {967, 968}  # as in test_export_backbone

# One of each family, and a size at which it is quick; MobileNetV2, EfficientNet and VGG are in
# test_export_backbone, all of them at their full size in `make zoo`.
FAMILIES = {
    "convnexttiny": 32,
    "densenet121": 32,
    "efficientnetv2b0": 32,
    "inceptionresnetv2": 75,
    "inceptionv3": 75,
    "mobilenet": 32,
    "mobilenetv3small": 32,
    "nasnetmobile": 32,
    "resnet50": 32,
    "resnet50v2": 32,
    "xception": 71,
}


@pytest.mark.parametrize(("name", "size"), FAMILIES.items())
def test_one_of_each_family(tmp_path: Path, name: str, size: int) -> None:
    """The gate holds it against Keras and the family's own preprocessing at batch 1 and 3."""
    options = BackboneOptions(weights="none", size=size)
    export = export_backbone(tmp_path / "b.onnx", name, options)
    spec, facts = export.backbone.spec, APPLICATIONS[name]
    assert export.parity <= 1e-4
    assert (spec.dim, spec.scaling) == (facts.dim, facts.scaling)


def test_the_catalogue_knows_every_network_of_keras_applications() -> None:
    assert set(application_functions(import_keras())) == set(APPLICATIONS)


def test_what_is_listed(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    for name in (
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",  # with its classifier: of no use here
        "efficientnetv2-b0_notop.h5",
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    ):
        (tmp_path / "models" / name).touch()
    here = {"resnet50v2", "efficientnetv2b0", "mobilenetv3large", "mobilenetv2"}
    assert cached_applications() == here
    rows = {row["name"]: row for row in json.loads(command("export", "list", "--json").out)}
    assert {name for name, row in rows.items() if row["weights_here"]} == here | set(LITE)
    assert (rows["vgg16"]["dim"], rows["vgg16"]["top1"]) == (512, 71.3)
    shown = command("export", "list", "lite0")
    assert shown.out.splitlines()[1].split() == [
        *("efficientnet_lite0", "224", "1280", "4.7", "75.1", "%", "Apache-2.0", "here")
    ]
    assert "timm:NAME" in shown.err
    listed = json.loads(command("export", "list", "timm:resnet18*", "--json").out)
    assert "timm:resnet18d" in {row["name"] for row in listed}
    nothing = command("export", "list", "resnext")
    assert (nothing.code, nothing.err.splitlines()[0]) == (
        2,
        "error: no network matches 'resnext'",
    )


def test_layers_are_listed(command: Callable) -> None:
    answer = command("export", "layers", "efficientnet_lite0", "--size=64", "--json")
    layers = {layer["name"]: layer for layer in json.loads(answer.out)}
    assert layers["block8"]["shape"] == [80, 4, 4]
    inside = ("_conv_stem", "_bn0", "_bn0_relu6", "_blocks.2.add", "_blocks.4._project_conv")
    assert {*inside, "_blocks.15._bn2", "head"} <= set(layers)
    costs = [layers[f"block{n}"]["multiply_adds"] for n in range(1, 17)]
    assert costs == sorted(costs)
    # The paper of EfficientNet-B0, without squeeze-and-excitation: 0.4 billion at 224 pixels.
    assert 0.95 < layers["head"]["multiply_adds"] / (64**2 / 224**2 * 385e6) < 1.1


@pytest.fixture(
    scope="module", params=["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
)
def lite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """With its real weights; an embedding is the last features, then the ImageNet logits."""
    name = str(request.param)
    out = tmp_path_factory.mktemp(name) / "b.onnx"
    network = open_original(name, BackboneOptions(include_top=True))
    assert network.default_layers == ("_fc",)
    return export_backbone(out, network, features=FeatureOptions(("head", "_fc"))).backbone


def test_real_weights_against_pytorchs_forward_pass(lite: Backbone) -> None:
    """The numbers of the network's own PyTorch code and ours, on photographs."""
    import_torch()
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    file = package_file(lite_package(lite.spec.name))
    module = EfficientNet.from_name(lite.spec.name.replace("_", "-"))
    module.load_state_dict(torch.load(file, weights_only=True))
    module.eval()
    size = LITE[lite.spec.name].size
    images = np.stack(
        [
            decode((PICTURES / name).read_bytes(), Preprocessing(size, size))
            for name in ("chelsea.png", "coffee.png", "astronaut.png")
        ]
    )
    (got,) = onnxruntime.InferenceSession(lite.content).run(None, {"image": images})
    with torch.no_grad():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
        features = module.extract_features(pixels).mean(dim=(2, 3)).numpy()
        logits = module(pixels).numpy()
    for part, expected in ((got[:, :-1000], features), (got[:, -1000:], logits)):
        assert part.shape == expected.shape
        assert np.abs(part - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_written_graph_gives_what_keras_gives() -> None:
    """Every kind of layer, at a size whose halves are odd and even, so that padding differs."""
    keras, size = import_keras(), 76
    model = keras_lite(keras, "efficientnet_lite0", size)
    pixels = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    names = ["_bn0", "_bn0_relu6", "_blocks.2.add", "_blocks.3._depthwise_conv", "block1"]
    names += [*VARIANTS["efficientnet_lite0"].layers]
    outputs = [model.get_layer(name).output for name in names]
    expected = keras.Model(model.input, outputs).predict(pixels, verbose=0)
    network = open_original("efficientnet_lite0", BackboneOptions(size=size))
    folded = onnxruntime.InferenceSession(network.to_onnx(names).SerializeToString())
    turned = pixels.transpose(0, 3, 1, 2)
    for found in (network.run(pixels, names), folded.run(names, {"pixels": turned})):
        for name, own, other in zip(names, found, expected, strict=True):
            difference = np.abs(own.transpose(0, 2, 3, 1) - other).max()
            assert difference <= 1e-5 * np.abs(other).max(), name


def test_random_weights_are_the_same_each_time() -> None:
    options = BackboneOptions(weights="none", size=32)
    one, two = (open_original("efficientnet_lite1", options) for _ in range(2))
    assert one.to_onnx(["head"]).SerializeToString() == two.to_onnx(["head"]).SerializeToString()
    (head,) = one.run(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), ["head"])
    assert 0 < head.std() < 10


def test_real_weights_recognise_a_cat_and_a_cup_of_coffee(lite: Backbone) -> None:
    session = onnxruntime.InferenceSession(lite.content)

    def best(name: str) -> Any:
        image = decode((PICTURES / name).read_bytes(), lite.spec.preprocessing)
        (embedding,) = session.run(None, {"image": image[np.newaxis]})
        return np.argsort(-embedding[0, -1000:]).tolist()

    assert best("chelsea.png")[0] in CATS
    assert CUPS & set(best("coffee.png")[:3])
