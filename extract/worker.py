"""Workers that embed the examples of a shard and write the part themselves."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.data.common.arrays import empty
from headstart.data.common.errors import BackboneError, ExtractionError, InputError
from headstart.data.contracts.backbone import BackboneSpec
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import PartContent, begin_part, write_part
from headstart.data.contracts.store import RECORDS, PartRecord, columns_for
from headstart.data.storage.files import digest
from headstart.data.storage.folder import Folder
from headstart.data.workers.inputs import Failure
from headstart.data.workers.shards import Shard
from headstart.data.workers.worker import Job, Mark, Worker
from headstart.extract.engines.race import FastestEngine
from headstart.extract.engines.runtimes import EngineConfig, open_engines
from headstart.extract.part import Part, error_rows


@dataclass(frozen=True, kw_only=True)
class EmbeddingJob(Job):
    """What all workers of an extraction share.

    Parameters
    ----------
    backbone
        The backbone file's metadata.
    fingerprint
        Of the embeddings.
    store
        The feature store that parts are written to.
    config
        How the backbone is run.
    """

    backbone: BackboneSpec
    fingerprint: Fingerprint
    store: Folder
    config: EngineConfig = EngineConfig()

    def worker(self, content: bytes) -> EmbeddingWorker:
        """A worker, from the bytes of the backbone file.

        Raises
        ------
        InputError
            If the bytes are not those of the fingerprint, or this machine does not see the store.
        """
        here = socket.gethostname()
        if (found := digest(content)) != self.fingerprint.sha256:
            raise BackboneError(
                f"the backbone that {here} received has the sha256 {found[:12]}, not "
                f"{self.fingerprint.sha256[:12]}",
                "Check the memory and the network of that machine.",
            )
        if not self.store.exists(RECORDS):  # such as a machine that has joined since the start
            raise InputError(
                f"{here} does not see the output {self.store}",
                "Give it the disk that the other machines share, or take it out of the cluster.",
            )
        return EmbeddingWorker(self, content)

    def failed(self, shard: Shard, failure: Failure) -> Embedded:
        """A part with only this failure."""
        errors = error_rows(shard.examples, [failure])
        columns = columns_for(shard.examples.schema, self.backbone.dim)
        content = PartContent(self.fingerprint, empty(columns), errors)
        return Embedded(write_part(self.store, _new_part(shard), content, file=shard.file))

    def stopped(self, reason: str) -> ExtractionError:
        """The error of an extraction that cannot continue."""
        return ExtractionError(
            reason, "What is done is kept. Run the same command again to continue."
        )


@dataclass(frozen=True)
class Embedded:
    """A part that was written.

    Parameters
    ----------
    engines
        That made the embeddings.
    first
        Seconds from the worker's start to its first embedding; None if there is none.
    tally
        What the modality counts of the embedded examples.
    """

    record: PartRecord
    engines: tuple[str, ...] = ()
    first: float | None = None
    tally: Mapping[str, int] = field(default_factory=dict)


def _new_part(shard: Shard) -> str:
    """A unique name for a part: a retry must not overwrite the first try."""
    return f"part-{shard.number:05d}-{secrets.token_hex(6)}"


class EmbeddingWorker(Worker):
    """Embeds shards, one after the other.

    Parameters
    ----------
    job
        What all workers share.
    content
        The bytes of the backbone file.

    Raises
    ------
    EngineError
        If the backbone cannot run here with the job's `config`.
    """

    job: EmbeddingJob

    def __init__(self, job: EmbeddingJob, content: bytes) -> None:
        super().__init__(job)
        engines = open_engines(content, job.backbone, job.config)
        self.engine = FastestEngine(engines, job.config.batch, job.spec.ragged)
        self.started = time.monotonic()
        self.first: float | None = None

    def work(self, shard: Shard, mark: Mark | None = None) -> Embedded:
        """Turn a shard into a part of the store; every example becomes a row or an error."""
        shard = shard.loaded()
        name, part = _new_part(shard), Part(shard.examples, self.job.backbone.dim)
        begin_part(self.job.store, name, len(shard.examples))
        for found in self.batches(shard, lambda: self.engine.batch, mark):
            if isinstance(found, Failure):
                part.fail(found)
            else:
                part.add(found.examples, self.engine.embed(found.inputs))
                if self.first is None:
                    self.first = time.monotonic() - self.started
        content = PartContent(self.job.fingerprint, part.rows(), part.errors())
        record = write_part(self.job.store, name, content, part.inferences, file=shard.file)
        return Embedded(record, self.engine.names, self.first, part.tally)
