"""A worker reads, decodes and classifies photographs by an edge model; only answers leave it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headstart.data.common.errors import ModelError, StorageError, first_line
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.backbone import INPUT
from headstart.data.contracts.calibration import UNKNOWN
from headstart.data.contracts.model import LABEL, PROBABILITIES
from headstart.data.examples.reading import Reader, why_unread
from headstart.data.modalities.image.decoding import DecodeError, decode
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.folder import Folder

# Pixels in one call, uint8: the graph makes float32 of them, and edge models of any size are given
# photographs as large as cameras make them.
MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class EdgeJob:
    """What all workers of a prediction share.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    preprocessing
        What a photograph goes through before the model; none if it is given as it is.
    classes
        Number of classes.
    batch
        Photographs that go through the model at once, if they are of one size.
    """

    root: Folder
    preprocessing: Preprocessing | None
    classes: int
    batch: int


class EdgeSession:
    """An edge model, loaded, on one thread: a worker holds one CPU, and workers are many.

    Parameters
    ----------
    path
        Where it came from, for people.
    content
        Its bytes.

    Raises
    ------
    ModelError
        If this onnxruntime cannot load it.
    """

    def __init__(self, path: str, content: bytes) -> None:
        try:  # quiet: what fails is raised, and becomes an error of its row
            self._session = open_session(content, threads=1, quiet=True)
        except Exception as error:  # onnxruntime has no one class for files that it cannot load
            raise ModelError(
                f"{path} cannot be loaded: {first_line(error)}", "Export the classifier again."
            ) from None

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 `[n]` and probabilities float32 `[n, classes]`.

        Parameters
        ----------
        images
            uint8 `[n, height, width, 3]`.
        """
        labels, probabilities = self._session.run([LABEL, PROBABILITIES], {INPUT: images})
        return labels, probabilities


class EdgeWorker:
    """Classifies blocks of examples, one after the other; knows nothing of Ray.

    Parameters
    ----------
    job
        What all workers share.
    session
        The edge model.
    """

    def __init__(self, job: EdgeJob, session: EdgeSession) -> None:
        self.job, self.session = job, session
        self.reader = Reader(job.root)

    def answer(self, examples: pa.Table) -> pa.Table:
        """The answers for a block of examples.

        Parameters
        ----------
        examples
            Columns `row` (int64) and `path`.

        Returns
        -------
        pa.Table
            `row`, `label` (int64, -1 for "unknown"), `probabilities` (float32, a list of the
            classes), `error` (`REASON: MESSAGE`, or none), and `stop`: none, or in all rows why no
            further block should be tried.
        """
        paths = examples["path"].to_pylist()
        answers = _Answers(len(paths), self.job.classes)
        stop = None
        try:
            for rows, images in self._batches(paths, answers):
                self._classify(rows, np.stack(images), answers)
        except StorageError as error:  # the next block would wait for the storage in vain as well
            stop = str(error)
        return answers.table(examples["row"], stop)

    def _batches(
        self, paths: list[str], answers: _Answers
    ) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Photographs of one size that follow each other, as many as go through at once."""
        rows: list[int] = []
        images: list[np.ndarray] = []
        for row, path in enumerate(paths):
            try:
                image = decode(self.reader.read(path), self.job.preprocessing)
            except DecodeError as error:
                answers.fail(row, error.reason, error.message)
                continue
            except OSError as error:
                answers.fail(row, *why_unread(error))
                continue
            if rows and (
                image.shape != images[0].shape
                or len(rows) == self.job.batch
                or image.nbytes * (len(rows) + 1) > MOST_BYTES
            ):
                yield rows, images
                rows, images = [], []
            rows.append(row)
            images.append(image)
        if rows:
            yield rows, images

    def _classify(self, rows: list[int], images: np.ndarray, answers: _Answers) -> None:
        try:
            labels, probabilities = self.session.run(images)
        except Exception as error:  # such as no memory for a large photograph; it has no one class
            if len(rows) == 1:
                answers.fail(rows[0], "not_classified", first_line(error))
                return
            for number, row in enumerate(rows):
                self._classify([row], images[number : number + 1], answers)
            return
        finite = np.isfinite(probabilities).all(axis=1)
        for number, row in enumerate(rows):
            if finite[number]:
                answers.labels[row] = labels[number]
                answers.probabilities[row] = probabilities[number]
            else:
                answers.fail(row, "not_finite", "the probabilities have NaN or infinite numbers")


class _Answers:
    """The answers of a block while they come in."""

    def __init__(self, rows: int, classes: int) -> None:
        self.labels = np.full(rows, UNKNOWN)
        self.probabilities = np.zeros((rows, classes), np.float32)
        self.errors: list[str | None] = [None] * rows

    def fail(self, row: int, reason: str, message: str) -> None:
        self.errors[row] = f"{reason}: {message}"

    def table(self, rows: pa.ChunkedArray, stop: str | None) -> pa.Table:
        flat = pa.array(self.probabilities.ravel())
        return pa.table(
            {
                "row": rows,
                LABEL: self.labels,
                PROBABILITIES: pa.FixedSizeListArray.from_arrays(flat, self.probabilities.shape[1]),
                "error": pa.array(self.errors, pa.string()),
                "stop": pa.array([stop] * len(rows), pa.string()),
            }
        )
