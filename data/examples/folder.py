"""A folder with one folder of examples per class, or with archives or Parquet files."""

from __future__ import annotations

from pathlib import PurePosixPath

import pyarrow as pa

from headstart.data.common.arrays import strings
from headstart.data.common.console import counted
from headstart.data.common.errors import SourceError
from headstart.data.examples.parquet import open_parquet
from headstart.data.examples.source import COLUMNS, SPLIT_NAMES, Source
from headstart.data.examples.tar import open_tar
from headstart.data.modalities.known import modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder

CONTAINERS = {".tar": open_tar, ".parquet": open_parquet}


def open_folder(path: object, folder: Folder, modality: Modality | None) -> Source:
    """List the examples of a folder; if it has none, those in its archives or Parquet files.

    Parameters
    ----------
    modality
        Of the examples; by default, that of most files.

    Raises
    ------
    SourceError
        If there are no examples, names are not UTF-8, or splits and classes are mixed.
    """
    found: list[tuple[str, str]] = []
    others: dict[str, list[str]] = {}
    files = list(folder.files())
    kind = modality or modality_of(name for name, _ in files)
    for name, stamp in files:
        extension = PurePosixPath(name).suffix.lower()
        if extension in kind.extensions:
            found.append((name, stamp))
        else:
            others.setdefault(extension or name, []).append(name)
    if not found:
        for extension, open_them in CONTAINERS.items():
            if extension in others:
                return open_them(path, folder, sorted(others[extension]), modality)
    found.sort()
    names = [name for name, _ in found]
    _check_names(path, names, sorted(others), kind)
    labels, splits = _labels_and_splits(path, names)
    ids = strings(names)
    columns = [ids, ids, labels, splits, pa.nulls(len(names), pa.string())]
    return Source(
        str(folder),
        folder,
        pa.table(columns, list(COLUMNS)),
        {extension: len(names) for extension, names in others.items()},
        kind,
        pa.chunked_array([strings([stamp or None for _, stamp in found])]),
    )


def _check_names(path: object, names: list[str], others: list[str], modality: Modality) -> None:
    unreadable = [name for name in names if not _is_text(name)]
    if unreadable:
        raise SourceError(
            f"{path}: {counted(len(unreadable), 'file name')} cannot be written as text (UTF-8): "
            + ascii(unreadable[0]),
            "Rename them.",
        )
    if not names:
        found = f"; it has {', '.join(others)} files" if others else "; it is empty"
        raise SourceError(
            f"{path} holds no {modality.plural}{found}",
            f"Known extensions are {' '.join(sorted(modality.extensions))}.",
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a byte that is not UTF-8, kept by Python as a surrogate
        return False
    return True


def _labels_and_splits(path: object, names: list[str]) -> tuple[pa.Array, pa.Array]:
    folders = sorted({name.split("/", 1)[0] for name in names if "/" in name})
    as_splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    if as_splits and len(as_splits) < len(folders):
        others = [name for name in folders if name not in as_splits]
        raise SourceError(
            f"{path} mixes folders of splits ({', '.join(as_splits)}) "
            f"with folders of classes ({', '.join(others[:5])})",
            "Put the class folders into the split folders, or describe the files in a manifest.",
        )
    labels: list[str | None] = []
    splits: list[str | None] = []
    for name in names:
        parts = name.split("/")
        split = SPLIT_NAMES[parts.pop(0).lower()] if as_splits and len(parts) > 1 else None
        splits.append(split)
        labels.append(parts[0] if len(parts) > 1 else None)
    return strings(labels), strings(splits)
