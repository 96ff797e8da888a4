"""The feature store: a folder of Parquet parts that any reader opens, and the record of them.

Format version 1:

- `part-*.parquet`: `id`, `path`, `content` (sha256 of the file's bytes), `label`, `split`, `group`,
  `embedding` as `fixed_size_list<float>[dim]`, then the columns carried along.
- `_errors/part-*.parquet`: `id`, `stage`, `reason`, `message`.
- `_records/run.json`: written before anything else, so that an unfinished store is known as one.
- `_records/part-*.json`: written after a part and its errors; a part without one does not count.
- `_headstart.json`: the manifest, written last; it takes the place of `_records`.

Every example of the source is one row of features or one row of errors. The version is bumped when
a reader of the old version would read a new store wrongly; a new optional key is no reason.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import StoreError
from data.files import UNFINISHED, Folder, digest
from data.fingerprint import Fingerprint

FORMAT_VERSION = 1
MANIFEST, RECORDS, ERRORS, LOCK = "_headstart.json", "_records", "_errors", "_lock"
EXTRACT_COMMAND = "Make one with: python -m extract SOURCE --backbone backbone.onnx -o FEATURES"
ERROR_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "stage", "reason", "message")])
TEXT_COLUMNS = ("id", "path", "content", "label", "split", "group")


@dataclass(frozen=True)
class PartRecord:
    """A part that was written whole: its name without extension, its rows and its checksums."""

    name: str
    rows: int
    errors: int
    rows_sha256: str | None
    errors_sha256: str | None

    @property
    def rows_file(self) -> str | None:
        """Name of the file of features; none if all of its examples failed."""
        return f"{self.name}.parquet" if self.rows else None

    @property
    def errors_file(self) -> str | None:
        """Name of the file of errors, if there were any."""
        return f"{ERRORS}/{self.name}.parquet" if self.errors else None


@dataclass(frozen=True)
class StoreManifest:
    """What `_headstart.json` says.

    Parameters
    ----------
    source
        The folder or manifest that the examples came from.
    root
        The folder that the examples' paths are relative to.
    """

    fingerprint: Fingerprint
    source: str
    root: str
    classes: tuple[str, ...]
    parts: tuple[PartRecord, ...]

    @property
    def rows(self) -> int:
        """Number of embeddings."""
        return sum(part.rows for part in self.parts)

    @property
    def errors(self) -> int:
        """Number of examples that failed."""
        return sum(part.errors for part in self.parts)

    def to_bytes(self) -> bytes:
        """As the bytes of `_headstart.json`."""
        value = {"format_version": FORMAT_VERSION, "rows": self.rows, "errors": self.errors}
        return json.dumps(value | asdict(self), indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> StoreManifest:
        """From `to_bytes`'s; raises `KeyError`, `TypeError` or `ValueError` if damaged."""
        value = json.loads(content)
        return cls(
            Fingerprint.from_json(value["fingerprint"]),
            value["source"],
            value["root"],
            tuple(value["classes"]),
            tuple(PartRecord(**part) for part in value["parts"]),
        )


def part_schema(dim: int, carried: list[pa.Field]) -> pa.Schema:
    """The schema of `part-*.parquet`."""
    # Non-nullable lists and elements spare readers the null bookkeeping of every single number.
    element = pa.field("element", pa.float32(), nullable=False)
    embedding = pa.field("embedding", pa.list_(element, dim), nullable=False)
    return pa.schema([*((name, pa.string()) for name in TEXT_COLUMNS), embedding, *carried])


@contextmanager
def sole_writer(folder: Folder) -> Iterator[None]:
    """Hold a store for writing; the system lets go of it when the process ends, however it ends.

    Raises
    ------
    StoreError
        If another process holds it.
    """
    path = folder.path(LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another extraction is writing to {folder}",
                "Wait until it has ended, or choose another folder with -o.",
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def begin(folder: Folder, fingerprint: Fingerprint, source: str) -> None:
    """Mark a folder as a store that is being written."""
    value = {"fingerprint": fingerprint.to_json(), "source": source}
    folder.write(f"{RECORDS}/run.json", json.dumps(value).encode())


def write_part(folder: Folder, name: str, rows: pa.Table, errors: pa.Table) -> PartRecord:
    """Write a part's features and errors, then its record; only with the record does it count."""
    rows_content = _parquet(rows) if rows.num_rows else None
    errors_content = _parquet(errors) if errors.num_rows else None
    record = PartRecord(
        name,
        rows.num_rows,
        errors.num_rows,
        digest(rows_content) if rows_content else None,
        digest(errors_content) if errors_content else None,
    )
    if rows_content and record.rows_file:
        folder.write(record.rows_file, rows_content)
    if errors_content and record.errors_file:
        folder.write(record.errors_file, errors_content)
    folder.write(f"{RECORDS}/{name}.json", json.dumps({"part": asdict(record)}).encode())
    return record


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    text = [name for name in table.column_names if name != "embedding"]
    # Embeddings hardly compress; a dictionary of them would only cost time.
    compression = {name: "zstd" if name in text else "none" for name in _leaves(table)}
    pq.write_table(table, sink, compression=compression, use_dictionary=text)
    return sink.getvalue().to_pybytes()


def _leaves(table: pa.Table) -> list[str]:
    return [
        "embedding.list.element" if name == "embedding" else name for name in table.column_names
    ]


@dataclass(frozen=True)
class Unfinished:
    """What a run that did not finish left: its parts, and what it was asked for."""

    parts: tuple[PartRecord, ...]
    fingerprint: Fingerprint
    source: str


def read_records(folder: Folder) -> Unfinished | None:
    """What an unfinished run recorded, or none if there was none.

    Raises
    ------
    StoreError
        If a record is damaged.
    """
    if not folder.exists(f"{RECORDS}/run.json"):
        return None
    parts = []
    for name in folder.names(RECORDS):
        if name.endswith(".json") and UNFINISHED not in name:
            try:
                value = json.loads(folder.read(name))
                if "part" in value:
                    parts.append(PartRecord(**value["part"]))
                else:
                    source = str(value["source"])
                    fingerprint = Fingerprint.from_json(value["fingerprint"])
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{folder.path(name)} is damaged: {error!r}",
                    "Extract again into another folder.",
                ) from None
    return Unfinished(tuple(parts), fingerprint, source)


def drop_records(folder: Folder) -> None:
    """Remove the records, once the manifest has taken their place."""
    for name in folder.names(RECORDS):
        folder.remove(name)
    folder.path(RECORDS).rmdir()


def read_manifest(folder: Folder) -> StoreManifest | None:
    """The manifest of a store, or none if it has none (yet).

    Raises
    ------
    StoreError
        If it is damaged or of another format version.
    """
    if not folder.exists(MANIFEST):
        return None
    content = folder.read(MANIFEST)
    try:
        version = json.loads(content)["format_version"]
        if version == FORMAT_VERSION:
            return StoreManifest.from_bytes(content)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder.path(MANIFEST)} is damaged: {error!r}",
            "Extract again into another folder.",
        ) from None
    raise StoreError(
        f"{folder} is a feature store of format {version}; this headstart reads {FORMAT_VERSION}",
        "Update headstart, or extract again into another folder.",
    )


@dataclass(frozen=True)
class FeatureStore:
    """A finished feature store, for reading."""

    folder: Folder
    manifest: StoreManifest

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a finished store.

        Raises
        ------
        StoreError
            If there is none, its extraction has not finished, or a part is missing.
        """
        folder = Folder.at(path)
        if not folder.exists():
            raise StoreError(f"{path}: no such feature store", EXTRACT_COMMAND)
        manifest = read_manifest(folder)
        if manifest is None and folder.exists(RECORDS):
            raise StoreError(
                f"{path} is a feature store whose extraction has not finished",
                "Run the same `python -m extract` command again: it goes on where it stopped.",
            )
        if manifest is None:
            raise StoreError(f"{path} is no feature store (it has no {MANIFEST})", EXTRACT_COMMAND)
        files = [part.rows_file for part in manifest.parts if part.rows_file]
        missing = [file for file in files if not folder.exists(file)]
        if missing:
            raise StoreError(
                f"{path} lacks {len(missing)} of its parts, such as {missing[0]}",
                "Restore them, or extract again into another folder.",
            )
        return cls(folder, manifest)

    @property
    def fingerprint(self) -> Fingerprint:
        """What the embeddings were made with."""
        return self.manifest.fingerprint

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """The features, all columns or the named ones, in the order of the parts.

        Raises
        ------
        StoreError
            If a part cannot be read or has another number of rows than its record says.
        """
        tables = []
        for part in self.manifest.parts:
            if part.rows_file:
                try:
                    table = pq.read_table(self.folder.path(part.rows_file), columns=columns)
                except (pa.ArrowException, OSError) as error:
                    raise self._damaged(part, str(error)) from None
                if table.num_rows != part.rows:
                    raise self._damaged(part, f"{table.num_rows} rows instead of {part.rows}")
                tables.append(table)
        if not tables:
            schema = part_schema(self.fingerprint.dim, [])
            empty = schema.empty_table()
            return empty.select(columns) if columns else empty
        return pa.concat_tables(tables)

    def read_errors(self) -> pa.Table:
        """The examples that failed: `id`, `stage`, `reason`, `message`."""
        files = [part.errors_file for part in self.manifest.parts if part.errors_file]
        tables = [pq.read_table(self.folder.path(file)) for file in files]
        return pa.concat_tables([ERROR_SCHEMA.empty_table(), *tables])

    def _damaged(self, part: PartRecord, what: str) -> StoreError:
        return StoreError(
            f"{self.folder.path(part.rows_file or '')} is damaged: {what}",
            "Restore it, or extract again into another folder.",
        )


def embeddings_of(table: pa.Table) -> np.ndarray:
    """The embeddings of a table of features: float32 `[rows, dim]`."""
    column = table["embedding"]
    dim = column.type.list_size
    if not len(column):
        return np.empty((0, dim), np.float32)
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
