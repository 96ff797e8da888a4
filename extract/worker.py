"""A worker reads, decodes and embeds the photographs of a shard and writes the part itself."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

import numpy as np

from headstart.data.contracts.backbone import BackboneSpec
from headstart.data.contracts.records import begin_part, mark_row, write_part
from headstart.data.contracts.store import PartRecord
from headstart.data.storage.folder import Folder
from headstart.extract.engines.race import FastestEngine
from headstart.extract.engines.runtimes import Way, open_engines
from headstart.extract.inputs import Failure, Photograph, photographs
from headstart.extract.part import Part
from headstart.extract.planning.plan import Shard


@dataclass(frozen=True)
class Job:
    """What all workers of a run share.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    gpu
        Share of a GPU that a worker takes.
    """

    spec: BackboneSpec
    root: Folder
    store: Folder
    way: Way = Way()
    gpu: float = 0.0


def new_part(shard: Shard) -> str:
    """A name for a part that nobody else writes: a second try must not meddle with a first."""
    return f"part-{shard.number:05d}-{secrets.token_hex(6)}"


class Worker:
    """Embeds shards, one after the other. Runs as a Ray actor, and as well without Ray.

    Parameters
    ----------
    job
        What all workers share.
    content
        The bytes of the backbone file.

    Attributes
    ----------
    place
        Number of the shard and row in it that is at work, for who watches from another thread.
    first
        When the first embedding was made, by `time.monotonic`.

    Raises
    ------
    EngineError
        If the backbone cannot be run here in the way that is asked for.
    """

    def __init__(self, job: Job, content: bytes) -> None:
        self.job = job
        engines = open_engines(content, job.spec, job.way)
        self.engine = FastestEngine(engines, job.way.batch)
        self.place = (-1, 0)
        self.first: float | None = None

    def extract(self, shard: Shard, name: str, careful: bool = False) -> PartRecord:
        """Turn a shard into a part of the store; every example is a row or an error.

        Parameters
        ----------
        name
            Of the part.
        careful
            Embed one photograph at a time and write down which one, since a worker was lost here.

        Raises
        ------
        OSError, StorageError
            If the part cannot be written, or the storage of the examples does not answer.
        """
        spec, store = self.job.spec, self.job.store
        done = Part(shard.examples, spec.dim)
        begin_part(store, name, len(done.examples))
        size = (spec.preprocessing.height, spec.preprocessing.width)
        images = np.empty((self.job.way.batch, *size, 3), np.uint8)
        paths = shard.examples["path"].to_pylist()
        coming = photographs(self.job.root, paths, spec.preprocessing)
        waiting: list[Photograph] = []
        for row in range(len(paths)):
            self.place = (shard.number, row)
            if careful:
                mark_row(store, name, row)
            photograph = next(coming)
            if isinstance(photograph, Failure):
                done.fail(photograph)
            else:
                images[len(waiting)] = photograph.image
                waiting.append(photograph)
            batch = 1 if careful else self.engine.batch
            if waiting and (len(waiting) == batch or row == len(paths) - 1):
                done.add(waiting, self.engine.embed(images[: len(waiting)]))
                self.first = self.first or time.monotonic()
                waiting = []
        if careful:
            mark_row(store, name, None)
        return write_part(store, name, done.rows(), done.errors(), done.inferences)
