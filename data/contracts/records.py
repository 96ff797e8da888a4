"""What a run has done so far, written as it goes, so that a crash loses no finished work.

In `_records/` of a feature store, until the manifest takes its place:

- `run.parquet`: written first; what the store is made from, and its earlier parts.
- `NAME.begun-N`: empty; a worker has started part NAME with N examples.
- `NAME.parquet`: part NAME is complete; without it, the part does not count.

Those that are not empty are notes of JSON; in format version 1 of the store they were `.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
    damaged,
    open_part,
    part_schema,
    read_manifest,
    with_fingerprint,
    write_manifest,
)
from headstart.data.storage.files import UNFINISHED, digest
from headstart.data.storage.folder import Folder
from headstart.data.storage.lock import Held
from headstart.data.storage.notes import columns_of, from_note, to_note

RUN, OLD_RUN = f"{RECORDS}/run.parquet", f"{RECORDS}/run.json"
OLD_LOCK = "_lock"  # of a run on a store of format version 1
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
    columns: pa.Schema | None = None,
) -> None:
    """Mark a folder as a store that is being written, with its earlier parts.

    `columns` are those of the parts, if they carry more than every store has.
    """
    folder.remove_all(RECORDS)
    value = {
        "fingerprint": fingerprint.to_json(),
        "source": source,
        "parts": [asdict(part) for part in parts],
        "inferences": inferences,
    }
    columns = part_schema(fingerprint.dim, []) if columns is None else columns
    folder.write(RUN, to_note(json.dumps(value).encode(), columns))


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
    """Write a part's features and errors, then its record, with which it starts to count.

    All three have the columns of `content.rows`.
    """
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
        folder.write(record.errors_file, to_note(errors_content, rows.schema))
    folder.write(_record(name), to_note(json.dumps(asdict(record)).encode(), rows.schema))
    return record


def _record(part: str) -> str:
    return f"{RECORDS}/{part}.parquet"


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
    run_file = next((name for name in (RUN, OLD_RUN) if name in names), None)
    if run_file is None:
        return None
    ends = (".parquet", ".json")
    records = [name for name in names if name.endswith(ends) and name != run_file]
    run = _read(folder, run_file, _Run)
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
    """What `run.parquet` says."""

    fingerprint: Fingerprint
    source: str
    parts: tuple[PartRecord, ...]
    inferences: int


def _read(folder: Folder, name: str, kind: type[Kind]) -> Kind:
    try:
        return read_json(from_note(folder.read(name)), kind)
    except ValueError as error:
        raise _damaged(folder, name, error) from None


def _damaged(folder: Folder, name: str, error: Exception) -> StoreError:
    return StoreError(
        f"{folder.where(name)} is damaged: {error}", "Extract again into another folder."
    )


def finish(folder: Folder, manifest: StoreManifest, held: Held = lambda: None) -> None:
    """Write the manifest, then remove the records and what dead runs left unfinished.

    Parts that the new manifest replaces are kept as notes in `_replaced/` until the next run ends:
    whoever opened the store before finds them there, see `store.read_part`.

    Parameters
    ----------
    held
        Raises `StoreError` if another process writes to the store now, see `sole_writer`.
    """
    before = read_manifest(folder)
    held()
    columns = _columns_of_parts(folder, manifest.parts, manifest.fingerprint)
    kept = _files(manifest.parts)
    with ThreadPoolExecutor(READERS) as pool:
        errors = [name for name in kept if name.startswith(f"{ERRORS}/")]
        list(pool.map(lambda name: _agree(folder, name, columns), errors))
        write_manifest(folder, manifest, columns)
        held()
        for name in (RUN, OLD_RUN, OLD_LOCK):  # first: records without it are ignored
            folder.remove(name)
        folder.remove_all(RECORDS)
        folder.remove_all(REPLACED)
        if before:
            gone = sorted(_files(before.parts) - kept)
            list(pool.map(lambda name: _set_aside(folder, name, columns), gone))
    sweep(folder, manifest.parts, held)


def columns_of_store(folder: Folder) -> pa.Schema:
    """The columns of a store's parts, as its manifest or unfinished run have them.

    In format version 1 neither has them; then those that every store has.
    """
    for name in (RUN, MANIFEST):
        if folder.exists(name):
            return columns_of(folder.read(name))
    recorded = read_manifest(folder) or read_unfinished(folder)
    return part_schema(recorded.fingerprint.dim if recorded else 1, [])


def _columns_of_parts(
    folder: Folder, parts: Sequence[PartRecord], fingerprint: Fingerprint
) -> pa.Schema:
    file = next((part.rows_file for part in parts if part.rows_file), None)
    if file is None:
        return part_schema(fingerprint.dim, [])
    try:
        schema = folder.attempt(lambda: pq.read_schema(open_part(folder, file)))
    except (pa.ArrowException, OSError) as error:
        raise damaged(folder, file, str(error)) from None
    return schema.remove_metadata()


def _agree(folder: Folder, file: str, columns: pa.Schema) -> None:
    """Write errors again if they are no note, or one with the columns of an earlier source."""
    content = folder.read(file)
    errors = from_note(content)
    if errors is content or not columns_of(content).equals(columns):
        folder.write(file, to_note(errors, columns))


def _set_aside(folder: Folder, file: str, columns: pa.Schema) -> None:
    try:
        content = from_note(folder.read(file))
    except FileNotFoundError:
        return
    folder.write(f"{REPLACED}/{file}", to_note(content, columns))
    folder.remove(file)


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
