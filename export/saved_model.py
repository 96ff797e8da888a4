"""A TensorFlow SavedModel: converted whole, held against itself, then a network like any ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.errors import BackboneError, first_line
from export.check import BATCHES, TOLERANCE
from export.keras_stack import import_keras
from export.onnx_network import OnnxNetwork
from export.options import BackboneOptions
from export.original import Original, Weights
from export.surgery import OPSET, check_limits, make_constants

SIGNATURE = "serving_default"
# TensorFlow's operators that reach outside: files, code, the network. (Those that save and restore
# are in every SavedModel.)
REACHING = {
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
        If it is none, has operators that reach outside (unless `--trust`) or that ONNX lacks, or
        its ONNX form answers otherwise than TensorFlow.
    """
    if not (path / "saved_model.pb").is_file():
        raise BackboneError(
            f"{path} is a folder without saved_model.pb",
            "Give the folder of a SavedModel, or hf:FOLDER for a Hugging Face checkpoint.",
        )
    import_keras()
    import tensorflow as tf

    _refuse_reaching(path, options)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # a damaged one makes TensorFlow raise whatever there is
        raise BackboneError(
            f"{path} cannot be loaded: {first_line(error)}", "Save it anew."
        ) from error
    if SIGNATURE not in loaded.signatures:
        raise BackboneError(
            f"{path} has no signature {SIGNATURE!r}; it has {sorted(loaded.signatures)}",
            "Save it anew with model.export(FOLDER).",
        )
    signature = loaded.signatures[SIGNATURE]
    proto = _convert(signature, path)
    check_limits(proto, str(path))
    network = OnnxNetwork(proto, path.name, Weights(f"SavedModel {path.name}"), options)
    _compare(signature, network)
    return network


def _refuse_reaching(path: Path, options: BackboneOptions) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
        graph = model.meta_graphs[0].graph_def
    except Exception as error:  # protobuf's DecodeError, whose class depends on its implementation
        raise BackboneError(f"{path}/saved_model.pb is damaged", "Save the model anew.") from error
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    reaching = sorted({node.op for node in nodes} & REACHING)
    if reaching and not options.trust:
        raise BackboneError(
            f"{path} has operators that reach outside of it: {', '.join(reaching)}",
            "Pass --trust if you trust whoever made it.",
        )


def _convert(signature: Any, path: Path) -> Any:
    import tensorflow as tf
    import tf2onnx

    names = list(signature.structured_input_signature[1])
    specs = [signature.structured_input_signature[1][name] for name in names]

    def forward(*tensors: Any) -> Any:
        return list(signature(**dict(zip(names, tensors, strict=True))).values())

    named = [
        tf.TensorSpec(spec.shape, spec.dtype, name) for spec, name in zip(specs, names, strict=True)
    ]
    try:
        function = tf.function(forward, input_signature=named)
        proto, _ = tf2onnx.convert.from_function(function, named, opset=OPSET)
        # What the function captured is no variable: tf2onnx makes inputs of it.
        captures = function.get_concrete_function(*named).graph.captures
        make_constants(proto, {inside.name: outside for outside, inside in captures})
    except Exception as error:  # tf2onnx raises whatever broke inside of it
        raise BackboneError(
            f"{path} cannot be converted to ONNX: {first_line(error)}",
            "Save the network without the operators that are named, or choose another one.",
        ) from error
    return proto


def _compare(signature: Any, network: OnnxNetwork) -> None:
    """Hold the whole conversion against TensorFlow at batch 1 and 3; raises `BackboneError`."""
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
