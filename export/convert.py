"""Keras to a backbone file: convert, name, then load and check, since converters fail silently."""

from __future__ import annotations

from typing import Any

import numpy as np

from data.backbone import INPUT, OUTPUT, BackboneSpec
from data.errors import BackboneError
from data.graph import name_batch_axis, rename_values

OPSET = 18
TOLERANCE = 1e-4  # relative difference of the embeddings
STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def to_onnx(model: Any, spec: BackboneSpec) -> bytes:
    """Convert a Keras model that maps `image` to an embedding; the result has been checked.

    Raises
    ------
    BackboneError
        If the network has an operator that ONNX lacks, or the file answers otherwise than Keras.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    shape = (None, spec.preprocessing.height, spec.preprocessing.width, 3)
    signature = (tf.TensorSpec(shape, tf.uint8, name=INPUT),)
    try:
        proto, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=OPSET)
    except Exception as error:  # tf2onnx raises whatever broke inside of it
        raise BackboneError(
            f"{spec.name} cannot be converted to ONNX: {error}",
            "Choose another network, or export it to ONNX with its own tools.",
        ) from error
    rename_values(proto, {proto.graph.output[0].name: OUTPUT})
    name_batch_axis(proto)
    _order_constants(proto)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, spec.to_metadata())
    proto.producer_name, proto.doc_string = "headstart", ""
    content = proto.SerializeToString()
    check(content, model, spec)
    return content


def _order_constants(proto: Any) -> None:
    """Name and order constants by their first use: the same network is then the same file.

    tf2onnx numbers and orders them by chance, and the file's hash is the backbone's identity.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    used = dict.fromkeys(n for node in proto.graph.node for n in node.input if n in constants)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(constants[name] for name in used)
    rename_values(proto, {name: f"constant_{number}" for number, name in enumerate(used)})


def check(content: bytes, model: Any, spec: BackboneSpec) -> float:
    """Load an export and hold it against its Keras model, at batch 1 and 3.

    Returns the largest relative difference of the embeddings.

    Raises
    ------
    BackboneError
        If inputs, operators, shapes or numbers are not as they should be.
    """
    import onnx
    import onnxruntime

    def broken(what: str) -> BackboneError:
        return BackboneError(
            f"the ONNX export of {spec.name} is broken: {what}", "Choose another network."
        )

    proto = onnx.load_model_from_string(content)
    foreign = sorted({n.op_type for n in proto.graph.node if n.domain not in STANDARD_DOMAINS})
    if foreign:
        raise broken(f"it has operators that are not ONNX's own ({', '.join(foreign)})")
    try:
        onnx.checker.check_model(proto)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # neither library has one error class for "cannot be loaded"
        raise broken(f"it cannot be loaded ({error})") from error
    names = [value.name for value in session.get_inputs()]
    if names != [INPUT] or session.get_inputs()[0].type != "tensor(uint8)":
        raise broken(f"its inputs are {names}")
    worst = 0.0
    random = np.random.default_rng(0)
    for batch in (1, 3):
        shape = (batch, spec.preprocessing.height, spec.preprocessing.width, 3)
        image = random.integers(0, 256, shape, dtype=np.uint8)
        expected = np.asarray(model([image], training=False))
        (got,) = session.run([OUTPUT], {INPUT: image})
        if got.shape != (batch, spec.dim) or got.dtype != np.float32:
            raise broken(f"its embedding is {got.dtype} {list(got.shape)}")
        worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
    if not worst <= TOLERANCE:
        raise broken(f"its numbers differ from Keras's by {worst:.1e}, more than {TOLERANCE:.0e}")
    return worst
