"""Lists the examples of CIFAR-10, CIFAR-100, MNIST and the like, as their authors publish them."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from headstart.data.common import console
from headstart.data.common.arrays import strings
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.packed.contents import (
    DAMAGED,
    LARGEST,
    checked,
    open_archive,
    unpacked,
)
from headstart.data.examples.packed.formats import Batch, FormatError, idx_array, names_in, parse
from headstart.data.examples.source import COLUMNS, Source, check_columns
from headstart.data.modalities.known import MODALITIES
from headstart.data.storage.folder import Folder

ARCHIVES = (".tar.gz", ".tgz", ".tar")
IDX = re.compile(r"(.*?)[-_.]?(images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?", re.IGNORECASE)
SPLITS = (("train", "train"), ("t10k", "test"), ("test", "test"), ("valid", "validation"))
# Of CIFAR: files of examples and of names, by the format of the former.
LAYOUTS = {
    "cifar10": (r"(?:data_batch_\d+|test_batch)\.bin", {"label": "batches.meta.txt"}),
    "cifar100": (
        r"(?:train|test)\.bin",
        {"label": "fine_label_names.txt", "coarse": "coarse_label_names.txt"},
    ),
    "cifar-python": (r"data_batch_\d+|test_batch|train|test", {}),
}
PYTHON_NAMES = ("batches.meta", "meta")
FIRST = 24  # files of an archive that are looked at before it is taken for something else
AGAIN = "Get the file again from its authors."


def is_archive(name: str) -> bool:
    """Whether a file may be an archive of CIFAR by its name."""
    return name.lower().endswith(ARCHIVES)


def are_arrays(names: Iterable[str]) -> bool:
    """Whether the files of a folder are those of CIFAR, or IDX files."""
    found = {posixpath.basename(name) for name in names}
    if any(IDX.fullmatch(name) for name in found):
        return True
    return any(_formats(found))


def _formats(found: set[str]) -> list[str]:
    """The formats of CIFAR that files belong to."""
    markers = {"cifar10": None, "cifar100": "fine_label_names.txt", "cifar-python": None}
    kinds = []
    for kind, (pattern, _) in LAYOUTS.items():
        some = [name for name in found if re.fullmatch(pattern, name)]
        sure = [name for name in some if "_batch" in name]
        sure = sure or (some if found >= {"meta", "train", "test"} else [])
        if markers[kind]:
            sure = some if markers[kind] in found else []
        if sure:
            kinds.append(kind)
    return kinds


@dataclass
class _Found:
    """What was read: labels of each file of examples, and the names of classes by column."""

    batches: dict[str, tuple[str, int, dict[str, np.ndarray]]] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def take(self, name: str, file: str, read: Callable[[], bytes], kinds: Sequence[str]) -> None:
        """Read a file if it is one of CIFAR's."""
        base = posixpath.basename(name)
        used = False
        for kind in kinds:
            pattern, named = LAYOUTS[kind]
            try:
                if re.fullmatch(pattern, base):
                    used = True
                    batch = parse(kind, read())
                    self.batches[file] = (kind, len(batch.pixels), batch.labels)
                for column, text in named.items():
                    if base == text:
                        used = True
                        self.names[column] = names_in(read(), column)
                if kind == "cifar-python" and base in PYTHON_NAMES:
                    used = True
                    content = read()
                    for column in ("label", "coarse"):
                        self.names[column] = names_in(content, column)
            except FormatError as error:
                raise SourceError(f"{file.replace('#', ': ')} {error}", AGAIN) from None
        if not used:
            self.left_out[_kind_of_file(name)] += 1


def _kind_of_file(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or posixpath.basename(name)


def open_archive_of_arrays(path: object, folder: Folder, name: str) -> Source | None:
    """List the examples in an archive of CIFAR, gzipped or not; None if it holds something else.

    Raises
    ------
    SourceError
        If it is damaged, truncated, or its pickles hold more than data.
    """
    try:
        return folder.attempt(lambda: _of_archive(path, folder, name))
    except (*DAMAGED, OSError) as error:
        raise SourceError(f"{path} is damaged or truncated: {error}", AGAIN) from None


def _of_archive(path: object, folder: Folder, name: str) -> Source | None:
    found, first = _Found(), []
    kinds: list[str] = []
    waiting: list[tuple[str, bytes]] = []
    with open_archive(folder, name) as tar, console.status(f"reading {name}"):
        for member in tar:
            if not member.isreg():
                continue
            base = posixpath.basename(member.name)
            first.append(base)
            possible = [k for k, (pattern, _) in LAYOUTS.items() if re.fullmatch(pattern, base)]
            meta = base in PYTHON_NAMES or any(base in n.values() for _, n in LAYOUTS.values())
            if not (possible or meta):
                if len(first) > FIRST and not (waiting or found.batches):
                    return None
                found.left_out[_kind_of_file(member.name)] += 1
                continue
            stream = tar.extractfile(member)
            content = checked(b"" if stream is None else stream.read(LARGEST + 1), base)
            waiting.append((member.name, content))
            kinds = _formats(set(first))
            if kinds:
                for each, bytes_ in waiting:
                    found.take(each, f"{name}#{each}", partial(bytes, bytes_), kinds)
                waiting.clear()
    if not found.batches:
        return None
    return _cifar(path, folder, folder.where(name), found)


def open_folder_of_arrays(path: object, folder: Folder, names: Sequence[str]) -> Source:
    """List the examples of a folder with the files of CIFAR, or IDX files.

    Raises
    ------
    SourceError
        If files are missing, damaged or truncated, or pickles hold more than data.
    """
    try:
        if any(IDX.fullmatch(posixpath.basename(name)) for name in names):
            return _idx(path, folder, str(folder), names)
        found = _Found()
        kinds = _formats({posixpath.basename(name) for name in names})
        for name in sorted(names):
            found.take(name, name, partial(unpacked, folder, name), kinds)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}", AGAIN) from None
    return _cifar(path, folder, str(folder), found)


def open_idx(path: object, folder: Folder, name: str) -> Source:
    """List the pictures of an IDX file, with the labels of the file beside it.

    Raises
    ------
    SourceError
        If either is damaged or truncated.
    """
    files = [name]
    if (match := IDX.fullmatch(name)) and match[2].lower() == "images":
        labels = re.sub("(?i)images", "labels", name).replace("idx3", "idx1")
        files += [labels] if folder.is_file(labels) else []
    return _idx(path, folder, folder.where(name), files)


def _cifar(path: object, folder: Folder, root: str, found: _Found) -> Source:
    tables = []
    for file, (kind, count, labels) in sorted(found.batches.items()):
        base = PurePosixPath(posixpath.basename(file)).name.removesuffix(".bin")
        split = "test" if base.startswith("test") else "train"
        columns = {name: _named(path, found.names.get(name), n) for name, n in labels.items()}
        tables.append(_table(file, base, kind, count, split, columns))
    return _source(path, folder, root, tables, found.left_out)


def _idx(path: object, folder: Folder, root: str, names: Sequence[str]) -> Source:
    parts: dict[tuple[str, str], str] = {}
    left_out: Counter[str] = Counter()
    for name in names:
        parent, base = posixpath.split(name)
        if match := IDX.fullmatch(base):
            parts[posixpath.join(parent, match[1]).lower(), match[2].lower()] = name
        else:
            left_out[_kind_of_file(name)] += 1
    tables = []
    checks = Checklist()
    for (part, what), file in sorted(parts.items()):
        if what == "images":
            with checks.item():
                tables.append(_idx_table(folder, file, part, parts.get((part, "labels"))))
        elif (part, "images") not in parts:
            with checks.item():
                raise SourceError(f"{folder.where(file)} has no images beside it", AGAIN)
    checks.finish()
    return _source(path, folder, root, tables, left_out)


def _idx_table(folder: Folder, file: str, part: str, labels: str | None) -> pa.Table:
    where = file
    try:
        batch: Batch = parse("idx", unpacked(folder, file))
        columns: dict[str, list[str | None]] = {"label": [None] * len(batch.pixels)}
        if labels is not None:
            where = labels
            numbers = idx_array(unpacked(folder, labels))
            if numbers.shape != (len(batch.pixels),):
                raise FormatError(
                    f"has {len(numbers):,} labels for {len(batch.pixels):,} pictures of {file}"
                )
            columns = {"label": [str(number) for number in numbers.tolist()]}
    except (FormatError, OSError) as error:
        raise SourceError(f"{folder.where(where)} {_without(error, where)}", AGAIN) from None
    base = posixpath.basename(part) or "images"
    split = next((split for word, split in SPLITS if word in base), None)
    return _table(file, base, "idx", len(batch.pixels), split, columns)


def _without(error: Exception, name: str) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.removeprefix(f"{name} ")


def _named(path: object, names: list[str] | None, numbers: np.ndarray) -> list[str | None]:
    if not names:
        return [str(number) for number in numbers.tolist()]
    if len(numbers) and int(numbers.max()) >= len(names):
        raise SourceError(
            f"{path} has the class {int(numbers.max())}, and names for {len(names)} classes", AGAIN
        )
    return [names[number] for number in numbers.tolist()]


def _table(
    file: str,
    base: str,
    kind: str,
    count: int,
    split: str | None,
    columns: dict[str, list[str | None]],
) -> pa.Table:
    return pa.table(
        {
            "id": strings(f"{base}/{row:05d}" for row in range(count)),
            "path": strings(f"{file}#{kind}={row}" for row in range(count)),
            "label": strings(columns.pop("label", [None] * count)),
            "split": strings([split] * count),
            "group": pa.nulls(count, pa.string()),
            **{name: strings(values) for name, values in columns.items()},
        }
    )


def _source(
    path: object, folder: Folder, root: str, tables: list[pa.Table], left_out: Counter[str]
) -> Source:
    examples = pa.concat_tables(tables, promote_options="default") if tables else None
    if examples is None or not examples.num_rows:
        raise SourceError(f"{path} holds no pictures", AGAIN)
    columns = {name: examples[name] for name in examples.column_names}
    check_columns(path, {name: columns[name] for name in COLUMNS})
    return Source(root, folder, examples, dict(left_out), MODALITIES["image"])
