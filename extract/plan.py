"""Wanted minus done is work, cut into shards."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.errors import StoreError
from data.files import UNFINISHED, Folder, digest
from data.fingerprint import Fingerprint
from data.sources import Source
from data.store import (
    ERRORS,
    PartRecord,
    StoreManifest,
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
        If the folder holds something else, or features of another backbone.
    """
    manifest = read_manifest(store)
    recorded, found = read_records(store)
    if manifest:
        found.add(manifest.fingerprint)
    elif not found:
        _check_unused(store)
    for other in found - {fingerprint}:
        raise StoreError(
            f"{store} holds features of another backbone:\n"
            f"  in the store: {other}\n  asked for:    {fingerprint}",
            "Extract into another folder with -o, or use the backbone of the store.",
        )
    parts = {part.name: part for part in (*(manifest.parts if manifest else ()), *recorded)}
    done = tuple(parts[name] for name in sorted(parts))
    ids = _done_ids(store, done)
    todo = source.examples.filter(pc.invert(pc.is_in(source.examples["id"], value_set=ids)))
    return Plan(manifest, done, todo, len(ids) - (len(source) - todo.num_rows))


def _check_unused(store: Folder) -> None:
    """A folder that is no store of ours must be empty: nothing of the user's is mixed up."""
    if store.exists() and not store.path("").is_dir():
        raise StoreError(f"{store} is a file, not a folder", "Choose another folder with -o.")
    names = store.names()
    if names:
        raise StoreError(
            f"{store} is in use by something else (it holds {names[0]})",
            "Choose an empty or new folder with -o.",
        )


def _done_ids(store: Folder, done: tuple[PartRecord, ...]) -> pa.Array:
    files = [file for part in done for file in (part.rows_file, part.errors_file) if file]
    chunks = [chunk for file in files for chunk in _read_ids(store, file).chunks]
    return pa.chunked_array(chunks, pa.string()).combine_chunks()


def _read_ids(store: Folder, file: str) -> pa.ChunkedArray:
    try:
        return pq.read_table(store.path(file), columns=["id"])["id"]
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{store.path(file)} is recorded as done, but cannot be read: {error}",
            "Restore it, or extract again into another folder.",
        ) from None


def sweep(store: Folder, done: tuple[PartRecord, ...]) -> None:
    """Remove what a run that died left half done: parts without a record, unfinished files."""
    kept = {file for part in done for file in (part.rows_file, part.errors_file)}
    for name in store.names():
        leftover = OUR_PART.fullmatch(name) and name not in kept
        if leftover or name.rpartition("/")[2].startswith(UNFINISHED):
            store.remove(name)
