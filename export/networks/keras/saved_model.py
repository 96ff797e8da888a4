"""Opens a TensorFlow SavedModel: converts it whole, compares it, then treats it as ONNX."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.export.backbone.check import BATCHES, TOLERANCE
from headstart.export.networks.keras.conversion import convert
from headstart.export.networks.keras.operators import SAFE
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.network import Original, Weights, chosen_scaling
from headstart.export.networks.onnx.network import OnnxNetwork
from headstart.export.networks.onnx.surgery import check_limits
from headstart.export.options import BackboneOptions

SIGNATURE = "serving_default"
MARK = "_XlaMustCompile"
LIMIT = 300  # seconds for loading it and running it on one image, if it has loops
LOOPS = {"While", "StatelessWhile", "For", "NextIteration", "RefNextIteration"}
RESTORE = "RestoreV2"


def open_saved_model(path: Path, options: BackboneOptions) -> Original:
    """Open the folder of a SavedModel by its signature `serving_default`, or its only one.

    Raises
    ------
    BackboneError
        If there is none, it has operators that access files, code or the network (unless
        `--trust`) or that ONNX lacks, or its ONNX form differs from TensorFlow.
    """
    if not (path / "saved_model.pb").is_file():
        raise BackboneError(
            f"{path} is a folder without saved_model.pb",
            "Give the folder of a SavedModel, or hf:FOLDER for a Hugging Face checkpoint.",
        )
    import_keras()
    import tensorflow as tf

    model = _parse(path)
    operators = _operators(model)
    _refuse_unsafe(operators, path, options)
    if operators & LOOPS or _calls_itself(model):
        _refuse_endless(path, options)
    loaded = _load(path, path)  # kept: a signature does not keep its variables alive
    signature = _signature(loaded)
    inputs = signature.structured_input_signature[1].values()
    if all(spec.dtype != tf.uint8 for spec in inputs):
        chosen_scaling(options, None, path.name)  # before minutes of conversion
    if _uncompile(model):
        plain = _load_as(model, path)
        proto = _convert(_signature(plain), path)
    else:
        proto = _convert(signature, path)
    check_limits(proto, str(path))
    network = OnnxNetwork(proto, path.name, Weights(f"SavedModel {path.name}"), options)
    _compare(signature, network)
    return network


def _parse(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
    except OSError as error:
        raise BackboneError(
            f"{file} cannot be read: {error.strerror}", "Check its permissions."
        ) from error
    except DecodeError:
        model.Clear()
    if not model.meta_graphs:
        raise BackboneError(f"{file} is damaged", "Save the model again.")
    return model


def _nodes(model: Any) -> list[Any]:
    graph = model.meta_graphs[0].graph_def
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]


def _operators(model: Any) -> set[str]:
    """The operators that run when a SavedModel is loaded and called.

    What saves its variables is in every SavedModel, and does not run; what restores them runs where
    the file is TensorFlow 1's. A function that is reached otherwise counts.
    """
    whole = model.meta_graphs[0]
    nodes = {node.name: node for node in whole.graph_def.node}
    functions = {each.signature.name: each for each in whole.graph_def.library.function}
    used = set()
    restoring = set()
    if not whole.object_graph_def.nodes:
        restoring = _before(nodes, [whole.saver_def.restore_op_name])
        used |= {nodes[name].op for name in restoring} - {RESTORE}
    tensors = [
        value.name
        for signature in whole.signature_def.values()
        for value in (*signature.inputs.values(), *signature.outputs.values())
    ]
    listed = [name for each in whole.collection_def.values() for name in each.node_list.value]
    reached = [nodes[name] for name in _before(nodes, [*tensors, *listed])]
    pending = [*whole.object_graph_def.concrete_functions]
    for node in (*reached, *(nodes[name] for name in restoring)):
        pending += _called(node)
    used |= {node.op for node in reached}
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in functions and name not in seen:
            seen.add(name)
            used |= {node.op for node in functions[name].node_def}
            pending += [each for node in functions[name].node_def for each in _called(node)]
    return used - set(functions)  # a function may be called by its name, as an operator


def _before(nodes: dict[str, Any], names: list[str]) -> set[str]:
    """The names of the nodes that these tensors or nodes need, and their own."""
    found: set[str] = set()
    pending = [name.removeprefix("^").split(":")[0] for name in names]
    while pending:
        name = pending.pop()
        if name in nodes and name not in found:
            found.add(name)
            pending += [each.removeprefix("^").split(":")[0] for each in nodes[name].input]
    return found


def _called(node: Any) -> list[str]:
    """The names of the functions that a node may call."""
    own = [each.func.name for each in node.attr.values() if each.HasField("func")]
    return [node.op, *own, *(f.name for each in node.attr.values() for f in each.list.func)]


def _calls_itself(model: Any) -> bool:
    functions = model.meta_graphs[0].graph_def.library.function
    calls = {
        each.signature.name: {name for node in each.node_def for name in _called(node)}
        for each in functions
    }
    left = set(calls)
    while leaves := {name for name in left if not calls[name] & left}:
        left -= leaves
    return bool(left)


def _refuse_unsafe(operators: set[str], path: Path, options: BackboneOptions) -> None:
    unsafe = sorted(operators - SAFE)
    if unsafe and not options.trust:
        raise BackboneError(
            f"{path} has operators that may access files, code or the network: {', '.join(unsafe)}",
            "Pass --trust if you trust its author.",
        )


def _refuse_endless(path: Path, options: BackboneOptions) -> None:
    """Load it and run it on one image in a process of its own, which ends after some minutes."""
    code = f"""
import sys, tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
for name, signature in signatures.items():
    inputs = signature.structured_input_signature[1]
    sides = lambda spec: [1, *(side or {options.size or 224} for side in spec.shape[1:])]
    signature(**{{key: tf.zeros(sides(spec), spec.dtype) for key, spec in inputs.items()}})
"""
    try:
        # Its errors do not matter: they come again, and are put in words, where it is opened.
        subprocess.run(  # noqa: S603
            [sys.executable, "-c", code, str(path)], capture_output=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise BackboneError(
            f"{path} has loops, and did not answer within {LIMIT} seconds for one image",
            "Save it without the loop, or choose another network.",
        ) from None


def _signature(loaded: Any) -> Any:
    """The signature `serving_default`, or the only one."""
    signatures = loaded.signatures
    return signatures[SIGNATURE if SIGNATURE in signatures else next(iter(signatures))]


def _uncompile(model: Any) -> bool:
    """Remove XLA's mark from functions; returns whether there were any.

    Keras compiles grouped convolutions (`plain_operators` says why); tf2onnx cannot look inside a
    function with that mark.
    """
    functions = model.meta_graphs[0].graph_def.library.function
    attributes = [each.attr for each in (*_nodes(model), *functions)]
    marked = [each for each in attributes if MARK in each and each[MARK].b]
    for each in marked:
        del each[MARK]
    return bool(marked)


def _load(folder: Path, path: Path) -> Any:
    """Load the SavedModel in `folder`; messages call it `path`."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # TensorFlow raises errors of many classes for a damaged one
        raise BackboneError(
            f"{path} cannot be loaded: {first_line(error)}", "Save it again."
        ) from error
    if SIGNATURE not in loaded.signatures and len(loaded.signatures) != 1:
        raise BackboneError(
            f"{path} has no signature {SIGNATURE!r}; it has {sorted(loaded.signatures)}",
            "Save it again with model.export(FOLDER).",
        )
    return loaded


def _load_as(model: Any, path: Path) -> Any:
    """Load the SavedModel at `path` with another graph; nothing at `path` is changed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in path.iterdir():
            if each.name != "saved_model.pb":
                (folder / each.name).symlink_to(each.resolve())
        (folder / "saved_model.pb").write_bytes(model.SerializeToString())
        return _load(folder, path)


def _convert(signature: Any, path: Path) -> Any:
    import tensorflow as tf

    names = list(signature.structured_input_signature[1])
    specs = [signature.structured_input_signature[1][name] for name in names]

    def forward(*tensors: Any) -> Any:
        return list(signature(**dict(zip(names, tensors, strict=True))).values())

    named = [
        tf.TensorSpec(spec.shape, spec.dtype, name) for spec, name in zip(specs, names, strict=True)
    ]
    try:
        # It has no Python code to convert, and autograph's errors begin with "in user code:".
        function = tf.function(forward, input_signature=named, autograph=False)
        proto = convert(function, named, custom_op_handlers={"Erfc": (_erfc, [])})
    except Exception as error:  # tf2onnx raises errors of many classes
        raise BackboneError(
            f"{path} cannot be converted to ONNX: {first_line(error)}",
            "Save the network without the operators that are named, or choose another one.",
        ) from error
    return proto


def _erfc(graph: Any, node: Any, name: str, args: list) -> None:
    """Erfc(x) = 1 - Erf(x), for tf2onnx: TensorFlow's gelu uses it, and ONNX lacks it."""
    node.type = "Erf"
    one = graph.make_const(f"{name}_one", np.ones((), np.float32)).output[0]
    erf = node.output[0]
    graph.insert_new_node_on_output("Sub", erf, name=f"{name}_rest", inputs=[one, erf])


def _compare(signature: Any, network: OnnxNetwork) -> None:
    """Compare the whole conversion with TensorFlow at batch 1 and 3; raises `BackboneError`."""
    import tensorflow as tf

    (name, spec), *_ = signature.structured_input_signature[1].items()
    outputs = [value.name for value in network.proto.graph.output]
    for batch in BATCHES:
        shape = (batch, network.height, network.width, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        pixels = network.preprocess(images)
        got = network.run(pixels, outputs)
        turned = pixels.transpose(0, 3, 1, 2) if network.first else pixels
        expected = list(signature(**{name: tf.cast(turned, spec.dtype)}).values())
        for one, other in zip(got, expected, strict=True):
            difference = float(np.abs(one - other).max() / np.abs(other).max())
            if not difference <= TOLERANCE:
                raise BackboneError(
                    f"the ONNX form of {network.name} is broken: its numbers differ from "
                    f"TensorFlow's by {difference:.1e}, more than {TOLERANCE:.0e}",
                    "Choose another network.",
                )
