"""Audio encoders as ONNX files that take samples themselves become backbone files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import BATCH, IR_VERSION, OPSET, rename_values
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.speed import random_rows
from headstart.data.contracts.backbone import OUTPUT, BackboneSpec
from headstart.export.backbone.check import BATCHES, TOLERANCE
from headstart.export.backbone.embedding import FLOAT, OWN, WAVEFORM
from headstart.export.networks.network import Weights
from headstart.export.networks.onnx.file import read_onnx
from headstart.export.networks.onnx.surgery import to_opset
from headstart.export.options import BackboneOptions, FeatureOptions, SoundOptions

SCALES = {"none": 1.0, "int16": 32768.0}
OPERATORS = {"avg": "ReduceMean", "max": "ReduceMax"}


def encoder(
    path: Path, options: BackboneOptions, features: FeatureOptions, sound: SoundOptions
) -> tuple[bytes, float]:
    """A backbone file of an audio encoder, and its largest relative difference from it.

    An output of more than two axes is pooled over all but the first and the last, `avg` or `max`.

    Parameters
    ----------
    path
        An ONNX file with one input, float32 `[batch, samples]`.
    options
        Its `scaling` may be `int16`, for networks that take samples of that range.
    features
        Its first layer is the output to take, if there are several; its pools are used.

    Raises
    ------
    BackboneError
        In words, if the file takes something else than samples or cannot be run.
    """
    import onnx

    if not path.is_file():
        raise BackboneError(f"{path}: no such file", "Check the path.")
    proto = to_opset(read_onnx(path), OPSET, path.stem)
    source, output, pools = _input(proto, path, options), _output(proto, features), _pools(features)
    scale = _scale(options)
    windows = sound.windows
    samples = proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    if samples and samples != windows.window:
        raise BackboneError(
            f"{path} takes {samples:,} samples; the window has {windows.window:,}",
            f"Give --window {samples / sound.rate:g}, or the --rate that it was trained with.",
        )
    original = proto.SerializeToString()
    example = _run(original, source, output, scale * random_rows(windows.shape), path)
    flat = example.ndim == 2
    if example.ndim < 2 or len(example) != 1:
        raise BackboneError(
            f"the output {output!r} of {path} is of shape {list(example.shape)} for one window: "
            "its first axis must be the batch",
            "Export it with a batch axis, or name another output with --layer.",
        )
    before, after = GraphBuilder(f"{OWN}before/"), GraphBuilder(f"{OWN}after/")
    given = before.add("Mul", WAVEFORM, before.constant(scale))
    axes = after.integers(*range(1, example.ndim - 1))
    pieces = [output] if flat else [_pooled(after, output, axes, pool) for pool in pools]
    made = after.add("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
    after.nodes.append(onnx.helper.make_node("Identity", [made], [OUTPUT]))
    rename_values(proto, {source: given})
    nodes = [*before.nodes, *proto.graph.node, *after.nodes]
    dim = example.shape[-1] * len(pieces)
    for field in (proto.graph.node, proto.graph.input, proto.graph.output, proto.graph.value_info):
        del field[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend([*before.constants, *after.constants])
    info = onnx.helper.make_tensor_value_info
    proto.graph.input.append(info(WAVEFORM, FLOAT, [BATCH, windows.window]))
    proto.graph.output.append(info(OUTPUT, FLOAT, [BATCH, dim]))
    weights = Weights.of_file(path)
    spec = BackboneSpec(
        name=path.stem,
        preprocessing=windows,
        layers=(output,),
        pooling="none" if flat else "+".join(pools),
        dim=dim,
        weights=weights.origin,
        licence=weights.licence,
        scaling=options.scaling or "none",
    )
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, spec.to_metadata())
    proto.producer_name, proto.producer_version, proto.doc_string = "headstart", "", ""
    proto.ir_version, proto.graph.name = IR_VERSION, "backbone"
    content = bytes(proto.SerializeToString())
    worst = 0.0
    for batch in BATCHES:  # one by one in the original: a batch must not mix its rows
        noise = random_rows(windows.shape, batch)
        rows = [_run(original, source, output, scale * row[None], path) for row in noise]
        expected = np.concatenate([_reduced(row, () if flat else pools) for row in rows])
        got = _run(content, WAVEFORM, OUTPUT, noise, path)
        if got.shape != expected.shape or not np.isfinite(expected).all():
            raise BackboneError(
                f"{path} gives {list(got.shape)} for {batch} windows, not {list(expected.shape)}"
                if got.shape != expected.shape
                else f"{path} gives NaN or infinite numbers for noise",
                "Export it again with a free batch axis, or choose another network.",
            )
        worst = max(worst, float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-30)))
    if worst > TOLERANCE:
        raise BackboneError(
            f"windows of {path} depend on the others of their batch, by {worst:.1e}",
            "Export it again for inference, or choose another network.",
        )
    return content, worst


def _input(proto: Any, path: Path, options: BackboneOptions) -> str:
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1 or (options.input is not None and inputs[0].name != options.input):
        names = ", ".join(value.name for value in inputs)
        raise BackboneError(
            f"{path} has the inputs {names}; a network of recordings has one, of samples",
            "Export it with the others as constants.",
        )
    (value,) = inputs
    tensor = value.type.tensor_type
    shape = [axis.dim_param or axis.dim_value or "?" for axis in tensor.shape.dim]
    if tensor.elem_type == FLOAT and len(shape) == 2:
        return str(value.name)
    text = f"[{', '.join(map(str, shape))}]"
    if len(shape) > 2:
        raise BackboneError(
            f"{path} takes {text}, which is a spectrogram and no waveform [batch, samples]: the "
            "part that makes one is missing, and its rate, frames, bands and logarithm are not in "
            "the file",
            "Join it with the graph that makes its spectrograms (onnx.compose.merge_models), and "
            "name the result; or pass --sound logmel if any spectrogram will do, as for networks "
            "for photographs.",
        )
    raise BackboneError(
        f"{path} takes {text}; a network of recordings takes float32 [batch, samples]",
        "Export it again with these axes.",
    )


def _output(proto: Any, features: FeatureOptions) -> str:
    names = [value.name for value in proto.graph.output]
    if not features.layers:
        return str(names[0])
    if len(features.layers) > 1 or features.layers[0] not in names:
        raise BackboneError(
            f"--layer {' --layer '.join(features.layers)}: with --sound raw a layer is one of the "
            "file's outputs",
            f"It has {', '.join(names)}.",
        )
    return features.layers[0]


def _pools(features: FeatureOptions) -> tuple[str, ...]:
    pools = features.pools or ("avg",)
    if set(pools) - set(OPERATORS):
        raise BackboneError(
            f"--pool {'+'.join(pools)} is not possible with --sound raw", "Choose avg or max."
        )
    return pools


def _scale(options: BackboneOptions) -> float:
    if (options.scaling or "none") not in SCALES:
        raise BackboneError(
            f"--scaling {options.scaling} is for photographs",
            "With --sound raw, choose none (samples of -1 to 1) or int16 (-32768 to 32767).",
        )
    return SCALES[options.scaling or "none"]


def _pooled(graph: GraphBuilder, tensor: str, axes: str, pool: str) -> str:
    return graph.add(OPERATORS[pool], tensor, axes, keepdims=0)


def _reduced(array: np.ndarray, pools: tuple[str, ...]) -> np.ndarray:
    axes = tuple(range(1, array.ndim - 1))
    if not pools:
        return array
    reduced = [array.max(axis=axes) if pool == "max" else array.mean(axis=axes) for pool in pools]
    return np.concatenate(reduced, axis=1)


def _run(content: bytes, name: str, output: str, given: np.ndarray, path: Path) -> np.ndarray:
    try:
        (found,) = open_session(content).run([output], {name: given.astype(np.float32)})
    except Exception as error:  # onnxruntime has no one class for what it cannot run
        raise BackboneError(
            f"{path} does not run on {len(given)} windows of {given.shape[1]:,} samples: "
            f"{first_line(error)}",
            "Give another --window or --rate, or export it again with free axes.",
        ) from None
    return np.asarray(found)
