"""Audio encoders as ONNX files that take samples themselves become backbone files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import BATCH, IR_VERSION, OPSET, rename_values
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.speed import random_rows
from headstart.data.contracts.backbone import OUTPUT, BackboneSpec
from headstart.data.storage.files import local_path
from headstart.export.backbone.check import TOLERANCE
from headstart.export.backbone.embedding import FLOAT, OWN, WAVEFORM
from headstart.export.backbone.wake_words import PREFIX, encoder_file, join
from headstart.export.networks.network import Weights
from headstart.export.networks.onnx.file import read_onnx
from headstart.export.networks.onnx.surgery import to_opset
from headstart.export.options import BackboneOptions, FeatureOptions, SoundOptions

SCALES = {"none": 1.0, "int16": 32768.0}
OPERATORS = {"avg": "ReduceMean", "max": "ReduceMax"}
# Of the windows that are compared: some graphs measure levels by the loudest of a batch.
LOUDNESS = np.array([[1.0], [1e-3], [0.03]], np.float32)
BY_ROW = (
    "it takes one window at a time, or mixes those of a batch: the file runs them one by one, "
    "which is slower"
)


@dataclass(frozen=True)
class _Opened:
    """An encoder as its file has it, and how it is to be used."""

    name: str
    proto: Any
    source: str
    output: str
    scaling: str
    weights: Weights

    @property
    def scale(self) -> float:
        """What samples are multiplied by."""
        return SCALES[self.scaling]

    @property
    def single(self) -> bool:
        """Whether it takes one window at a time."""
        return bool(self.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


def encoder(
    reference: str, options: BackboneOptions, features: FeatureOptions, sound: SoundOptions
) -> tuple[bytes, float, tuple[str, ...]]:
    """A backbone file of an audio encoder, its largest relative difference from it, and warnings.

    An output of more than two axes is pooled over all but the first and the last, `avg` or `max`.
    One that takes single windows, or whose windows depend on the others of their batch, is run
    window by window inside the graph.

    Parameters
    ----------
    reference
        An ONNX file with one input, float32 `[batch, samples]`, or `openwakeword:FOLDER`.
    options
        Its `scaling` may be `int16`, for networks that take samples of that range.
    features
        Its first layer is the output to take, if there are several; its pools are used.

    Raises
    ------
    BackboneError
        In words, if the file takes something else than samples or cannot be run.
    """
    opened, pools = _open(reference, options, features, sound), _pools(features)
    windows = sound.windows
    noise = random_rows(windows.shape, len(LOUDNESS)) * LOUDNESS
    original = opened.proto.SerializeToString()
    # One by one, since a batch must not mix its rows.
    own = [
        _run(original, opened.source, opened.output, opened.scale * row[None], reference)
        for row in noise
    ]
    example = own[0]
    if example.ndim < 2 or len(example) != 1:
        raise BackboneError(
            f"the output {opened.output!r} of {reference} is of shape {list(example.shape)} for "
            "one window: its first axis must be the batch",
            "Export it with a batch axis, or name another output with --layer.",
        )
    flat = example.ndim == 2
    expected = np.concatenate([_reduced(row, () if flat else pools) for row in own])
    if not np.isfinite(expected).all():
        raise BackboneError(
            f"{reference} gives NaN or infinite numbers for noise", "Choose another network."
        )
    spec = BackboneSpec(
        name=opened.name,
        preprocessing=windows,
        layers=(opened.output,),
        pooling="none" if flat else "+".join(pools),
        dim=expected.shape[1],
        weights=opened.weights.origin,
        licence=opened.weights.licence,
        scaling=opened.scaling,
    )
    used = () if flat else pools
    if not opened.single:
        content = _written(opened, spec, used, example.ndim, by_row=False)
        worst, _ = _difference(content, noise, expected)
        if worst <= TOLERANCE:
            return content, worst, ()
    content = _written(opened, spec, used, example.ndim, by_row=True)
    worst, why = _difference(content, noise, expected)
    if worst > TOLERANCE:
        raise BackboneError(
            f"{reference} {why or f'gives other numbers in the backbone file, by {worst:.1e}'}",
            "Export it again for inference, or choose another network.",
        )
    return content, worst, (BY_ROW,)


def _open(
    reference: str, options: BackboneOptions, features: FeatureOptions, sound: SoundOptions
) -> _Opened:
    if reference.startswith(PREFIX):
        path, proto = encoder_file(reference), join(reference, sound)
        return _Opened(
            "openwakeword",
            proto,
            _input(proto, path, options),
            _output(proto, features),
            "int16",
            Weights.of_file(path),
        )
    path = local_path(reference)
    if not path.is_file():
        raise BackboneError(f"{path}: no such file", "Check the path.")
    proto = to_opset(read_onnx(path), OPSET, path.stem)
    opened = _Opened(
        path.stem,
        proto,
        _input(proto, path, options),
        _output(proto, features),
        _scaling(options),
        Weights.of_file(path),
    )
    samples = proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    if samples and samples != sound.windows.window:
        raise BackboneError(
            f"{path} takes {samples:,} samples; the window has {sound.windows.window:,}",
            f"Give --window {samples / sound.rate:g}, or the --rate that it was trained with.",
        )
    return opened


def _written(
    opened: _Opened, spec: BackboneSpec, pools: tuple[str, ...], axes: int, by_row: bool
) -> bytes:
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(opened.proto)
    before, after = GraphBuilder(f"{OWN}before/"), GraphBuilder(f"{OWN}after/")
    window = f"{OWN}window" if by_row else WAVEFORM
    given = before.add("Mul", window, before.constant(opened.scale))
    middle = after.integers(*range(1, axes - 1))
    pieces = [_pooled(after, opened.output, middle, pool) for pool in pools] or [opened.output]
    made = after.add("Concat", *pieces, axis=1) if len(pieces) > 1 else pieces[0]
    rename_values(proto, {opened.source: given})
    nodes = [*before.nodes, *proto.graph.node, *after.nodes]
    constants = [*proto.graph.initializer, *before.constants, *after.constants]
    if by_row:
        nodes = [_scan(nodes, constants, window, made)]
        constants = []
    else:
        nodes.append(onnx.helper.make_node("Identity", [made], [OUTPUT]))
    graph = proto.graph
    for field in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    info = onnx.helper.make_tensor_value_info
    graph.input.append(info(WAVEFORM, FLOAT, [BATCH, *spec.preprocessing.shape]))
    graph.output.append(info(OUTPUT, FLOAT, [BATCH, spec.dim]))
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, spec.to_metadata())
    proto.producer_name, proto.producer_version, proto.doc_string = "headstart", "", ""
    proto.ir_version, graph.name = IR_VERSION, "backbone"
    return bytes(proto.SerializeToString())


def _scan(nodes: list[Any], constants: list[Any], window: str, made: str) -> Any:
    """One node that runs the others on window after window."""
    import onnx

    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    first, row, embedded = f"{OWN}first", f"{OWN}row", f"{OWN}embedded"
    body = onnx.helper.make_graph(
        [
            make("Unsqueeze", [row, first], [window]),
            *nodes,
            make("Squeeze", [made, first], [embedded]),
        ],
        "window",
        [info(row, FLOAT, None)],
        [info(embedded, FLOAT, None)],
        [*constants, onnx.numpy_helper.from_array(np.array([0]), first)],
    )
    return make("Scan", [WAVEFORM], [OUTPUT], num_scan_inputs=1, body=body)


def _difference(content: bytes, noise: np.ndarray, expected: np.ndarray) -> tuple[float, str]:
    """The largest relative one, alone and in a batch; infinite, and why, if it cannot be told."""
    worst, scale = 0.0, max(float(np.abs(expected).max()), 1e-30)
    for batch in (1, len(noise)):
        try:
            (found,) = open_session(content).run([OUTPUT], {WAVEFORM: noise[:batch]})
        except Exception as error:  # onnxruntime has no one class for what it cannot run
            return np.inf, f"does not run in the backbone file: {first_line(error)}"
        if found.shape != expected[:batch].shape:
            return np.inf, f"gives {list(found.shape)} numbers for {batch} windows"
        if not np.isfinite(found).all():
            return np.inf, "gives numbers that are not finite in the backbone file"
        worst = max(worst, float(np.abs(found - expected[:batch]).max()) / scale)
    return worst, ""


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
            "Name openwakeword:FOLDER if it is openWakeWord's; otherwise join it with the graph "
            "that makes its spectrograms (onnx.compose.merge_models), and name the result; or pass "
            "--sound logmel if any spectrogram will do, as for networks for photographs.",
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


def _scaling(options: BackboneOptions) -> str:
    if (options.scaling or "none") not in SCALES:
        raise BackboneError(
            f"--scaling {options.scaling} is for photographs",
            "With --sound raw, choose none (samples of -1 to 1) or int16 (-32768 to 32767).",
        )
    return options.scaling or "none"


def _pooled(graph: GraphBuilder, tensor: str, axes: str, pool: str) -> str:
    return graph.add(OPERATORS[pool], tensor, axes, keepdims=0)


def _reduced(array: np.ndarray, pools: tuple[str, ...]) -> np.ndarray:
    axes = tuple(range(1, array.ndim - 1))
    if not pools:
        return array
    reduced = [array.max(axis=axes) if pool == "max" else array.mean(axis=axes) for pool in pools]
    return np.concatenate(reduced, axis=1)


def _run(content: bytes, name: str, output: str, given: np.ndarray, path: str) -> np.ndarray:
    try:
        (found,) = open_session(content).run([output], {name: given.astype(np.float32)})
    except Exception as error:  # onnxruntime has no one class for what it cannot run
        raise BackboneError(
            f"{path} does not run on {len(given)} windows of {given.shape[1]:,} samples: "
            f"{first_line(error)}",
            "Give another --window or --rate, or export it again with free axes.",
        ) from None
    return np.asarray(found)
