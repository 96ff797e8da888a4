"""Where the channels of a tensor are, by the operators that compute it."""

from __future__ import annotations

from typing import Any

# Operators that ONNX defines with the channels on the second axis.
SECOND = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "BatchNormalization"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"),
    *("InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth"),
}
# Operators that keep the order of the axes.
SAME = {
    *("Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "Where", "PRelu"),
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
    *("Softplus", "Softsign", "Tanh", "Mish", "Gelu", "ThresholdedRelu", "Softmax"),
    *("Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round"),
    *("Concat", "Slice", "Pad", "Resize", "Upsample"),
}


def channel_axes(proto: Any) -> dict[str, int]:
    """The axis with the channels of the tensors of rank 4 whose operators say it."""
    axes: dict[str, int] = {}
    for node in proto.graph.node:
        axis = None
        if node.op_type in SECOND:
            axis = 1
        elif node.op_type in SAME:
            axis = next((axes[name] for name in node.input if name in axes), None)
        elif node.op_type == "Transpose" and node.input[0] in axes:
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [3, 2, 1, 0])
            axis = order.index(axes[node.input[0]]) if len(order) == 4 else None
        if axis is not None:
            axes[node.output[0]] = axis
    return axes
