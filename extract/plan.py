"""Wanted minus done is work, cut into shards."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import StoreError
from data.files import UNFINISHED, Folder, check_parent, digest
from data.fingerprint import Fingerprint
from data.sources import COLUMNS, Source
from data.store import (
    ERRORS,
    LOCK,
    PartRecord,
    StoreManifest,
    Unfinished,
    read_manifest,
    read_records,
)

SHARDS_PER_WORKER = 8  # enough that a slow last shard does not leave the other workers idle
OUR_PART = re.compile(rf"({ERRORS}/)?part-\d{{5,}}-[0-9a-f]{{12}}\.parquet")
SMALLEST_SHARD, LARGEST_SHARD = 64, 1024


@dataclass(frozen=True)
class Shard:
    """Examples that one worker turns into one part of the store.

    Its name holds a hash of its examples, so that the same work always has the same name.
    """

    name: str
    examples: pa.Table


@dataclass(frozen=True)
class Plan:
    """What a store holds already, and which examples are still to do.

    `vanished` counts the examples in the store that the source does not have any more.
    """

    manifest: StoreManifest | None
    done: tuple[PartRecord, ...]
    todo: pa.Table
    vanished: int

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do, not even the manifest to write."""
        if self.todo.num_rows or self.manifest is None:
            return False
        return self.done == self.manifest.parts

    def shards(self, workers: int) -> list[Shard]:
        """Cut the work so that every worker has several shards, in the order of the examples."""
        total = self.todo.num_rows
        size = -(-total // (workers * SHARDS_PER_WORKER))
        size = min(max(size, SMALLEST_SHARD), LARGEST_SHARD)
        shards: list[Shard] = []
        for start in range(0, total, size):
            examples = self.todo.slice(start, size)
            mark = digest("\0".join(examples["id"].to_pylist()).encode())[:12]
            number = len(self.done) + len(shards)
            shards.append(Shard(f"part-{number:05d}-{mark}", examples))
        return shards


def plan(source: Source, store: Folder, fingerprint: Fingerprint) -> Plan:
    """Look at what is in the store and subtract it from the source.

    Nothing is written.

    Raises
    ------
    StoreError
        If the folder holds something else, features of another backbone or source, or examples
        that have changed since.
    """
    manifest, unfinished = read_manifest(store), read_records(store)
    if manifest is None and unfinished is None:
        _check_unused(store)
    for found in (manifest, unfinished):
        if found:
            _check_same(store, found, fingerprint, source)
    recorded = (*(manifest.parts if manifest else ()), *(unfinished.parts if unfinished else ()))
    parts = {part.name: part for part in recorded}
    done = tuple(parts[name] for name in sorted(parts))
    known = _read(store, [part.rows_file for part in done], COLUMNS)
    failed = _read(store, [part.errors_file for part in done], ("id",))
    _check_unchanged(store, done, known, source)
    ids = pa.chunked_array([*known["id"].chunks, *failed["id"].chunks], pa.string())
    todo = source.examples.filter(
        pc.invert(pc.is_in(source.examples["id"], value_set=ids.combine_chunks()))
    )
    return Plan(manifest, done, todo, len(ids) - (len(source) - todo.num_rows))


def _check_same(
    store: Folder, found: StoreManifest | Unfinished, fingerprint: Fingerprint, source: Source
) -> None:
    """The store's backbone and source must be those asked for: ids alone would mix them up."""
    if found.fingerprint != fingerprint:
        raise StoreError(
            f"{store} holds features of another backbone:\n"
            f"  in the store: {found.fingerprint}\n  asked for:    {fingerprint}",
            "Extract into another folder with -o, or use the backbone of the store.",
        )
    if found.source != source.path:
        raise StoreError(
            f"{store} holds features of another source:\n"
            f"  in the store: {found.source}\n  asked for:    {source.path}",
            "Extract into another folder with -o.",
        )


def _check_unchanged(
    store: Folder, done: tuple[PartRecord, ...], known: pa.Table, source: Source
) -> None:
    """What is known of the examples that are done must still be so in the source."""
    files = [part.rows_file for part in done if part.rows_file]
    if not files:
        return
    stored = pq.read_schema(store.path(files[0]))
    own = ("content", "embedding")
    if [(f.name, f.type) for f in stored if f.name not in own] != [
        (f.name, f.type) for f in source.examples.schema
    ]:
        raise StoreError(
            f"{source.path} has other columns than it had when {store} was made",
            "Extract into another folder with -o.",
        )
    rows = pc.index_in(known["id"], value_set=source.examples["id"].combine_chunks())
    known, rows = known.filter(pc.is_valid(rows)), rows.drop_null()
    for name in COLUMNS:
        now = pc.fill_null(source.examples[name].take(rows), "")
        changed = known["id"].filter(pc.not_equal(pc.fill_null(known[name], ""), now))
        if len(changed):
            raise StoreError(
                f"{len(changed):,} of the examples in {store} have another {name} in {source.path} "
                f"now, such as {changed[0].as_py()!r}",
                "Extract into another folder with -o.",
            )


def _check_unused(store: Folder) -> None:
    """A folder that is no store of ours must be empty: nothing of the user's is mixed up."""
    check_parent(store.path(""))
    if store.exists() and not store.path("").is_dir():
        raise StoreError(f"{store} is a file, not a folder", "Choose another folder with -o.")
    names = [name for name in store.names() if name != LOCK]
    if names:
        raise StoreError(
            f"{store} is in use by something else (it holds {names[0]})",
            "Choose an empty or new folder with -o.",
        )


def _read(store: Folder, files: list[str | None], columns: tuple[str, ...]) -> pa.Table:
    """Some text columns of the files of the parts; a part without such a file is passed over."""
    tables = [pa.schema([(name, pa.string()) for name in columns]).empty_table()]
    for file in filter(None, files):
        try:
            tables.append(pq.read_table(store.path(file), columns=list(columns)))
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{store.path(file)} is recorded as done, but cannot be read: {error}",
                "Restore it, or extract again into another folder.",
            ) from None
    return pa.concat_tables(tables)


def sweep(store: Folder, done: tuple[PartRecord, ...]) -> None:
    """Remove what a run that died left half done: parts without a record, unfinished files."""
    kept = {file for part in done for file in (part.rows_file, part.errors_file)}
    for name in store.names():
        leftover = OUR_PART.fullmatch(name) and name not in kept
        if leftover or name.rpartition("/")[2].startswith(UNFINISHED):
            store.remove(name)
