"""Writes ONNX graphs, step by step: every step returns the name of its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from headstart.data.common.onnx_graphs import IR_VERSION, OPSETS, rename_values


class GraphBuilder:
    """Inputs, nodes, constants and outputs of a graph that is being written.

    Parameters
    ----------
    prefix
        What the names of nodes, constants and results begin with.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, element: int, shape: Sequence[int | str]) -> str:
        """Declare an input, `element` being a `TensorProto` data type; returns its name."""
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add an array."""
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 vector."""
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def add_multiple(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs."""
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        outputs = [f"{name}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs

    def add_model(self, model: onnx.ModelProto, prefix: str) -> list[str]:
        """Add a converted model, all its names but those of its inputs under a prefix.

        Returns the names of its outputs, which are results here and not outputs of this graph.
        """
        inputs = [value.name for value in model.graph.input]
        model = onnx.compose.add_prefix(model, prefix)
        rename_values(model, {prefix + name: name for name in inputs})
        self.nodes.extend(model.graph.node)
        self.constants.extend(model.graph.initializer)
        self.inputs.extend(model.graph.input)
        return [value.name for value in model.graph.output]

    def output(self, result: str, name: str, element: int, shape: Sequence[int | str]) -> None:
        """Declare an output: the result of an earlier step, under a name of its own."""
        self.nodes.append(helper.make_node("Identity", [result], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, element, shape))

    def to_bytes(self, title: str) -> bytes:
        """The checked model; raises `onnx.checker.ValidationError` or `InferenceError`."""
        graph = helper.make_graph(self.nodes, title, self.inputs, self.outputs, self.constants)
        domains = sorted({node.domain for node in self.nodes} | {""})
        model = helper.make_model(
            graph,
            producer_name="headstart",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid(domain, OPSETS[domain]) for domain in domains],
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
