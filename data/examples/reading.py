"""The bytes of an example: a whole file, or a part of a tar archive or a Parquet file.

A path names a file relative to the source's folder, or a part of one: `a.tar#bytes=START+LENGTH`,
or `a.parquet#COLUMN=ROW` (a column of bytes, or of structs with a field `bytes`). A stretch
of a recording may stand behind it (`data.modalities.stretches`); the bytes are those of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.data.modalities.stretches import whole_of
from headstart.data.storage.folder import Folder

IN_TAR = re.compile(r"(.+\.tar)#bytes=(\d+)\+(\d+)", re.DOTALL)
IN_PARQUET = re.compile(r"(.+\.parquet)#(.+)=(\d+)", re.DOTALL)
ROWS_AT_ONCE = 16  # rows of a Parquet file that are decoded together: photographs are large


def leads_outside(path: str) -> bool:
    """Whether a path is absolute, leads above its folder, or is not a path at all."""
    return path.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path


def container_of(path: str) -> str:
    """The file that a path leads into: the path itself, if the example is a whole file."""
    if "#" not in path:
        return path
    path = whole_of(path)
    found = IN_TAR.fullmatch(path) or IN_PARQUET.fullmatch(path)
    return found[1] if found else path


def why_unread(error: OSError) -> tuple[str, str]:
    """The reason code of an example that could not be read, and the message."""
    if isinstance(error, FileNotFoundError):
        return "missing", "there is no such file"
    return "unreadable", error.strerror or str(error)


class Reader:
    """Reads examples; fastest in the order in which they are stored.

    Parameters
    ----------
    folder
        The folder that the examples' paths are relative to.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._stamps: dict[str, str] = {}
        self._rows = _ParquetRows(folder)

    def start(self) -> None:
        """Begin with other examples: stamps are asked for again.

        What is read of a Parquet file goes on where it is: to begin again in a row group of a
        million rows for each of a thousand shards would decode them all a thousand times.
        """
        self._stamps.clear()

    def read(self, path: str) -> bytes:
        """The bytes of an example; see `read_stamped`."""
        return self.read_stamped(path)[0]

    def read_stamped(self, path: str) -> tuple[bytes, str]:
        """The bytes of an example, and the stamp of the file that holds them.

        Raises
        ------
        OSError
            If there is no such file or part of it, or it cannot be read.
        StorageError
            If the storage does not answer.
        """
        if leads_outside(path):  # a store may have been written by someone else
            raise OSError("its path leads outside the source's folder")
        if "#" in path:
            path = whole_of(path)
            if place := IN_TAR.fullmatch(path):
                start, length = int(place[2]), int(place[3])
                return self._range(place[1], start, length), self._stamp(place[1])
            if place := IN_PARQUET.fullmatch(path):
                return self._rows.read(place[1], place[2], int(place[3])), self._stamp(place[1])
        return self.folder.read_stamped(path)

    def _range(self, name: str, start: int, length: int) -> bytes:
        def fetch() -> bytes:
            with self.folder.open(name) as file:
                return file.read_at(length, start) if start + length <= file.size() else b""

        content = self.folder.attempt(fetch)
        if len(content) < length:
            raise OSError(f"{name} ends before byte {start + length:,}")
        return content

    def _stamp(self, name: str) -> str:
        if name not in self._stamps:
            self._stamps[name] = self.folder.stamps([name])[0] or ""
        return self._stamps[name]


class _ParquetRows:
    """A column of bytes, read row by row; going back reads the row group again."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.at: tuple[str, str] = ("", "")
        self.next = self.end = 0
        self.rows: Iterator[bytes | None] = iter(())

    def read(self, name: str, column: str, row: int) -> bytes:
        try:
            content = self.folder.attempt(lambda: self._read(name, column, row))
        except pa.ArrowException as error:
            self.at = ("", "")
            raise OSError(f"{name} is damaged at row {row}: {error}") from None
        if content is None:
            raise OSError(f"row {row} of {name} has no bytes in {column!r}")
        return content

    def _read(self, name: str, column: str, row: int) -> bytes | None:
        if self.at != (name, column) or not self.next <= row < self.end:
            self._open(name, column, row)
        try:
            while True:
                content = next(self.rows)
                self.next += 1
                if self.next > row:
                    return content
        except OSError:
            self.at = ("", "")  # the next try starts at the beginning of the row group
            raise

    def _open(self, name: str, column: str, row: int) -> None:
        file = pq.ParquetFile(self.folder.open(name), pre_buffer=False)
        start = 0
        for group in range(file.num_row_groups):
            length = file.metadata.row_group(group).num_rows
            if row < start + length:
                self.at, self.next, self.end = (name, column), start, start + length
                self.rows = _values(file, group, column)
                return
            start += length
        raise pa.ArrowInvalid(f"it has {start} rows")


def _values(file: pq.ParquetFile, group: int, column: str) -> Iterator[bytes | None]:
    for batch in file.iter_batches(ROWS_AT_ONCE, [group], [column]):
        values = batch.column(0)
        if pa.types.is_struct(values.type):
            values = pc.struct_field(values, "bytes")
        for value in values:
            yield value.as_py()
