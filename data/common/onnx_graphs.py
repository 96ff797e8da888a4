"""Names in an ONNX graph: converters invent them, the contracts fix them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

BATCH = "batch"


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs of a node's branches or loop."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all that lie in it, at any depth."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs_of(inner)


def rename_values(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename tensors, old name to new, wherever the graph speaks of them."""
    for graph in graphs_of(model.graph):
        for node in graph.node:
            for field in (node.input, node.output):
                for position, name in enumerate(field):
                    field[position] = names.get(name, name)
        for value in (*graph.input, *graph.output, *graph.initializer):
            value.name = names.get(value.name, value.name)


def name_batch_axis(model: onnx.ModelProto) -> None:
    """Call the first axis of every input and output `batch`."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
