"""The folder at a path or an address."""

from __future__ import annotations

import os
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
