"""Small random graphs through `export`: an exit code and a sentence, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

SHAPES: list[Any] = [
    *[("N", 3, 16, 16)] * 4,
    (1, 3, 16, 24),
    ("N", 16, 16, 3),
    ("a", "b", "c", "d"),
    (2, 3, 16, 16),
    ("N", 3, "h", "w"),
    ("N", 4, 16, 16),
    ("N", 3),
    None,
]
TYPES = [TensorProto.FLOAT] * 9 + [TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64]
# Operators of one input and one output, with attributes that may fit.
UNARY: list[tuple[str, dict[str, Any]]] = [
    ("Relu", {}),
    ("Sigmoid", {}),
    ("Softmax", {"axis": 1}),
    ("Identity", {}),
    ("Transpose", {"perm": [0, 2, 3, 1]}),
    ("Transpose", {"perm": [0, 3, 1, 2]}),
    ("Transpose", {"perm": [1, 0]}),
    ("Flatten", {}),
    ("GlobalAveragePool", {}),
    ("GlobalMaxPool", {}),
    ("AveragePool", {"kernel_shape": [2, 2]}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ("MaxPool", {"kernel_shape": [99, 99]}),
    ("Cast", {"to": TensorProto.FLOAT}),
    ("Cast", {"to": TensorProto.FLOAT16}),
    ("Shape", {}),
    ("ArgMax", {"axis": 1}),
    ("Gelu", {}),
    ("Squeeze", {}),
    ("DynamicQuantizeLinear", {}),
]
RARE: list[tuple[str, dict[str, Any]]] = [
    ("Cast", {"to": 99}),
    ("Loop", {}),
    ("NoSuchOperator", {}),
    ("FusedConv", {"domain": "com.microsoft"}),
]
# Operators with a constant beside the input.
SECOND: list[tuple[str, Any]] = [
    ("Conv", np.ones((4, 3, 3, 3), np.float32)),
    ("Conv", np.ones((4, 4, 1, 1), np.float32)),
    ("Conv", np.ones((4, 3, 3, 3), np.float16)),
    ("MatMul", np.ones((4, 5), np.float32)),
    ("Gemm", np.ones((4, 5), np.float32)),
    ("Gemm", np.ones((4, 4, 4), np.float32)),
    ("Add", np.ones((1,), np.float32)),
    ("Mul", np.full((1,), np.nan, np.float32)),
    ("Mul", np.zeros((1,), np.float32)),
    ("Reshape", np.array([1, -1])),
    ("Reshape", np.array([0, -1])),
    ("Reshape", np.array([7, 7])),
    ("Gather", np.array([99])),
    ("Squeeze", np.array([2, 3])),
    ("ReduceMean", np.array([2, 3])),
    ("Expand", np.array([1, 4, 2, 2])),
]


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    """The bytes of an ONNX file of a few operators, one after or beside the other."""
    nodes, constants, known = [], [], ["x"]
    if draw(st.integers(0, 3)):
        nodes.append(helper.make_node("Conv", ["x", "first"], ["body"]))
        constants.append(numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "first"))
        known.append("body")
    for number in range(draw(st.integers(1, 6))):
        source, result = draw(st.sampled_from(known[-2:])), f"t{number}"
        rare = not draw(st.integers(0, 19))
        if rare or draw(st.booleans()):
            operator, attributes = draw(st.sampled_from(RARE if rare else UNARY))
            inputs = [source]
        else:
            operator, array = draw(st.sampled_from(SECOND))
            attributes, inputs = {}, [source, f"c{number}"]
            constants.append(numpy_helper.from_array(array, f"c{number}"))
        name = draw(st.sampled_from([result, result, result, "image", "embedding"]))
        if name in known:
            name = result
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        known.append(name)
    element, shape = draw(st.sampled_from(TYPES)), draw(st.sampled_from(SHAPES))
    outputs = draw(
        st.lists(st.sampled_from([*known[-3:], "none"]), min_size=1, max_size=2, unique=True)
    )
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", element, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", draw(st.sampled_from([7, 13, 17, 18, 21])))],
        ir_version=draw(st.sampled_from([3, 8, 10])),
    )
    return bytes(model.SerializeToString())


def said(result: Any) -> None:
    """What a command may end with: success, or an exit code of 2 and a sentence."""
    assert "Traceback" not in result.err, result.err
    assert result.code in (0, 2), result.err
    if result.code:
        assert result.err.strip().splitlines()[-1].strip(), "no words"


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(content=graphs(), size=st.sampled_from([None, 16, 40]), token=st.booleans())
def test_any_graph_ends_in_a_file_or_in_words(
    tmp_path: Path, command: Callable, content: bytes, size: int | None, token: bool
) -> None:
    network, out = tmp_path / "n.onnx", tmp_path / "b.onnx"
    network.write_bytes(content)
    options = ["--scaling=unit", *([f"--size={size}"] if size else [])]
    found = command("export", "layers", network, *options)
    said(found)
    pools = ["--pool=token"] if token else []
    made = command("export", "backbone", network, "-o", out, "--overwrite", *options, *pools)
    said(made)
    if made.code == 0:
        onnx.checker.check_model(out.read_bytes(), full_check=True)


@pytest.mark.parametrize("place", range(0, 400, 21))
def test_a_damaged_graph_ends_in_words(tmp_path: Path, command: Callable, place: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    content = bytearray(model.SerializeToString())
    content[place % len(content)] ^= 1 << place % 8
    (tmp_path / "n.onnx").write_bytes(content)
    out = tmp_path / "b.onnx"
    said(command("export", "backbone", tmp_path / "n.onnx", "-o", out, "--scaling=unit"))
