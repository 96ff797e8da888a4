"""How a checkpoint's own preprocessing sees photographs, and weights that were trained further."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.common.errors import BackboneError
from headstart.data.contracts.backbone import BackboneSpec
from headstart.export.backbone.build import describe, serialized, to_backbone
from headstart.export.backbone.check import LIKENESS, check_photographs, photographs
from headstart.export.backbone.embedding import plan
from headstart.export.networks.network import Original
from headstart.export.networks.resolve import open_original
from headstart.export.networks.scaling import RULES
from headstart.export.networks.torch.recipe import find_resize, find_scaling
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import BackboneOptions, FeatureOptions

torch, timm, torchvision, transformers = import_torch("timm", "torchvision", "transformers")
NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def own(change: Callable[[np.ndarray], np.ndarray], crop: float | None = None) -> Any:
    def run(image: Image.Image) -> np.ndarray:
        if crop is not None:
            side = int(min(image.size) * crop)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side)).resize((32, 32), 2)
        return change(np.asarray(image, np.float64)).transpose(2, 0, 1)

    return run


def test_a_scaling_is_measured() -> None:
    assert find_scaling(own(lambda p: p / 127.5 - 1), (32, 32), "x") == RULES["tf"]
    blue_first = own(lambda p: p[..., ::-1] - np.array([103.939, 116.779, 123.68]))
    assert find_scaling(blue_first, (32, 32), "x") == RULES["caffe"]
    each = find_scaling(own(lambda p: p / [1, 2, 3] - [4, 5, 6]), (32, 32), "x")
    assert np.allclose(each.apply(NOISE[None]), NOISE / [1, 2, 3] - [4, 5, 6], rtol=1e-5)
    with pytest.raises(BackboneError, match="more than a scale and an offset of each channel"):
        find_scaling(own(lambda p: p**2), (32, 32), "x")
    with pytest.raises(BackboneError, match="cannot be run: no pixels"):
        find_scaling(own(lambda p: _raise(ValueError("no pixels"))), (32, 32), "x")


def _raise(error: Exception) -> Any:
    raise error


def test_a_cut_is_measured_on_a_photograph() -> None:
    whole = find_resize(own(lambda p: p, crop=1), RULES["none"], 2, "x")
    assert (str(whole.rule), whole.warnings) == ("32x32 crop bilinear", ())
    part = find_resize(own(lambda p: p, crop=0.4), RULES["none"], "bicubic", "x")
    assert (part.rule.resize, part.rule.interpolation) == ("crop", "bicubic")
    assert part.warnings[0].startswith("x resizes and cuts photographs in a way that is not ")
    with pytest.raises(BackboneError, match=r"with an interpolation that is not supported \(0\)"):
        find_resize(own(lambda p: p, crop=1), RULES["none"], 0, "x")


@pytest.mark.parametrize(
    "settings",
    [
        {
            "do_rescale": True,
            "rescale_factor": 1 / 127.5,
            "image_mean": [1] * 3,
            "image_std": [1] * 3,
        },
        {"do_normalize": True},
        {"do_rescale": False, "do_normalize": False},
        {"resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ],
)
def test_a_checkpoints_own_processor_says_what_pixels_are(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Its settings have defaults, and mean what its class makes of them."""
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    about = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about | settings))
    network = open_original(f"hf:{tmp_path}", BackboneOptions())
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(images=NOISE, do_resize=False, return_tensors="np")["pixel_values"]
    expected = expected.transpose(0, 2, 3, 1)
    assert np.allclose(network.scaling.apply(NOISE[None]), expected, rtol=1e-4, atol=1e-4)
    assert np.allclose(
        network.preprocess(NOISE[None]), expected
    )  # what the export is compared with
    assert network.interpolation == ("bicubic" if settings.get("resample") == 3 else "bilinear")
    assert (network.resize, network.crop_fraction) == ("squash", None)
    assert network.default_pools == ("token",)


PROCESSORS = {
    "CLIPImageProcessor": ({"size": {"shortest_edge": 64}}, "crop bicubic of 64x64 floor"),
    "ConvNextImageProcessor": (
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875, "resample": 2},
        "crop bilinear of 73x73 floor",
    ),
    "BitImageProcessor": ({"size": {"shortest_edge": 80}}, "crop bicubic of 80x80 floor"),
    "DeiTImageProcessor": (
        {"size": {"height": 73, "width": 73}, "resample": 1},
        "squash lanczos of 73x73",
    ),
    "SiglipImageProcessor": ({"size": {"height": 64, "width": 64}}, "squash bicubic"),
    "PoolFormerImageProcessor": (
        {"size": {"shortest_edge": 64}, "crop_pct": 0.9},
        "crop bicubic of 71x71 floor",
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processors_size_crop_and_resample_are_followed_to_the_pixel(
    tmp_path: Path, name: str
) -> None:
    settings, rule = PROCESSORS[name]
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=64,
        patch_size=8,
    )
    torch.manual_seed(0)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    about = {"image_processor_type": name, "crop_size": {"height": 64, "width": 64}} | settings
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    sees_as_trained(f"hf:{tmp_path}", f"64x64 {rule}")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("timm:test_vit", "160x160 crop bicubic of 168x168"),  # crop_pct 0.95
        ("torchvision:squeezenet1_1", "224x224 crop bilinear of 256x256"),
    ],
)
def test_a_checkpoints_crop_is_followed_to_the_pixel(name: str, rule: str) -> None:
    sees_as_trained(name, rule)


def sees_as_trained(name: str, rule: str) -> None:
    """Whole photographs get the pixels and embeddings that the checkpoint's own code makes."""
    network = open_original(name, BackboneOptions(weights="none"))
    recipe = plan(network, FeatureOptions())
    spec = describe(network, recipe, BackboneOptions())
    assert (str(spec.preprocessing), network.warnings) == (rule, ())
    assert spec.preprocessing.format_version == (2 if " of " in rule else 1)
    assert BackboneSpec.from_metadata(spec.to_metadata()) == spec
    scale, offset = network.scaling.affine
    for content in photographs():
        image = Image.open(BytesIO(content)).convert("RGB")
        expected = (network.see(image).transpose(1, 2, 0) - offset) / scale
        got = spec.preprocessing.apply(image)
        difference = np.abs(got - expected)
        # Of upright ones, Pillow may resize the height first, which rounds between the two.
        assert difference.mean() < 0.3
        assert difference.max() <= (1.01 if image.width > image.height else 12)
    content = serialized(to_backbone(network, recipe, spec), spec)
    assert check_photographs(content, network, recipe, spec) >= LIKENESS


def test_a_backbone_that_sees_otherwise_is_refused() -> None:
    network = open_original("torchvision:squeezenet1_1", BackboneOptions(weights="none"))
    recipe = plan(network, FeatureOptions())
    network.crop_fraction, network.resize = None, "squash"
    spec = describe(network, recipe, BackboneOptions())
    content = serialized(to_backbone(network, recipe, spec), spec)
    assert check_photographs(content, network, recipe, spec) < LIKENESS  # is a warning
    network.crop_fraction, network.resize = 0.25, "crop"
    spec = describe(network, recipe, BackboneOptions())
    with pytest.raises(BackboneError, match="resized by 224x224 crop bilinear of 896x896 give"):
        check_photographs(content, network, recipe, spec)


def seen(network: Original, **options: Any) -> str:
    recipe = plan(network, FeatureOptions())
    return str(describe(network, recipe, BackboneOptions(**options)).preprocessing)


def test_timm_and_torchvision_say_how_photographs_are_resized() -> None:
    random = BackboneOptions(weights="none", size=64)
    network = open_original("timm:test_vit", random)
    config = timm.models.get_pretrained_cfg("test_vit")
    resized = int(64 / config.crop_pct)
    assert seen(network) == f"64x64 crop {config.interpolation} of {resized}x{resized}"
    assert seen(network, resize="squash", interpolation="lanczos") == "64x64 squash lanczos"
    assert seen(network, resize="crop") == f"64x64 crop {config.interpolation}"
    assert seen(network, crop_fraction=0.5).endswith(" of 128x128")
    assert network.warnings == ()
    other = open_original("torchvision:squeezenet1_1", random)
    assert seen(other) == "64x64 crop bilinear of 73x73"


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.net.backbone."])
@pytest.mark.parametrize("head", ["five classes", "another layer", "none"])
def test_weights_that_were_trained_further(tmp_path: Path, prefix: str, head: str) -> None:
    torch.manual_seed(4)
    tuned = torchvision.models.squeezenet1_1(weights=None)
    state = tuned.state_dict()
    weight, bias = state.pop("classifier.1.weight"), state.pop("classifier.1.bias")
    if head == "five classes":
        state |= {"classifier.1.weight": weight[:5], "classifier.1.bias": bias[:5]}
    elif head == "another layer":
        state |= {"classifier.3.weight": weight[:5, :, 0, 0], "classifier.3.bias": bias[:5]}
    saved: dict[str, Any] = {prefix + name: tensor for name, tensor in state.items()}
    if prefix == "model.":  # as Lightning's checkpoints have it
        saved = {"state_dict": saved | {"loss.weight": bias}, "epoch": 3}
    torch.save(saved, tmp_path / "mine.pth")
    options = BackboneOptions(weights=str(tmp_path / "mine.pth"), size=32)
    network = open_original("torchvision:squeezenet1_1", options)
    pixels = torch.rand(1, 3, 32, 32)
    (got,) = network.run(pixels.numpy().transpose(0, 2, 3, 1), ["features"])
    with torch.no_grad():
        assert np.allclose(got, tuned.eval().features(pixels).numpy(), atol=1e-5)


def test_weights_of_another_body_are_still_refused(tmp_path: Path) -> None:
    other = torchvision.models.squeezenet1_0(weights=None)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for file, words in (
        (
            "other",
            "does not contain the weights of torchvision:squeezenet1_1: features.6.squeeze.weight",
        ),
        ("none", "does not contain a state dict: names with their tensors"),
        ("list", "does not contain a state dict: names with their tensors"),
    ):
        options = BackboneOptions(weights=str(tmp_path / f"{file}.pth"), size=32)
        with pytest.raises(BackboneError, match=words):
            open_original("torchvision:squeezenet1_1", options)
