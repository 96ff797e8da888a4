"""Shards: the pieces into which the work is cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from headstart.data.contracts.store import FilePart


@dataclass(frozen=True)
class Shard:
    """Examples that one worker processes together.

    Parameters
    ----------
    examples
        With the columns `id` and `path`, and others that the worker needs.
    file
        The file that they are from, if they were planned by file.
    """

    number: int
    examples: pa.Table
    file: FilePart | None = None

    def __len__(self) -> int:
        return self.examples.num_rows

    def piece(self, number: int, start: int, length: int) -> Shard:
        """Some of the examples, as another shard."""
        file = replace(self.file, here=length) if self.file else None
        return Shard(number, self.examples.slice(start, length), file)

    def name_of(self, row: int) -> str:
        """What a person is told of an example: its id, in quotes."""
        return repr(self.examples["id"][min(row, len(self) - 1)].as_py())

    def where(self) -> str:
        """What a person is told of the shard."""
        ids = self.examples["id"]
        return f"{len(ids)} examples, {ids[0].as_py()} to {ids[-1].as_py()}"

    def loaded(self) -> Shard:
        """With its examples; this shard has them."""
        return self

    def __reduce__(self) -> tuple:
        """Serializes in Arrow's stream format; Ray's default imports pandas while workers start."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.examples.schema) as stream:
            stream.write_table(self.examples)
        file = () if self.file is None else (self.file,)
        return _received, (self.number, sink.getvalue().to_pybytes(), *file)


def _received(number: int, stream: bytes, file: FilePart | None = None) -> Shard:
    return Shard(number, pa.ipc.open_stream(stream).read_all(), file)


def cut(examples: pa.Table, sizes: Iterable[int], first: int = 0) -> list[Shard]:
    """Shards of the given sizes, in the order of the examples; the last may be smaller.

    Parameters
    ----------
    first
        Number of the first shard.
    """
    shards: list[Shard] = []
    start = 0
    for size in sizes:
        if start >= examples.num_rows:
            break
        shards.append(Shard(first + len(shards), examples.slice(start, size)))
        start += size
    return shards
