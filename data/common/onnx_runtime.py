"""ONNX Runtime sessions: the one place that creates them.

ONNX Runtime is imported when a session is opened. Nothing else is imported here: a process that
measures its own memory imports this module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
# Where tensors outside the file would be read from: nowhere. By default it is the current folder.
OUTSIDE = ("session.model_external_initializers_file_folder_path", os.devnull)


def open_session(
    model: bytes | str,
    threads: int = 0,
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    quiet: bool = False,
) -> Any:
    """Open an `onnxruntime.InferenceSession`.

    Parameters
    ----------
    model
        The bytes of an ONNX file, or its path.
    threads
        Threads within an operator; 0 for one per core. Operators run one after the other.
    provider, provider_options
        What runs the graph, and its options.
    quiet
        Log nothing to stderr, not even errors, which are raised anyway.

    Raises
    ------
    Exception
        If ONNX Runtime cannot load the file: its errors have no common class.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads spin between operators, but not after a run: other work needs the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry(*OUTSIDE)
    if quiet:
        options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model, options, providers=[(provider, dict(provider_options or {}))]
    )


def save_optimized(content: bytes, path: str | Path) -> None:
    """Write a graph after ONNX Runtime's basic optimizations, which keep to ONNX's own operators.

    Batch normalization is folded into convolutions.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry(*OUTSIDE)
    onnxruntime.InferenceSession(content, options, providers=[CPU])
