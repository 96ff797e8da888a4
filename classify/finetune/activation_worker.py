"""The worker of the cache of activations: runs the frozen part on every view of every example."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.classify.finetune.training.augmentation import view
from headstart.data.common.errors import ExtractionError
from headstart.data.common.onnx_runtime import open_session
from headstart.data.storage.local import LocalFolder
from headstart.data.workers.inputs import Failure
from headstart.data.workers.shards import Shard
from headstart.data.workers.worker import Job, Mark, Worker
from headstart.export.networks.scaling import RULES, Scaling

BATCH = 16  # examples that go through the graph at once, in one view


def part_name(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05d}.npy"


@dataclass(frozen=True)
class ActivationJob(Job):
    """What all workers of a cache share.

    Parameters
    ----------
    scaling
        Of pixels, before the graph.
    channels_first
        Whether the graph takes `[batch, 3, height, width]`.
    augmentation, views
        Which views are computed, see `training.augmentation`.
    folder
        Of the parts.
    """

    scaling: Scaling = RULES["none"]
    channels_first: bool = True
    augmentation: str = "none"
    views: int = 1
    folder: str = ""

    def at(self, folder: Path) -> ActivationJob:
        """The same job that writes to a folder."""
        return dataclasses.replace(self, folder=str(folder))

    def worker(self, content: bytes) -> ActivationWorker:
        """A worker, from the bytes of the frozen part."""
        return ActivationWorker(self, content)

    def failed(self, shard: Shard, failure: Failure) -> list[str]:
        """That this example ended its workers."""
        return [_in_words(shard, failure)]

    def stopped(self, reason: str) -> ExtractionError:
        """The error of a cache that cannot be completed."""
        return ExtractionError(
            reason, "What is done is kept. Run the same command again to continue."
        )


class ActivationWorker(Worker):
    """Computes parts, one after the other."""

    job: ActivationJob

    def __init__(self, job: ActivationJob, content: bytes) -> None:
        super().__init__(job)
        self.session = open_session(content, threads=1)
        self.input = self.session.get_inputs()[0].name

    def work(self, shard: Shard, mark: Mark | None = None) -> list[str]:
        """Write a shard's part; returns in words what is wrong with its examples."""
        failures: list[str] = []
        part: np.ndarray | None = None
        expected = shard.examples["content"].to_pylist()
        for found in self.batches(shard, lambda: BATCH, mark):
            if isinstance(found, Failure):
                failures.append(_in_words(shard, found))
                continue
            rows = [example.row for example in found.examples]
            failures += [
                f"{shard.examples['path'][row].as_py()} (changed since its features were made)"
                for row, example in zip(rows, found.examples, strict=True)
                if example.content != expected[row]
            ]
            for number in range(self.job.views):
                answer = self._run(view(found.inputs, number, self.job.augmentation))
                if part is None:
                    shape = (len(expected), self.job.views, *answer.shape[1:])
                    part = np.zeros(shape, np.float16)
                part[rows, number] = answer
        if not failures and part is not None:
            buffer = io.BytesIO()
            np.save(buffer, part)
            LocalFolder(self.job.folder).write(part_name(shard.number), buffer.getvalue())
        return failures

    def _run(self, pictures: np.ndarray) -> np.ndarray:
        pixels = self.job.scaling.apply(pictures)
        if self.job.channels_first:
            pixels = pixels.transpose(0, 3, 1, 2)
        (answer,) = self.session.run(None, {self.input: np.ascontiguousarray(pixels)})
        largest = np.finfo(np.float16).max
        return np.clip(answer, -largest, largest).astype(np.float16)


def _in_words(shard: Shard, failure: Failure) -> str:
    return f"{shard.examples['path'][failure.row].as_py()} ({failure.message})"
