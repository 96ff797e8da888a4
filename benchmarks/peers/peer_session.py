"""A backbone in ONNX Runtime, as a script would open it: on a GPU where there is one for it."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

GPU = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def open_session(backbone: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session with so many threads, or one for each core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not GPU:
        return onnxruntime.InferenceSession(backbone, options, providers=["CPUExecutionProvider"])
    onnxruntime.preload_dlls()
    return onnxruntime.InferenceSession(backbone, options, providers=["CUDAExecutionProvider"])


def input_size(backbone: Path) -> tuple[int, int]:
    """Height and width that the backbone wants."""
    session = onnxruntime.InferenceSession(backbone, providers=["CPUExecutionProvider"])
    height, width = session.get_inputs()[0].shape[1:3]
    return height, width
