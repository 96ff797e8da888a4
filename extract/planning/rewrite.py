"""Rewrites a part without dropped examples and with the current columns of the source."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common.arrays import empty
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import PartContent, write_part
from headstart.data.contracts.store import (
    ERROR_SCHEMA,
    FilePart,
    PartRecord,
    columns_for,
    damaged,
    fingerprint_of,
    read_part,
)
from headstart.data.examples.opening import Source
from headstart.data.storage.folder import Folder


@dataclass(frozen=True)
class Rewrite:
    """What stays of a part.

    Parameters
    ----------
    rows, errors
        Positions in the part's files, int `[kept]`.
    source_rows
        For each of `rows` its row in the source, -1 if it has none, int64 `[kept]`.
    touched
        For each of `rows` whether its file has another stamp but the same bytes, bool `[kept]`.
    here
        How many of what is kept the source still has.
    """

    part: PartRecord
    rows: np.ndarray
    errors: np.ndarray
    source_rows: np.ndarray
    touched: np.ndarray
    here: int


def rewrite(
    store: Folder,
    source: Source,
    change: Rewrite,
    fingerprint: Fingerprint,
    file: FilePart | None = None,
) -> PartRecord:
    """Write a part under a new name; the old one stays until the manifest is written.

    Parameters
    ----------
    fingerprint
        Of the store, and assumed for a part of an older headstart, which has none.
    file
        The file that its examples are from, if they are planned by file.

    Raises
    ------
    StoreError
        If the part has another fingerprint.
    """
    old = change.part
    name = f"{old.name.rpartition('-')[0]}-{secrets.token_hex(6)}"
    errors = empty(ERROR_SCHEMA)
    if old.errors_file:
        before = read_part(store, old.errors_file).take(pa.array(change.errors))
        errors = pa.concat_tables([errors, before], promote_options="default")
    rows = empty(columns_for(source.examples.schema, fingerprint.dim))
    if old.rows_file and len(change.rows):
        stored = read_part(store, old.rows_file)
        made_by = fingerprint_of(stored)
        if made_by not in (None, fingerprint):
            raise damaged(store, old.rows_file, f"its embeddings were made by {made_by}")
        rows = _refresh(stored.take(pa.array(change.rows)), source, change)
    content = PartContent(fingerprint, rows, errors)
    here = replace(file, here=change.here) if file else None
    return write_part(store, name, content, replaces=old.name, file=here)


def _refresh(rows: pa.Table, source: Source, change: Rewrite) -> pa.Table:
    there = pa.array(change.source_rows >= 0)
    now = source.examples.take(pa.array(np.maximum(change.source_rows, 0)))
    schema = columns_for(now.schema, rows.schema.field("embedding").type.list_size)
    columns = []
    for field in schema:
        if field.name in ("id", "content", "embedding"):
            columns.append(rows[field.name])
        elif field.name == "stamp":
            stamps = _column(rows, field)
            files = source.stamps(change.source_rows[change.touched]).combine_chunks()
            columns.append(pc.replace_with_mask(stamps.combine_chunks(), change.touched, files))
        else:
            columns.append(pc.if_else(there, now[field.name], _column(rows, field)))
    return pa.table(columns, schema=schema)


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A stored column; nulls if the store has none of that name and type."""
    if field.name in rows.column_names and rows[field.name].type == field.type:
        return rows[field.name]
    return pa.chunked_array([pa.nulls(rows.num_rows, field.type)])
