"""A worker reads, decodes and embeds the photographs of a shard and writes the part itself."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.backbone import BackboneSpec
from data.decoding import DecodeError, decode
from data.files import digest
from data.folders import Folder
from data.reading import Reader, container_of, why_unread
from data.records import begin_part, mark_row, write_part
from data.store import ERROR_COLUMNS, ERROR_SCHEMA, TEXT_COLUMNS, PartRecord, part_schema
from extract.engines import OnnxRuntimeEngine
from extract.plan import Shard


@dataclass(frozen=True)
class Job:
    """What all workers of a run share.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    batch_size
        Photographs that go through the backbone at once.
    """

    spec: BackboneSpec
    root: Folder
    store: Folder
    batch_size: int


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
    """

    def __init__(self, job: Job, content: bytes) -> None:
        self.job = job
        self.engine = OnnxRuntimeEngine(content)
        self.place = (-1, 0)

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
        spec, store, done = self.job.spec, self.job.store, _Part(shard.examples)
        begin_part(store, name, len(done.examples))
        size = (spec.preprocessing.height, spec.preprocessing.width)
        batch = 1 if careful else self.job.batch_size
        images = np.empty((batch, *size, 3), np.uint8)
        paths = shard.examples["path"].to_pylist()
        reader = Reader(self.job.root)
        waiting: list[_Read] = []
        for row, path in enumerate(paths):
            self.place, stamp = (shard.number, row), None
            if careful:
                mark_row(store, name, row)
            try:
                content, stamp = reader.read_stamped(path)
                images[len(waiting)] = decode(content, spec.preprocessing)
            except DecodeError as error:
                done.fail(row, "decode", error.reason, error.message, stamp)
            except OSError as error:
                (stamp,) = self.job.root.stamps([container_of(path)])
                done.fail(row, "read", *why_unread(error), stamp)
            else:
                waiting.append(_Read(row, digest(content), stamp))
            if waiting and (len(waiting) == batch or row == len(paths) - 1):
                done.add(waiting, self.engine.embed(images[: len(waiting)]))
                waiting = []
        if careful:
            mark_row(store, name, None)
        return write_part(store, name, done.rows(spec.dim), done.errors(), done.inferences)


@dataclass(frozen=True)
class _Read:
    """A photograph that was read: its row in the shard, the hash of its bytes, its file's stamp."""

    row: int
    content: str
    stamp: str


class _Part:
    """The rows and errors of a shard while they come in."""

    def __init__(self, examples: pa.Table) -> None:
        self.examples = examples
        self.good: list[_Read] = []
        self.embeddings: list[np.ndarray] = []
        self.bad: list[tuple[int, str, str, str, str | None]] = []
        self.inferences = 0

    def add(self, photographs: list[_Read], embeddings: np.ndarray) -> None:
        finite = np.isfinite(embeddings).all(axis=1)
        for photograph, fine in zip(photographs, finite, strict=True):
            if fine:
                self.good.append(photograph)
            else:
                message = "the embedding has NaN or infinite numbers"
                self.fail(photograph.row, "embed", "not_finite", message, photograph.stamp)
        self.embeddings.append(embeddings[finite])
        self.inferences += len(photographs)

    def fail(self, row: int, stage: str, reason: str, message: str, stamp: str | None) -> None:
        self.bad.append((row, stage, reason, message, stamp))

    def rows(self, dim: int) -> pa.Table:
        carried = [field for field in self.examples.schema if field.name not in TEXT_COLUMNS]
        schema = part_schema(dim, carried)
        examples = self.examples.take(pa.array([read.row for read in self.good], pa.int64()))
        flat = np.concatenate(self.embeddings).ravel() if self.embeddings else np.empty(0, "f4")
        columns = {
            "content": pa.array([read.content for read in self.good], pa.string()),
            "stamp": pa.array([read.stamp for read in self.good], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(flat), type=schema.field("embedding").type
            ),
        }
        return pa.table(
            [columns[name] if name in columns else examples[name] for name in schema.names],
            schema=schema,
        )

    def errors(self) -> pa.Table:
        self.bad.sort(key=lambda entry: entry[0])
        return error_rows(self.examples, self.bad)


def error_rows(examples: pa.Table, bad: list[tuple[int, str, str, str, str | None]]) -> pa.Table:
    """Rows of errors: for each its row in `examples`, then the columns after `id`."""
    ids = examples["id"].take(pa.array([row for row, *_ in bad], pa.int64()))
    columns = [[entry[position] for entry in bad] for position in range(1, len(ERROR_COLUMNS))]
    return pa.table([ids, *(pa.array(c, pa.string()) for c in columns)], schema=ERROR_SCHEMA)
