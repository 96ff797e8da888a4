"""Local files: paths, early checks of output files, and writing whole files or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headstart.data.common.errors import InputError, StorageError

PROBE = 65_536  # bytes that must have room before any work
UNFINISHED = "_tmp-"  # dataset readers skip names that begin with an underscore
JOB_FOLDER = {"runtime_resources", "working_dir_files"}  # parts of the path of a job's folder


def local_path(path: str | Path) -> Path:
    """An absolute local path, from a path or a `file://` address.

    Raises
    ------
    InputError
        For addresses of other storage.
    """
    text = os.fspath(path)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if "://" in text:
        raise InputError(
            f"{text} is not a local path",
            "Sources, feature stores and backbones may be in object storage; "
            "this must be a local path.",
        )
    return Path(os.path.abspath(os.path.expanduser(text)))


def digest(content: bytes | memoryview) -> str:
    """The sha256 of some bytes, in hexadecimal."""
    return sha256(content).hexdigest()


def check_parent(path: Path) -> None:
    """Raise `InputError` for a path that can never be written, or that would not last.

    That is one below a file, or one in the folder that Ray runs a submitted job in.
    """
    if set(path.parts) >= JOB_FOLDER:
        raise InputError(
            f"{path} is in the folder of a job, which Ray removes",
            "Give a whole path outside, or an address in object storage.",
        )
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(
                    f"{path} cannot be written: {parent} is a file", "Choose another place."
                )
            return


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn the failure of a write into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}",
            "Make room, or change the permissions, and run the same command again.",
        ) from None


def check_writable(path: Path) -> None:
    """Raise `InputError` if a file, or a folder of files, cannot be written; neither need exist."""
    there = next(each for each in (path, *path.parents) if each.is_dir())
    probe = there / f"{UNFINISHED}{os.getpid()}-probe"
    try:
        probe.write_bytes(bytes(PROBE))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}",
            "Make room, change the permissions, or choose another place.",
        ) from None
    finally:
        with suppress(OSError):  # as of a disk that is read-only
            probe.unlink()


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output file that exists already, or that can never be written.

    Raises
    ------
    InputError
        With the reason.
    """
    check_parent(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Name a file in it.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already", "Pass --overwrite to replace it.")
    check_writable(path)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file or nothing: under another name first, renamed when it is on disk.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    with in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
        try:
            _write(unfinished, content)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write a file that has no name before it is whole, where the file system can do that.

    Whoever reads all files of the folder meanwhile does not meet half of one, and a process that
    dies leaves none.
    """
    try:
        number, named = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), False
    except (AttributeError, OSError):  # not Linux; such as NFS
        number, named = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666), True
    with open(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(number)
        if not named:
            # With a folder's number, Python asks for the file that the link in /proc points to.
            os.link(f"/proc/self/fd/{number}", path, src_dir_fd=number)
