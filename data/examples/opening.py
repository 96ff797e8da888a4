"""Opens a source of any kind."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import SourceError
from headstart.data.examples.folder import Containers, look_into_folder
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
from headstart.data.examples.reading import container_of
from headstart.data.examples.source import COLUMNS, LOOSE, Source, quoted
from headstart.data.examples.tables import JSON_LINES, TABLES, suffix_of
from headstart.data.examples.tar import open_tar
from headstart.data.examples.texts import means_texts, open_texts
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import Modality
from headstart.data.modalities.stretches import whole_of
from headstart.data.source_options import SourceOptions, split_address
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.places import folder_at, folder_holding

__all__ = ["COLUMNS", "SPLITS", "Source", "open_source", "split_source"]
MANIFESTS = (".csv", ".tsv", ".parquet")
FILES = (*MANIFESTS, *JSON_LINES, ".tar", ".zip", ".gz", ".tgz")


def open_source(
    path: str | Path, allow_unlabelled: bool = False, modality: Modality | None = None
) -> Source:
    """List the examples of a source: a local path, or an address (`s3://`, `gs://`, `file://`).

    - A folder holds a folder for each class, with its files at any depth below; if its folders are
      named for splits (`train`, `validation`, `test`, or other usual names of these), they hold the
      classes. A folder that holds nothing but the class folders is passed over.
      Files beside the class folders are left out and counted, or kept without a label.
    - A manifest (`.csv`, `.tsv`, `.parquet`) has the columns `path` (relative to the manifest) and,
      optionally, `label`, `id`, `split`, `group`; further columns are kept. Columns of a `.csv` or
      `.tsv` are separated by commas, semicolons or tabs, in UTF-8 or UTF-16.
    - A Parquet file, or a folder of them, has a column of examples: bytes, or the struct
      `{bytes, path}` that Hugging Face's datasets write.
    - A table of texts (`.csv`, `.tsv`, `.jsonl`, `.parquet`, or a folder of them) has a column of
      text, and the optional ones of a manifest.
    - A tar archive, or a folder of them, holds examples as WebDataset writes them.
    - A zip archive holds files as a folder does.
    - CIFAR-10 and CIFAR-100 (`.tar.gz` or the folder in it, binary or Python), and MNIST's IDX
      files (a folder, gzipped or not), are read as they come.

    Parameters
    ----------
    path
        With options if there are any, as `SourceOptions.address` writes them.
    allow_unlabelled
        Accept a source in which some examples have a label and others have none.
    modality
        Of the examples, such as a backbone's; by default, that of most files.

    Raises
    ------
    SourceError
        If there is nothing to read, or the source is not valid; all mistakes are reported at once.
    """
    return open_found(path, open_or_find(path, modality), allow_unlabelled)


def open_or_find(path: str | Path, modality: Modality | None) -> Source | Containers:
    """What `open_source` opens; of a folder of archives or tables only their names and stamps.

    Raises
    ------
    SourceError
        As `open_source`.
    """
    place, options = split_source(path)
    found = _open(place, options, modality)
    inside = list(found.stamps)[:1] if isinstance(found, Containers) else _in_containers(found)
    if options.of_table and not (_is_table(place) or any(map(_is_table, inside))):
        raise _useless(place, options.of_table, f"a table ({', '.join(TABLES)})")
    if isinstance(found, Containers):
        return found
    if modality is not None and found.modality.name != modality.name:
        raise SourceError(
            f"{place} holds {found.modality.plural}, not {modality.plural}",
            f"Choose a backbone for {found.modality.plural}.",
        )
    if options.root is not None:
        options = replace(options, root=str(folder_at(options.root)))
    return replace(found, path=str(options.address(found.path)))


def open_found(
    path: str | Path, found: Source | Containers, allow_unlabelled: bool = False
) -> Source:
    """The examples of what `open_or_find` found; raises as `open_source`."""
    place, _ = split_source(path)
    if isinstance(found, Containers):
        source = found.open(place)
        source = replace(source, path=str(found.options.address(source.path)))
    else:
        source = found
    labels = source.examples["label"]
    if not 0 < labels.null_count < len(labels) or allow_unlabelled:
        return source
    if not (_is_file(place) or any(_in_containers(source))):
        return _without_loose(source)
    bad = source.examples.filter(pc.is_null(labels))
    raise SourceError(
        f"{place}: {counted(labels.null_count, 'example')} of {len(labels)} "
        f"{'has' if labels.null_count == 1 else 'have'} no label: "
        f"{first_few(bad['id'], show=quoted)}",
        "Label them, or pass --allow-unlabelled to keep them without one.",
    )


def _is_file(path: str | Path) -> bool:
    parent, name = folder_holding(path)
    return bool(name) and parent.is_file(name)


def _is_table(path: str | Path) -> bool:
    return suffix_of(str(path)) in TABLES


def _in_containers(source: Source) -> list[str]:
    """The file that the first example is in, if it is not a file itself."""
    path = source.examples["path"][0].as_py()
    inside = container_of(path)
    return [] if inside == whole_of(path) else [inside]


def _useless(path: str | Path, given: list[str], what: str) -> SourceError:
    return SourceError(
        f"{path} is not {what}, for which {' and '.join(given)} "
        f"{'is' if len(given) == 1 else 'are'}",
        f"Leave {'it' if len(given) == 1 else 'them'} out, or name one.",
    )


def _without_loose(source: Source) -> Source:
    """A folder's examples without files beside its class folders, which are counted."""
    kept = pc.is_valid(source.examples["label"])
    loose = len(source) - pc.sum(kept).as_py()
    return replace(
        source,
        examples=source.examples.filter(kept),
        listed=None if source.listed is None else source.listed.filter(kept),
        left_out=source.left_out | {LOOSE: loose},
    )


def split_source(address: str | Path) -> tuple[str | Path, SourceOptions]:
    """The path and its options; a path that exists has none, whatever it looks like."""
    if not any(mark in str(address) for mark in "?#"):
        return address, SourceOptions()
    if _is_file(address) or folder_at(address).exists():
        return address, SourceOptions()
    return split_address(address)


def _open(
    path: str | Path, options: SourceOptions, modality: Modality | None
) -> Source | Containers:
    parent, name = folder_holding(path)
    suffix = suffix_of(name)
    texts = modality or next(each for each in MODALITIES.values() if each.in_tables)
    manifest, column = options.of_manifest, options.text_column
    if name and parent.is_file(name):
        if suffix in MANIFESTS and manifest:
            return open_manifest(path, parent, name, modality, options)
        if manifest:
            raise _useless(path, manifest, f"a manifest ({', '.join(MANIFESTS)})")
        if suffix in TABLES and texts.in_tables and means_texts(parent, name, column, modality):
            return open_texts(path, parent, [name], options, texts)
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
        if suffix == ".parquet" and holds_examples(parent, name, modality):
            return open_parquet(path, parent, [name], modality, options)
        if suffix in MANIFESTS:
            return open_manifest(path, parent, name, modality, options)
        raise SourceError(
            f"{path} is neither a folder nor a manifest ({', '.join(MANIFESTS)}) nor a .tar or "
            ".zip",
            "Name the folder that holds a folder for each class.",
        )
    folder = folder_at(path)
    if not folder.exists():
        raise SourceError(f"{path}: no such folder or manifest", _nearby(folder))
    if manifest:
        raise _useless(path, manifest, f"a manifest ({', '.join(MANIFESTS)})")
    return look_into_folder(path, folder, modality, options)


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
