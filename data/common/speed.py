"""How fast ONNX graphs run on this machine: all in one measurement, in turns.

Imports little: a process that measures its own memory imports this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headstart.data.common.onnx_runtime import open_session

BATCH = 8
SLOW = 0.5  # seconds per picture; slower graphs are measured with batches of one picture
TOKENS = 32  # of a text that is measured: a sentence
SEED = 0


def images_per_second(contents: Sequence[bytes], seconds: float = 2.0) -> list[float]:
    """How fast each graph runs in ONNX Runtime on one thread, as in an extraction's worker.

    The graphs take turns batch by batch, so that other work on the machine slows them alike;
    the median batch of each counts. The inputs are random, of the graph's input size; of a graph
    for texts, `TOKENS` tokens.

    Parameters
    ----------
    contents
        Graphs of one input, uint8 pixels or float32 samples, or of tokens and their mask.
    seconds
        Time for all of them together; every graph is run at least three times.
    """
    sessions = [open_session(content, 1) for content in contents]
    start = time.perf_counter()
    for session in sessions:
        time_runs(session, _random_batch(session, 1), 1)
    size = 1 if time.perf_counter() - start > SLOW * len(sessions) else BATCH
    given = [_random_batch(session, size) for session in sessions]
    took: list[list[float]] = [[] for _ in sessions]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(took[0]) < 3:
        for session, inputs, times in zip(sessions, given, took, strict=True):
            times += time_runs(session, inputs, 1)
    return [size / float(np.median(times)) for times in took]


def _random_batch(session: Any, count: int) -> dict[str, np.ndarray]:
    first = session.get_inputs()[0]
    if first.type == "tensor(int64)":
        one = random_inputs(session, (TOKENS,))
        return {name: np.repeat(value, count, 0) for name, value in one.items()}
    return {first.name: random_rows(first.shape[1:], count)}


def random_images(size: Sequence[int], count: int = 1) -> np.ndarray:
    """Noise, uint8 `[count, height, width, 3]`, the same every time; `size` is height and width."""
    return np.random.default_rng(SEED).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def random_rows(shape: Sequence[int], count: int = 1) -> np.ndarray:
    """Noise for a graph: `random_images`, or a waveform's samples, float32 `[count, samples]`.

    Parameters
    ----------
    shape
        Of one row: `[height, width, 3]` or `[samples]`.
    """
    if len(shape) > 1:
        return random_images(shape[:2], count)
    return np.random.default_rng(SEED).normal(0, 0.1, (count, *shape)).astype(np.float32)


def random_inputs(session: Any, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """One random example for every input of a graph; `shape` is without the batch axis."""
    random = np.random.default_rng(SEED)
    kinds: dict[str, Callable[[], np.ndarray]] = {
        "tensor(uint8)": lambda: random.integers(0, 256, (1, *shape), dtype=np.uint8),
        "tensor(int64)": lambda: np.ones((1, *shape), np.int64),
        "tensor(float)": lambda: random.normal(size=(1, *shape)).astype(np.float32),
    }
    return {each.name: kinds[each.type]() for each in session.get_inputs()}


def time_runs(session: Any, inputs: np.ndarray | dict[str, np.ndarray], runs: int) -> list[float]:
    """Seconds of each of several runs in a row, with all outputs computed."""
    given = inputs if isinstance(inputs, dict) else {session.get_inputs()[0].name: inputs}
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, given)
        took.append(time.perf_counter() - start)
    return took
