"""Images per second of backbone graphs on this machine: all in one run, taking turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.backbone import INPUT, OUTPUT

BATCH = 8
SLOW = 0.5  # seconds for one picture from which on a batch is one picture
SEED = 0


def images_per_second(
    contents: Sequence[bytes], size: tuple[int, int], seconds: float = 2.0
) -> list[float]:
    """How fast each graph answers: ONNX Runtime, one thread, as an extraction's worker does.

    The graphs take turns batch by batch, so that whatever else the machine does slows them alike;
    each one's median batch counts.

    Parameters
    ----------
    size
        Height and width of the input.
    seconds
        Time for all of them together; every graph is run at least three times.
    """
    sessions = [one_thread_session(content) for content in contents]
    shape = (BATCH, *size, 3)
    images = np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8)
    start = time.perf_counter()
    for session in sessions:
        session.run([OUTPUT], {INPUT: images[:1]})
    if time.perf_counter() - start > SLOW * len(sessions):
        images = images[:1]
    took: list[list[float]] = [[] for _ in sessions]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(took[0]) < 3:
        for session, times in zip(sessions, took, strict=True):
            start = time.perf_counter()
            session.run([OUTPUT], {INPUT: images})
            times.append(time.perf_counter() - start)
    return [len(images) / float(np.median(times)) for times in took]


def one_thread_session(content: bytes) -> Any:
    """An ONNX Runtime session on one core of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
