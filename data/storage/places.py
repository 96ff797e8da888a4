"""The folder at a path or an address."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from headstart.data.storage.files import local_path
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder


def folder_at(path: str | Path) -> Folder:
    """The folder at a local path, or at an `s3://` or `gs://` address; it may not exist yet.

    Raises
    ------
    InputError
        If the kind of storage is not supported.
    """
    if "://" in os.fspath(path) and not os.fspath(path).startswith("file://"):
        from headstart.data.storage.remote import RemoteFolder  # not needed for local folders

        return RemoteFolder.at(os.fspath(path))
    return LocalFolder.at(path)


def folder_holding(path: str | Path) -> tuple[Folder, str]:
    """The folder that holds a file, and the file's name in it."""
    text = os.fspath(path)
    if "://" in text and not text.startswith("file://"):
        scheme, _, rest = text.partition("://")
        parent, _, name = rest.rpartition("/")
        return folder_at(f"{scheme}://{parent or name}"), name if parent else ""
    file = local_path(path)
    return LocalFolder(str(file.parent)), file.name


def resolved(folder: str, path: str) -> str:
    """The whole path or address of a path as it is written in a file of a folder.

    Parts `..` are resolved by the text alone: links are not followed.
    """
    if "://" not in path:
        path = f"/{path.lstrip('/')}" if path.startswith("/") else f"{folder}/{path}"
    scheme, mark, rest = path.rpartition("://")
    if scheme == "file":
        scheme, mark = "", ""
    return f"{scheme}{mark}{posixpath.normpath(rest)}"


def relative_to(root: str, path: str) -> str | None:
    """The path of a file in a folder, both whole; None if it is elsewhere."""
    start = f"{root.rstrip('/')}/"
    inside = path.startswith(start) and len(path) > len(start) and "\0" not in path
    return path[len(start) :] if inside else None


def common_root(paths: Sequence[str | None]) -> str:
    """Where all files can be: the file system, or the bucket of the first one.

    A folder that they share would be another one as soon as a file is added.
    """
    first = next(filter(None, paths), "")
    scheme, mark, rest = first.rpartition("://")
    return f"{scheme}{mark}{rest.partition('/')[0]}" if mark else "/"
