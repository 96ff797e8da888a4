"""Operations on ONNX graphs: cutting, ordering, renaming, shapes and cost.

`onnx.utils.Extractor` does not replace `cut`: it misses the tensors that branches and loops read
from outside, and needs the type of every output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_graphs import graphs_of, inner_graphs, rename_values

MOST_NODES = 50_000
MOST_BYTES = 16 * 10**9
LARGEST_FILE = 2**31  # of one protobuf message
COUNTED = re.compile(r"__(\d+)")
SMALL = 1024  # elements of a constant that may hold a shape


def keep_outputs(proto: Any, outputs: Iterable[str]) -> None:
    """Make these tensors the outputs, and remove the nodes and constants that they do not need."""
    import onnx

    graph = proto.graph
    known = {value.name: value for value in (*graph.output, *graph.value_info)}
    wanted = list(outputs)
    del graph.output[:]
    for name in wanted:
        graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    needed = ancestors(proto, wanted)
    nodes = [node for number, node in enumerate(graph.node) if number in needed]
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused_constants(proto)
    del graph.value_info[:]


def cut(proto: Any, outputs: Iterable[str]) -> Any:
    """A copy that computes only these tensors; only what they need is copied."""
    import onnx

    wanted = list(outputs)
    numbers = ancestors(proto, wanted)
    nodes = [node for number, node in enumerate(proto.graph.node) if number in numbers]
    read = {name for node in nodes for name in uses(node)} | set(wanted)
    constants = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    copy = onnx.ModelProto(ir_version=proto.ir_version)
    copy.opset_import.extend(proto.opset_import)
    copy.graph.name = proto.graph.name
    copy.graph.input.extend(value for value in proto.graph.input if value.name in read)
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(constants)
    keep_outputs(copy, wanted)
    return copy


def ancestors(proto: Any, outputs: Iterable[str]) -> set[int]:
    """The indices of the nodes that these tensors are computed by."""
    producer = {name: n for n, node in enumerate(proto.graph.node) for name in node.output if name}
    needed: set[int] = set()
    pending = [name for name in outputs if name in producer]
    while pending:
        number = producer[pending.pop()]
        if number not in needed:
            needed.add(number)
            pending += [name for name in uses(proto.graph.node[number]) if name in producer]
    return needed


def uses(node: Any) -> list[str]:
    """The tensors that a node reads, including those read in its branches and loops."""
    names = [name for name in node.input if name]
    for graph in inner_graphs(node):
        for inner in graph.node:
            names += uses(inner)
    return names


def make_constants(proto: Any, arrays: Mapping[str, Any]) -> None:
    """Turn the inputs of these names into constants with these values."""
    import onnx

    for value in list(proto.graph.input):
        if value.name in arrays:
            array = np.asarray(arrays[value.name])
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
            proto.graph.input.remove(value)


def order_nodes(proto: Any) -> None:
    """Put the nodes in the order in which the outputs need them, depth first.

    This order depends on the network alone; a converter's may depend on memory addresses.
    """
    nodes = list(proto.graph.node)
    producer = {name: number for number, node in enumerate(nodes) for name in node.output if name}

    def makers(names: Iterable[str]) -> list[tuple[int, bool]]:
        found = [(producer[name], False) for name in names if name in producer]
        return found[::-1]

    begun: set[int] = set()
    ordered = []
    pending = makers(value.name for value in proto.graph.output)
    while pending:  # no recursion: networks are deep
        number, ready = pending.pop()
        if ready:
            ordered.append(nodes[number])
        elif number not in begun:
            begun.add(number)
            pending += [(number, True), *makers(uses(nodes[number]))]
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)


def drop_unused_constants(proto: Any) -> None:
    """Remove the constants that no node reads, and order the others by their first use.

    Converters order constants arbitrarily, and the file's hash is the backbone's identity.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    outputs = [value.name for value in proto.graph.output]
    read = [name for node in proto.graph.node for name in uses(node)]
    used = dict.fromkeys(name for name in (*read, *outputs) if name in constants)
    kept = [constants[name] for name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    inputs = [value for value in proto.graph.input if value.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)


def number_names(proto: Any) -> None:
    """Replace arbitrary names, so that a network always gives the same file.

    Constants become `constant_0` and so on. tf2onnx numbers the nodes that it adds itself
    (`Transpose__974`), in an order that depends on memory addresses; here they are numbered in the
    order of the graph, those of branches and loops last.
    """
    graph, *inside = graphs_of(proto.graph)
    nodes = [node for each in (graph, *inside) for node in each.node]
    inner = [value.name for each in inside for value in (*each.input, *each.initializer)]
    taken = {*inner, *(name for node in nodes for name in node.output)}
    prefix = "constant_"
    while any(name.startswith(prefix) for name in taken):
        prefix = f"_{prefix}"
    names = {tensor.name: f"{prefix}{n}" for n, tensor in enumerate(graph.initializer)}
    numbers: dict[str, int] = {}

    def renumber(name: str) -> str:
        return COUNTED.sub(lambda found: f"__{numbers.setdefault(found[1], len(numbers))}", name)

    for node in nodes:
        node.name = renumber(node.name)
        names |= {name: renumber(name) for name in node.output}
    rename_values(proto, names | {name: renumber(name) for name in inner})


def strip_last_transpose(proto: Any) -> set[str]:
    """Remove the transposes before outputs that put the channels last.

    Returns the outputs whose channels are now first: `[batch, channels, height, width]`.
    """
    producer = {name: node for node in proto.graph.node for name in node.output}
    stripped = {}
    for value in proto.graph.output:
        node = producer.get(value.name)
        if node is not None and node.op_type == "Transpose":
            order = [list(a.ints) for a in node.attribute if a.name == "perm"]
            if order == [[0, 2, 3, 1]]:
                stripped[value.name] = node.input[0]
    keep_outputs(proto, [stripped.get(value.name, value.name) for value in proto.graph.output])
    return set(stripped.values())


def to_opset(proto: Any, opset: int, what: str) -> Any:
    """The same model at another opset of ONNX's own operators.

    Raises
    ------
    BackboneError
        If it has operators that the other opset lacks.
    """
    import onnx
    from onnx import inliner

    own = next((e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")), opset)
    if own == opset:
        return proto
    try:
        # Operators that are newer, such as Gelu, are replaced by what they are made of.
        newer = [("", name) for name in _newer_operators(proto, opset)]
        if newer:
            proto = inliner.inline_selected_functions(proto, newer, inline_schema_functions=True)
        return onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises errors of many classes
        raise BackboneError(
            f"{what} has opset {own}, and cannot be converted to opset {opset}: "
            f"{first_line(error)}",
            f"Export it again with opset {opset}.",
        ) from error


def _newer_operators(proto: Any, opset: int) -> list[str]:
    """The names of the operators in a model that came after an opset."""
    import onnx

    used = {n.op_type for graph in graphs_of(proto.graph) for n in graph.node if not n.domain}
    return sorted(
        used
        - {
            schema.name
            for schema in onnx.defs.get_all_schemas_with_history()
            if schema.domain == "" and schema.since_version <= opset
        }
    )


def check_limits(proto: Any, what: str) -> None:
    """Raise `BackboneError` if a graph has far more nodes than image networks have."""
    nodes = len(proto.graph.node)
    if nodes > MOST_NODES:
        raise BackboneError(
            f"{what} has {nodes:,} operators; the limit is {MOST_NODES:,}",
            "Choose shallower layers, or another network.",
        )


def size_of(proto: Any) -> int:
    """Bytes of a graph's constants, nearly all of it; protobuf cannot count beyond 2 GB."""
    return sum(
        len(tensor.raw_data) + 4 * len(tensor.float_data) for tensor in proto.graph.initializer
    )


def refuse_huge(proto: Any, what: str) -> None:
    """Raise `BackboneError` if a graph is larger than an ONNX file can be."""
    size = size_of(proto)
    if size >= LARGEST_FILE:
        raise BackboneError(
            f"{what} would be a file of {size / 1e9:.1f} GB; an ONNX file holds at most 2.1 GB",
            "Choose shallower layers: what comes after the last of them is removed "
            "(`python -m export layers` lists them with their sizes).",
        )


def with_shapes(proto: Any, image: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors for one image of `shape`, as far as they can be inferred."""
    import onnx

    graph = proto.graph
    helper = onnx.helper
    # Large constants become inputs: only their shapes matter.
    large = [tensor for tensor in graph.initializer if np.prod(tensor.dims) > SMALL]
    small = [tensor for tensor in graph.initializer if np.prod(tensor.dims) <= SMALL]
    inputs = [
        helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, (1, *shape))
        if value.name == image
        else value
        for value in graph.input
    ]
    inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in large]
    bare = helper.make_graph(graph.node, "shapes", inputs, [], small)
    model = helper.make_model(bare, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*inferred.input, *inferred.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(a.HasField("dim_value") for a in dims):
            shapes[value.name] = tuple(axis.dim_value for axis in dims)
    return shapes


def multiply_adds(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiplications of a convolution or matrix product; other nodes cost little."""
    out = shapes.get(node.output[0])
    if out is None or len(node.input) < 2:
        return 0
    if node.op_type == "Conv" and node.input[1] in shapes:
        return int(np.prod(out) * np.prod(shapes[node.input[1]][1:]))
    if node.op_type in ("MatMul", "Gemm") and node.input[0] in shapes:
        inner = shapes[node.input[0]]
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        return int(np.prod(out) * inner[-2 if turned else -1])
    return 0
