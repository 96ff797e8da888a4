"""What all our ONNX files share: versions, names of tensors and axes, graphs inside graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

OPSETS = {"": 18, "ai.onnx.ml": 3}  # by domain; "" has ONNX's own operators
OPSET = OPSETS[""]
IR_VERSION = 8  # the one of opset 18; older runtimes refuse newer ones
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
BATCH = "batch"


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs of a node's branches or loop body."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside it, at any depth."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs_of(inner)


def rename_values(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename tensors, old name to new, wherever they are mentioned."""
    for graph in graphs_of(model.graph):
        for node in graph.node:
            for field in (node.input, node.output):
                for position, name in enumerate(field):
                    field[position] = names.get(name, name)
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = names.get(value.name, value.name)


def name_batch_axis(model: onnx.ModelProto) -> None:
    """Name the first axis of every input and output `batch`."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
