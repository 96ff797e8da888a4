"""EfficientNet-Lite in Keras: for a script to train, and to compare the written graph with."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.export.networks.catalogue import LITE
from headstart.export.networks.lite import (
    BATCH_NORM_EPSILON,
    CLASSES,
    CLASSIFIER,
    HEAD,
    NORM,
    STEM,
    blocks_of,
    lite_weights,
)
from headstart.export.options import BackboneOptions


def keras_lite(keras: Any, name: str, size: int | None = None, include_top: bool = False) -> Any:
    """The named network with its ImageNet weights, from scaled pixels `[batch, size, size, 3]`."""
    tensors, _ = lite_weights(name, BackboneOptions())
    model = _build(keras, name, size or LITE[name].size, include_top)
    for layer in model.layers:
        suffixes = NORM if len(layer.weights) == len(NORM) else ("weight", "bias")
        names = [f"{layer.name}.{each}" for each in suffixes[: len(layer.weights)]]
        if names and tensors:
            layer.set_weights([_to_keras_layout(tensors[each], layer) for each in names])
    return model


def _conv(keras: Any, x: Any, name: str, norm: str, activate: bool = True, **options: Any) -> Any:
    """Convolution, batch normalization and ReLU6; `name` and `norm` are the weights' names."""
    depthwise = "filters" not in options
    layer = keras.layers.DepthwiseConv2D if depthwise else keras.layers.Conv2D
    x = layer(padding="same", use_bias=False, name=name, **options)(x)
    x = keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=norm)(x)
    return keras.layers.ReLU(6.0, name=f"{norm}_relu6")(x) if activate else x


def _build(keras: Any, name: str, size: int, include_top: bool) -> Any:
    pixels = keras.Input((size, size, 3), name="pixels")
    x = _conv(keras, pixels, "_conv_stem", "_bn0", filters=STEM, kernel_size=3, strides=2)
    for number, block in enumerate(blocks_of(name)):
        shape = (block.kernel, block.filters, block.expansion, block.stride)
        x = _block(keras, x, f"_blocks.{number}.", *shape)
        x = keras.layers.Identity(name=f"block{number + 1}")(x)
    x = _conv(keras, x, "_conv_head", "_bn1", filters=HEAD, kernel_size=1)
    x = keras.layers.Identity(name="head")(x)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(CLASSES, name=CLASSIFIER)(x)
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


def _to_keras_layout(array: np.ndarray, layer: Any) -> np.ndarray:
    """PyTorch's `[out, in, height, width]` kernels to Keras's `[height, width, in, out]`."""
    kind = type(layer).__name__
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if kind == "DepthwiseConv2D" else (2, 3, 1, 0))
    return array.T
