"""Names in an ONNX graph: converters invent them, the contracts fix them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

BATCH = "batch"


def rename_values(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Rename tensors, old name to new, wherever the graph speaks of them."""
    _rename_in(model.graph, names)


def _rename_in(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for field in (node.input, node.output):
            for position, name in enumerate(field):
                field[position] = names.get(name, name)
        for attribute in node.attribute:  # branches and loops
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(
                attribute.graphs
            ):
                _rename_in(inner, names)
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def name_batch_axis(model: onnx.ModelProto) -> None:
    """Call the first axis of every input and output `batch`."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
