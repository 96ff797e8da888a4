"""PyTorch's networks: timm, torchvision, Hugging Face and modules of one's own, small and random.

Each export is held against its own forward pass by the gate that every export passes; here its
layers, weights and refusals are tested as well.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from headstart.data.common.errors import BackboneError
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.layers import list_layers
from headstart.export.networks.network import Weights
from headstart.export.networks.scaling import RULES
from headstart.export.networks.torch.network import TorchNetwork
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import BackboneOptions, FeatureOptions

torch, timm, transformers = import_torch("timm", "transformers")
RANDOM = BackboneOptions(weights="none", size=32)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def scaled(images: np.ndarray) -> Any:
    """Written out, as torchvision's transforms would: to 0..1, then mean and deviation."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / std[:, None, None]


def embed(path: Path, images: np.ndarray = IMAGES) -> np.ndarray:
    (got,) = onnxruntime.InferenceSession(path.read_bytes()).run(None, {"image": images})
    return np.asarray(got)


def test_timm_weights_file_against_its_own_forward_pass(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = timm.create_model("resnet18", num_classes=10).eval()
    for suffix in (".pth", ".safetensors"):
        file = tmp_path / f"mine{suffix}"
        if suffix == ".pth":
            torch.save(module.state_dict(), file)
        else:
            from safetensors.torch import save_file

            save_file(module.state_dict(), file)
        out = tmp_path / f"{suffix[1:]}.onnx"
        options = BackboneOptions(weights=str(file), size=32)
        spec = export_backbone(out, "timm:resnet18", options).backbone.spec
        assert (spec.name, spec.dim, spec.scaling) == ("resnet18", 512, "torch")
        assert spec.weights.startswith(f"file mine{suffix} (sha256 ")
        with torch.no_grad():
            expected = module.forward_head(
                module.forward_features(scaled(IMAGES)), pre_logits=True
            ).numpy()
        assert np.allclose(embed(out), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "pooling", "dim"),
    [
        ("timm:test_vit", "token", 64),
        ("timm:test_efficientnet", "avg", 256),
        ("timm:test_convnext", "avg", 64),
        ("timm:mobilenetv3_small_050", "avg", 288),
        ("torchvision:squeezenet1_1", "avg", 512),
    ],
)
def test_one_of_each_family(tmp_path: Path, name: str, pooling: str, dim: int) -> None:
    export = export_backbone(tmp_path / "b.onnx", name, RANDOM)
    assert (export.backbone.spec.pooling, export.backbone.spec.dim) == (
        pooling,
        dim,
    )
    assert export.parity <= 1e-4


def test_layers_of_a_transformer(tmp_path: Path) -> None:
    names = [layer.name for layer in list_layers("timm:test_vit", RANDOM)]
    assert {"blocks.0", "blocks.0.attn", "norm", "output"} <= set(names)
    features = FeatureOptions(("blocks.0", "blocks.1=avg"), ("token", "max"), views="flips")
    spec = export_backbone(tmp_path / "b.onnx", "timm:test_vit", RANDOM, features).backbone.spec
    assert (spec.dim, spec.pooling, spec.views) == (192, "token+max, avg", "flips")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A Hugging Face checkpoint of a small ViT classifier, as it is published."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
    )
    folder = tmp_path / "vit"
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    about = {"do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(about | {"image_std": [0.5] * 3}))
    return folder


def test_a_hugging_face_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "b.onnx"
    spec = export_backbone(out, f"hf:{checkpoint}").backbone.spec
    assert (spec.dim, spec.pooling, spec.scaling, spec.name) == (24, "token", "tf", "vit")
    model = transformers.ViTForImageClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = model.vit(pixels).last_hidden_state[:, 0].numpy()
    assert np.allclose(embed(out), expected, rtol=1e-4, atol=1e-5)


def test_hugging_face_folders_that_cannot_be_used(tmp_path: Path, checkpoint: Path) -> None:
    def fails(reference: str, options: BackboneOptions = BackboneOptions()) -> str:
        with pytest.raises(BackboneError) as caught:
            export_backbone(tmp_path / "b.onnx", reference, options)
        return str(caught.value)

    assert fails(f"hf:{tmp_path}").startswith(
        f"hf:{tmp_path} is not a folder with a config.json, and nothing is downloaded\n  Download "
        "the"
    )
    (checkpoint / "preprocessor_config.json").unlink()
    assert fails(f"hf:{checkpoint}").startswith(
        f"hf:{checkpoint} does not say how its pixels are scaled\n  Give the scaling that it was "
        "trained with"
    )
    weights = checkpoint / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    assert f"hf:{checkpoint} cannot be loaded: " in fails(f"hf:{checkpoint}")
    weights.unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"pickle")
    assert "no weights in safetensors (pickled ones are not read)" in fails(f"hf:{checkpoint}")
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert "contains Python code of its own (AutoModel)" in fails(f"hf:{checkpoint}")


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    )
    original = TorchNetwork(module, "mine", (32, 32), RULES["torch"], Weights("my own", "MIT"))
    spec = export_backbone(tmp_path / "b.onnx", original).backbone.spec
    assert (spec.layers, spec.dim, spec.licence) == (("1",), 5, "MIT")
    with torch.no_grad():
        expected = module[1](module[0](scaled(IMAGES))).mean(dim=(2, 3)).numpy()
    assert np.allclose(embed(tmp_path / "b.onnx"), expected, rtol=1e-4, atol=1e-5)


def test_modules_that_are_not_square_or_have_several_heads(tmp_path: Path) -> None:
    nn = torch.nn

    class Faces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 18, 3, 2, 1), nn.ReLU())
            self.gate = nn.Sequential(nn.Linear(18, 2), nn.Linear(2, 18))
            self.age, self.gender = nn.Linear(18, 1), nn.Linear(18, 2)
            self.gated = nn.Identity()

        def shared(self, x: Any) -> Any:
            x = self.body(x)
            return self.gated(x * self.gate(x.mean((2, 3)))[:, :, None, None])

        def forward(self, x: Any) -> Any:
            x = self.shared(x).mean((2, 3))
            return self.age(x), self.gender(x).softmax(1)

    module = Faces().eval()
    original = TorchNetwork(module, "faces", (32, 48), RULES["unit"], Weights("my own"))
    spec = export_backbone(tmp_path / "b.onnx", original).backbone.spec
    assert (spec.layers, spec.dim) == (("gated",), 18)
    images = np.random.default_rng(5).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        expected = module.shared(pixels).mean((2, 3)).numpy()
    session = onnxruntime.InferenceSession((tmp_path / "b.onnx").read_bytes())
    assert np.allclose(session.run(None, {"image": images})[0], expected, rtol=1e-4, atol=1e-5)


def test_a_module_that_cannot_be_converted(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, x: Any) -> Any:
            return torch.linalg.eigvals(x[..., :32]).real

    original = TorchNetwork(
        Odd(), "odd", (32, 32), RULES["unit"], Weights("none"), None, ("output",)
    )
    with pytest.raises(BackboneError) as caught:
        export_backbone(tmp_path / "b.onnx", original)
    assert caught.value.message.startswith("odd cannot be converted to ONNX: ")
    assert "linalg_eig" in caught.value.message


def test_weights_that_do_not_fit_or_cannot_be_read(tmp_path: Path) -> None:
    def fails(name: str, **options: Any) -> str:
        with pytest.raises(BackboneError) as caught:
            export_backbone(tmp_path / "b.onnx", name, BackboneOptions(size=32, **options))
        return str(caught.value)

    file = tmp_path / "w.pth"
    torch.save(timm.create_model("resnet18").state_dict(), file)
    words = fails("timm:resnet34", weights=str(file))
    assert words.startswith(
        f"{file} does not contain the weights of timm:resnet34: layer1.2.conv1.weight is missing; "
    )
    words = fails("timm:resnet18d", weights=str(file))
    assert "conv1.0.weight is missing" in words
    file.write_bytes(file.read_bytes()[:-1000])
    assert fails("timm:resnet18", weights=str(file)).startswith(f"{file} cannot be read as weights")

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "PWNED",))

    file.write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    assert "could run code and is not loaded" in fails("timm:resnet18", weights=str(file))
    torch.save({"conv1.weight": Evil()}, file)
    assert "could run code and is not loaded" in fails("timm:resnet18", weights=str(file))
    assert not (tmp_path / "PWNED").exists()
    assert fails("timm:resnet18") == (
        "the weights of timm:resnet18 are not on this machine, and nothing is downloaded\n"
        "  Download them elsewhere and pass --weights FILE (.safetensors or .pth)."
    )
    assert fails("timm:resnet188").startswith("timm has no network 'resnet188'\n  Did you mean ")


def test_a_missing_package_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, command: Callable, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    answer = command("export", "backbone", "timm:resnet18", "-o", tmp_path / "b.onnx")
    assert answer.code == 2
    assert answer.err.endswith(
        "error: this network needs PyTorch, but timm is not installed\n"
        "  Install it with: pip install 'headstart[torch]'\n"
    )
