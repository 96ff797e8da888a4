"""The layers of a network, with their shapes and the cost up to each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_graphs import OPSET
from headstart.data.contracts.tuned import TUNED
from headstart.data.storage.files import local_path
from headstart.export.networks.network import Original
from headstart.export.networks.onnx.surgery import (
    ancestors,
    multiply_adds,
    to_opset,
    with_shapes,
)
from headstart.export.networks.resolve import open_original
from headstart.export.options import BackboneOptions


@dataclass(frozen=True)
class LayerCost:
    """A layer, and the cost of a file that ends with it.

    Parameters
    ----------
    shape
        Of its output for one image, in its framework's order.
    multiply_adds
        For one image, up to and including this layer.
    parameters
        Elements of the constants up to and including this layer.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    multiply_adds: int
    parameters: int


def list_layers(name: str | Original, options: BackboneOptions) -> list[LayerCost]:
    """All layers of a network, in the order in which they are computed.

    Raises
    ------
    InputError
        As `open_original`; also if no shape is known.
    """
    if isinstance(name, str) and (local_path(name) / TUNED).is_file():
        options = replace(options, weights="imagenet")  # it has its own, which are not listed
    original = open_original(name, options) if isinstance(name, str) else name
    layers = original.layers()
    if not layers:
        raise BackboneError(
            f"no layer of {original.name} has a shape that can be inferred from its graph",
            "Export it again, with all sizes but the batch's fixed.",
        )
    proto = to_opset(original.to_onnx([each.name for each in layers]), OPSET, original.name)
    graph = proto.graph
    dims = graph.input[0].type.tensor_type.shape.dim
    sides = (original.height, original.width)
    shape = (3, *sides) if dims[1].dim_value == 3 and dims[3].dim_value != 3 else (*sides, 3)
    shapes = with_shapes(proto, graph.input[0].name, shape)
    work = [multiply_adds(node, shapes) for node in graph.node]
    sizes = {t.name: math.prod(t.dims) for t in graph.initializer}
    found = []
    for layer, output in zip(layers, graph.output, strict=True):
        needed = ancestors(proto, [output.name])
        constants = {name for n in needed for name in graph.node[n].input if name in sizes}
        found.append(
            LayerCost(
                layer.name,
                layer.kind,
                layer.shape,
                sum(work[number] for number in needed),
                sum(sizes[name] for name in constants),
            )
        )
    return found
