"""A folder and the files in it: every byte that headstart reads or writes passes through here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from data.errors import InputError

UNFINISHED = "_tmp-"  # the underscore hides a file that is being written from dataset readers


def local_path(path: str | Path) -> Path:
    """An absolute local path; raises `InputError` for addresses of storage we cannot reach."""
    text = os.fspath(path)
    if "://" in text:
        raise InputError(
            f"{text} is not a local path",
            "Remote storage is not supported yet: mount it, or copy it to a local folder.",
        )
    return Path(os.path.abspath(os.path.expanduser(text)))


def digest(content: bytes) -> str:
    """The sha256 of some bytes, in hexadecimal."""
    return sha256(content).hexdigest()


def check_parent(path: Path) -> None:
    """Raise `InputError` where a path can never be written since a parent of it is a file."""
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(
                    f"{path} cannot be written: {parent} is a file", "Choose another place."
                )
            return


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output file that is there already, or that cannot be one.

    Raises
    ------
    InputError
        With what stands in the way.
    """
    check_parent(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Name a file in it.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already", "Pass --overwrite to replace it.")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under another name first, renamed when it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@dataclass(frozen=True)
class Folder:
    """A folder whose files are named by their path relative to it, in POSIX form."""

    root: str

    @classmethod
    def at(cls, path: str | Path) -> Folder:
        """The folder at a local path, which need not be there yet."""
        return cls(str(local_path(path)))

    def path(self, name: str) -> Path:
        """Where a file of this folder lies."""
        return Path(self.root, name)

    def exists(self, name: str = "") -> bool:
        """Whether a file, or without a name the folder itself, is there."""
        return self.path(name).exists()

    def read(self, name: str) -> bytes:
        """The bytes of a regular file; raises `OSError` for anything else (a pipe would hang)."""
        with open(os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{name} is not a regular file")
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        write_whole(self.path(name), content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def names(self, under: str = "") -> list[str]:
        """The names of all files below, hidden ones left out, sorted.

        Links to folders are followed, once each.
        """
        return sorted(self._walk(under))

    def _walk(self, under: str) -> Iterator[str]:
        seen: set[str] = set()
        for folder, subfolders, files in os.walk(
            self.path(under), onerror=_unreadable, followlinks=True
        ):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            prefix = Path(folder).relative_to(self.root).as_posix()
            for file in files:
                if not file.startswith("."):
                    yield file if prefix == "." else f"{prefix}/{file}"

    def __str__(self) -> str:
        return self.root


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # what vanishes meanwhile, or was never there
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}", "Change its permissions."
        )
