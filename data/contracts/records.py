"""What a run has done so far, written as it goes, so that a crash loses no finished work.

In `_records/` of a feature store, until the manifest takes its place:

- `run.json`: written first; what the store is made from, and its earlier parts.
- `NAME.begun-N`: empty; a worker has started part NAME with N examples.
- `NAME.json`: part NAME is complete; without it, the part does not count.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.common.errors import StoreError
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.json_reader import Kind, read_json
from headstart.data.contracts.store import (
    ERRORS,
    MANIFEST,
    RECORDS,
    REPLACED,
    FilePart,
    PartRecord,
    StoreManifest,
    check_parts,
    read_manifest,
    with_fingerprint,
)
from headstart.data.storage.files import UNFINISHED, digest
from headstart.data.storage.folder import Folder
from headstart.data.storage.lock import Held

RUN = f"{RECORDS}/run.json"
BEGUN = re.compile(rf"{RECORDS}/(.+)\.begun-(\d+)")
OUR_PART = re.compile(rf"({ERRORS}/)?part-\d{{5,}}-[0-9a-f]{{12}}\.parquet")
ROW_GROUP = 256  # rows that are encoded at once
READERS = 16  # small files read at once: object storage is slow, but serves many


@dataclass(frozen=True)
class Unfinished:
    """What a run that has not finished did, and what it was asked for.

    Parameters
    ----------
    parts
        Complete ones; a part that replaces another one may be empty, if none of its examples was
        kept.
    inferences
        How many examples went through the backbone since the manifest was written, at most.
    """

    fingerprint: Fingerprint
    source: str
    parts: tuple[PartRecord, ...]
    inferences: int


@dataclass(frozen=True)
class PartContent:
    """What a part holds.

    Parameters
    ----------
    fingerprint
        Of what made the embeddings; it is written into the part.
    rows, errors
        Features, and examples that failed; either may be empty.
    """

    fingerprint: Fingerprint
    rows: pa.Table
    errors: pa.Table


def begin(
    folder: Folder,
    fingerprint: Fingerprint,
    source: str,
    parts: tuple[PartRecord, ...] = (),
    inferences: int = 0,
) -> None:
    """Mark a folder as a store that is being written, with its earlier parts."""
    folder.remove_all(RECORDS)
    value = {
        "fingerprint": fingerprint.to_json(),
        "source": source,
        "parts": [asdict(part) for part in parts],
        "inferences": inferences,
    }
    folder.write(RUN, json.dumps(value).encode())


def begin_part(folder: Folder, name: str, examples: int) -> None:
    """Record that a part was started: its inferences count even if it is never finished."""
    folder.write(f"{RECORDS}/{name}.begun-{examples}", b"")


def write_part(
    folder: Folder,
    name: str,
    content: PartContent,
    inferences: int = 0,
    replaces: str | None = None,
    file: FilePart | None = None,
) -> PartRecord:
    """Write a part's features and errors, then its record, with which it starts to count."""
    rows, errors = content.rows, content.errors
    marked = with_fingerprint(rows, content.fingerprint)
    rows_content = _parquet(marked) if rows.num_rows else None
    errors_content = _parquet(errors) if errors.num_rows else None
    record = PartRecord(
        name=name,
        rows=rows.num_rows,
        errors=errors.num_rows,
        rows_sha256=digest(rows_content) if rows_content else None,
        errors_sha256=digest(errors_content) if errors_content else None,
        inferences=inferences,
        replaces=replaces,
        file=file,
    )
    if rows_content and record.rows_file:
        folder.write(record.rows_file, rows_content)
    if errors_content and record.errors_file:
        folder.write(record.errors_file, errors_content)
    folder.write(f"{RECORDS}/{name}.json", json.dumps(asdict(record)).encode())
    return record


def _parquet(table: pa.Table) -> memoryview:
    """A Parquet file, made in memory with few copies, since shards may be large."""
    sink = BytesIO()
    text = [name for name in table.column_names if name != "embedding"]
    # Embeddings hardly compress; a dictionary of them would only cost time.
    compression = {name: "zstd" if name in text else "none" for name in _leaves(table)}
    pq.write_table(
        table, sink, compression=compression, use_dictionary=text, row_group_size=ROW_GROUP
    )
    return sink.getbuffer()


def _leaves(table: pa.Table) -> list[str]:
    return [
        "embedding.list.element" if name == "embedding" else name for name in table.column_names
    ]


def read_unfinished(folder: Folder) -> Unfinished | None:
    """What an unfinished run recorded; None if there is no such run.

    Raises
    ------
    StoreError
        If a record is damaged.
    """
    names = [name for name in folder.names(RECORDS) if UNFINISHED not in name]
    if RUN not in names:
        return None
    records = [name for name in names if name.endswith(".json") and name != RUN]
    run = _read(folder, RUN, _Run)
    with ThreadPoolExecutor(READERS) as pool:
        recorded = tuple(pool.map(lambda name: _read(folder, name, PartRecord), records))
    try:
        check_parts((*run.parts, *recorded))
    except ValueError as error:
        raise _damaged(folder, RECORDS, error) from None
    whole = {part.name for part in recorded}
    begun = (match.groups() for name in names if (match := BEGUN.fullmatch(name)))
    died = sum(int(examples) for name, examples in begun if name not in whole)
    made = sum(part.inferences for part in recorded)
    inferences = run.inferences + made + died
    return Unfinished(run.fingerprint, run.source, (*run.parts, *recorded), inferences)


@dataclass(frozen=True)
class _Run:
    """What `run.json` says."""

    fingerprint: Fingerprint
    source: str
    parts: tuple[PartRecord, ...]
    inferences: int


def _read(folder: Folder, name: str, kind: type[Kind]) -> Kind:
    try:
        return read_json(folder.read(name), kind)
    except ValueError as error:
        raise _damaged(folder, name, error) from None


def _damaged(folder: Folder, name: str, error: Exception) -> StoreError:
    return StoreError(
        f"{folder.where(name)} is damaged: {error}", "Extract again into another folder."
    )


def finish(folder: Folder, manifest: StoreManifest, held: Held = lambda: None) -> None:
    """Write the manifest, then remove the records and what dead runs left unfinished.

    Parts that the new manifest replaces are moved to `_replaced/` until the next run ends: whoever
    opened the store before finds them there, see `headstart.data.contracts.store.read_part`.

    Parameters
    ----------
    held
        Raises `StoreError` if another process writes to the store now, see `sole_writer`.
    """
    before = read_manifest(folder)
    held()
    folder.write(MANIFEST, manifest.to_bytes())
    held()
    folder.remove(RUN)  # first: records without it are ignored
    folder.remove_all(RECORDS)
    folder.remove_all(REPLACED)
    if before:
        for file in sorted(_files(before.parts) - _files(manifest.parts)):
            folder.move(file, f"{REPLACED}/{file}")
    sweep(folder, manifest.parts, held)


def _files(parts: tuple[PartRecord, ...]) -> set[str]:
    files = (file for part in parts for file in (part.rows_file, part.errors_file))
    return {file for file in files if file}


def sweep(folder: Folder, parts: tuple[PartRecord, ...], held: Held = lambda: None) -> None:
    """Remove parts that do not count, and unfinished files."""
    kept = _files(parts)
    held()
    for name in folder.names():
        leftover = OUR_PART.fullmatch(name) and name not in kept
        if leftover or name.rpartition("/")[2].startswith(UNFINISHED):
            folder.remove(name)
