"""Tar archives as WebDataset writes them: an example's files share a name up to its first dot.

Source of the convention: the WebDataset format specification. The label is in the `.cls` file, or
in the field `label` of the `.json` file; without either, it is the name of the example's folder.
Nothing is unpacked: a worker reads an example from its position in the archive.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa

from headstart.data.common import console
from headstart.data.common.arrays import strings
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.source import Source, check_columns, split_of
from headstart.data.modalities.known import known_extensions, modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder

READERS = 8
BUFFER = 1 << 17  # a header is 512 bytes; object storage should not be asked for each of them
LARGEST_LABEL = 1 << 16


@dataclass
class _Archive:
    """What is in one archive: a row for each example."""

    ids: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)


def open_tar(path: object, folder: Folder, names: list[str], modality: Modality | None) -> Source:
    """List the examples in some archives; only their headers and labels are read.

    Parameters
    ----------
    path
        The archive or the folder of archives, as the user named it.
    names
        The archives in `folder`.
    modality
        Of the examples; by default, examples of all modalities are listed.

    Raises
    ------
    SourceError
        If an archive is damaged, has paths outside itself, or has no examples.
    """
    checks = Checklist()
    extensions = modality.extensions if modality else known_extensions()
    archives: dict[str, _Archive] = {}
    with (
        ThreadPoolExecutor(READERS) as pool,
        console.progress("listing archives", len(names)) as advance,
    ):
        coming = {name: pool.submit(_list, folder, name, extensions) for name in names}
        for name, listed in coming.items():
            with checks.item():
                archives[name] = listed.result()
            advance(1)
    checks.finish()
    ids = [id_ for archive in archives.values() for id_ in archive.ids]
    if not ids:
        what = modality.plural if modality else "examples"
        raise SourceError(
            f"{path} holds no {what}", f"Known extensions are {' '.join(sorted(extensions))}."
        )
    labels = [label for archive in archives.values() for label in archive.labels]
    paths = [place for archive in archives.values() for place in archive.paths]
    splits = [split_of(name) for name, archive in archives.items() for _ in archive.ids]
    columns = {
        "id": pa.chunked_array([strings(ids)]),
        "path": pa.chunked_array([strings(paths)]),
        "label": pa.chunked_array([strings(labels)]),
        "split": pa.chunked_array([strings(splits)]),
        "group": pa.chunked_array([pa.nulls(len(ids), pa.string())]),
    }
    check_columns(path, columns)
    ignored: dict[str, int] = {}
    for archive in archives.values():
        for extension, number in archive.ignored.items():
            ignored[extension] = ignored.get(extension, 0) + number
    root = str(folder) if len(names) > 1 else folder.where(names[0])
    return Source(root, folder, pa.table(columns), ignored, modality or modality_of(ids))


def _list(folder: Folder, name: str, extensions: frozenset[str]) -> _Archive:
    try:
        return folder.attempt(lambda: _read(folder, name, extensions))
    except (tarfile.TarError, EOFError, UnicodeError, OSError) as error:
        raise SourceError(
            f"{folder.where(name)} is not a valid tar archive: {error}",
            "Create it again; a compressed archive must be unpacked to plain .tar, since "
            "examples are read from their positions in it.",
        ) from None


def _read(folder: Folder, name: str, extensions: frozenset[str]) -> _Archive:
    samples: dict[str, _Sample] = {}
    ignored: dict[str, int] = {}
    with (
        io.BufferedReader(folder.open(name), BUFFER) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        for member in _members(tar, folder.where(name)):
            if not member.isreg() or PurePosixPath(member.name).name.startswith("."):
                continue
            _check_inside(folder, name, member.name)
            parent, _, base = member.name.rpartition("/")
            key, _, extension = base.partition(".")
            sample = samples.setdefault(f"{parent}/{key}" if parent else key, _Sample())
            suffix = PurePosixPath(base).suffix.lower()
            if suffix in extensions:
                sample.files[member.name] = (member.offset_data, member.size)
            elif extension in ("cls", "json") and member.size <= LARGEST_LABEL:
                content = tar.extractfile(member)
                sample.labels[extension] = content.read() if content else b""
            else:
                ignored[suffix or base] = ignored.get(suffix or base, 0) + 1
    archive = _Archive(ignored=ignored)
    for sample in samples.values():
        for member_name, (start, length) in sample.files.items():
            archive.ids.append(f"{name}/{member_name}")
            archive.paths.append(f"{name}#bytes={start}+{length}")
            archive.labels.append(sample.label(member_name))
    return archive


def _members(tar: tarfile.TarFile, where: str) -> Iterator[tarfile.TarInfo]:
    """All members; of a truncated archive, those before its end."""
    found = 0
    try:
        for member in tar:
            found += 1
            yield member
    except tarfile.ReadError as error:
        if not found:
            raise
        console.note(f"{where} is damaged or truncated after {found:,} files: {error}")


@dataclass
class _Sample:
    """Files that share a name: the positions of examples, and the contents of label files."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)

    def label(self, member: str) -> str | None:
        if "cls" in self.labels:
            return self.labels["cls"].decode().strip() or None
        if "json" in self.labels:
            try:
                value = json.loads(self.labels["json"])
            except ValueError:
                value = None
            if isinstance(value, dict) and value.get("label") is not None:
                return str(value["label"])
        return member.split("/")[0] if "/" in member else None


def _check_inside(folder: Folder, name: str, member: str) -> None:
    if member.startswith("/") or ".." in PurePosixPath(member).parts:
        raise SourceError(
            f"{folder.where(name)} has a path that leads outside the archive: {member!r}",
            "Do not trust it; create an archive of relative paths without '..'.",
        )
