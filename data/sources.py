"""Sources of examples: a folder a class, or a manifest. Both become one table of examples."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from data.decoding import EXTENSIONS
from data.errors import Checklist, SourceError
from data.files import Folder, local_path

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
COLUMNS = ("id", "path", "label", "split", "group")
RESERVED = ("content", "embedding")
MANIFESTS = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Source:
    """Examples and where their files are.

    Parameters
    ----------
    path
        The folder or manifest that the user named.
    folder
        The folder that the examples' paths are relative to.
    examples
        Columns `id`, `path`, `label`, `split`, `group` (strings; all but the first two may be
        null), then the columns carried along.
    ignored
        How many files are no photographs by their extension, by extension.
    """

    path: str
    folder: Folder
    examples: pa.Table
    ignored: dict[str, int]

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(pc.unique(self.examples["label"].drop_null()).to_pylist())

    def __len__(self) -> int:
        return self.examples.num_rows


def open_source(path: str | Path, allow_unlabelled: bool = False) -> Source:
    """List the examples of a folder or of a manifest (`.csv`, `.tsv` or `.parquet`).

    A folder holds a folder a class, at any depth below; if its folders are named `train`,
    `validation` (or `val`) and `test`, those are splits and hold the classes. Photographs beside
    the class folders have no label. A manifest has the columns `path` (relative to the manifest)
    and, all optional, `label`, `id`, `split`, `group`; further columns are carried along.

    Parameters
    ----------
    allow_unlabelled
        Accept a source in which some examples have a label and others have none.

    Raises
    ------
    SourceError
        If there is nothing to read, or the manifest is not one; all mistakes are reported at once.
    """
    place = local_path(path)
    if not place.exists():
        raise SourceError(f"{path}: no such folder or manifest", _nearby(place))
    if place.is_dir():
        source = _open_folder(path, place)
    elif place.suffix.lower() in MANIFESTS:
        source = _open_manifest(path, place)
    else:
        raise SourceError(
            f"{path} is neither a folder nor a manifest ({', '.join(MANIFESTS)})",
            "Name the folder that holds a folder of photographs for each class.",
        )
    labels = source.examples["label"]
    if 0 < labels.null_count < len(labels) and not allow_unlabelled:
        bad = source.examples.filter(pc.is_null(labels))
        raise SourceError(
            f"{path}: {_count(labels.null_count, 'example')} of {len(labels)} "
            f"{'has' if labels.null_count == 1 else 'have'} no label: {_some(bad['id'])}",
            "Label them, or pass --allow-unlabelled to carry them along without one.",
        )
    return source


def _nearby(place: Path) -> str:
    try:
        names = os.listdir(place.parent)
    except OSError:
        return f"There is no folder {place.parent} either. Check the path."
    near = difflib.get_close_matches(place.name, names, 1, 0.6)
    return f"Did you mean {place.parent / near[0]}?" if near else "Check the path."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _some(values: pa.ChunkedArray, most: int = 5) -> str:
    shown = ", ".join(repr(value) for value in values.slice(0, most).to_pylist())
    return shown + (f" and {len(values) - most:,} more" if len(values) > most else "")


def _strings(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _open_folder(path: str | Path, place: Path) -> Source:
    folder = Folder(str(place))
    names: list[str] = []
    ignored: dict[str, int] = {}
    for name in folder.names():
        extension = PurePosixPath(name).suffix.lower()
        if extension in EXTENSIONS:
            names.append(name)
        else:
            ignored[extension or name] = ignored.get(extension or name, 0) + 1
    unreadable = [name for name in names if not _is_text(name)]
    if unreadable:
        raise SourceError(
            f"{path}: {_count(len(unreadable), 'file name')} cannot be written as text (UTF-8): "
            + ascii(unreadable[0]),
            "Rename them.",
        )
    if not names:
        found = f"; it has {', '.join(sorted(ignored))} files" if ignored else "; it is empty"
        raise SourceError(
            f"{path} holds no photographs{found}",
            f"Known extensions are {' '.join(sorted(EXTENSIONS))}.",
        )
    folders = sorted({name.split("/", 1)[0] for name in names if "/" in name})
    as_splits = [name for name in folders if name.lower() in SPLIT_NAMES]
    if as_splits and len(as_splits) < len(folders):
        others = [name for name in folders if name not in as_splits]
        raise SourceError(
            f"{path} mixes folders of splits ({', '.join(as_splits)}) "
            f"with folders of classes ({', '.join(others[:5])})",
            "Put the class folders into the split folders, or describe the files by a manifest.",
        )
    labels: list[str | None] = []
    splits: list[str | None] = []
    for name in names:
        parts = name.split("/")
        split = SPLIT_NAMES[parts.pop(0).lower()] if as_splits and len(parts) > 1 else None
        splits.append(split)
        labels.append(parts[0] if len(parts) > 1 else None)
    ids = _strings(names)
    nothing = pa.nulls(len(names), pa.string())
    columns = [ids, ids, _strings(labels), _strings(splits), nothing]
    return Source(str(place), folder, pa.table(columns, list(COLUMNS)), ignored)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a byte that is no UTF-8, kept by Python as a surrogate
        return False
    return True


def _open_manifest(path: str | Path, place: Path) -> Source:
    table = _read_manifest(path, place)
    if table.num_rows == 0:
        raise SourceError(f"{path} lists no examples", "Give it a row for each photograph.")
    _check_columns(path, table)
    if "path" not in table.column_names:
        if any(";" in name for name in table.column_names):
            raise SourceError(
                f"{path} separates its columns by semicolons", "Separate them by commas."
            )
        near = difflib.get_close_matches("path", table.column_names, 1, 0.5)
        raise SourceError(
            f"{path} has no column 'path'; its columns are {', '.join(table.column_names)}",
            f"Rename {near[0]!r} to 'path'." if near else "Name the column of file names 'path'.",
        )
    checks = Checklist()
    columns = {name: _text_column(table, name) for name in COLUMNS if name != "id"}
    columns["id"] = _text_column(table, "id" if "id" in table.column_names else "path")
    for name in ("id", "path"):
        with checks.item():
            _check_present(path, name, columns[name])
    with checks.item():
        _check_unique(path, columns["id"])
    with checks.item():
        _check_paths(path, columns["path"])
    with checks.item():
        columns["split"] = _known_splits(path, columns["split"])
    checks.finish()
    carried = [name for name in table.column_names if name not in COLUMNS]
    examples = pa.table({name: columns[name] for name in COLUMNS})
    for name in carried:
        examples = examples.append_column(name, table[name])
    return Source(str(place), Folder(str(place.parent)), examples, {})


def _read_manifest(path: str | Path, place: Path) -> pa.Table:
    try:
        if place.suffix.lower() == ".parquet":
            return pq.read_table(place)
        # Text stays text ("007" is no number, "NA" may be a class); only an empty cell is none.
        return pa.csv.read_csv(
            place,
            parse_options=pa.csv.ParseOptions(
                delimiter="\t" if place.suffix.lower() == ".tsv" else ",", newlines_in_values=True
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in COLUMNS},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}", "Mend the manifest.") from None


def _text_column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    try:
        column = table[name].cast(pa.string())
    except pa.ArrowException as error:
        raise SourceError(
            f"column {name!r} of the manifest is no text ({table[name].type}): {error}",
            "Make it a column of text.",
        ) from None
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _check_columns(path: str | Path, table: pa.Table) -> None:
    spaced = [name for name in table.column_names if name != name.strip()]
    taken = [name for name in table.column_names if name in RESERVED]
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    for names, what in (
        (taken, "uses reserved column names"),
        (twice, "names columns twice"),
        (spaced, "has column names with spaces around them"),
    ):
        if names:
            raise SourceError(f"{path} {what}: {', '.join(map(repr, names))}", "Rename them.")


def _check_present(path: str | Path, name: str, column: pa.ChunkedArray) -> None:
    if column.null_count:
        first = pc.index(pc.is_null(column), True).as_py() + 1
        raise SourceError(
            f"{path}: {_count(column.null_count, 'row')} without {name!r}, the first is row {first}"
            " (not counting the header)",
            "Fill in the column, or remove the rows.",
        )


def _check_unique(path: str | Path, ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pa.table({"id": ids}).group_by("id").aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1)).sort_by("id")["id"]
    raise SourceError(
        f"{path}: {_count(len(twice), 'id')} "
        f"{'stands' if len(twice) == 1 else 'stand'} for more than one example: {_some(twice)}",
        "Ids must be unique: name them in a column 'id', or remove the repeated rows.",
    )


def _check_paths(path: str | Path, paths: pa.ChunkedArray) -> None:
    # Cheap filter first: only suspicious paths are looked at one by one.
    suspicious = pc.match_substring_regex(paths, r"\.\.|^/|\x00")
    found = paths.filter(pc.fill_null(suspicious, False)).to_pylist()
    outside = [p for p in found if p.startswith("/") or ".." in PurePosixPath(p).parts or "\0" in p]
    if outside:
        raise SourceError(
            f"{path}: {_count(len(outside), 'path')} "
            f"{'leads' if len(outside) == 1 else 'lead'} outside the manifest's folder: "
            f"{_some(pa.chunked_array([_strings(outside)]))}",
            "Put the manifest above its files and give relative paths without '..'.",
        )


def _known_splits(path: str | Path, splits: pa.ChunkedArray) -> pa.ChunkedArray:
    lowered = pc.utf8_lower(splits)
    given = pc.unique(lowered.drop_null()).to_pylist()
    unknown = sorted(set(given) - set(SPLIT_NAMES))
    if unknown:
        raise SourceError(
            f"{path}: unknown splits {', '.join(map(repr, unknown[:5]))}",
            f"Known are {', '.join(SPLITS)}; leave the cell empty for none.",
        )
    return pc.if_else(pc.equal(lowered, "val"), "validation", lowered)
