"""The bytes of an example: a whole file, or a part of a tar archive or a table.

A path names a file relative to the source's folder, or a part of one: `a.tar#bytes=START+LENGTH`,
or `a.parquet#COLUMN=ROW` (a column of bytes, of structs with a field `bytes`, or of text), also
with a CSV, TSV or JSON lines file; `packed.contents` has others. A stretch of a recording may
stand behind it (`data.modalities.stretches`); the bytes are those of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa

from headstart.data.common.errors import SourceError
from headstart.data.examples.packed.contents import PackedReader, arrays_of, packed_in
from headstart.data.examples.tables import cells
from headstart.data.modalities.stretches import whole_of
from headstart.data.storage.folder import Folder

IN_TAR = re.compile(r"(.+\.tar)#bytes=(\d+)\+(\d+)", re.DOTALL)
IN_TABLE = re.compile(r"(.+\.(?i:parquet|csv|tsv|jsonl|ndjson))#(.+)=(\d+)", re.DOTALL)


def leads_outside(path: str) -> bool:
    """Whether a path is absolute, leads above its folder, or is not a path at all."""
    return path.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path


def container_of(path: str) -> str:
    """The file that a path leads into: the path itself, if the example is a whole file."""
    if "#" not in path:
        return path
    path = whole_of(path)
    found = IN_TAR.fullmatch(path) or IN_TABLE.fullmatch(path)
    return found[1] if found else packed_in(path) or path


def in_order(path: str) -> str | None:
    """The file of which a path is a part, if its parts are read one after the other."""
    found = IN_TABLE.fullmatch(path)
    return found[1] if found else arrays_of(path)


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
        self._rows = _Rows(folder)
        self._packed = PackedReader(folder)

    def start(self) -> None:
        """Begin with other examples: stamps are asked for again.

        What is read of a table goes on where it is: to begin again in a row group of a
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
            if place := IN_TABLE.fullmatch(path):
                return self._rows.read(place[1], place[2], int(place[3])), self._stamp(place[1])
            if (file := packed_in(path)) is not None:
                return self._packed.read(path), self._stamp(file)
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


class _Rows:
    """A column of a table, read row by row; going back reads the row group or the file again."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.at: tuple[str, str] = ("", "")
        self.next = self.end = 0
        self.rows: Iterator[bytes | None] = iter(())

    def read(self, name: str, column: str, row: int) -> bytes:
        try:
            content = self.folder.attempt(lambda: self._read(name, column, row))
        except (pa.ArrowException, KeyError, SourceError) as error:
            self.at = ("", "")
            raise OSError(f"{name} is damaged at row {row}: {error}") from None
        if content is None:
            raise OSError(f"row {row} of {name} has no bytes in {column!r}")
        return content

    def _read(self, name: str, column: str, row: int) -> bytes | None:
        if self.at != (name, column) or not self.next <= row < self.end:
            self.next, self.end, self.rows = cells(self.folder, name, column, row)
            self.at = (name, column)
        try:
            while (content := next(self.rows, self)) is not self:
                self.next += 1
                if self.next > row:
                    return content  # type: ignore[return-value]
        except OSError:
            self.at = ("", "")  # the next try starts at the beginning of the row group
            raise
        raise pa.ArrowInvalid(f"it has {self.next} rows")
