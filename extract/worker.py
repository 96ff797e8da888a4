"""A worker reads, decodes and embeds the photographs of a shard and writes the part itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data.backbone import BackboneSpec
from data.decoding import DecodeError, decode
from data.files import Folder, digest
from data.store import ERROR_SCHEMA, TEXT_COLUMNS, PartRecord, part_schema, write_part
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


class Worker:
    """Embeds shards, one after the other. Runs as a Ray actor, and as well without Ray.

    Parameters
    ----------
    job
        What all workers share.
    content
        The bytes of the backbone file.
    """

    def __init__(self, job: Job, content: bytes) -> None:
        self.job = job
        self.engine = OnnxRuntimeEngine(content)

    def extract(self, shard: Shard) -> PartRecord:
        """Turn a shard into a part of the store; every example is a row or an error."""
        spec, done = self.job.spec, _Part(shard.examples)
        shape = (spec.preprocessing.height, spec.preprocessing.width, 3)
        images = np.empty((self.job.batch_size, *shape), np.uint8)
        paths = shard.examples["path"].to_pylist()
        waiting: list[tuple[int, str]] = []
        for row, path in enumerate(paths):
            try:
                content = self.job.root.read(path)
                images[len(waiting)] = decode(content, spec.preprocessing)
            except DecodeError as error:
                done.fail(row, "decode", error.reason, error.message)
            except FileNotFoundError:
                done.fail(row, "read", "missing", "there is no such file")
            except OSError as error:
                done.fail(row, "read", "unreadable", error.strerror or str(error))
            else:
                waiting.append((row, digest(content)))
            if waiting and (len(waiting) == self.job.batch_size or row == len(paths) - 1):
                done.add(waiting, self.engine.embed(images[: len(waiting)]))
                waiting = []
        rows = done.rows(spec.dim)
        return write_part(self.job.store, shard.name, rows, done.errors())


class _Part:
    """The rows and errors of a shard while they come in."""

    def __init__(self, examples: pa.Table) -> None:
        self.examples = examples
        self.good: list[int] = []
        self.contents: list[str] = []
        self.embeddings: list[np.ndarray] = []
        self.bad: list[tuple[int, str, str, str]] = []

    def add(self, rows: list[tuple[int, str]], embeddings: np.ndarray) -> None:
        finite = np.isfinite(embeddings).all(axis=1)
        for (row, content), fine in zip(rows, finite, strict=True):
            if fine:
                self.good.append(row)
                self.contents.append(content)
            else:
                self.fail(row, "embed", "not_finite", "the embedding has NaN or infinite numbers")
        self.embeddings.append(embeddings[finite])

    def fail(self, row: int, stage: str, reason: str, message: str) -> None:
        self.bad.append((row, stage, reason, message))

    def rows(self, dim: int) -> pa.Table:
        carried = [field for field in self.examples.schema if field.name not in TEXT_COLUMNS]
        schema = part_schema(dim, carried)
        examples = self.examples.take(pa.array(self.good, pa.int64()))
        flat = np.concatenate(self.embeddings).ravel() if self.embeddings else np.empty(0, "f4")
        columns = {
            "content": pa.array(self.contents, pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(flat), type=schema.field("embedding").type
            ),
        }
        return pa.table(
            [columns[name] if name in columns else examples[name] for name in schema.names],
            schema=schema,
        )

    def errors(self) -> pa.Table:
        self.bad.sort()
        ids = self.examples["id"].take(pa.array([row for row, *_ in self.bad], pa.int64()))
        columns = [[entry[field] for entry in self.bad] for field in (1, 2, 3)]
        return pa.table([ids, *(pa.array(c, pa.string()) for c in columns)], schema=ERROR_SCHEMA)
