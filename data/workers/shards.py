"""Shards: the pieces into which the work is cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Shard:
    """Examples that one worker processes together.

    Parameters
    ----------
    examples
        With the columns `id` and `path`, and others that the worker needs.
    """

    number: int
    examples: pa.Table

    def __reduce__(self) -> tuple:
        """Serializes in Arrow's stream format; Ray's default imports pandas while workers start."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.examples.schema) as stream:
            stream.write_table(self.examples)
        return _received, (self.number, sink.getvalue().to_pybytes())


def _received(number: int, stream: bytes) -> Shard:
    return Shard(number, pa.ipc.open_stream(stream).read_all())


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
