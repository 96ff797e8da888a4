"""A folder and the files in it, on this machine or in object storage, by one set of verbs."""

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

    A file's **stamp** is its size and time of change as text: another stamp means that the file
    may have changed, the same one that it has not.
    """

    root: str

    def where(self, name: str) -> str:
        """The whole path or address of a file, for people."""
        return f"{self.root}/{name}"

    def names(self, under: str = "") -> list[str]:
        """The names of all files below, hidden ones left out, sorted."""
        return sorted(name for name, _ in self.files(under))

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises `OSError` where it has none to give."""
        return self.read_stamped(name)[0]

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file, all columns or the named ones."""
        wanted = None if columns is None else list(columns)
        return self.attempt(lambda: pq.ParquetFile(self.open(name)).read(wanted))

    @abstractmethod
    def check(self) -> None:
        """Raise `InputError` where this can never be a folder, a file being in the way."""

    @abstractmethod
    def exists(self, name: str = "") -> bool:
        """Whether a file, or without a name the folder itself, is there."""

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
        """The stamps of files; none for what is not there."""

    @abstractmethod
    def read_stamped(self, name: str) -> tuple[bytes, str]:
        """The bytes of a file and its stamp; raises `OSError` where it has none to give."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of; use it within `attempt`."""

    @abstractmethod
    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file whole or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def remove_all(self, under: str) -> None:
        """Remove a folder in this one, with all that is in it, if it is there."""

    @abstractmethod
    def attempt(self, call: Callable[[], Result]) -> Result:
        """Do what needs this folder's storage, again where the storage fails to answer."""

    def __str__(self) -> str:
        return self.root
