"""Opens a TensorFlow SavedModel: converts it whole, compares it, then treats it as ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_graphs import OPSET
from headstart.export.backbone.check import BATCHES, TOLERANCE
from headstart.export.networks.keras.conversion import deterministic_conversion
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.network import Original, Weights, chosen_scaling
from headstart.export.networks.onnx.network import OnnxNetwork
from headstart.export.networks.onnx.surgery import check_limits, make_constants
from headstart.export.options import BackboneOptions

SIGNATURE = "serving_default"
MARK = "_XlaMustCompile"
# TensorFlow's operators that access files, Python code or the network. (Those that save and restore
# are in every SavedModel.)
UNSAFE = {
    *("ReadFile", "WriteFile", "MatchingFiles", "PrintV2"),
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "RemoteCall", "RpcServer"),
    *("TextLineReaderV2", "WholeFileReaderV2", "FixedLengthRecordReaderV2", "TFRecordReaderV2"),
    *("InitializeTableFromTextFileV2", "DebugIdentityV2"),
}


def open_saved_model(path: Path, options: BackboneOptions) -> Original:
    """Open the folder of a SavedModel by its signature `serving_default`.

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
    _refuse_unsafe(model, path, options)
    loaded = _load(path, path)  # kept: a signature does not keep its variables alive
    signature = loaded.signatures[SIGNATURE]
    inputs = signature.structured_input_signature[1].values()
    if all(spec.dtype != tf.uint8 for spec in inputs):
        chosen_scaling(options, None, path.name)  # before minutes of conversion
    if _uncompile(model):
        plain = _load_as(model, path)
        proto = _convert(plain.signatures[SIGNATURE], path)
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


def _refuse_unsafe(model: Any, path: Path, options: BackboneOptions) -> None:
    unsafe = sorted({node.op for node in _nodes(model)} & UNSAFE)
    if unsafe and not options.trust:
        raise BackboneError(
            f"{path} has operators that access files, code or the network: {', '.join(unsafe)}",
            "Pass --trust if you trust its author.",
        )


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
    if SIGNATURE not in loaded.signatures:
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
        with deterministic_conversion() as tf2onnx:
            proto, _ = tf2onnx.convert.from_function(
                function, named, opset=OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
            )
        # tf2onnx makes inputs of the tensors that the function captured.
        captures = function.get_concrete_function(*named).graph.captures
        make_constants(proto, {inside.name: outside for outside, inside in captures})
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
