"""Measures the latency and memory of edge models on one photograph, each in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common import console
from headstart.data.common.errors import Checklist, HeadstartError, ModelError
from headstart.data.contracts.edge import Edge

THREADS = (1, 2)
WARM_UP = 5  # runs before the first turn
TOKENS = 128  # of a text that is timed
TURN = 10  # runs in a row, after one that is not counted, since another process ran before it
# By its own path, whatever is in the current folder.
SCRIPT = (
    "import sys; sys.path[0] = {!r}; "
    "from headstart.export.measure.latency_process import main; main()"
)


@dataclass(frozen=True)
class Latency:
    """One edge model on one photograph at a time, with a number of threads.

    Parameters
    ----------
    median, percentile95
        Of the runs, in seconds.
    peak_memory
        The largest resident size of the whole process, in bytes: Python, NumPy, ONNX Runtime, the
        model and one photograph.
    before
        The same before the model was loaded.
    """

    threads: int
    median: float
    percentile95: float
    peak_memory: int
    before: int


class Worker:
    """The process that runs one edge model.

    Raises
    ------
    ModelError
        From `start` and `run`, if ONNX Runtime cannot run the model.
    HeadstartError
        If the process ends.
    """

    def __init__(self, edge: Edge, threads: int, process: Any) -> None:
        self.edge, self.threads, self.process = edge, threads, process
        self.before = self.peak = 0
        self.took: list[float] = []

    def start(self) -> None:
        """Wait until the model is loaded, and run it a few times to warm up."""
        self.before = self._answer()["before"]
        self.run(WARM_UP)

    def run(self, runs: int) -> list[float]:
        """Run so many times; returns the seconds of each."""
        with suppress(BrokenPipeError):  # it has ended; its last message, if any, is read next
            self.process.stdin.write(f"{runs}\n")
            self.process.stdin.flush()
        answer = self._answer()
        self.peak = answer["peak"]
        seconds: list[float] = answer["seconds"]
        return seconds

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise HeadstartError(
                f"the process that ran {self.edge.path} ended (exit code {self.process.wait()})",
                "Usually there is not enough memory: measure fewer models at once.",
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ModelError(
                f"{self.edge.path} cannot be run: {answer['error']}",
                "Export the classifier again.",
            )
        return answer

    def latency(self) -> Latency:
        """The result of all runs."""
        median, high = np.percentile(self.took, [50, 95])
        return Latency(self.threads, float(median), float(high), self.peak, self.before)


def measure_latency(edges: Sequence[Edge], runs: int) -> list[tuple[Latency, ...]]:
    """Run each edge model on a random example, with one and with two threads.

    All processes run at once and take turns, so that other load slows them alike; the others sleep
    meanwhile.

    Parameters
    ----------
    runs
        How often each is run, without the warm-up.

    Raises
    ------
    ModelError
        If ONNX Runtime cannot run one of them.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headstart-")))
        workers = []
        for number, edge in enumerate(edges):
            path = folder / f"{number}.onnx"  # it may come from object storage
            path.write_bytes(edge.content)
            workers.append([stack.enter_context(_worker(edge, path, n)) for n in THREADS])
        checks = Checklist()
        with console.status(f"loading {len(edges)} edge models"):
            for of_one in workers:
                with checks.item():
                    for worker in of_one:
                        worker.start()
        checks.finish()
        _take_turns([worker for of_one in workers for worker in of_one], runs)
        return [tuple(worker.latency() for worker in of_one) for of_one in workers]


def _take_turns(workers: Sequence[Worker], runs: int) -> None:
    with console.progress("measuring", runs * len(workers)) as advance:
        for start in range(0, runs, TURN):
            count = min(TURN, runs - start)
            for worker in workers:
                worker.took += worker.run(1 + count)[1:]
                advance(count)


@contextmanager
def _worker(edge: Edge, path: Path, threads: int) -> Iterator[Worker]:
    spec = edge.spec.preprocessing
    shape = [min(spec.shape[0], TOKENS)] if spec.ragged else list(spec.shape)
    command = [
        *(sys.executable, "-c", SCRIPT.format(str(Path(__file__).parents[3]))),
        *(str(path), str(threads), *map(str, shape)),
    ]
    process = subprocess.Popen(  # noqa: S603  (our own module)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Worker(edge, threads, process)
    finally:
        process.kill()  # it has nothing to clean up
        process.communicate()
