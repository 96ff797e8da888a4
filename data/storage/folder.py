"""A folder and the files in it, on this machine or in object storage, with one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

HIDDEN = "hidden or system files"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Folder(ABC):
    """A folder whose files are named by their path relative to it, in POSIX form.

    A file's **stamp** is its size and modification time as text: if it differs, the file may have
    changed; if it is the same, the file has not changed.
    """

    root: str

    def where(self, name: str) -> str:
        """The full path or address of a file, for messages."""
        return f"{self.root.rstrip('/')}/{name}"

    def names(self, under: str = "") -> list[str]:
        """The names of all files below, without hidden ones, sorted."""
        return sorted(name for name, _ in self.files(under))

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises `OSError` if it cannot be read."""
        return self.read_stamped(name)[0]

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file, all columns or the named ones."""
        wanted = None if columns is None else list(columns)
        return self.attempt(lambda: pq.ParquetFile(self.open(name)).read(wanted))

    @abstractmethod
    def check(self) -> None:
        """Raise `InputError` if this can never be a folder because a file has its name."""

    @abstractmethod
    def exists(self, name: str = "") -> bool:
        """Whether a file, or without a name the folder itself, exists."""

    @abstractmethod
    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name, and not a folder."""

    @abstractmethod
    def files(
        self, under: str = "", hidden: Counter[str] | None = None
    ) -> Iterator[tuple[str, str]]:
        """Name and stamp of every file below, in no order, without hidden ones.

        Parameters
        ----------
        hidden
            Counts hidden files, and hidden folders as one each, under `HIDDEN`.
        """

    @abstractmethod
    def stamps(self, names: Sequence[str]) -> list[str | None]:
        """The stamps of files; None for missing ones."""

    @abstractmethod
    def read_stamped(self, name: str) -> tuple[bytes, str]:
        """The bytes of a file and its stamp; raises `OSError` if it cannot be read."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of; use it within `attempt`."""

    @abstractmethod
    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a whole file or nothing."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    @abstractmethod
    def remove_all(self, under: str) -> None:
        """Remove a folder in this one with all its files, if it exists."""

    @abstractmethod
    def attempt(self, call: Callable[[], Result]) -> Result:
        """Call a function that uses this folder's storage; retry if the storage does not answer."""

    def __str__(self) -> str:
        return self.root
