"""A small writer of ONNX graphs: every method returns the name of its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.data.common.onnx_graphs import BATCH, rename_values

OPSET = {"": 18, "ai.onnx.ml": 3}
PREFIX = "estimator/"
IR_VERSION = 8  # the one of opset 18; older runtimes refuse newer ones


class Graph:
    """An ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def begin(self, name: str, dim: int) -> str:
        """Declare the input, float32 `[batch, dim]`."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, dim]))
        return name

    def take(self, model: onnx.ModelProto) -> None:
        """Start from a converter's graph, without its outputs.

        Its names get the prefix `estimator/`; it has one input, which keeps its name.
        """
        given = model.graph.input[0].name
        model = onnx.compose.add_prefix(model, PREFIX)
        rename_values(model, {PREFIX + given: given})
        self.nodes.extend(model.graph.node)
        self.constants.extend(model.graph.initializer)
        self.inputs.extend(model.graph.input)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add an array."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.several(operator, 1, *inputs, **attributes)[0]

    def several(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs."""
        names = [f"{operator.lower()}{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def finish(self, result: str, name: str, dtype: int, shape: list[int]) -> None:
        """Declare an output: an earlier result, under the contract's name."""
        self.nodes.append(helper.make_node("Identity", [result], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, [BATCH, *shape]))

    def to_bytes(self, title: str) -> bytes:
        """The checked model."""
        graph = helper.make_graph(self.nodes, title, self.inputs, self.outputs, self.constants)
        used = {node.domain for node in self.nodes} | {""}
        model = helper.make_model(
            graph,
            producer_name="headstart",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid(name, OPSET[name]) for name in sorted(used)],
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
