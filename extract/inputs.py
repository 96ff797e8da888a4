"""The photographs of a shard, decoded in order, and read ahead where that helps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.examples.reading import IN_PARQUET, Reader, container_of, why_unread
from headstart.data.modalities.image.decoding import DecodeError, decode
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.files import digest
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder
from headstart.extract.ahead import ahead

READERS = 16  # threads that wait for object storage, which takes tens of milliseconds a file


@dataclass(frozen=True)
class Photograph:
    """A photograph of a shard.

    Parameters
    ----------
    row
        In the shard.
    stamp
        Of its file.
    content
        The hash of its bytes.
    image
        uint8 `[height, width, 3]`.
    """

    row: int
    stamp: str
    content: str
    image: np.ndarray


@dataclass(frozen=True)
class Failure:
    """Why a row of a shard has no embedding: the columns of the store's errors after `id`."""

    row: int
    stage: str
    reason: str
    message: str
    stamp: str | None


def photographs(
    folder: Folder, paths: Sequence[str], preprocessing: Preprocessing
) -> Iterator[Photograph | Failure]:
    """Read and decode, one after the other; what goes wrong is a `Failure` in its place.

    Object storage is read ahead. Decoding is done when a photograph is asked for: it takes the core
    that the backbone runs on. Beside a GPU, other workers decode while it is at work.

    Raises
    ------
    StorageError
        If the storage does not answer.
    """
    reader = Reader(folder)

    def read(numbered: tuple[int, str]) -> tuple[int, str, bytes] | Failure:
        row, path = numbered
        try:
            content, stamp = reader.read_stamped(path)
        except OSError as error:
            (last,) = folder.stamps([container_of(path)])
            return Failure(row, "read", *why_unread(error), last)
        return row, stamp, content

    def prepare(found: tuple[int, str, bytes] | Failure) -> Photograph | Failure:
        if isinstance(found, Failure):
            return found
        row, stamp, content = found
        try:
            image = decode(content, preprocessing)
        except DecodeError as error:
            return Failure(row, "decode", error.reason, error.message, stamp)
        return Photograph(row, stamp, digest(content), image)

    near = isinstance(folder, LocalFolder)
    # Rows of a Parquet file come one after the other.
    readers = 0 if near else 1 if any(map(IN_PARQUET.fullmatch, paths)) else READERS
    contents = ahead(read, enumerate(paths), readers, readers)  # files may be large
    return map(prepare, contents)
