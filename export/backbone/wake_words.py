"""openWakeWord's two files, a spectrogram and an encoder of it, joined to an encoder of samples.

Between them stands what its own programs compute: levels `x / 10 + 2`, and pieces of 76 frames that
start every 8 (80 ms).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import IR_VERSION, OPSET, rename_values
from headstart.data.common.onnx_runtime import open_session
from headstart.data.storage.files import local_path
from headstart.export.backbone.embedding import FLOAT
from headstart.export.networks.onnx.file import read_onnx
from headstart.export.networks.onnx.surgery import to_opset
from headstart.export.options import SoundOptions

if TYPE_CHECKING:
    import onnx

PREFIX = "openwakeword:"
MEL, ENCODER = "melspectrogram.onnx", "embedding_model.onnx"
RATE = 16_000
FRAMES, STEP = 76, 8  # of a piece, and between the starts of two


def encoder_file(reference: str) -> Path:
    """The file with the weights that `openwakeword:FOLDER` means; raises `BackboneError`."""
    folder = local_path(reference.removeprefix(PREFIX))
    missing = [name for name in (MEL, ENCODER) if not (folder / name).is_file()]
    if missing:
        raise BackboneError(
            f"{folder} has no {' and no '.join(missing)}",
            "Name the folder with openWakeWord's models; its package downloads them by "
            "openwakeword.utils.download_models().",
        )
    return folder / ENCODER


def join(reference: str, sound: SoundOptions) -> onnx.ModelProto:
    """One graph from samples of the range of int16, `[1, samples]`, to `[1, pieces, channels]`.

    Raises
    ------
    BackboneError
        If a file is missing or damaged, or the rate or window is not one that it takes.
    """
    import onnx

    path = encoder_file(reference)
    mel, encoder = (
        to_opset(read_onnx(path.with_name(name)), OPSET, name) for name in (MEL, ENCODER)
    )
    if sound.rate != RATE:
        raise BackboneError(f"{reference} takes {RATE:,} samples a second", f"Give --rate {RATE}.")
    samples = sound.windows.window
    levels = _run(mel, np.zeros((1, samples), np.float32))
    bands = levels.shape[-1]
    frames = levels.size // bands
    if frames < FRAMES:
        raise BackboneError(
            f"a window of {sound.window:g} s has {frames} frames, and {reference} takes {FRAMES}",
            "Give a longer --window, such as 1.",
        )
    graph = GraphBuilder("joined/")
    graph.input("samples", FLOAT, [1, samples])
    rename_values(mel, {mel.graph.input[0].name: "samples"})
    (level,) = graph.add_model(mel, "mel/")
    level = graph.add("Reshape", level, graph.integers(frames, bands, 1))
    level = graph.add("Mul", level, graph.constant(0.1))
    level = graph.add("Add", level, graph.constant(2))
    starts = np.arange(0, frames - FRAMES + 1, STEP)
    rows = graph.constant(starts[:, None] + np.arange(FRAMES), np.int64)
    pieces = graph.add("Gather", level, rows)
    rename_values(encoder, {encoder.graph.input[0].name: pieces})
    (found,) = graph.add_model(encoder, "encoder/")
    made = graph.add("Reshape", found, graph.integers(1, len(starts), -1))
    graph.output(made, "pieces", FLOAT, [1, len(starts), "channels"])
    inputs, outputs = graph.inputs[:1], graph.outputs
    joined = onnx.helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.constants)
    return onnx.helper.make_model(
        joined, ir_version=IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )


def _run(model: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
    session = open_session(model.SerializeToString())
    return np.asarray(session.run(None, {session.get_inputs()[0].name: given})[0])
