"""The base classes of a pool's jobs and workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headstart.data.common.errors import HeadstartError
from headstart.data.examples.reading import Reader
from headstart.data.modalities.modality import InputSpec
from headstart.data.storage.folder import Folder
from headstart.data.workers.inputs import TOKENS, TOKENS_ON_GPU, Batch, Failure, batches
from headstart.data.workers.shards import Shard

# Records the row being processed (None at the end) in a shard that has lost a worker.
Mark = Callable[[int | None], None]


@dataclass(frozen=True)
class Job(ABC):
    """What all workers of a pool share; it is sent to them by pickle.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    spec
        How an example becomes the graph's input.
    gpu
        Share of a GPU for each worker.
    """

    root: Folder
    spec: InputSpec
    gpu: float = 0.0

    @abstractmethod
    def worker(self, content: bytes) -> Worker:
        """Create a worker in its process, from the bytes of the graph's file.

        Raises
        ------
        InputError
            If the graph cannot run there.
        """

    @abstractmethod
    def failed(self, shard: Shard, failure: Failure) -> Any:
        """The result for a shard of one example that ended three workers; called by the pool."""

    @abstractmethod
    def stopped(self, reason: str) -> HeadstartError:
        """The error of a job that cannot continue, with what to do next."""


class Worker(ABC):
    """Processes shards, one after the other, in a Ray actor or without Ray.

    Attributes
    ----------
    position
        Number of the shard and the row in it that is being processed; read from another thread.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.reader = Reader(job.root)
        self.position = (-1, 0)

    @abstractmethod
    def work(self, shard: Shard, mark: Mark | None = None) -> Any:
        """Process a shard; every example of it is in the result, with a value or an error.

        Parameters
        ----------
        mark
            Given if this shard has lost a worker: then examples are processed one at a time, and
            each row is marked before it is read.

        Raises
        ------
        OSError, StorageError
            If the result cannot be written, or the storage of the examples does not answer.
        """

    def batches(
        self, shard: Shard, size: Callable[[], int], mark: Mark | None
    ) -> Iterator[Batch | Failure]:
        """The examples of a shard in batches, and failures; updates `position`."""

        def at(row: int) -> None:
            self.position = (shard.number, row)
            if mark:
                mark(row)

        paths = shard.examples["path"].to_pylist()
        tokens = TOKENS_ON_GPU if self.job.gpu else TOKENS
        size = (lambda: 1) if mark else size
        yield from batches(self.reader, paths, self.job.spec, size, at, tokens)
        if mark:
            mark(None)
