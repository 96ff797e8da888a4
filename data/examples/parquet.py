"""Parquet files with photographs or recordings in a column: bytes, or Hugging Face's struct
`{bytes, path}`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.data.common import console
from headstart.data.common.arrays import strings
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.foreign import storable
from headstart.data.examples.source import (
    COLUMNS,
    NoExamplesError,
    Source,
    check_columns,
    check_names,
    split_of,
    text_column,
    usual_names,
)
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import Modality
from headstart.data.source_options import SourceOptions
from headstart.data.storage.folder import Folder

LOOKED_AT = 8  # values at the start of a column of bytes that are checked
FAMILIAR = (
    *("image", "img", "photo", "jpg", "png", "webp"),
    *("audio", "sound", "recording", "wav", "flac", "mp3"),
    *("bytes", "content"),
)


def holds_examples(folder: Folder, name: str, modality: Modality | None) -> bool:
    """Whether a Parquet file has a column of examples; otherwise it is a manifest.

    A file with a column `path` may be either: its content decides.
    """
    schema = _schema(folder, name)
    columns = _byte_columns(schema)
    if "path" not in schema.names:
        return bool(columns)
    return any(_recognized(folder, name, columns, each) for each in _possible(modality))


def open_parquet(
    path: object,
    folder: Folder,
    names: list[str],
    modality: Modality | None,
    options: SourceOptions = SourceOptions(),
) -> Source:
    """List the examples of some Parquet files; their bytes are not read.

    An example's id is its value in the column `id`, or its file and row. Labels that are numbers
    are replaced by their names, if Hugging Face's metadata lists them. A column `path` is kept as
    `original_path`, since `path` is where headstart finds the example.

    Parameters
    ----------
    path
        The file or the folder of files, as the user named it.
    names
        The files in `folder`.
    modality
        Of the examples; by default, what the first of them are by their content.
    options
        The column of labels.

    Raises
    ------
    SourceError
        If a file cannot be read or has no column of examples, or the files differ in columns.
    """
    checks = Checklist()
    kind = modality or _kind(folder, names[0])
    tables: list[pa.Table] = []
    with console.progress("listing Parquet files", len(names)) as advance:
        for name in names:
            with checks.item():
                tables.append(_examples(folder, name, kind, options))
            advance(1)
    checks.finish()
    try:
        examples = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(
            f"the Parquet files in {path} do not have the same columns: {error}",
            "Put files with the same columns into one folder.",
        ) from None
    if not examples.num_rows:
        raise NoExamplesError(f"{path} lists no examples", "Give it a row for each example.")
    columns = {name: examples[name] for name in COLUMNS}
    check_columns(path, columns)
    for name in examples.column_names:
        if name not in COLUMNS:
            columns[name] = examples[name]
    root = str(folder) if len(names) > 1 else folder.where(names[0])
    return Source(root, folder, pa.table(columns), {}, kind)


def _possible(modality: Modality | None) -> list[Modality]:
    """What a column of bytes may hold."""
    return [modality] if modality else [each for each in MODALITIES.values() if not each.in_tables]


def _kind(folder: Folder, name: str) -> Modality:
    """What the first examples of a file are; the table's first modality if none is recognized."""
    possible = _possible(None)
    columns = _byte_columns(_schema(folder, name))
    found = (kind for kind in possible if _recognized(folder, name, columns, kind))
    return next(found, possible[0])


def _schema(folder: Folder, name: str) -> pa.Schema:
    try:
        return folder.attempt(lambda: pq.read_schema(folder.open(name)))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{folder.where(name)} cannot be read: {error}", "Write the Parquet file again."
        ) from None


def _byte_columns(schema: pa.Schema) -> list[str]:
    def is_bytes(type_: pa.DataType) -> bool:
        return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)

    return [
        column.name
        for column in schema
        if (is_bytes(column.type) and column.name not in COLUMNS)
        or (
            pa.types.is_struct(column.type)
            and any(inner.name == "bytes" and is_bytes(inner.type) for inner in column.type)
        )
    ]


def _examples(folder: Folder, name: str, modality: Modality, options: SourceOptions) -> pa.Table:
    schema = _schema(folder, name)
    where = folder.where(name)
    image = _example_column(folder, name, schema, modality)
    others = [column for column in schema.names if column != image]
    check_names(where, others)
    count = folder.attempt(lambda: pq.read_metadata(folder.open(name)).num_rows)
    table = folder.table(name, others) if others else pa.table({"": pa.nulls(count)})
    others = usual_names(where, others, options)
    table = table.rename_columns(others or [""])
    rows = pa.array(np.arange(count)).cast(pa.string())
    columns = {
        "id": text_column(where, table, "id") if "id" in others else _joined(f"{name}#", rows),
        "path": _joined(f"{name}#{image}=", rows),
        "label": named_labels(
            schema, text_column(where, table, "label"), options.label_column or "label"
        ),
        "split": text_column(where, table, "split") if "split" in others else _split(name, count),
        "group": text_column(where, table, "group"),
    }
    for column in others:
        if column not in COLUMNS:
            columns[column] = table[column]
        elif column == "path":
            columns["original_path"] = table[column]
    return storable(where, pa.table(columns))


def _recognized(folder: Folder, name: str, columns: list[str], modality: Modality) -> list[str]:
    """The columns whose first values are examples by their content."""
    found = []
    for column in columns:
        reader = pq.ParquetFile(folder.open(name), pre_buffer=False)
        try:
            batch = next(reader.iter_batches(LOOKED_AT, columns=[column]), None)
        except (pa.ArrowException, OSError):
            continue  # reading the examples reports the error
        values = batch.column(0) if batch is not None else pa.array([])
        if pa.types.is_struct(values.type):
            values = pc.struct_field(values, "bytes")
        if any(modality.recognizes(value) for value in values.to_pylist() if value):
            found.append(column)
    return found


def _example_column(folder: Folder, name: str, schema: pa.Schema, modality: Modality) -> str:
    found = _byte_columns(schema)
    if len(found) > 1:
        found = folder.attempt(lambda: _recognized(folder, name, found, modality)) or found
    if len(found) > 1:
        found = [each for each in FAMILIAR if each in found][:1] or found
    if len(found) == 1:
        return found[0]
    noun = modality.noun
    what = f"several columns of bytes ({', '.join(found)})" if found else f"no column of {noun}s"
    raise SourceError(
        f"{folder.where(name)} has {what}; its columns are {', '.join(schema.names)}",
        "Name the column of encoded photographs (JPEG, PNG, ... as bytes) 'image', that of "
        "recordings 'audio'.",
    )


def _joined(prefix: str, rows: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([pc.binary_join_element_wise(prefix, rows, "")])


def _split(name: str, rows: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(split_of(name), pa.string()), rows)])


def named_labels(
    schema: pa.Schema, labels: pa.ChunkedArray, column: str = "label"
) -> pa.ChunkedArray:
    """Numbers as the names that Hugging Face's `ClassLabel` of a column gives them."""
    written = (schema.metadata or {}).get(b"huggingface")
    feature: Any = {}
    if written:
        try:
            feature = json.loads(written)["info"]["features"][column]
        except (ValueError, KeyError, TypeError, RecursionError):
            feature = {}
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return labels
    if not names:
        return labels
    numbers = pc.cast(labels, pa.int64(), safe=False)
    valid = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    indices = pc.if_else(valid, numbers, pa.scalar(None, pa.int64()))  # -1 means no label
    return strings(names).take(indices.combine_chunks())
