"""The feature store: a folder of Parquet parts that any reader can open, and their manifest.

Format version 2:

- `part-*.parquet`: `id`, `path`, `content` (sha256 of the file's bytes), `stamp` (size and
  modification time of the file that was read), `label`, `split`, `group`, `embedding` as
  `fixed_size_list<float>[dim]`, then the columns carried along.
- `_errors/part-*.parquet`: a table of `id`, `stage`, `reason`, `message`, `stamp`, `path`.
- `_records/`: the progress of an unfinished run, see `headstart.data.contracts.records`.
- `_replaced/`: the parts that the last run replaced, for readers that opened the store before.
- `_headstart.parquet`: the manifest, in JSON, written last; it replaces `_records`.

All but the first are notes (`headstart.data.storage.notes`): files with the columns of the parts
and no rows, so that `polars.read_parquet`, DuckDB, Spark, pandas and pyarrow read the folder as it
is. In version 1 they were plain files, and the manifest was `_headstart.json`: Polars stopped at
them, and DuckDB took errors for examples. The next run on a store of version 1 makes it one of
version 2, which older versions of headstart do not open.

A part never changes: its replacement has another name, and counts once the manifest lists it.
Every example of the source is one row of features or one row of errors. The version is bumped when
a reader of the old version would read a new store wrongly; a new optional key or column does
not bump it. (Older stores lack `stamp`, the errors' `path`, the fingerprint in the parts' metadata,
the records' `file`, and the manifest's `inferences`, `modality`, `input` and `corrections`.)
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.common.arrays import empty, in_memory
from headstart.data.common.errors import StoreError
from headstart.data.contracts.corrections import Correction
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.json_reader import format_version, read_json
from headstart.data.storage.folder import Folder
from headstart.data.storage.notes import from_note, to_note
from headstart.data.storage.places import folder_at

FORMAT_VERSION, READABLE = 2, (1, 2)
MANIFEST, RECORDS, ERRORS = "_headstart.parquet", "_records", "_errors"
OLD_MANIFEST = "_headstart.json"  # of format version 1
REPLACED = "_replaced"  # parts of the manifest before this one
EXTRACT_COMMAND = "Make one with: python -m extract SOURCE --backbone backbone.onnx -o FEATURES"
ERROR_COLUMNS = ("id", "stage", "reason", "message", "stamp", "path")
ERROR_SCHEMA = pa.schema([(name, pa.string()) for name in ERROR_COLUMNS])
PART_KEY = "headstart.fingerprint"  # in the metadata of a part's Parquet file
PART_NAME = re.compile(r"part-\d{5,}-[0-9a-z]+")
READERS = 4  # parts read at once
TEXT_COLUMNS = ("id", "path", "content", "stamp", "label", "split", "group")


@dataclass(frozen=True)
class FilePart:
    """Which file of a source a part's examples are from, if the source was planned file by file.

    Parameters
    ----------
    name, stamp
        Of the file.
    examples
        How many it holds.
    unlabelled
        How many of them have no label.
    here
        How many of them the part has, as rows or errors; what else it has has vanished since.
    """

    name: str
    stamp: str
    examples: int
    unlabelled: int
    here: int


@dataclass(frozen=True)
class PartRecord:
    """A complete part: its name without extension, its rows and its checksums.

    Parameters
    ----------
    inferences
        How many examples went through the backbone to make it.
    replaces
        Name of the part that this one was made from and replaces, if any.
    file
        What it has of which file, see `FilePart`.
    """

    name: str
    rows: int
    errors: int
    rows_sha256: str | None
    errors_sha256: str | None
    inferences: int = 0
    replaces: str | None = None
    file: FilePart | None = None

    @property
    def rows_file(self) -> str | None:
        """Name of the file of features; None if all of its examples failed."""
        return f"{self.name}.parquet" if self.rows else None

    @property
    def errors_file(self) -> str | None:
        """Name of the file of errors; None if no example failed."""
        return f"{ERRORS}/{self.name}.parquet" if self.errors else None


@dataclass(frozen=True)
class StoreManifest:
    """What `_headstart.parquet` says.

    Parameters
    ----------
    source
        The folder or manifest that the examples came from.
    root
        The folder that the examples' paths are relative to.
    inferences
        How many examples went through the backbone for this store in all of its runs; all examples
        of a shard whose worker died are counted.
    modality
        Of the examples, by name; older stores are of photographs.
    input
        How they became the backbone's input, as `InputSpec.to_metadata` gives it.
    corrections
        Of the source's labels, which later runs apply as well.
    """

    fingerprint: Fingerprint
    source: str
    root: str
    classes: tuple[str, ...]
    parts: tuple[PartRecord, ...]
    inferences: int = 0
    modality: str = "image"
    input: dict[str, str] = field(default_factory=dict)
    corrections: tuple[Correction, ...] = ()

    @property
    def rows(self) -> int:
        """Number of embeddings."""
        return sum(part.rows for part in self.parts)

    @property
    def errors(self) -> int:
        """Number of examples that failed."""
        return sum(part.errors for part in self.parts)

    def to_bytes(self) -> bytes:
        """As JSON."""
        value = {"format_version": FORMAT_VERSION, "rows": self.rows, "errors": self.errors}
        return json.dumps(value | asdict(self), indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> StoreManifest:
        """From JSON; raises `ValueError`, in words, if damaged."""
        manifest = read_json(content, cls)
        check_parts(manifest.parts)
        return manifest


def check_parts(parts: Sequence[PartRecord]) -> None:
    """Refuse parts that no run writes: outside the store, twice, or of an impossible size.

    Raises
    ------
    ValueError
        Naming the part.
    """
    names: set[str] = set()
    for part in parts:
        if not PART_NAME.fullmatch(part.name):
            raise ValueError(f"{part.name!r} is not the name of a part")
        if part.name in names:
            raise ValueError(f"the part {part.name} is listed twice")
        names.add(part.name)
        if min(part.rows, part.errors, part.inferences) < 0:
            raise ValueError(f"the part {part.name} has a negative number of rows")


def part_schema(dim: int, carried: list[pa.Field]) -> pa.Schema:
    """The schema of `part-*.parquet`."""
    # Non-nullable lists and elements spare readers a null check for every number.
    element = pa.field("element", pa.float32(), nullable=False)
    embedding = pa.field("embedding", pa.list_(element, dim), nullable=False)
    return pa.schema([*((name, pa.string()) for name in TEXT_COLUMNS), embedding, *carried])


def columns_for(examples: pa.Schema, dim: int) -> pa.Schema:
    """The schema of `part-*.parquet` for examples with these columns."""
    return part_schema(dim, [field for field in examples if field.name not in TEXT_COLUMNS])


def manifest_file(folder: Folder) -> str | None:
    """The name of the manifest of a store; None if it has none (yet)."""
    return next((name for name in (MANIFEST, OLD_MANIFEST) if folder.exists(name)), None)


def is_store(folder: Folder) -> bool:
    """Whether a folder is a feature store, finished or not."""
    return manifest_file(folder) is not None or folder.exists(RECORDS)


def write_manifest(folder: Folder, manifest: StoreManifest, columns: pa.Schema) -> None:
    """Write the manifest; `columns` are those of the parts."""
    folder.write(MANIFEST, to_note(manifest.to_bytes(), columns))
    folder.remove(OLD_MANIFEST)


def read_manifest(folder: Folder) -> StoreManifest | None:
    """The manifest of a store; None if it has none (yet).

    Raises
    ------
    StoreError
        If it is damaged or of another format version.
    """
    name = manifest_file(folder)
    if name is None:
        return None
    try:
        content = from_note(folder.read(name))
        version = format_version(content)
        if version in READABLE:
            return StoreManifest.from_bytes(content)
    except ValueError as error:
        raise StoreError(
            f"{folder.where(name)} is damaged: {error}",
            "Extract again into another folder.",
        ) from None
    raise StoreError(
        f"{folder} is a feature store of format {version}; this headstart reads "
        f"{' and '.join(map(str, READABLE))}",
        "Update headstart, or extract again into another folder.",
    )


def read_part(folder: Folder, file: str, columns: list[str] | None = None) -> pa.Table:
    """A file of a part, all columns or the named ones.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    try:
        return folder.attempt(lambda: pq.ParquetFile(open_part(folder, file)).read(columns))
    except FileNotFoundError:
        raise damaged(folder, file, "it is missing") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(folder, file, str(error)) from None


def open_part(folder: Folder, file: str) -> pa.NativeFile:
    """A file of a part to read pieces of, within `Folder.attempt`."""
    try:
        if file.startswith(f"{ERRORS}/"):
            return in_memory(from_note(folder.read(file)))
        return folder.open(file)
    except FileNotFoundError:  # a run has ended since the manifest was read
        return in_memory(from_note(folder.read(f"{REPLACED}/{file}")))


def with_fingerprint(rows: pa.Table, fingerprint: Fingerprint) -> pa.Table:
    """A part's features, marked with what made them."""
    return rows.replace_schema_metadata({PART_KEY: json.dumps(fingerprint.to_json())})


def fingerprint_of(rows: pa.Table) -> Fingerprint | None:
    """What made the embeddings of a part; None in a part of an older headstart."""
    written = (rows.schema.metadata or {}).get(PART_KEY.encode())
    return read_json(written, Fingerprint) if written else None


def part_columns(folder: Folder, file: str) -> list[str]:
    """The names of the columns of a part's file; raises `StoreError` if it cannot be read."""
    try:
        return folder.attempt(lambda: pq.read_schema(open_part(folder, file))).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(folder, file, str(error)) from None


def damaged(folder: Folder, file: str, what: str) -> StoreError:
    """The error for a part that does not match its record."""
    return StoreError(
        f"{folder.where(file)} is damaged: {what}",
        f"Set it aside with: python -m data verify {folder} --repair",
    )


@dataclass(frozen=True)
class FeatureStore:
    """A finished feature store, opened for reading."""

    folder: Folder
    manifest: StoreManifest

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a finished store.

        Raises
        ------
        StoreError
            If it is missing, its extraction has not finished, or a part is missing.
        """
        folder = folder_at(path)
        if not folder.exists():
            raise StoreError(f"{path}: no such feature store", EXTRACT_COMMAND)
        manifest = read_manifest(folder)
        if manifest is None and folder.exists(RECORDS):
            raise StoreError(
                f"{path} is a feature store whose extraction has not finished",
                "Run the same `python -m extract` command again: it continues where it stopped.",
            )
        if manifest is None:
            raise StoreError(
                f"{path} is not a feature store (it has no {MANIFEST})", EXTRACT_COMMAND
            )
        there = set(folder.names())
        files = [part.rows_file for part in manifest.parts if part.rows_file]
        missing = [file for file in files if not there & {file, f"{REPLACED}/{file}"}]
        if missing:
            raise StoreError(
                f"{path} lacks {len(missing)} of its parts, such as {missing[0]}",
                f"Restore them, or continue without them: python -m data verify {path} --repair",
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
        parts = [(part, part.rows_file) for part in self.manifest.parts if part.rows_file]
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda each: self._read_part(each[0], each[1], columns), parts))
        if not tables:
            none = empty(part_schema(self.fingerprint.dim, []))
            return none.select(columns) if columns else none
        return pa.concat_tables(tables, promote_options="default")

    def _read_part(self, part: PartRecord, file: str, columns: list[str] | None) -> pa.Table:
        table = read_part(self.folder, file, columns)
        if table.num_rows != part.rows:
            raise damaged(self.folder, file, f"{table.num_rows} rows instead of {part.rows}")
        return table

    def errors_by_kind(self) -> tuple[dict[str, int], dict[str, str]]:
        """How many examples failed, by `stage/reason`, and `ID: MESSAGE` of one of each kind.

        Never all errors are in memory.
        """
        files = [part.errors_file for part in self.manifest.parts if part.errors_file]
        columns = ["id", "stage", "reason", "message"]
        count: Counter[str] = Counter()
        such_as: dict[str, str] = {}
        with ThreadPoolExecutor(READERS) as pool:
            for table in pool.map(lambda file: read_part(self.folder, file, columns), files):
                for row in table.to_pylist():
                    kind = f"{row['stage']}/{row['reason']}"
                    count[kind] += 1
                    such_as[kind] = f"{row['id']}: {row['message']}"
        return dict(sorted(count.items())), such_as

    def read_errors(self) -> pa.Table:
        """The examples that failed: `id`, `stage`, `reason`, `message`, `stamp`, `path`."""
        tables = [empty(ERROR_SCHEMA)]
        for part in self.manifest.parts:
            if part.errors_file:
                tables.append(read_part(self.folder, part.errors_file))
        return pa.concat_tables(tables, promote_options="default")


def embeddings_of(table: pa.Table) -> np.ndarray:
    """The embeddings of a table of features: float32 `[rows, dim]`."""
    column = table["embedding"]
    dim = column.type.list_size
    if not len(column):
        return np.empty((0, dim), np.float32)
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
