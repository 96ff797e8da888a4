"""Opens a source of any kind."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pyarrow.compute as pc

from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import SourceError
from headstart.data.examples.folder import open_folder
from headstart.data.examples.layout import SPLITS
from headstart.data.examples.manifest import open_manifest
from headstart.data.examples.packed.arrays import (
    IDX,
    is_archive,
    open_archive_of_arrays,
    open_idx,
)
from headstart.data.examples.packed.zipped import open_zip
from headstart.data.examples.parquet import holds_examples, open_parquet
from headstart.data.examples.source import COLUMNS, Source, quoted
from headstart.data.examples.tables import JSON_LINES, TABLES, suffix_of
from headstart.data.examples.tar import open_tar
from headstart.data.examples.texts import means_texts, open_texts
from headstart.data.modalities.known import MODALITIES, modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.places import folder_at, folder_holding

__all__ = ["COLUMNS", "SPLITS", "Source", "open_source", "with_column"]
MANIFESTS = (".csv", ".tsv", ".parquet")
FILES = (*MANIFESTS, *JSON_LINES, ".tar", ".zip", ".gz", ".tgz")


def open_source(
    path: str | Path, allow_unlabelled: bool = False, modality: Modality | None = None
) -> Source:
    """List the examples of a source: a local path, or an address (`s3://`, `gs://`, `file://`).

    - A folder holds a folder for each class, with its files at any depth below; if its folders are
      named for splits (`train`, `validation`, `test`, or other usual names of these), they hold the
      classes. A folder that holds nothing but the class folders is passed over.
      Files beside the class folders have no label.
    - A manifest (`.csv`, `.tsv`, `.parquet`) has the columns `path` (relative to the manifest) and,
      optionally, `label`, `id`, `split`, `group`; further columns are kept.
    - A Parquet file, or a folder of them, has a column of examples: bytes, or the struct
      `{bytes, path}` that Hugging Face's datasets write.
    - A table of texts (`.csv`, `.tsv`, `.jsonl`, `.parquet`, or a folder of them) has a column of
      text, and the optional ones of a manifest. `TABLE#COLUMN` names that column.
    - A tar archive, or a folder of them, holds examples as WebDataset writes them.
    - A zip archive holds files as a folder does.
    - CIFAR-10 and CIFAR-100 (`.tar.gz` or the folder in it, binary or Python), and MNIST's IDX
      files (a folder, gzipped or not), are read as they come.

    Parameters
    ----------
    allow_unlabelled
        Accept a source in which some examples have a label and others have none.
    modality
        Of the examples, such as a backbone's; by default, that of most files.

    Raises
    ------
    SourceError
        If there is nothing to read, or the source is not valid; all mistakes are reported at once.
    """
    source = _open(*_split_column(path), modality)
    if modality is not None and source.modality.name != modality.name:
        raise SourceError(
            f"{path} holds {source.modality.plural}, not {modality.plural}",
            f"Choose a backbone for {source.modality.plural}.",
        )
    labels = source.examples["label"]
    if 0 < labels.null_count < len(labels) and not allow_unlabelled:
        bad = source.examples.filter(pc.is_null(labels))
        raise SourceError(
            f"{path}: {counted(labels.null_count, 'example')} of {len(labels)} "
            f"{'has' if labels.null_count == 1 else 'have'} no label: "
            f"{first_few(bad['id'], show=quoted)}",
            "Label them, or pass --allow-unlabelled to keep them without one.",
        )
    return source


def with_column(source: str | Path, column: str | None) -> str | Path:
    """A source whose texts are in a column, as `open_source` takes it."""
    return source if column is None else f"{source}#{column}"


def _split_column(path: str | Path) -> tuple[str | Path, str | None]:
    """The path and, after the last `#`, a column of text; a path that exists has none."""
    whole, mark, column = str(path).rpartition("#")
    if not mark or not whole or not column:
        return path, None
    parent, name = folder_holding(path)
    if (name and parent.is_file(name)) or folder_at(path).exists():
        return path, None
    return whole, column


def _open(path: str | Path, column: str | None, modality: Modality | None) -> Source:
    parent, name = folder_holding(path)
    suffix = suffix_of(name)
    texts = modality or next(each for each in MODALITIES.values() if each.in_tables)
    if name and parent.is_file(name):
        if suffix in TABLES and texts.in_tables and means_texts(parent, name, column, modality):
            return open_texts(path, parent, [name], column, texts)
        if is_archive(name) and (suffix != ".tar" or name.lower().startswith("cifar")):
            if (arrays := open_archive_of_arrays(path, parent, name)) is not None:
                return arrays
            if suffix != ".tar":
                raise SourceError(
                    f"{path} is compressed, and is no archive of CIFAR-10 or CIFAR-100",
                    "Unpack it to plain .tar (gunzip), since examples are read from their "
                    "positions in it.",
                )
        if IDX.fullmatch(name):
            return open_idx(path, parent, name)
        if suffix == ".zip":
            return open_zip(path, parent, name, modality)
        if suffix == ".tar":
            return open_tar(path, parent, [name], modality)
        if suffix == ".parquet" and holds_examples(parent, name, modality or modality_of([name])):
            return open_parquet(path, parent, [name], modality)
        if suffix in MANIFESTS:
            return open_manifest(path, parent, name, modality)
        raise SourceError(
            f"{path} is neither a folder nor a manifest ({', '.join(MANIFESTS)}) nor a .tar or "
            ".zip",
            "Name the folder that holds a folder for each class.",
        )
    folder = folder_at(path)
    if not folder.exists():
        raise SourceError(f"{path}: no such folder or manifest", _nearby(folder))
    return open_folder(path, folder, modality, column)


def _nearby(folder: Folder) -> str:
    if not isinstance(folder, LocalFolder):
        return "Check the address."
    place = folder.path()
    try:
        names = os.listdir(place.parent)
    except OSError:
        return f"There is no folder {place.parent} either. Check the path."
    near = difflib.get_close_matches(place.name, names, 1, 0.6)
    return f"Did you mean {place.parent / near[0]}?" if near else "Check the path."
