"""A network that is an ONNX file: finds its image input, its layers, and where its head begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_graphs import OPSET, STANDARD_DOMAINS, graphs_of
from headstart.data.common.onnx_runtime import open_session
from headstart.export.networks.network import Layer, Original, Weights, chosen_scaling, input_size
from headstart.export.networks.onnx.surgery import (
    LARGEST_FILE,
    cut,
    refuse_huge,
    size_of,
    with_shapes,
)
from headstart.export.networks.scaling import RULES
from headstart.export.options import BackboneOptions

FLOAT, UINT8, FLOAT16, DOUBLE = 1, 2, 10, 11  # TensorProto's codes of element types
# Operators that may follow the last fully connected layer, and that may come between it and the
# last layer with height and width.
ENDINGS = ("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast")
FLATTENINGS = (
    *("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"),
    *("GlobalAveragePool", "ReduceMean", "AveragePool"),
)


class OnnxNetwork(Original):
    """An ONNX model; its layers have the names of their output tensors.

    Raises
    ------
    BackboneError
        If its image input cannot be identified, or has an unsupported type.
    """

    def __init__(self, proto: Any, name: str, weights: Weights, options: BackboneOptions) -> None:
        self.proto, self.name, self.weights = proto, name, weights
        _unify_domain(proto)
        _refuse_foreign(proto, name)
        _refuse_invalid(proto, name)
        image = _find_image(proto, name, options)
        tensor = image.type.tensor_type
        self.element = tensor.elem_type
        dims = [axis.dim_value or None for axis in tensor.shape.dim]
        self.first = dims[1] == 3 and dims[3] != 3
        own = None
        if self.element == UINT8:
            own = RULES["none"]
        self.scaling = chosen_scaling(options, own, name)
        self.height, self.width = input_size(dims[2:] if self.first else dims[1:3], options, name)
        self.image = image.name
        self.shape = (3, self.height, self.width) if self.first else (self.height, self.width, 3)
        self._free_batch(tensor)
        self._layers: list[Layer] | None = None
        self._sessions: dict[tuple[str, ...], Any] = {}
        self.default_layers = (self._embedding(),)

    def _free_batch(self, tensor: Any) -> None:
        for axis, size in zip(tensor.shape.dim, (None, *self.shape), strict=True):
            axis.Clear()
            if size is None:
                axis.dim_param = "batch"
            else:
                axis.dim_value = size
        for value in self.proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        del self.proto.graph.value_info[:]

    def layers(self) -> list[Layer]:
        """All tensors of rank 2 to 4, in the order of the graph."""
        if self._layers is None:
            shapes = with_shapes(self.proto, self.image, self.shape)
            self._layers = [
                Layer(name, shapes[name][1:], node.op_type)
                for node in self.proto.graph.node
                for name in node.output[:1]
                if name in shapes and len(shapes[name]) in (2, 3, 4) and shapes[name][0] == 1
            ]
        return self._layers

    def to_onnx(self, layers: Sequence[str]) -> Any:
        """A copy that ends at the named layers."""
        copy = cut(self.proto, layers)
        refuse_huge(copy, self.name)
        needed = {name for node in copy.graph.node for name in node.input}
        others = [v.name for v in copy.graph.input if v.name != self.image and v.name in needed]
        if others:
            raise BackboneError(
                f"{self.name} needs {', '.join(map(repr, others))} in addition to the image "
                f"{self.image!r}",
                "Choose a layer that is computed from the image alone, or export the network "
                "with these inputs as constants.",
            )
        image = next(value for value in copy.graph.input if value.name == self.image)
        del copy.graph.input[:]
        copy.graph.input.append(image)
        return copy

    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """The outputs of the whole graph, by ONNX Runtime."""
        key = tuple(layers)
        if key not in self._sessions:
            self._sessions[key] = _session(self.proto, key)
        turned = pixels.transpose(0, 3, 1, 2) if self.first else pixels
        kind = {UINT8: np.uint8, FLOAT16: np.float16}.get(self.element, np.float32)
        session = self._sessions[key]
        inputs = {self.image: np.ascontiguousarray(turned.astype(kind))}
        return [np.asarray(array) for array in session.run(list(layers), inputs)]

    def _embedding(self) -> str:
        """The input of the last fully connected layer, before pooling if there is any.

        For a network without such a layer, its output.
        """
        graph = self.proto.graph
        producer = {name: node for node in graph.node for name in node.output}
        constants = {tensor.name for tensor in graph.initializer}
        layers = {layer.name: layer for layer in self.layers()}
        tensor = output = graph.output[0].name

        def by(name: str, *operators: str) -> Any:
            node = producer.get(name)
            return node if node is not None and node.op_type in operators else None

        while by(tensor, *ENDINGS):
            tensor = producer[tensor].input[0]
        bias = by(tensor, "Add")
        if bias:
            tensor = next((n for n in bias.input if by(n, "MatMul")), tensor)
        dense = by(tensor, "Gemm", "MatMul")
        if dense is None or not constants & set(dense.input):
            return str(output)
        flat = tensor = dense.input[0]
        while by(tensor, *FLATTENINGS):
            tensor = producer[tensor].input[0]
            if (
                tensor in layers
                and len(layers[tensor].shape) == 3
                and min(layers[tensor].shape) > 1
            ):
                return str(tensor)
        return str(flat)


def _unify_domain(proto: Any) -> None:
    """Replace the domain `ai.onnx` by its other name, the empty string."""
    nodes = (node for graph in graphs_of(proto.graph) for node in graph.node)
    for each in (*proto.opset_import, *nodes):
        if each.domain == "ai.onnx":
            each.domain = ""


def _refuse_foreign(proto: Any, name: str) -> None:
    """Raise `BackboneError` if there are operators that are not in the ONNX standard."""
    foreign = sorted(
        {f"{n.domain}.{n.op_type}" for n in proto.graph.node if n.domain not in STANDARD_DOMAINS}
    )
    if foreign or len(proto.functions):
        raise BackboneError(
            f"{name} has operators that are not part of ONNX: "
            f"{', '.join(foreign) or ', '.join(f.name for f in proto.functions)}",
            "Export it again with ONNX's own operators and without optimization, which fuses them "
            "into operators of one runtime.",
        )


def _refuse_invalid(proto: Any, name: str) -> None:
    """Raise `BackboneError` for a newer version, unknown operators or wrong attributes."""
    import onnx

    known = onnx.defs.onnx_opset_version()
    opset = max((e.version for e in proto.opset_import if e.domain == ""), default=1)
    if opset > known or proto.ir_version > onnx.IR_VERSION:
        raise BackboneError(
            f"{name} has opset {opset} and IR version {proto.ir_version}; this onnx supports up to "
            f"opset {known} and IR version {onnx.IR_VERSION}",
            f"Export it again with opset {OPSET}.",
        )
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {e.domain: e.version for e in proto.opset_import} | {"": opset}
    wrong: dict[str, str] = {}
    for node in (node for graph in graphs_of(proto.graph) for node in graph.node):
        if any(attribute.HasField("g") for attribute in node.attribute):
            continue  # its inner graph may use outer tensors, which this check does not see
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            wrong.setdefault(node.op_type, f"{node.op_type} ({first_line(error)})")
    if wrong:
        raise BackboneError(
            f"{name} has operators that are not valid ONNX: {'; '.join(wrong.values())}",
            "Build the network without them, or choose another one.",
        )


def _find_image(proto: Any, name: str, options: BackboneOptions) -> Any:
    """The image input: rank 4, three channels."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = {v.name: v for v in proto.graph.input if v.name not in constants}
    listed = ", ".join(f"{name} {_describe(value)}" for name, value in inputs.items())
    if options.input is not None:
        if options.input not in inputs:
            raise BackboneError(
                f"{name} has no input {options.input!r}", f"It has {listed or 'none'}."
            )
        chosen = [inputs[options.input]]
    else:
        chosen = [v for v in inputs.values() if len(inputs) == 1 or _is_image(v)]
    if len(chosen) != 1:
        which = "none is an image" if not chosen else "several could be the image"
        raise BackboneError(
            f"{name} has {len(inputs)} inputs and {which}: {listed}",
            "Name it: --input NAME (an image is [batch, height, width, 3] or "
            "[batch, 3, height, width]).",
        )
    value = chosen[0]
    element = value.type.tensor_type.elem_type
    if element not in (FLOAT, UINT8, FLOAT16):
        raise BackboneError(
            f"{name} takes {_describe(value)} as its input {value.name!r}; "
            "supported are float32, float16 and uint8",
            "Export it again with a float32 input"
            + (" (in PyTorch: model.float())." if element == DOUBLE else "."),
        )
    if not _is_image(value):
        raise BackboneError(
            f"{name} takes {_describe(value)} as its input {value.name!r}, which is not an image",
            "An image is [batch, height, width, 3] or [batch, 3, height, width].",
        )
    return value


def _is_image(value: Any) -> bool:
    dims = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return len(dims) == 4 and 3 in (dims[1], dims[3])


def _describe(value: Any) -> str:
    """An input's type and shape, such as `float32 [batch, 3, 224, 224]`."""
    import onnx

    tensor = value.type.tensor_type
    try:
        element = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    except KeyError:
        element = "not a tensor"
    if not tensor.HasField("shape"):
        return f"{element} of any shape"
    dims = ", ".join(str(a.dim_value or a.dim_param or "?") for a in tensor.shape.dim)
    return f"{element} [{dims}]"


def _session(proto: Any, outputs: tuple[str, ...]) -> Any:
    """A session of the whole graph that also outputs these tensors; for a huge graph, only them."""
    wanted = list(outputs)
    if size_of(proto) < LARGEST_FILE:
        inputs = {value.name for value in cut(proto, outputs).graph.input}
        # Outputs that need other inputs are left out: there are no values for those.
        for value in proto.graph.output:
            if {other.name for other in cut(proto, [value.name]).graph.input} <= inputs:
                wanted.append(value.name)
    part = cut(proto, dict.fromkeys(wanted))
    return open_session(part.SerializeToString())
