"""A network that is an ONNX file: finds its image input, its layers, and where its head begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_graphs import OPSET, STANDARD_DOMAINS, graphs_of
from headstart.data.common.onnx_runtime import open_session
from headstart.export.networks.features import (
    ACTIVATION,
    CONV,
    DENSE,
    ENDING,
    OTHER,
    POOL,
    RESHAPE,
    SCORES,
    Step,
    find_features,
)
from headstart.export.networks.network import (
    Layer,
    Original,
    Weights,
    axes_that_grow,
    chosen_scaling,
    input_size,
    layout_of,
    prefix_of,
)
from headstart.export.networks.onnx.layout import channel_axes
from headstart.export.networks.onnx.surgery import (
    LARGEST_FILE,
    cut,
    refuse_huge,
    size_of,
    uses,
    with_shapes,
)
from headstart.export.networks.scaling import RULES
from headstart.export.options import BackboneOptions

LARGER = 128  # pixels more of height and width, for which a map of any stride grows
PROBE = 224  # pixels of an input whose size does not matter
FLOAT, UINT8, FLOAT16, DOUBLE = 1, 2, 10, 11  # TensorProto's codes of element types
# What the operators are on the way back from the outputs (`networks.features`).
KINDS = {
    **dict.fromkeys(("MatMul", "Gemm", "QLinearMatMul", "MatMulInteger"), DENSE),
    **dict.fromkeys(("Conv", "QLinearConv", "ConvInteger"), CONV),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK"), SCORES),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Clip", "Tanh"), ENDING),
    **dict.fromkeys(("Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"), RESHAPE),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), RESHAPE),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "AveragePool"), POOL),
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "HardSwish", "Gelu"), ACTIVATION),
}


class OnnxNetwork(Original):
    """An ONNX model; its layers have the names of their output tensors.

    Raises
    ------
    BackboneError
        If its image input cannot be identified, or has an unsupported type.
    """

    def __init__(self, proto: Any, name: str, weights: Weights, options: BackboneOptions) -> None:
        self.proto, self.name, self.weights = proto, name, weights
        _modernize(proto)
        _refuse_foreign(proto, name)
        _refuse_invalid(proto, name)
        image = _find_image(proto, name, options)
        tensor = image.type.tensor_type
        self.element = tensor.elem_type
        dims = [axis.dim_value or None for axis in tensor.shape.dim] or [None] * 4
        self.image, self.batch = image.name, dims[0]
        self.first = _channels_first(proto, image.name, dims, options)
        own = None
        if self.element == UINT8:
            own = RULES["none"]
        self.scaling = chosen_scaling(options, own, name)
        self.height, self.width = input_size(dims[2:] if self.first else dims[1:3], options, name)
        self.shape = self._shape(self.height, self.width)
        self._free_batch(tensor)
        self._layers: list[Layer] | None = None
        self._sessions: dict[tuple[str, ...], Any] = {}

    def _shape(self, height: int, width: int) -> tuple[int, int, int]:
        return (3, height, width) if self.first else (height, width, 3)

    def _free_batch(self, tensor: Any) -> None:
        del tensor.shape.dim[:]
        for size in (None, *self.shape):
            axis = tensor.shape.dim.add()
            if size is None:
                axis.dim_param = "batch"
            else:
                axis.dim_value = size
        for value in self.proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        del self.proto.graph.value_info[:]

    def layers(self) -> list[Layer]:
        """All tensors of rank 2 to 4, in the order of the graph.

        Channels are on the axis that does not grow with the picture; where a graph is for one size
        only, its operators say where they are.
        """
        if self._layers is None:
            shapes = with_shapes(self.proto, self.image, self.shape)
            larger = self._shape(self.height + LARGER, self.width + LARGER)
            grown, axes = with_shapes(self.proto, self.image, larger), channel_axes(self.proto)
            self._layers = []
            for node in self.proto.graph.node:
                for name in node.output[:1]:
                    shape = shapes.get(name, ())
                    if len(shape) not in (2, 3, 4) or shape[0] != 1:
                        continue
                    first = axes_that_grow(shape[1:], grown.get(name, ())[1:])
                    if first is None:
                        first = axes.get(name, 1 if self.first else 3) == 1
                    layout = layout_of(shape[1:], first)
                    prefix = prefix_of(shape[1:], self.height, self.width)
                    self._layers.append(Layer(name, shape[1:], layout, node.op_type, prefix))
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
        """The outputs of the whole graph, by ONNX Runtime; in batches of the size that it fixes."""
        key = tuple(layers)
        if key not in self._sessions:
            self._sessions[key] = _session(self.proto, key)
        turned = pixels.transpose(0, 3, 1, 2) if self.first else pixels
        kind = {UINT8: np.uint8, FLOAT16: np.float16}.get(self.element, np.float32)
        session, count = self._sessions[key], len(turned)
        size = self.batch or count
        turned = np.resize(turned, (-(-count // size) * size, *turned.shape[1:])).astype(kind)
        answers = [
            session.run(list(layers), {self.image: np.ascontiguousarray(turned[at : at + size])})
            for at in range(0, len(turned), size)
        ]
        return [np.concatenate(each)[:count] for each in zip(*answers, strict=True)]

    def embedding(self) -> str:
        """The tensor that all classifiers see, before average pooling if there is any."""
        shapes = with_shapes(self.proto, self.image, self.shape)
        maps = {layer.name for layer in self.layers() if _is_map(layer)}
        outputs = [value.name for value in self.proto.graph.output]
        return str(find_features(self.name, self._steps(shapes), outputs, maps))

    def _steps(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Step]:
        steps = {self.image: Step(OTHER, ())}
        for node in self.proto.graph.node:
            inputs = tuple(name for name in uses(node) if name in steps)
            if not inputs:
                continue
            kind, outputs = KINDS.get(node.op_type, OTHER), list(node.output)
            if node.op_type == "DynamicQuantizeLinear":
                kind, outputs = RESHAPE, outputs[:1]  # its scale is as good as a constant
            if kind == CONV and shapes.get(inputs[0], (0,))[2:] == (1, 1):
                kind = DENSE
            steps |= {name: Step(kind, inputs) for name in outputs if name}
        return steps


def _is_map(layer: Layer) -> bool:
    return len(layer.shape) == 3 and min(layer.shape) > 1


def _modernize(proto: Any) -> None:
    """Write what old and new files say in two manners in one.

    The domain `ai.onnx` is the empty string too; functions of a file are put where they are called;
    before IR version 4, constants were among the inputs.
    """
    from onnx import inliner

    nodes = (node for graph in graphs_of(proto.graph) for node in graph.node)
    for each in (*proto.opset_import, *nodes):
        if each.domain == "ai.onnx":
            each.domain = ""
    if len(proto.functions):
        proto.CopyFrom(inliner.inline_local_functions(proto))
    proto.ir_version = max(proto.ir_version, 4)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)


def _refuse_foreign(proto: Any, name: str) -> None:
    """Raise `BackboneError` if there are operators that are not in the ONNX standard."""
    foreign = sorted(
        {f"{n.domain}.{n.op_type}" for n in proto.graph.node if n.domain not in STANDARD_DOMAINS}
    )
    if foreign:
        raise BackboneError(
            f"{name} has operators that are not part of ONNX: {', '.join(foreign)}",
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
    inputs = {value.name: value for value in proto.graph.input}
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
    """Whether an input may be an image; an axis without a size may be that of the channels."""
    if not value.type.tensor_type.HasField("shape"):
        return True
    dims = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return len(dims) == 4 and bool({dims[1], dims[3]} & {0, 3})


def _channels_first(
    proto: Any, image: str, dims: Sequence[int | None], options: BackboneOptions
) -> bool:
    """Whether the image is `[batch, 3, height, width]`: by its shape, or by the convolutions."""
    if 3 in (dims[1], dims[3]):
        return dims[1] == 3 and dims[3] != 3
    side = options.size or PROBE
    weights = {tensor.name: tensor.dims for tensor in proto.graph.initializer}

    def fits(shape: tuple[int, ...]) -> bool:
        shapes = with_shapes(proto, image, shape)
        return all(
            shapes[node.input[0]][1] == weights[node.input[1]][1] * _groups(node)
            for node in proto.graph.node
            if node.op_type == "Conv" and node.input[0] in shapes and node.input[1] in weights
        )

    return fits((3, side, side)) or not fits((side, side, 3))


def _groups(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


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
