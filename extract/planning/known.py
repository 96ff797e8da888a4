"""What a store has of each example, compared with the source as it is now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common.arrays import bools, flags, numbers
from headstart.data.contracts.store import PartRecord, part_columns, read_part
from headstart.data.examples.opening import Source
from headstart.data.modalities.stretches import whole_of
from headstart.data.storage.folder import Folder

BATCH = 2_000_000  # examples compared at once: a bound on memory, since each batch looks up all ids
NOWHERE = numbers(np.array([-1], np.int32))[0]


@dataclass(frozen=True)
class Known:
    """The examples of a store, one entry each, part by part, rows of features before errors.

    Parameters
    ----------
    part
        Index into `parts`, int32 `[examples]`.
    position
        Row in the part's file of features or of errors, int32 `[examples]`.
    failed
        Whether it is an error, bool `[examples]`.
    source_rows
        Row in the source, int64 `[examples]`; -1 if the source no longer has it.
    stale
        Whether its label, path or another column has changed in the source, or the source has
        other columns, bool `[examples]`.
    touched
        Whether its file now has another stamp, bool `[examples]`.
    moved
        Whether the source now names another file for it, bool `[examples]`.
    there
        Whether its file exists, bool `[examples]`.
    superseded
        Whether the source has other parts of the same example instead, or a person removed it,
        bool `[examples]`.
    """

    parts: tuple[PartRecord, ...]
    part: np.ndarray
    position: np.ndarray
    failed: np.ndarray
    source_rows: np.ndarray
    stale: np.ndarray
    touched: np.ndarray
    moved: np.ndarray
    there: np.ndarray
    superseded: np.ndarray

    @property
    def in_source(self) -> np.ndarray:
        """Whether the source still has it, bool `[examples]`."""
        return self.source_rows >= 0

    def __len__(self) -> int:
        return len(self.part)


def read_known(store: Folder, parts: tuple[PartRecord, ...], source: Source) -> Known:
    """Read the parts, without embeddings and hashes, and compare them with the source.

    On object storage two parts may have the same example (if a run that was taken for dead still
    wrote it); the later part is then left out with all its examples.

    Raises
    ------
    StoreError
        If a part that counts cannot be read.
    """
    batches = [_compare(batch, source) for batch in _batches(store, parts)]
    columns = [np.concatenate(column) for column in zip(*batches, strict=True)] if batches else []
    if not columns:
        kinds = (np.int32, np.int32, bool, np.int64, bool, bool, bool, bool, bool)
        columns = [np.empty(0, kind) for kind in kinds]
    return _without_repeats(Known(parts, *columns))


@dataclass(frozen=True)
class _Entries:
    """Some rows of one file of a part."""

    part: int
    failed: bool
    table: pa.Table


def _batches(store: Folder, parts: tuple[PartRecord, ...]) -> Iterator[list[_Entries]]:
    batch: list[_Entries] = []
    examples = 0
    for number, part in enumerate(parts):
        for file, failed in ((part.rows_file, False), (part.errors_file, True)):
            if file:
                batch.append(_Entries(number, failed, _read(store, file, failed)))
        examples += part.rows + part.errors
        if examples >= BATCH:
            yield batch
            batch, examples = [], 0
    if batch:
        yield batch


def _read(store: Folder, file: str, failed: bool) -> pa.Table:
    leave_out = {"stage", "reason", "message"} if failed else {"content", "embedding"}
    names = part_columns(store, file)
    return read_part(store, file, [name for name in names if name not in leave_out])


def _find(batch: list[_Entries], source: Source) -> np.ndarray:
    """The rows of examples in the source, -1 for none, int64 `[examples]`.

    Parts mostly follow the source's order: as long as each continues where the previous one ended,
    comparing is enough; only the rest needs a table of all ids, which takes seconds and memory.
    """
    ids = source.examples["id"]
    rows, strangers = [], []
    next_row = pc.index(ids, batch[0].table["id"][0]).as_py()
    for entries in batch:
        own = entries.table["id"]
        if next_row >= 0 and ids.slice(next_row, len(own)).equals(own):
            rows.append(np.arange(next_row, next_row + len(own), dtype=np.int64))
            next_row += len(own)
        else:
            rows.append(np.full(len(own), -2, np.int64))
            strangers.extend(own.chunks)
            next_row = -1
    found = np.concatenate(rows)
    if strangers:
        places = pc.index_in(pa.chunked_array(strangers, pa.string()), value_set=ids)
        found[found == -2] = np.concatenate(
            [np.from_dlpack(chunk) for chunk in pc.fill_null(places, NOWHERE).chunks]
        )
    return found


def _compare(batch: list[_Entries], source: Source) -> list[np.ndarray]:
    """The columns of `Known`, but `parts`, for some files."""
    found = _find(batch, source)
    stamps = source.stamps(found)
    sizes = [entries.table.num_rows for entries in batch]
    stale, touched, moved, start = [], [], [], 0
    for entries, size in zip(batch, sizes, strict=True):
        rows = found[start : start + size]
        stale.append(_stale(entries, source, rows))
        touched.append(_touched(entries, stamps.slice(start, size)))
        moved.append(_moved(entries, source, rows))
        start += size
    return [
        np.repeat([entries.part for entries in batch], sizes).astype(np.int32),
        np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        np.repeat([entries.failed for entries in batch], sizes),
        found,
        np.concatenate(stale),
        np.concatenate(touched),
        np.concatenate(moved),
        bools(stamps.is_valid()),
        _superseded(batch, source, found),
    ]


def _superseded(batch: list[_Entries], source: Source, found: np.ndarray) -> np.ndarray:
    superseded = np.zeros(len(found), bool)
    gone = np.flatnonzero(found < 0)
    if len(gone) and (source.wholes or source.removed):
        ids = pa.chunked_array([c for entries in batch for c in entries.table["id"].chunks])
        superseded[gone] = [
            id in source.removed or (bool(source.wholes) and whole_of(id) in source.wholes)
            for id in ids.take(numbers(gone)).to_pylist()
        ]
    return superseded


def _touched(entries: _Entries, now: pa.ChunkedArray) -> np.ndarray:
    if "stamp" not in entries.table.column_names:  # written before stamps were
        return np.zeros(len(now), bool)
    before = entries.table["stamp"]
    # Unknown if the file is missing now, or could not be read then and so has no stamp.
    known = bools(now.is_valid())
    if not entries.failed:
        known &= bools(before.is_valid())
    return known & _differ(before, now)


def _moved(entries: _Entries, source: Source, rows: np.ndarray) -> np.ndarray:
    moved = np.zeros(len(rows), bool)
    if "path" not in entries.table.column_names:  # errors of an older headstart
        return moved
    there = rows >= 0
    before = entries.table["path"].filter(flags(there))
    now = source.examples["path"].take(numbers(rows[there]))
    moved[there] = _differ(before, now) & bools(before.is_valid())
    return moved


def _stale(entries: _Entries, source: Source, rows: np.ndarray) -> np.ndarray:
    stale = np.zeros(len(rows), bool)
    if entries.failed:  # errors have no columns from the source
        return stale
    if "stamp" not in entries.table.column_names:  # written before stamps were
        return np.ones(len(rows), bool)
    stored = entries.table.drop_columns(["id", "stamp"])
    there = rows >= 0
    now = source.examples.drop_columns(["id"])
    if [(f.name, f.type) for f in stored.schema] != [(f.name, f.type) for f in now.schema]:
        return np.ones(len(rows), bool)  # all parts of a store have the same columns
    taken = now.take(numbers(rows[there]))
    before = stored.filter(flags(there))
    different = np.zeros(len(taken), bool)
    for name in stored.column_names:
        different |= _differ(before[name], taken[name])
    stale[there] = different
    return stale


def _differ(one: pa.ChunkedArray, two: pa.ChunkedArray) -> np.ndarray:
    """Where two columns differ; null equals null, and NaN equals NaN."""
    if one.equals(two):
        return np.zeros(len(one), bool)
    if pa.types.is_nested(one.type):
        return np.array([a != b for a, b in zip(one.to_pylist(), two.to_pylist(), strict=True)])
    null = pc.xor(pc.is_null(one), pc.is_null(two))
    other = pc.fill_null(pc.not_equal(one, two), False)
    if pa.types.is_floating(one.type):
        both = pc.and_(pc.is_nan(one), pc.is_nan(two))
        other = pc.and_not(other, pc.fill_null(both, False))
    return bools(pc.or_(null, other))


def _without_repeats(known: Known) -> Known:
    rows = np.where(known.in_source, known.source_rows, -1 - np.arange(len(known)))
    _, first = np.unique(rows, return_index=True)
    if len(first) == len(known):
        return known
    repeated = np.ones(len(known), bool)
    repeated[first] = False
    dropped = np.unique(known.part[repeated])
    parts = tuple(part for number, part in enumerate(known.parts) if number not in dropped)
    kept = ~np.isin(known.part, dropped)
    renumbered = np.cumsum(~np.isin(np.arange(len(known.parts)), dropped)) - 1
    columns = {
        each.name: getattr(known, each.name)[kept] for each in fields(known) if each.name != "parts"
    }
    columns["part"] = renumbered[columns["part"]].astype(np.int32)
    return Known(parts=parts, **columns)
