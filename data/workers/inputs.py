"""The examples of a shard, read and decoded in order, in batches for a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from headstart.data.examples.reading import Reader, container_of, in_order, why_unread
from headstart.data.modalities.modality import DecodeError, InputSpec
from headstart.data.modalities.stretches import whole_of
from headstart.data.storage.files import digest
from headstart.data.storage.local import LocalFolder
from headstart.data.workers.prefetch import prefetch

READERS = 16  # threads that read from object storage, which takes tens of milliseconds a file
# Bytes of a batch: graphs that resize by themselves take photographs in full size, and convert
# them to float32.
MOST_BYTES = 1 << 26
# Tokens of a ragged batch with its padding. What attention makes of them has to stay in the cache
# of a core: 512 are 1.3 times as fast as 4,096 (docs/text.md).
TOKENS, TOKENS_ON_GPU = 1 << 9, 1 << 13


@dataclass(frozen=True)
class Example:
    """An example that was read and decoded.

    Parameters
    ----------
    row
        Its row in the shard.
    stamp
        The stamp of its file.
    content
        The hash of its bytes.
    tally
        What its modality counts of it.
    """

    row: int
    stamp: str
    content: str
    tally: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Examples that go through a graph at once.

    Parameters
    ----------
    inputs
        The graph's input, `[examples, ...]`. Overwritten by the next batch.
    """

    examples: list[Example]
    inputs: np.ndarray


@dataclass(frozen=True)
class Failure:
    """Why a row of a shard has no result: the columns of the store's errors after `id`."""

    row: int
    stage: str
    reason: str
    message: str
    stamp: str | None


def batches(
    reader: Reader,
    paths: Sequence[str],
    spec: InputSpec,
    size: Callable[[], int],
    at: Callable[[int], None] = lambda row: None,
    tokens: int = TOKENS,
) -> Iterator[Batch | Failure]:
    """Read and decode examples one by one; errors are yielded as `Failure`.

    Consecutive examples of one shape share a batch of at most `MOST_BYTES`. Those of a ragged input
    are sorted by length first, since padding would be most of the work. Files in object storage
    are prefetched. Decoding is not, since it needs the core that the graph runs on; if the graph
    runs on a GPU, other workers decode meanwhile.

    Parameters
    ----------
    reader
        Of the folder that the paths are relative to; best the same one for all shards.
    paths
        The examples.
    size
        Called before each batch is filled; returns the largest number of examples in it.
    at
        Called with each row before it is read.
    tokens
        Of a batch of a ragged input, at most, unless one example has more.

    Raises
    ------
    StorageError
        If the storage does not answer.
    """
    if spec.ragged:
        yield from _by_length(reader, paths, spec, size, at, tokens)
        return
    waiting: list[Example] = []
    inputs = np.empty((0, *spec.shape), spec.dtype)
    coming = _decoded(reader, paths, spec)
    for row in range(len(paths)):
        at(row)
        found = next(coming)
        if isinstance(found, Failure):
            yield found
            continue
        example, array = found
        room = max(1, min(size(), MOST_BYTES // max(1, array.nbytes)))
        if waiting and (array.shape != inputs.shape[1:] or len(waiting) >= room):
            yield Batch(waiting, inputs[: len(waiting)])
            waiting = []
        if array.shape != inputs.shape[1:] or len(inputs) < room:
            larger = np.empty((room, *array.shape), array.dtype)
            if waiting:
                larger[: len(waiting)] = inputs[: len(waiting)]
            inputs = larger
        inputs[len(waiting)] = array
        waiting.append(example)
        if len(waiting) >= room:
            yield Batch(waiting, inputs[: len(waiting)])
            waiting = []
    if waiting:
        yield Batch(waiting, inputs[: len(waiting)])


def most_rows(size: int, longest: int, tokens: int = TOKENS) -> int:
    """Rows of a ragged batch whose longest has so many tokens: `size`, or as many as fit."""
    return max(1, min(size, tokens // max(1, longest)))


def _by_length(
    reader: Reader,
    paths: Sequence[str],
    spec: InputSpec,
    size: Callable[[], int],
    at: Callable[[int], None],
    tokens: int,
) -> Iterator[Batch | Failure]:
    """Batches of examples of similar length, the longest first; one at a time in their order."""
    coming = _decoded(reader, paths, spec)
    found: list[tuple[Example, np.ndarray]] = []
    for row in range(len(paths)):
        at(row)
        each = next(coming)
        if isinstance(each, Failure):
            yield each
        elif size() == 1:
            yield Batch([each[0]], spec.stack([each[1]]))
        else:
            found.append(each)
    found.sort(key=lambda each: -min(len(each[1]), spec.shape[0]))
    start = 0
    while start < len(found):
        longest = spec.stack([found[start][1]]).shape[1]  # cut, with special tokens
        count = most_rows(size(), longest, tokens)
        some = found[start : start + count]
        at(some[0][0].row)
        yield Batch([example for example, _ in some], spec.stack([array for _, array in some]))
        start += count


def _decoded(
    reader: Reader, paths: Sequence[str], spec: InputSpec
) -> Iterator[tuple[Example, np.ndarray] | Failure]:
    folder = reader.folder
    reader.start()

    def read(rows: list[int]) -> tuple[list[int], bytes, str] | list[Failure]:
        path = whole_of(paths[rows[0]])
        try:
            return rows, *reader.read_stamped(path)
        except OSError as error:
            (last,) = folder.stamps([container_of(path)])
            return [Failure(row, "read", *why_unread(error), last) for row in rows]

    def decode(row: int, content: bytes, stamp: str) -> np.ndarray | Failure:
        try:
            return spec.at(paths[row]).decode(content)
        except DecodeError as error:
            return Failure(row, "decode", error.reason, error.message, stamp)

    local = isinstance(folder, LocalFolder)
    # Rows of a table, and of a file of arrays, come one after the other.
    ordered = any(in_order(whole_of(path)) for path in paths)
    readers = 0 if local else 1 if ordered else READERS
    # Parts of one file, which follow each other, are read at once.
    files = [list(rows) for _, rows in groupby(range(len(paths)), lambda row: whole_of(paths[row]))]
    for found in prefetch(read, files, readers, readers):  # files may be large
        if isinstance(found, list):
            yield from found
            continue
        rows, content, stamp = found
        hashed = ""
        for row in rows:
            decoded = decode(row, content, stamp)
            if isinstance(decoded, Failure):
                yield decoded
            else:
                hashed = hashed or digest(content)
                yield Example(row, stamp, hashed, spec.tally(decoded)), decoded
