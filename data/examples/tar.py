"""Tar archives as WebDataset writes them: an example's files share a name up to its first dot.

Source of the convention: the WebDataset format specification. `.cls` holds the label, or `.json`
in its field `label`; without either, the folders in the archive say it, as in a folder of files.
Nothing is unpacked: a worker reads an example from its place in the archive.
"""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa

from headstart.data.common import console
from headstart.data.common.arrays import strings
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.layout import is_of_the_system, labels_and_splits
from headstart.data.examples.source import (
    NoExamplesError,
    Source,
    check_columns,
    is_utf8,
    split_of,
)
from headstart.data.modalities.known import known_extensions, modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import HIDDEN, Folder

READERS = 8
BUFFER = 1 << 17  # a header is 512 bytes; object storage should not be asked for each of them
LARGEST_LABEL = 1 << 16
SIDECARS = (".cls", ".json")
# Names of pictures that belong to an example but are none: `0001.seg.png` beside `0001.jpg`.
PARTS = ("seg", "segmentation", "mask", "depth", "edges", "gt")
MOST_LINKS = 8  # links in a chain


@dataclass
class _Archive:
    """What is in one archive: an entry for each example."""

    members: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    labelled: list[bool] = field(default_factory=list)  # by a file with the same name
    left_out: Counter[str] = field(default_factory=Counter)


def open_tar(path: object, folder: Folder, names: list[str], modality: Modality | None) -> Source:
    """List the examples in some archives; only their headers and labels are read.

    Parameters
    ----------
    path
        The archive or the folder of archives, as the user named it.
    names
        The archives in `folder`.
    modality
        Of the examples; by default, that of most files.

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
    kind = modality or modality_of(each for a in archives.values() for each in a.members)
    if extensions - kind.extensions and any(
        PurePosixPath(each).suffix.lower() not in kind.extensions
        for archive in archives.values()
        for each in archive.members
    ):  # such as captions beside photographs
        return open_tar(path, folder, names, kind)
    ids = [f"{name}/{member}" for name, archive in archives.items() for member in archive.members]
    if not ids:
        what = modality.plural if modality else "examples"
        raise NoExamplesError(
            f"{path} holds no {what}", f"Known extensions are {' '.join(sorted(extensions))}."
        )
    labels, splits, by_folder = _labels(path, archives)
    columns = {
        "id": pa.chunked_array([strings(ids)]),
        "path": pa.chunked_array([strings(p for a in archives.values() for p in a.paths)]),
        "label": pa.chunked_array([strings(labels)]),
        "split": pa.chunked_array([strings(splits)]),
        "group": pa.chunked_array([pa.nulls(len(ids), pa.string())]),
    }
    check_columns(path, columns)
    left_out = sum((archive.left_out for archive in archives.values()), Counter[str]())
    root = str(folder) if len(names) > 1 else folder.where(names[0])
    return Source(root, folder, pa.table(columns), dict(left_out), kind, labels_by_folder=by_folder)


def _labels(
    path: object, archives: dict[str, _Archive]
) -> tuple[list[str | None], list[str | None], bool]:
    """Labels by the files beside the examples, else by folders; splits by folders or archives.

    Whether any are by folders is returned as well.
    """
    labels = [label for archive in archives.values() for label in archive.labels]
    labelled = [each for archive in archives.values() for each in archive.labelled]
    splits = [split_of(name) for name, archive in archives.items() for _ in archive.members]
    members = [posixpath.normpath(m) for archive in archives.values() for m in archive.members]
    others = [row for row, each in enumerate(labelled) if not each]
    by_folder = labels_and_splits(path, [members[row] for row in others])
    for row, label, split in zip(others, *by_folder, strict=True):
        labels[row], splits[row] = label, split or splits[row]
    return labels, splits, any("/" in members[row] for row in others)


def _list(folder: Folder, name: str, extensions: frozenset[str]) -> _Archive:
    try:
        return folder.attempt(lambda: _read(folder, name, extensions))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(
            f"{folder.where(name)} is not a valid tar archive: {error}",
            "Create it again; a compressed archive must be unpacked to plain .tar, since "
            "examples are read from their positions in it.",
        ) from None


@dataclass
class _Sample:
    """Files that share a name up to its first dot: positions of examples, and labels, by name."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    sidecars: dict[str, bytes] = field(default_factory=dict)


def _read(folder: Folder, name: str, extensions: frozenset[str]) -> _Archive:
    archive = _Archive()
    samples: dict[str, _Sample] = {}
    with (
        io.BufferedReader(folder.open(name), BUFFER) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        members = _regular_and_links(tar, folder, name, archive.left_out)
        for member_name, member in members.items():
            parent, _, base = posixpath.normpath(member_name).rpartition("/")
            suffix = PurePosixPath(base).suffix.lower()
            key = posixpath.join(parent, base.partition(".")[0])
            if suffix in extensions:
                place = (member.offset_data, member.size)
                samples.setdefault(key, _Sample()).files[member_name] = place
            elif suffix in SIDECARS and member.size <= LARGEST_LABEL:
                content = tar.extractfile(member)
                read = content.read() if content else b""
                samples.setdefault(key, _Sample()).sidecars[_stem(member_name) + suffix] = read
            else:
                archive.left_out[suffix or base] += 1
    for key, sample in samples.items():
        parts = _parts(key, sample)
        archive.left_out["pictures of another example"] += len(parts)
        for member_name, (start, length) in sample.files.items():
            if member_name not in parts:
                label = _label(folder.where(name), member_name, key, sample)
                archive.members.append(member_name)
                archive.paths.append(f"{name}#bytes={start}+{length}")
                archive.labels.append(label)
                archive.labelled.append(label is not None)
    archive.left_out += Counter()  # without what is 0
    return archive


def _stem(name: str) -> str:
    return posixpath.normpath(name).rpartition(".")[0]


def _parts(key: str, sample: _Sample) -> set[str]:
    """Pictures that belong to another example of the sample, such as its mask.

    They have a name with further dots (`0001.seg.png`) beside one without (`0001.jpg`), no label of
    their own, and the name of such a part or a label of the sample that they share.
    """
    plain = [name for name in sample.files if _stem(name) == key]
    if not plain:
        return set()
    shared = any(f"{key}{suffix}" in sample.sidecars for suffix in SIDECARS)
    found = set()
    for name in set(sample.files) - set(plain):
        own = any(f"{_stem(name)}{suffix}" in sample.sidecars for suffix in SIDECARS)
        part = _stem(name).rpartition(".")[2].lower() in PARTS
        if not own and (shared or part):
            found.add(name)
    return found


def _label(where: str, member: str, key: str, sample: _Sample) -> str | None:
    """From the file of the same name, or of the sample's name; None if neither has a label."""
    for stem in (_stem(member), key):
        if (content := sample.sidecars.get(f"{stem}.cls")) is not None:
            try:
                return content.decode("utf-8-sig").strip() or None
            except UnicodeDecodeError:
                raise SourceError(
                    f"{where}: the label of {member!r} is not UTF-8 text: {content[:20]!r}",
                    "Write the .cls files in UTF-8.",
                ) from None
        if (content := sample.sidecars.get(f"{stem}.json")) is not None:
            try:
                value = json.loads(content)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict) and value.get("label") is not None:
                return str(value["label"])
    return None


def _regular_and_links(
    tar: tarfile.TarFile, folder: Folder, name: str, left_out: Counter[str]
) -> dict[str, tarfile.TarInfo]:
    """The files of an archive by name; a link is replaced by its target."""
    files: dict[str, tarfile.TarInfo] = {}
    links: dict[str, str] = {}
    for member in _members(tar, folder.where(name)):
        base = PurePosixPath(member.name).name
        if member.isdir():
            continue
        if not is_utf8(member.name):
            left_out["names that are not UTF-8"] += 1
        elif base.startswith(".") or is_of_the_system(member.name):
            left_out[HIDDEN] += 1
        elif member.islnk() or member.issym():
            _check_inside(folder, name, member.name)
            parent = "" if member.islnk() else posixpath.dirname(member.name)
            links[member.name] = posixpath.normpath(posixpath.join(parent, member.linkname))
        elif member.isreg() and not member.issparse():
            _check_inside(folder, name, member.name)
            files[member.name] = member
        else:
            left_out["devices, pipes and sparse files"] += 1
    by_path = {posixpath.normpath(each): each for each in (*files, *links)}
    for link in links:
        target: str | None = link
        for _ in range(MOST_LINKS):
            if target is None or target in files:
                break
            target = by_path.get(links[target])
        if target in files:
            files[link] = files[target]
        else:
            left_out["links to nothing in the archive"] += 1
    return files


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


def _check_inside(folder: Folder, name: str, member: str) -> None:
    if member.startswith("/") or ".." in PurePosixPath(member).parts:
        raise SourceError(
            f"{folder.where(name)} has a path that leads outside the archive: {member!r}",
            "Do not trust it; create an archive of relative paths without '..'.",
        )
