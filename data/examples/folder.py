"""A folder with one folder of examples per class, or with archives or Parquet files."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from headstart.data.common.arrays import strings
from headstart.data.common.console import counted
from headstart.data.common.errors import SourceError
from headstart.data.examples.layout import is_of_the_system, labels_and_splits
from headstart.data.examples.packed.arrays import (
    are_arrays,
    is_archive,
    open_archive_of_arrays,
    open_folder_of_arrays,
)
from headstart.data.examples.packed.zipped import open_zip
from headstart.data.examples.parquet import holds_examples, open_parquet
from headstart.data.examples.source import (
    COLUMNS,
    NOT_UTF8,
    Source,
    describe_left_out,
    is_utf8,
)
from headstart.data.examples.tables import TABLES, suffix_of
from headstart.data.examples.tar import open_tar
from headstart.data.examples.texts import means_texts, open_texts
from headstart.data.modalities.known import MODALITIES, modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.source_options import SourceOptions
from headstart.data.storage.folder import HIDDEN, Folder

CONTAINERS = (".tar", ".parquet")
TEXTS = "texts"
# Files that mark a feature store, and their names before format version 2.
OURS = (
    *("_headstart.parquet", "_records/run.parquet"),
    *("_headstart.json", "_records/run.json"),
)
MOST_SCHEMAS = 100  # Parquet files whose columns are checked if there are loose files as well


@dataclass(frozen=True)
class Containers:
    """The files of a folder that hold many examples each, and what opens them.

    Parameters
    ----------
    kind
        One of `CONTAINERS`, or `TEXTS`.
    stamps
        Of the files, by name, sorted.
    modality
        Of the examples, if it is known.
    options
        The columns of texts and labels in tables.
    """

    folder: Folder
    kind: str
    stamps: dict[str, str]
    modality: Modality | None
    options: SourceOptions = SourceOptions()

    def open(self, path: object, names: Sequence[str] | None = None) -> Source:
        """The examples of all or some of the files; raises as `open_folder`."""
        some = list(self.stamps if names is None else names)
        if self.kind == TEXTS:
            known = self.modality or _of_tables()
            return open_texts(path, self.folder, some, self.options, known)
        if self.kind == ".parquet":
            return open_parquet(path, self.folder, some, self.modality, self.options)
        return open_tar(path, self.folder, some, self.modality)


def _of_tables() -> Modality:
    return next(each for each in MODALITIES.values() if each.in_tables)


def _containers(
    folder: Folder, stamps: dict[str, str], modality: Modality | None, options: SourceOptions
) -> Containers | None:
    ends: dict[str, list[str]] = {}
    for name in sorted(stamps):
        ends.setdefault(suffix_of(name), []).append(name)
    tables = sorted(name for end in TABLES for name in ends.get(end, ()))
    texts = modality or _of_tables()
    column = options.text_column
    if tables and texts.in_tables and means_texts(folder, tables[0], column, modality):
        some = {name: stamps[name] for name in tables}
        return Containers(folder, TEXTS, some, modality, options)
    for extension in CONTAINERS:
        if extension in ends:
            some = {name: stamps[name] for name in ends[extension]}
            return Containers(folder, extension, some, modality, options)
    return None


def look_into_folder(
    path: object,
    folder: Folder,
    modality: Modality | None,
    options: SourceOptions = SourceOptions(),
) -> Source | Containers:
    """List the examples of a folder; if it has none, find its archives or tables of examples.

    Feature stores of ours in the folder are left out.

    Parameters
    ----------
    modality
        Of the examples; by default, that of most files.
    options
        The columns of texts and labels in the folder's tables.

    Raises
    ------
    SourceError
        If there are no examples, or both loose files and containers of examples, or folders of
        splits and of classes are mixed.
    """
    left_out: Counter[str] = Counter()
    files = _files(path, folder, left_out)
    if are_arrays(name for name, _ in files):
        return open_folder_of_arrays(path, folder, [name for name, _ in files])
    kind = modality or modality_of(name for name, _ in files)
    found, others = [], dict[str, list[str]]()
    for name, stamp in files:
        if (suffix := suffix_of(name)) in kind.extensions:
            found.append((name, stamp))
        else:
            others.setdefault(suffix or name, []).append(name)
    containers = {each: sorted(others[each]) for each in CONTAINERS if each in others}
    if found:
        _check_alone(path, folder, kind, len(found), containers)
    else:
        if meant := _containers(folder, dict(files), modality, options):
            return meant
        if (single := _single(others)) is not None:
            if single.lower().endswith(".zip"):
                return open_zip(path, folder, single, modality)
            if (arrays := open_archive_of_arrays(path, folder, single)) is not None:
                return arrays
        what = f"; it has {', '.join(sorted(others))} files" if others else "; it is empty"
        if left_out:
            what = f"; left out: {describe_left_out(left_out)}"
        raise SourceError(
            f"{path} holds no {kind.plural}{what}",
            f"Known extensions are {' '.join(sorted(kind.extensions))}.",
        )
    found.sort()
    names = [name for name, _ in found]
    labels, splits = labels_and_splits(path, names)
    ids = strings(names)
    columns = [ids, ids, strings(labels), strings(splits), pa.nulls(len(names), pa.string())]
    return Source(
        str(folder),
        folder,
        pa.table(columns, list(COLUMNS)),
        dict(left_out) | {extension: len(each) for extension, each in others.items()},
        kind,
        pa.chunked_array([strings([stamp or None for _, stamp in found])]),
    )


def _files(path: object, folder: Folder, left_out: Counter[str]) -> list[tuple[str, str]]:
    """Name and stamp of the files that may be examples; the others are counted."""
    listed = list(folder.files(hidden=left_out))
    marks = [name for name, _ in listed if name.endswith(OURS)]
    stores = {name.removesuffix(mark) for name in marks for mark in OURS if _ends(name, mark)}
    if "" in stores:
        raise SourceError(
            f"{path} is a feature store, not a source of examples",
            "Name the folder or file that it was extracted from.",
        )
    files = []
    for name, stamp in listed:
        if not is_utf8(name):
            left_out[NOT_UTF8] += 1
        elif is_of_the_system(name):
            left_out[HIDDEN] += 1
        elif stores and any(name.startswith(store) for store in stores):
            left_out["files of feature stores"] += 1
        else:
            files.append((name, stamp))
    return files


def _single(others: dict[str, list[str]]) -> str | None:
    """The only zip archive, or the only one that may be of CIFAR."""
    found = [n for names in others.values() for n in names if is_archive(n) or n.endswith(".zip")]
    return found[0] if len(found) == 1 else None


def _ends(name: str, mark: str) -> bool:
    return name == mark or name.endswith(f"/{mark}")


def _check_alone(
    path: object, folder: Folder, modality: Modality, loose: int, containers: dict[str, list[str]]
) -> None:
    """Refuse loose files beside containers of examples: either may be meant."""
    meant = list(containers.get(".tar", ()))
    for name in containers.get(".parquet", ())[:MOST_SCHEMAS]:
        if holds_examples(folder, name, modality):
            meant.append(name)
    if meant:
        inside = posixpath.commonpath([posixpath.dirname(name) for name in meant])
        raise SourceError(
            f"{path} holds {counted(loose, modality.noun)} as files, and {modality.plural} in "
            f"{counted(len(meant), 'archive or Parquet file')}, such as {meant[0]}",
            f"Name what is meant, such as {folder.where(inside or meant[0])}, or move the others "
            "elsewhere.",
        )
