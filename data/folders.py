"""A folder and the files in it, on this machine or in object storage, by one set of verbs."""

from __future__ import annotations

import os
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import InputError
from data.files import check_parent, local_path, write_whole

Result = TypeVar("Result")


@dataclass(frozen=True)
class Folder(ABC):
    """A folder whose files are named by their path relative to it, in POSIX form.

    A file's **stamp** is its size and time of change as text: another stamp means that the file
    may have changed, the same one that it has not.
    """

    root: str

    @staticmethod
    def at(path: str | Path) -> Folder:
        """The folder at a local path, or at an `s3://` or `gs://` address; it may not exist yet.

        Raises
        ------
        InputError
            If the address is of storage that we do not know.
        """
        if "://" in os.fspath(path) and not os.fspath(path).startswith("file://"):
            from data.remote import RemoteFolder  # here, since local work needs none of it

            return RemoteFolder.at(os.fspath(path))
        return LocalFolder.at(path)

    @staticmethod
    def holding(path: str | Path) -> tuple[Folder, str]:
        """The folder that holds a file, and the file's name in it."""
        text = os.fspath(path)
        if "://" in text and not text.startswith("file://"):
            scheme, _, rest = text.partition("://")
            parent, _, name = rest.rpartition("/")
            return Folder.at(f"{scheme}://{parent or name}"), name if parent else ""
        file = local_path(path)
        return LocalFolder(str(file.parent)), file.name

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
    def files(self, under: str = "") -> Iterator[tuple[str, str]]:
        """Name and stamp of every file below, hidden ones left out, in no order."""

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


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder on a file system of this machine."""

    @staticmethod
    def at(path: str | Path) -> LocalFolder:
        """The folder at a local path; raises `InputError` for other addresses."""
        return LocalFolder(str(local_path(path)))

    def path(self, name: str = "") -> Path:
        """Where a file of this folder lies."""
        return Path(self.root, name)

    def check(self) -> None:
        """Raise `InputError` where this can never be a folder, a file being in the way."""
        check_parent(self.path())
        if self.exists() and not self.path().is_dir():
            raise InputError(f"{self} is a file, not a folder", "Choose another folder with -o.")

    def exists(self, name: str = "") -> bool:
        """Whether a file, or without a name the folder itself, is there."""
        return self.path(name).exists()

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name, and not a folder."""
        return self.path(name).is_file()

    def files(self, under: str = "") -> Iterator[tuple[str, str]]:
        """Name and stamp of every file below; links to folders are followed, once each."""
        seen: set[str] = set()
        waiting = [under]
        while waiting:
            prefix = waiting.pop()
            real = os.path.realpath(self.path(prefix))
            if real in seen:
                continue
            seen.add(real)
            try:
                entries = list(os.scandir(real))
            except FileNotFoundError:  # what vanishes meanwhile, or was never there
                continue
            except OSError as error:
                raise InputError(
                    f"{self.where(prefix)} cannot be read: {error.strerror}",
                    "Change its permissions.",
                ) from None
            for entry in entries:
                if not entry.name.startswith("."):
                    name = f"{prefix}/{entry.name}" if prefix else entry.name
                    try:
                        found = entry.stat()
                    except OSError:  # a link that leads nowhere: its reader will say so
                        yield name, ""
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(name)
                    else:
                        yield name, _stamp(found)

    def stamps(self, names: Sequence[str]) -> list[str | None]:
        """The stamps of files; none for what is not there."""
        stamps: list[str | None] = []
        for name in names:
            try:
                stamps.append(_stamp(os.stat(f"{self.root}/{name}")))
            except OSError:
                stamps.append(None)
        return stamps

    def read_stamped(self, name: str) -> tuple[bytes, str]:
        """The bytes and the stamp of a regular file; anything else is an error: a pipe would hang.

        Raises
        ------
        OSError
            If it is not there, is no regular file, or may not be read.
        """
        place = f"{self.root}/{name}"  # for thousands of files a second, a `Path` takes its time
        with open(os.open(place, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(f"{name} is not a regular file")
            return file.read(), _stamp(found)

    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of."""
        return pa.OSFile(str(self.path(name)))

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a file whole or not at all."""
        write_whole(self.path(name), content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def remove_all(self, under: str) -> None:
        """Remove a folder in this one, with all that is in it, if it is there."""
        if self.exists(under):
            shutil.rmtree(self.path(under))

    def attempt(self, call: Callable[[], Result]) -> Result:
        """Just do it: a local disk that fails once fails again."""
        return call()


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"
