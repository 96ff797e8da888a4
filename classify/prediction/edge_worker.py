"""A worker classifies the examples of a shard by an edge model; only answers leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headstart.data.common.errors import ModelError, PredictionError, first_line
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.calibration import UNKNOWN
from headstart.data.contracts.model import LABEL, PROBABILITIES
from headstart.data.modalities.modality import InputSpec
from headstart.data.workers.inputs import Batch, Failure
from headstart.data.workers.shards import Shard
from headstart.data.workers.worker import Job, Mark, Worker


@dataclass(frozen=True)
class Answers:
    """What an edge model answers for the examples of a shard.

    Parameters
    ----------
    rows
        Of the examples in the source, int64 `[n]`.
    labels
        int64 `[n]`, -1 for "unknown".
    probabilities
        float32 `[n, classes]`.
    errors
        `REASON: MESSAGE`, or none, for each.
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    errors: list[str | None]

    @classmethod
    def unknown(cls, rows: np.ndarray, classes: int) -> Answers:
        """No answer yet."""
        probabilities = np.zeros((len(rows), classes), np.float32)
        return cls(rows, np.full(len(rows), UNKNOWN), probabilities, [None] * len(rows))

    def fail(self, row: int, reason: str, message: str) -> None:
        """Say why there is no answer, by row of the shard."""
        self.errors[row] = f"{reason}: {message}"


@dataclass(frozen=True, kw_only=True)
class EdgeJob(Job):
    """What all workers of a prediction share.

    Parameters
    ----------
    path
        Of the edge model, for people.
    classes
        Number of classes.
    batch
        Examples that go through the model at once, if they are of one size.
    """

    path: str
    classes: int
    batch: int

    def worker(self, content: bytes) -> EdgeWorker:
        """A worker, from the bytes of the edge model."""
        return EdgeWorker(self, EdgeSession(self.path, content, self.spec))

    def failed(self, shard: Shard, failure: Failure) -> Answers:
        """Answers that hold the failure and nothing else."""
        answers = Answers.unknown(_rows(shard), self.classes)
        answers.fail(0, failure.reason, failure.message)
        return answers

    def stopped(self, reason: str) -> PredictionError:
        """The error of a prediction that cannot go on."""
        return PredictionError(reason, "No predictions were written.")


class Session(Protocol):
    """An edge model that is ready to run."""

    def run(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 `[n]` and probabilities float32 `[n, classes]` of inputs `[n, ...]`."""


class EdgeSession:
    """An edge model, loaded, on one thread: a worker holds one CPU, and workers are many.

    Parameters
    ----------
    path
        Where it came from, for people.
    content
        Its bytes.
    spec
        How an example becomes its input.

    Raises
    ------
    ModelError
        If this onnxruntime cannot load it.
    """

    def __init__(self, path: str, content: bytes, spec: InputSpec) -> None:
        self.feed = spec.feed
        try:  # quiet: what fails is raised, and becomes an error of its row
            self._session = open_session(content, threads=1, quiet=True)
        except Exception as error:  # onnxruntime has no one class for files that it cannot load
            raise ModelError(
                f"{path} cannot be loaded: {first_line(error)}", "Export the classifier again."
            ) from None

    def run(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 `[n]` and probabilities float32 `[n, classes]`.

        Parameters
        ----------
        inputs
            Rows of the model's input `[n, ...]`.
        """
        labels, probabilities = self._session.run([LABEL, PROBABILITIES], self.feed(inputs))
        return labels, probabilities


class EdgeWorker(Worker):
    """Classifies shards, one after the other.

    Parameters
    ----------
    job
        What all workers share.
    session
        The edge model.
    """

    job: EdgeJob

    def __init__(self, job: EdgeJob, session: Session) -> None:
        super().__init__(job)
        self.session = session

    def work(self, shard: Shard, mark: Mark | None = None) -> Answers:
        """The answers for a shard, whose examples have the column `row` (int64) as well."""
        answers = Answers.unknown(_rows(shard), self.job.classes)
        size: Callable[[], int] = lambda: self.job.batch  # noqa: E731
        for found in self.batches(shard, size, mark):
            if isinstance(found, Failure):
                answers.fail(found.row, found.reason, found.message)
            else:
                self._classify(found, answers)
        return answers

    def _classify(self, batch: Batch, answers: Answers) -> None:
        try:
            labels, probabilities = self.session.run(batch.inputs)
        except Exception as error:  # such as no memory for a large photograph; it has no one class
            if len(batch.examples) == 1:
                answers.fail(batch.examples[0].row, "not_classified", first_line(error))
                return
            for number, example in enumerate(batch.examples):
                self._classify(Batch([example], batch.inputs[number : number + 1]), answers)
            return
        finite = np.isfinite(probabilities).all(axis=1)
        for number, example in enumerate(batch.examples):
            if finite[number]:
                answers.labels[example.row] = labels[number]
                answers.probabilities[example.row] = probabilities[number]
            else:
                message = "the probabilities have NaN or infinite numbers"
                answers.fail(example.row, "not_finite", message)


def _rows(shard: Shard) -> np.ndarray:
    return shard.examples["row"].to_numpy()
