"""A manifest: a table that names a file for each example."""

from __future__ import annotations

import difflib
import re
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from headstart.data.common import console
from headstart.data.common.arrays import strings
from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.foreign import as_utf8, storable
from headstart.data.examples.reading import leads_outside
from headstart.data.examples.source import (
    COLUMNS,
    Source,
    check_columns,
    check_names,
    text_column,
    usual_names,
)
from headstart.data.examples.tables import convert_options, parse_options, suffix_of
from headstart.data.modalities.known import modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.source_options import SourceOptions
from headstart.data.storage.folder import Folder
from headstart.data.storage.places import common_root, folder_at, relative_to, resolved

_ADDRESS = r"^[A-Za-z][A-Za-z0-9+.-]*://"  # a scheme as in RFC 3986, 3.1; "f/://" is a file name


def open_manifest(
    path: object,
    folder: Folder,
    name: str,
    modality: Modality | None,
    options: SourceOptions = SourceOptions(),
) -> Source:
    """Read a manifest (`.csv`, `.tsv` or `.parquet`); its paths are relative to its folder.

    Parameters
    ----------
    modality
        Of the examples; by default, that of most paths.
    options
        Its columns, and where the files are. Paths are relative to `root`, but to the manifest's
        folder if one of them contains `..`.

    Raises
    ------
    SourceError
        If it cannot be read, lacks columns, or a path leads outside its folder.
    """
    table = _read(path, folder, name, options)
    if table.num_rows == 0:
        raise SourceError(f"{path} lists no examples", "Give it a row for each example.")
    check_names(path, table.column_names)
    table = table.rename_columns(usual_names(path, table.column_names, options))
    if "path" not in table.column_names:
        raise _no_path(path, table.column_names)
    checks = Checklist()
    files = folder if options.root is None else folder_at(options.root)
    if not files.exists():
        raise SourceError(f"--root {options.root}: no such folder", "Check the path.")
    columns = {name: text_column(path, table, name) for name in COLUMNS if name != "id"}
    columns["path"] = _with_slashes(path, files, columns["path"])
    kind = modality or modality_of(columns["path"].drop_null().to_pylist())
    stretches = kind.divided and {"start", "end"} & set(table.column_names)
    columns["id"] = (
        text_column(path, table, "id")
        if "id" in table.column_names
        else _of_stretches(columns["path"], table)
        if stretches
        else columns["path"]
    )
    with checks.item():
        check_columns(path, columns)
    with checks.item():
        files, columns["path"] = _placed(path, folder, files, columns["path"], options)
    checks.finish()
    columns |= {name: table[name] for name in table.column_names if name not in COLUMNS}
    examples = storable(path, pa.table(columns))
    return Source(folder.where(name), files, examples, {}, kind)


def _of_stretches(paths: pa.ChunkedArray, table: pa.Table) -> pa.ChunkedArray:
    """Ids of rows that may be of one file: `a.wav#START-END`; a whole file's is its name."""
    ids = []
    bounds = [
        table[name].to_pylist() if name in table.column_names else [None] * len(paths)
        for name in ("start", "end")
    ]
    for path, *ends in zip(paths.to_pylist(), *bounds, strict=True):
        texts = ["" if end is None else str(end) for end in ends]
        ids.append(path if path is None or texts == ["", ""] else f"{path}#{'-'.join(texts)}")
    return pa.chunked_array([strings(ids)])


def _no_path(path: object, names: list[str]) -> SourceError:
    near = difflib.get_close_matches("path", names, 1, 0.5)
    return SourceError(
        f"{path} has no column 'path'; its columns are {', '.join(names)}",
        f"Say which one names the files: --path-column {near[0] if near else 'NAME'}",
    )


def _read(path: object, folder: Folder, name: str, options: SourceOptions) -> pa.Table:
    texts = [*COLUMNS, *filter(None, (options.path_column, options.label_column))]
    try:
        if suffix_of(name) == ".parquet":
            return folder.table(name)
        content = as_utf8(path, folder.attempt(lambda: folder.read(name)))
        return pa.csv.read_csv(
            pa.BufferReader(content),
            parse_options=parse_options(name, content),
            convert_options=convert_options(texts),
        )
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}", "Fix the manifest.") from None


def _with_slashes(path: object, folder: Folder, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Windows paths in POSIX form, if the first file exists under that."""
    backslash = pc.match_substring(paths, "\\")
    first = pc.index(backslash, True).as_py()
    if first < 0:
        return paths
    name = paths[first].as_py()
    there = folder.stamps([name, name.replace("\\", "/")])
    if there[0] is not None or there[1] is None:
        return paths
    console.note(f"{path}: backslashes in paths are read as folders, as on Windows")
    return pc.replace_substring(paths, "\\", "/")


def _placed(
    path: object,
    folder: Folder,
    files: Folder,
    paths: pa.ChunkedArray,
    options: SourceOptions,
) -> tuple[Folder, pa.ChunkedArray]:
    """The folder that the files are in, and their paths relative to it.

    Parameters
    ----------
    folder
        Of the manifest.
    files
        The folder that paths without `..` are relative to.
    """
    # Cheap filter first: only suspicious paths are checked one by one.
    suspicious = pc.match_substring_regex(paths, rf"\.\.|^/|\x00|{_ADDRESS}")
    found = paths.filter(pc.fill_null(suspicious, False)).to_pylist()
    odd = [p for p in found if leads_outside(p) or re.match(_ADDRESS, p)]
    if not (odd or options.allow_outside):
        return files, paths
    outside, what = odd, "the manifest's folder"
    fix = (
        "Say which folder they are in with --root FOLDER, or pass --allow-outside to read them "
        "wherever they are."
    )
    if options.root is not None or options.allow_outside:
        above = any(".." in PurePosixPath(p).parts for p in odd)
        given = paths.to_pylist()
        whole = [p and resolved(str(folder if above else files), p) for p in given]
        root = common_root(whole) if options.allow_outside else str(files)
        within = [p and relative_to(root, p) for p in whole]
        outside = [p for p, inside in zip(given, within, strict=True) if p and inside is None]
        if not outside:
            return folder_at(root), pa.chunked_array([strings(within)])
        what = f"--root {options.root}"
        fix = "Name a folder above them with --root, or pass --allow-outside."
        if options.allow_outside:
            what, fix = root, "Give a manifest for each place: this machine, or one bucket."
    raise SourceError(
        f"{path}: {counted(len(outside), 'path')} "
        f"{'leads' if len(outside) == 1 else 'lead'} outside {what}: "
        f"{first_few(outside, show=repr)}",
        fix,
    )
