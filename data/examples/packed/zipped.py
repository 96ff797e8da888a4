"""Zip archives of photographs, sounds or texts: folders inside say labels and splits."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import PurePosixPath
from typing import Any, cast

import pyarrow as pa

from headstart.data.common.arrays import strings
from headstart.data.common.errors import SourceError
from headstart.data.examples.layout import is_of_the_system, labels_and_splits
from headstart.data.examples.packed.contents import DAMAGED
from headstart.data.examples.source import COLUMNS, Source, check_columns, is_utf8
from headstart.data.modalities.known import modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import HIDDEN, Folder

ENCRYPTED = 1  # the flag of a member


def open_zip(path: object, folder: Folder, name: str, modality: Modality | None) -> Source:
    """List the examples in a zip archive; only its directory is read, and nothing is unpacked.

    Raises
    ------
    SourceError
        If it is damaged, has paths outside itself, or has no examples.
    """
    left_out: Counter[str] = Counter()
    try:
        members = folder.attempt(lambda: _members(folder, name))
    except DAMAGED as error:
        raise SourceError(
            f"{path} is damaged, or not a zip archive: {error}", "Get or write it again."
        ) from None
    files = []
    for member in members:
        file = member.filename
        if member.is_dir():
            continue
        if file.startswith("/") or ".." in PurePosixPath(file).parts or "\0" in file:
            raise SourceError(
                f"{path} has a path that leads outside the archive: {file!r}",
                "Do not trust it; create an archive of relative paths without '..'.",
            )
        if not is_utf8(file):
            left_out["names that are not UTF-8"] += 1
        elif PurePosixPath(file).name.startswith(".") or is_of_the_system(file):
            left_out[HIDDEN] += 1
        elif member.flag_bits & ENCRYPTED:
            left_out["encrypted files"] += 1
        else:
            files.append(file)
    kind = modality or modality_of(files)
    found = sorted({file for file in files if _suffix(file) in kind.extensions})
    left_out.update(_suffix(file) or file for file in files if _suffix(file) not in kind.extensions)
    if not found:
        raise SourceError(
            f"{path} holds no {kind.plural}",
            f"Known extensions are {' '.join(sorted(kind.extensions))}.",
        )
    labels, splits = labels_and_splits(path, found)
    columns = {
        "id": strings(found),
        "path": strings(f"{name}#file={file}" for file in found),
        "label": strings(labels),
        "split": strings(splits),
        "group": pa.nulls(len(found), pa.string()),
    }
    chunked = {key: pa.chunked_array([values]) for key, values in columns.items()}
    check_columns(path, chunked)
    table = pa.table([chunked[key] for key in COLUMNS], list(COLUMNS))
    return Source(folder.where(name), folder, table, dict(left_out), kind)


def _members(folder: Folder, name: str) -> list[zipfile.ZipInfo]:
    with folder.open(name) as file, zipfile.ZipFile(cast(Any, file)) as archive:
        return archive.infolist()


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
