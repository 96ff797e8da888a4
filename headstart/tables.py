"""What other libraries hold in memory becomes a source: pandas, Polars, Arrow, datasets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.cache import cache_folder, key_of
from headstart.data.common.errors import SourceError
from headstart.data.examples.foreign import storable
from headstart.data.examples.opening import open_source
from headstart.data.examples.parquet import named_labels
from headstart.data.examples.source import (
    COLUMNS,
    Source,
    check_columns,
    check_names,
    text_column,
    usual_names,
)
from headstart.data.modalities.known import modality_of
from headstart.data.modalities.modality import Modality
from headstart.data.source_options import SourceOptions
from headstart.data.storage.local import LocalFolder

WHAT = "the table"
WRITTEN_AT_ONCE = 100  # pictures, which are in memory meanwhile


def is_table(value: object) -> bool:
    """Whether it is a table of pandas, Polars, Arrow or datasets."""
    return any(hasattr(value, each) for each in ("__arrow_c_stream__", "to_parquet")) or (
        type(value).__module__.startswith("datasets.")
    )


def as_source(
    value: Any,
    allow_unlabelled: bool = False,
    modality: Modality | None = None,
    options: SourceOptions = SourceOptions(),
) -> Source:
    """Open a source: a path or an address, or a table.

    A table has a column `path` of files (absolute, or relative to `root` or the current folder)
    and, if there are any, `label`, `split`, `group` and `id`; or a column of pictures as Parquet
    files have it, which is written to the cache.

    Raises
    ------
    SourceError
        As `open_source`; also for what is neither a path nor a table.
    """
    if isinstance(value, Source):
        return value
    if isinstance(value, str | os.PathLike):
        return open_source(options.address(os.fspath(value)), allow_unlabelled, modality)
    if not is_table(value):
        raise SourceError(
            f"{type(value).__name__} is not a source",
            "Give a path, an address, or a table of pandas, Polars, Arrow or datasets.",
        )
    if _is_dataset(value):
        if "path" not in value.column_names and options.path_column is None:
            return open_source(options.address(_written(value)), allow_unlabelled, modality)
        table = value.with_format("arrow")[:].replace_schema_metadata(
            value.features.arrow_schema.metadata  # with the names of classes
        )
    elif _is_pandas(value):
        table = pa.Table.from_pandas(value, preserve_index=False)
    else:
        table = pa.table(value)
    if "path" in table.column_names or options.path_column is not None:
        return _of_paths(table, modality, options)
    path = cache_folder("sources", f"{key_of(_digest(table))}.parquet")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        pq.write_table(table, unfinished)
        os.replace(unfinished, path)
    return open_source(options.address(path), allow_unlabelled, modality)


def _is_pandas(value: Any) -> bool:
    return hasattr(value, "iloc")


def _is_dataset(value: Any) -> bool:
    """Whether it is a `datasets.Dataset`; raises `SourceError` for others of that library."""
    if not type(value).__module__.startswith("datasets."):
        return False
    if isinstance(value, dict):
        raise SourceError(
            f"it has the splits {', '.join(map(repr, value))}; a source is one table",
            f"Give one of them, such as dataset[{next(iter(value), '')!r}].",
        )
    if not hasattr(value, "_fingerprint"):
        raise SourceError(
            f"{type(value).__name__} is read once and has no length",
            "Load it without streaming=True.",
        )
    return True


def _digest(table: pa.Table) -> str:
    from headstart.data.storage.files import digest

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return digest(sink.getvalue())


def _written(dataset: Any) -> Path:
    """A dataset as a Parquet file of the cache, by its own fingerprint."""
    path = cache_folder("sources", f"{key_of(str(dataset._fingerprint))}.parquet")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.parquet")
        _write(dataset, unfinished)
        os.replace(unfinished, path)
    return path


def _write(dataset: Any, path: Path) -> None:
    """What `to_parquet` does, with the files that pictures are in, and without progress bars."""
    from datasets.table import embed_table_storage

    schema = dataset.features.arrow_schema
    with pq.ParquetWriter(path, schema) as writer:
        for batch in dataset.with_format("arrow").iter(WRITTEN_AT_ONCE):
            named = batch.replace_schema_metadata(schema.metadata)  # shuffling loses them
            writer.write_table(embed_table_storage(named).cast(schema))


def _of_paths(table: pa.Table, modality: Modality | None, options: SourceOptions) -> Source:
    if not table.num_rows:
        raise SourceError(f"{WHAT} has no rows", "Give it a row for each example.")
    check_names(WHAT, table.column_names)
    schema = table.schema  # which names the classes, and loses them with the old names
    table = table.rename_columns(usual_names(WHAT, table.column_names, options))
    if "label" in table.column_names:
        named = named_labels(schema, table["label"], options.label_column or "label")
        table = table.set_column(table.column_names.index("label"), "label", named)
    columns = {name: text_column(WHAT, table, name) for name in COLUMNS if name != "id"}
    given = columns["path"]
    columns["id"] = text_column(WHAT, table, "id") if "id" in table.column_names else given
    check_columns(WHAT, columns)
    base = os.path.expanduser(options.root or "")
    whole = (os.path.join(base, os.path.expanduser(path)) for path in given.to_pylist())
    paths = [os.path.abspath(path) for path in whole]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    columns["path"] = pa.chunked_array([[os.path.relpath(path, root) for path in paths]])
    columns |= {name: table[name] for name in table.column_names if name not in COLUMNS}
    ordered = {name: columns.pop(name) for name in COLUMNS} | columns
    return Source(
        path=f"a table of {root} ({key_of(paths)})",
        folder=LocalFolder(root),
        examples=storable(WHAT, pa.table(ordered)),
        left_out={},
        modality=modality or modality_of(paths),
    )
