"""From layers to an embedding, in the graph; `reference` has the same in numpy.

All kinds of networks share this: scaling and views before the network; pooling, concatenation, the
mean over views and the signed square root after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import BATCH, graphs_of, rename_values
from headstart.data.contracts.backbone import INPUT, OUTPUT
from headstart.data.modalities.sound.windows import Windows
from headstart.export.networks.network import FIRST, FLAT, TOKENS, Layer, Original
from headstart.export.networks.onnx.layout import channel_axes
from headstart.export.networks.onnx.surgery import (
    drop_unused_constants,
    number_names,
    order_nodes,
    strip_last_transpose,
)
from headstart.export.networks.scaling import Scaling
from headstart.export.options import VIEWS, FeatureOptions, split_layer

FLOAT, UINT8, FLOAT16 = 1, 2, 10  # TensorProto's codes of element types
WAVEFORM = Windows.input
OWN = "headstart/"  # prefix of the names of our own nodes
SPECTROGRAM = f"{OWN}spectrogram/"
GEM_POWER, GEM_FLOOR = 3.0, 1e-6  # Radenovic et al., 2018 (arXiv:1711.02512)


@dataclass(frozen=True)
class Part:
    """A layer and how it is pooled."""

    layer: Layer
    pools: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """What an embedding is made of, with no choices left open."""

    parts: tuple[Part, ...]
    power: bool
    views: str

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in order."""
        return [part.layer.name for part in self.parts]

    @property
    def pooling(self) -> str:
        """In words, such as `avg+max+std`; of every layer if they differ."""
        each = ["+".join(part.pools) for part in self.parts]
        return each[0] if len(set(each)) == 1 else ", ".join(each)


def plan(original: Original, options: FeatureOptions) -> Recipe:
    """Choose layers and pools for a network.

    Raises
    ------
    BackboneError
        If a layer does not exist, or cannot be pooled as asked.
    """
    chosen = [split_layer(layer) for layer in options.layers or original.default_layers]
    names = [name for name, _ in chosen]
    for name in sorted({name for name in names if names.count(name) > 1}):
        raise BackboneError(
            f"layer {name!r} is named twice", f"Pool it in several ways: --layer {name}=avg+max."
        )
    layers = original.find(names)
    parts = []
    for layer, (_, own) in zip(layers, chosen, strict=True):
        pools = own or options.pools or original.default_pools
        if layer.layout == FLAT:
            if (own or options.pools) and set(pools) != {"none"}:
                raise BackboneError(
                    f"layer {layer.name!r} of {original.name} has no height and width "
                    f"(shape {list(layer.shape)}): there is nothing to pool with {'+'.join(pools)}",
                    f"Choose another layer, or pass --layer {layer.name}=none.",
                )
            pools = ("none",)
        elif "none" in pools:
            raise BackboneError(
                f"layer {layer.name!r} of {original.name} has the shape {list(layer.shape)}: "
                "it has to be pooled",
                "Choose avg, max, std, gem or flatten.",
            )
        if "token" in pools and (layer.layout != TOKENS or layer.prefix == 0):
            raise BackboneError(
                f"layer {layer.name!r} of {original.name} has no class token "
                f"(shape {list(layer.shape)})",
                "Choose another --pool, or a transformer's layer.",
            )
        parts.append(Part(layer, tuple(pools)))
    recipe = Recipe(tuple(parts), options.power, options.views)
    if recipe.views == "flips" and original.height != original.width:
        raise BackboneError(
            f"--views flips rotates images, so they must be square, but {original.name} takes "
            f"{original.height}x{original.width}",
            "Choose --views mirror, or a square --size.",
        )
    return recipe


def assemble(proto: Any, recipe: Recipe, scaling: Scaling, size: tuple[int, int]) -> None:
    """Extend a graph from scaled pixels to layers to one from `image` to `embedding`.

    Parameters
    ----------
    proto
        From `Original.to_onnx`; changed in place.
    size
        Height and width of the input.
    """
    _free_names(proto)
    first = strip_last_transpose(proto)
    layers = [value.name for value in proto.graph.output]
    pixels = proto.graph.input[0]
    element = pixels.type.tensor_type.elem_type
    dims = pixels.type.tensor_type.shape.dim
    channels_first = dims[1].dim_value == 3 and dims[3].dim_value != 3
    before, after = GraphBuilder(f"{OWN}before/"), GraphBuilder(f"{OWN}after/")
    image = _scaled(before, _viewed(before, INPUT, recipe.views), scaling, element)
    if channels_first:
        image = before.add("Transpose", image, perm=[0, 3, 1, 2])
    rename_values(proto, {pixels.name: image})
    axes = channel_axes(proto)
    half = FLOAT16 in {element, *(tensor.data_type for tensor in proto.graph.initializer)}
    pooled = [
        piece
        for part, tensor in zip(recipe.parts, layers, strict=True)
        for piece in _pooled(
            after,
            part,
            after.add("Cast", tensor, to=FLOAT) if half else tensor,
            # As the graph's operators say; the network's own word is what it is compared with.
            axes[tensor] == 1 if tensor in axes else tensor in first or part.layer.layout == FIRST,
        )
    ]
    embedding = after.add("Concat", *pooled, axis=1) if len(pooled) > 1 else pooled[0]
    if recipe.views != "none":
        stacked = after.integers(VIEWS[recipe.views], -1, width(recipe))
        embedding = after.add("Reshape", embedding, stacked)
        embedding = after.add("ReduceMean", embedding, after.integers(0), keepdims=0)
    if recipe.power:
        root = after.add("Sqrt", after.add("Abs", embedding))
        embedding = after.add("Mul", after.add("Sign", embedding), root)
    if not after.nodes:  # a flat layer, unchanged
        embedding = after.add("Identity", embedding)
    nodes = [*before.nodes, *proto.graph.node, *after.nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend([*before.constants, *after.constants])
    _declare(proto, embedding, size, width(recipe))
    order_nodes(proto)
    drop_unused_constants(proto)
    number_names(proto)


def _free_names(proto: Any) -> None:
    """Rename the network's own tensors whose names are ours, such as `embedding`.

    PyTorch calls the output of a position embedding `embedding`, for one.
    """
    inside = [
        name
        for graph in graphs_of(proto.graph)
        for each in (*graph.input, *graph.initializer, *graph.node)
        for name in (each.output if hasattr(each, "op_type") else [each.name])
    ]
    taken, names = set(inside), {}
    for name in dict.fromkeys(inside):
        if name in (INPUT, OUTPUT, WAVEFORM) or name.startswith(OWN):
            names[name] = new = next(
                free for n in range(len(taken) + 1) if (free := f"network{n}/{name}") not in taken
            )
            taken.add(new)
    rename_values(proto, names)


def _declare(proto: Any, embedding: str, size: tuple[int, int], dim: int) -> None:
    """Give the graph the input and output of the contract, and name its batch axis."""
    import onnx

    rename_values(proto, {embedding: OUTPUT})
    del proto.graph.input[:]
    del proto.graph.output[:]
    del proto.graph.value_info[:]
    image = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, [BATCH, *size, 3])
    output = onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, [BATCH, dim])
    proto.graph.input.append(image)
    proto.graph.output.append(output)


def _viewed(graph: GraphBuilder, image: str, views: str) -> str:
    """Copies concatenated along the batch: original, mirrored, upside down, rotated."""

    def reverse(name: str, axis: int) -> str:
        least = np.iinfo(np.int64).min
        bounds = graph.integers(-1), graph.integers(least), graph.integers(axis)
        return graph.add("Slice", name, *bounds, graph.integers(-1))

    if views == "none":
        return image
    copies = [image, reverse(image, 2)]
    if views == "flips":
        # As numpy.rot90: counter-clockwise.
        rotated = reverse(graph.add("Transpose", image, perm=[0, 2, 1, 3]), 1)
        copies += [reverse(image, 1), rotated]
    return graph.add("Concat", *copies, axis=0)


def _scaled(graph: GraphBuilder, image: str, scaling: Scaling, element: int) -> str:
    if scaling.reverse:
        image = graph.add("Gather", image, graph.integers(2, 1, 0), axis=3)
    if element != UINT8:  # what the network does not take itself
        image = graph.add("Cast", image, to=FLOAT)
    scale, offset = scaling.affine
    if (scale != 1).any():
        image = graph.add("Mul", image, graph.constant(scale))
    if (offset != 0).any():
        image = graph.add("Add", image, graph.constant(offset))
    return graph.add("Cast", image, to=FLOAT16) if element == FLOAT16 else image


def _pooled(graph: GraphBuilder, part: Part, tensor: str, first: bool) -> list[str]:
    """The pools of one layer, each `[batch, channels]`."""
    layout = part.layer.layout
    if layout == FLAT:
        return [tensor]
    axes = graph.integers(*((2, 3) if first else (1, 2))[: 1 if layout == TOKENS else 2])
    whole = tensor
    if layout == TOKENS and part.layer.prefix:
        start, stop = graph.integers(part.layer.prefix), graph.integers(np.iinfo(np.int64).max)
        tensor = graph.add("Slice", whole, start, stop, graph.integers(1))

    def mean(name: str, keep: int = 0) -> str:
        return graph.add("ReduceMean", name, axes, keepdims=keep)

    pieces = []
    for pool in part.pools:
        if pool == "avg":
            pieces.append(mean(tensor))
        elif pool == "max":
            pieces.append(graph.add("ReduceMax", tensor, axes, keepdims=0))
        elif pool == "std":
            off = graph.add("Sub", tensor, mean(tensor, 1))
            pieces.append(graph.add("Sqrt", mean(graph.add("Mul", off, off))))
        elif pool == "gem":
            floor = graph.constant(GEM_FLOOR)
            power = graph.constant(GEM_POWER)
            root = graph.constant(1 / GEM_POWER)
            high = graph.add("Pow", graph.add("Max", tensor, floor), power)
            pieces.append(graph.add("Pow", mean(high), root))
        elif pool == "flatten":
            last = graph.add("Transpose", tensor, perm=[0, 2, 3, 1]) if first else tensor
            pieces.append(graph.add("Flatten", last))
        elif pool == "token":
            pieces.append(graph.add("Gather", whole, graph.constant(0, np.int64), axis=1))
    return pieces


def width(recipe: Recipe) -> int:
    """The number of dimensions of an embedding."""
    return sum(
        int(np.prod(_last(part.layer))) if pool == "flatten" else _last(part.layer)[-1]
        for part in recipe.parts
        for pool in part.pools
    )


def _last(layer: Layer) -> tuple[int, ...]:
    """A layer's shape with its channels last, without a class token."""
    if layer.layout == FIRST:
        return (*layer.shape[1:], layer.shape[0])
    if layer.layout == TOKENS:
        return (layer.shape[0] - layer.prefix, layer.shape[1])
    return layer.shape
