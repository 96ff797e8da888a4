"""A folder on a file system of this machine."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from headstart.data.common.errors import InputError
from headstart.data.storage.files import check_parent, in_words, local_path, write_whole
from headstart.data.storage.folder import HIDDEN, Folder

Result = TypeVar("Result")


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder on a file system of this machine."""

    @staticmethod
    def at(path: str | Path) -> LocalFolder:
        """The folder at a local path; raises `InputError` for other addresses."""
        return LocalFolder(str(local_path(path)))

    def path(self, name: str = "") -> Path:
        """The local path of a file."""
        return Path(self.root, name)

    def check(self) -> None:
        """Raise `InputError` if this can never be a folder because a file has its name."""
        check_parent(self.path())
        if self.exists() and not self.path().is_dir():
            raise InputError(f"{self} is a file, not a folder", "Choose another folder with -o.")

    def exists(self, name: str = "") -> bool:
        """Whether a file, or without a name the folder itself, exists."""
        return self.path(name).exists()

    def is_file(self, name: str) -> bool:
        """Whether there is a file of that name, and not a folder."""
        return self.path(name).is_file()

    def files(
        self, under: str = "", hidden: Counter[str] | None = None
    ) -> Iterator[tuple[str, str]]:
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
            except FileNotFoundError:  # it was removed meanwhile, or never existed
                continue
            except OSError as error:
                raise InputError(
                    f"{self.where(prefix)} cannot be read: {error.strerror}",
                    "Change its permissions.",
                ) from None
            for entry in entries:
                if entry.name.startswith("."):
                    if hidden is not None:
                        hidden[HIDDEN] += 1
                else:
                    name = f"{prefix}/{entry.name}" if prefix else entry.name
                    try:
                        found = entry.stat()
                    except OSError:  # a broken link: reading it reports the error
                        yield name, ""
                        continue
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(name)
                    else:
                        yield name, _stamp(found)

    def stamps(self, names: Sequence[str]) -> list[str | None]:
        """The stamps of files; None for missing ones."""
        stamps: list[str | None] = []
        for name in names:
            try:
                stamps.append(_stamp(os.stat(f"{self.root}/{name}")))
            except OSError:
                stamps.append(None)
        return stamps

    def read_stamped(self, name: str) -> tuple[bytes, str]:
        """The bytes and the stamp of a regular file.

        Raises
        ------
        OSError
            If it is missing, not a regular file (reading a pipe could hang), or not readable.
        """
        place = f"{self.root}/{name}"  # `Path` is too slow for thousands of files a second
        with open(os.open(place, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(f"{name} is not a regular file")
            return file.read(), _stamp(found)

    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of; raises `OSError` for anything else: a pipe would hang."""
        if not stat.S_ISREG(os.stat(self.path(name)).st_mode):
            raise OSError(f"{name} is not a regular file")
        return pa.OSFile(str(self.path(name)))

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a whole file or nothing."""
        write_whole(self.path(name), content)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with in_words(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def remove_all(self, under: str) -> None:
        """Remove a folder in this one with all its files, if it exists."""
        if self.exists(under):
            with in_words(self.path(under)):
                shutil.rmtree(self.path(under))

    def attempt(self, call: Callable[[], Result]) -> Result:
        """Call the function once: a local disk that fails once fails again."""
        return call()


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"
