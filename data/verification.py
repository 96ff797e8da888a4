"""Checks a whole feature store: every part, checksum, number and id."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.data.common import console
from headstart.data.common.arrays import in_memory
from headstart.data.common.errors import HeadstartError, StoreError
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import (
    OUR_PART,
    begin,
    columns_of_store,
    read_unfinished,
    sweep,
)
from headstart.data.contracts.store import (
    EXTRACT_COMMAND,
    MANIFEST,
    OLD_MANIFEST,
    RECORDS,
    TEXT_COLUMNS,
    PartRecord,
    StoreManifest,
    embeddings_of,
    fingerprint_of,
    read_manifest,
)
from headstart.data.examples.opening import Source, open_source
from headstart.data.examples.parts import in_parts
from headstart.data.examples.source import has_repeats
from headstart.data.modalities.known import MODALITIES
from headstart.data.storage.files import UNFINISHED, digest
from headstart.data.storage.folder import Folder
from headstart.data.storage.lock import sole_writer
from headstart.data.storage.notes import from_note, to_note
from headstart.data.storage.places import folder_at

DAMAGED = "_damaged"  # the folder that `repair` moves damaged parts to


@dataclass(frozen=True)
class Verification:
    """What was found.

    Parameters
    ----------
    finished
        Whether the last run on the store finished.
    damaged
        What is wrong with a part, by its name.
    leftovers
        Files that no record mentions: of a run that died, or that is still running.
    source
        Where the examples came from.
    source_problem
        Why the source could not be compared; empty if it was.
    missing
        Examples of the source that have neither features nor an error in the store.
    vanished
        Examples of the store that the source does not have.
    """

    store: str
    finished: bool
    parts: int
    rows: int
    errors: int
    source: str
    damaged: dict[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    source_problem: str = ""
    missing: int = 0
    vanished: int = 0

    @property
    def sound(self) -> bool:
        """Whether every example of the source is one row of features or one row of errors."""
        return self.finished and not (self.damaged or self.leftovers or self.missing)


def verify(path: str | Path) -> Verification:
    """Read a whole store and compare it with its records and its source.

    Raises
    ------
    StoreError
        If it is not a feature store, or its records cannot be read.
    """
    folder = folder_at(path)
    manifest = read_manifest(folder)
    recorded = manifest or read_unfinished(folder)
    if recorded is None:
        raise StoreError(f"{path} is not a feature store (it has no {MANIFEST})", EXTRACT_COMMAND)
    names = folder.names()
    looks: list[_Look] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        console.progress("verifying parts", len(recorded.parts)) as advance,
    ):
        for look in pool.map(
            lambda part: _look(folder, part, recorded.fingerprint), recorded.parts
        ):
            looks.append(look)
            advance(1)
    damaged = {look.part: look.problem for look in looks if look.problem}
    sound = [look for look in looks if not look.problem]
    damaged |= _repeated(sound)
    ids = _concat([look.ids for look in sound if look.part not in damaged])
    problem, missing, vanished = _compare(recorded.source, manifest, ids)
    kept = {file for part in recorded.parts for file in (part.rows_file, part.errors_file)}
    return Verification(
        store=str(folder),
        finished=manifest is not None,
        parts=len(recorded.parts),
        rows=sum(part.rows for part in recorded.parts),
        errors=sum(part.errors for part in recorded.parts),
        source=recorded.source,
        damaged=damaged,
        leftovers=tuple(name for name in names if _is_leftover(name, kept, manifest is not None)),
        source_problem=problem,
        missing=missing,
        vanished=vanished,
    )


def _is_leftover(name: str, kept: set[str | None], finished: bool) -> bool:
    if name.rpartition("/")[2].startswith(UNFINISHED):
        return True
    if name.startswith(f"{RECORDS}/"):
        return finished
    return bool(OUR_PART.fullmatch(name)) and name not in kept


@dataclass(frozen=True)
class _Look:
    part: str
    ids: pa.ChunkedArray
    problem: str = ""


def _look(folder: Folder, part: PartRecord, fingerprint: Fingerprint) -> _Look:
    nothing, dim = _concat([]), fingerprint.dim
    try:
        rows = _table(folder, part.rows_file, part.rows_sha256, part.rows)
        errors = _table(folder, part.errors_file, part.errors_sha256, part.errors)
    except (_Damaged, OSError, pa.ArrowException) as error:
        return _Look(part.name, nothing, str(error))
    if rows is not None:
        lacking = [name for name in (*TEXT_COLUMNS, "embedding") if name not in rows.schema.names]
        if [name for name in lacking if name != "stamp"]:  # older stores lack stamps
            return _Look(part.name, nothing, f"it lacks the columns {', '.join(lacking)}")
        if rows["embedding"].type.list_size != dim:
            width = rows["embedding"].type.list_size
            return _Look(part.name, nothing, f"its embeddings are {width} wide instead of {dim}")
        if (made_by := fingerprint_of(rows)) not in (None, fingerprint):
            problem = f"its embeddings were made by {made_by}, not by {fingerprint}"
            return _Look(part.name, nothing, problem)
        if not np.isfinite(embeddings_of(rows)).all():
            return _Look(part.name, nothing, "its embeddings have NaN or infinite numbers")
    ids = _concat([table["id"] for table in (rows, errors) if table is not None])
    if has_repeats(ids):
        return _Look(part.name, nothing, "it has an example twice")
    return _Look(part.name, ids)


class _Damaged(Exception):
    pass


def _table(folder: Folder, file: str | None, sha256: str | None, rows: int) -> pa.Table | None:
    if file is None:
        return None
    try:
        written = folder.read(file)
    except FileNotFoundError:
        raise _Damaged(f"{file} is missing") from None
    try:
        content = from_note(written)
    except (ValueError, pa.ArrowException):  # what its checksum says in words
        content = written
    if digest(content) != sha256:
        raise _Damaged(f"{file} has changed since it was written ({len(content):,} bytes)")
    table = pq.read_table(in_memory(content))
    if table.num_rows != rows:
        raise _Damaged(f"{file} has {table.num_rows} rows instead of {rows}")
    if "id" not in table.schema.names or table["id"].null_count:
        raise _Damaged(f"{file} has rows without id (its columns are {table.schema.names})")
    return table


def _concat(columns: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())


def _repeated(looks: list[_Look]) -> dict[str, str]:
    """Parts with an example that is also in an earlier part."""
    ids = _concat([look.ids for look in looks])
    if not has_repeats(ids):
        return {}
    found: dict[str, str] = {}
    seen: set[str] = set()
    for look in looks:
        own = set(look.ids.to_pylist())
        if both := seen & own:
            found[look.part] = f"{len(both)} of its examples are also in another part"
        seen |= own
    return found


def _compare(
    source: str, manifest: StoreManifest | None, ids: pa.ChunkedArray
) -> tuple[str, int, int]:
    modality = MODALITIES.get(manifest.modality) if manifest else None
    try:
        opened = open_source(source, allow_unlabelled=True, modality=modality)
        if manifest and modality and manifest.input:
            opened = in_parts(opened, modality.input_spec(manifest.input)).source
        wanted = _wanted(opened, ids)
    except HeadstartError as error:
        return error.message, 0, 0
    return (
        "",
        pc.sum(pc.invert(pc.is_in(wanted, value_set=ids))).as_py() or 0,
        pc.sum(pc.invert(pc.is_in(ids, value_set=wanted))).as_py() or 0,
    )


def _wanted(source: Source, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids of a source's examples; without those that have no label, if all were left out."""
    unlabelled = pc.is_null(source.examples["label"])
    wanted = source.examples["id"]
    without = wanted.filter(unlabelled)
    if len(without) == len(wanted) or pc.any(pc.is_in(without, value_set=ids)).as_py():
        return wanted
    return wanted.filter(pc.invert(unlabelled))


def repair(path: str | Path, found: Verification) -> None:
    """Set damaged parts aside, so that the next extraction embeds only their examples again.

    Only unfinished files are deleted: damaged parts move to `_damaged/`.

    Raises
    ------
    StoreError
        If an extraction is writing to the store.
    """
    folder = folder_at(path)
    columns = columns_of_store(folder)
    with sole_writer(folder, columns) as held:
        manifest, unfinished = read_manifest(folder), read_unfinished(folder)
        recorded = unfinished or manifest
        if recorded is None:
            return
        parts = {p.name: p for p in (*(manifest.parts if manifest else ()), *recorded.parts)}
        good = tuple(part for name, part in parts.items() if name not in found.damaged)
        for name in found.damaged:
            for file in (parts[name].rows_file, parts[name].errors_file):
                if file and folder.exists(file):
                    content = to_note(folder.read(file), columns)
                    folder.write(f"{DAMAGED}/{file.replace('/', '-')}", content)
        if found.damaged:
            # The store counts as unfinished until an extraction has filled the gaps.
            begin(folder, recorded.fingerprint, recorded.source, good, recorded.inferences, columns)
            for name in (MANIFEST, OLD_MANIFEST):
                folder.remove(name)
        elif manifest:
            folder.remove_all(RECORDS)
        sweep(folder, good, held)
