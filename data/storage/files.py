"""Local files: paths, checks of an output before any work, and writing whole or not at all."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headstart.data.common.errors import InputError

UNFINISHED = "_tmp-"  # the underscore hides a file that is being written from dataset readers


def local_path(path: str | Path) -> Path:
    """An absolute local path, also of a `file://` address.

    Raises
    ------
    InputError
        For addresses of other storage: what passes through here must be a local file.
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


def write_whole(path: Path, content: bytes | memoryview) -> None:
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
