"""What a pool's workers have in common: they take a shard, and say which example they are at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headstart.data.common.errors import HeadstartError
from headstart.data.examples.reading import Reader
from headstart.data.modalities.modality import InputSpec
from headstart.data.storage.folder import Folder
from headstart.data.workers.inputs import Batch, Failure, batches
from headstart.data.workers.shards import Shard

# Writes down the row that is at work, none at the end, where a worker was lost before.
Mark = Callable[[int | None], None]


@dataclass(frozen=True)
class Job(ABC):
    """What all workers of a pool share; it travels to them by pickle.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    spec
        How an example becomes the graph's input.
    gpu
        Share of a GPU that a worker takes.
    """

    root: Folder
    spec: InputSpec
    gpu: float = 0.0

    @abstractmethod
    def worker(self, content: bytes) -> Worker:
        """A worker, made where it works, from the bytes of the graph's file.

        Raises
        ------
        InputError
            If the graph cannot be run there.
        """

    @abstractmethod
    def failed(self, shard: Shard, failure: Failure) -> Any:
        """What stands for a shard of one example that ended three workers; called by the pool."""

    @abstractmethod
    def stopped(self, reason: str) -> HeadstartError:
        """The error of a job that cannot go on, with what to do next."""


class Worker(ABC):
    """Works on shards, one after the other, in a Ray actor or without Ray.

    Attributes
    ----------
    place
        Number of the shard and row in it that is at work, for who watches from another thread.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.reader = Reader(job.root)
        self.place = (-1, 0)

    @abstractmethod
    def work(self, shard: Shard, mark: Mark | None = None) -> Any:
        """Work on a shard; every example of it is in the result, with an answer or an error.

        Parameters
        ----------
        mark
            Given where a worker was lost over this shard: examples go one at a time then, and each
            row is marked before it is touched.

        Raises
        ------
        OSError, StorageError
            If the result cannot be written, or the storage of the examples does not answer.
        """

    def batches(
        self, shard: Shard, size: Callable[[], int], mark: Mark | None
    ) -> Iterator[Batch | Failure]:
        """The examples of a shard in batches, or why there is nothing for one; keeps `place`."""

        def at(row: int) -> None:
            self.place = (shard.number, row)
            if mark:
                mark(row)

        paths = shard.examples["path"].to_pylist()
        yield from batches(self.reader, paths, self.job.spec, (lambda: 1) if mark else size, at)
        if mark:
            mark(None)
