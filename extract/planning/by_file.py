"""The plan of a source in very many files: `plan`, file by file, on workers.

The driver compares names and stamps with what the store's parts say of their files. Only files
that are new, changed or not finished are listed, each by a worker, which subtracts the parts of
that file from it. What comes back grows with the number of files, and not of examples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.data.common import console
from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import (
    Checklist,
    ExtractionError,
    HeadstartError,
    InputError,
    SourceError,
)
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.store import TEXT_COLUMNS, FilePart, PartRecord, open_part
from headstart.data.examples.source import COLUMNS
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder
from headstart.data.workers.shards import Shard
from headstart.data.workers.tasks import result_of
from headstart.extract.planning.doubles import Owner, check_ids
from headstart.extract.planning.files import Files, Listing, cut_runs, runs_of, shard_of
from headstart.extract.planning.plan import (
    LARGEST_SHARD,
    TURNS,
    Counts,
    Plan,
    Stored,
    Update,
    read_stored,
    subtract,
)
from headstart.extract.planning.rewrite import Rewrite, rewrite

LISTINGS = 4_000  # tasks that files are listed in, at most
LARGEST_PART = 16_384  # rows of a part
PART_BYTES = 1 << 28  # of its embeddings
SHOWN, MOST_ERRORS = 5, 20


class InMemoryError(HeadstartError):
    """A source or a store that has to be planned in memory, and why."""


@dataclass(frozen=True)
class FileSource:
    """What the driver knows of a source in files, in place of a `Source`."""

    path: str
    folder: Folder
    modality: Modality
    examples: int
    unlabelled: int
    classes: tuple[str, ...]
    columns: pa.Schema
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.examples


@dataclass(frozen=True)
class FilePlan:
    """What is to be done of a file.

    Parameters
    ----------
    file
        As in the records of its parts.
    runs
        Its rows to embed.
    parts
        The names of its parts that count.
    rewrites
        How many of these are to be rewritten.
    """

    file: FilePart
    runs: tuple[tuple[int, int], ...]
    counts: Counts
    parts: tuple[str, ...]
    rewrites: int


@dataclass
class Seen:
    """What a task found in its files."""

    files: list[FilePlan] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    columns: list[pa.Schema] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    errors: list[InputError] = field(default_factory=list)
    bound: bool = True
    by_folder: bool = False

    def add(self, name: str, listing: Listing, source: Any) -> None:
        """Note what the whole source is judged by."""
        examples = source.examples
        labels = examples["label"]
        self.classes.update(source.classes)
        if not any(examples.schema.equals(each) for each in self.columns):
            self.columns.append(examples.schema)
        if labels.null_count and len(self.unlabelled) < SHOWN:
            some = examples.filter(pc.is_null(labels))["id"].slice(0, SHOWN)
            self.unlabelled.extend(some.to_pylist())
        self.left_out.update(source.left_out)
        self.bound &= listing.bound(source, name)
        self.by_folder |= source.labels_by_folder


@dataclass(frozen=True, kw_only=True)
class PlanByFile(Plan):
    """A plan whose work is in files.

    Parameters
    ----------
    files
        Those with something to embed or to rewrite.
    asked
        The rewrites of each group of files, in Ray's object store.
    """

    source: FileSource
    listing: Listing
    files: tuple[FilePlan, ...]
    asked: tuple[Any, ...] = ()

    @property
    def left(self) -> int:
        """How many examples are to be embedded."""
        return sum(end - start for each in self.files for start, end in each.runs)

    @property
    def changes(self) -> int:
        """How many parts are to be rewritten."""
        return sum(each.rewrites for each in self.files)

    def paths(self) -> pa.ChunkedArray:
        """Of the examples of one file."""
        name = next(each.file.name for each in self.files if each.runs)
        return self.listing.source(name).examples["path"]

    def rewritten(
        self, store: Folder, source: Any, fingerprint: Fingerprint
    ) -> Iterator[PartRecord]:
        """Rewrite parts, on workers."""
        import ray

        given = ray.put((self.listing, store, fingerprint))
        task: Any = ray.remote(num_cpus=1)(_rewrite)
        for answer in [task.remote(given, changes) for changes in self.asked]:
            yield from result_of(answer, "updating parts", ExtractionError)

    def shards(self, workers: int, batch: int) -> list[Shard]:
        """A shard a file, or some if it is large or the workers would have too few."""
        most = max(min(LARGEST_PART, PART_BYTES // (4 * self.fingerprint.dim)), 1)
        size = min(max(self.left // (workers * TURNS), LARGEST_SHARD), most)
        shards: list[Shard] = []
        number = self.next_number
        for each in self.files:
            rows = sum(end - start for start, end in each.runs)
            if not rows:
                continue
            length = math.ceil(rows / math.ceil(rows / size) / batch) * batch
            for start in range(0, rows, length):
                runs = cut_runs(each.runs, start, length)
                shards.append(shard_of(number + len(shards), each.file, self.listing, runs))
        return shards


def plan_by_file(
    files: Files,
    store: Folder,
    fingerprint: Fingerprint,
    update: Update = Update(),
    any_precision: bool = False,
    allow_unlabelled: bool = False,
    on_ray: bool = True,
) -> PlanByFile | None:
    """Subtract what the store has from the files. Nothing is written.

    Parameters
    ----------
    on_ray
        Whether Ray has been started; without it, the plan is found only if no file has to be
        listed.

    Returns
    -------
    PlanByFile or None
        None if files have to be listed, and Ray has not been started.

    Raises
    ------
    SourceError
        With what is wrong with the files and with all examples together, such as double ids.
    StoreError
        As `plan`.
    InMemoryError
        If the store was planned in memory before, or the source has to be.
    """
    stored = read_stored(store, files.listing.path, fingerprint, update, any_precision)
    return _Planner(files, store, stored, update, allow_unlabelled).plan(on_ray)


class _Planner:
    def __init__(
        self, files: Files, store: Folder, stored: Stored, update: Update, allow_unlabelled: bool
    ) -> None:
        self.files, self.store, self.stored = files, store, stored
        self.update, self.allow_unlabelled = update, allow_unlabelled
        self.parts: dict[str, list[PartRecord]] = {}
        for part in stored.parts:
            if part.file is None:
                raise InMemoryError("parts of the store were planned there before")
            self.parts.setdefault(part.file.name, []).append(part)
        self.gone = sorted(self.parts.keys() - files.stamps.keys())
        in_manifest = {part.name for part in stored.manifest.parts} if stored.manifest else set()
        self.look = [name for name in files.stamps if not self._done(name, in_manifest)]
        looked = set(self.look)
        self.done = [self._file(name) for name in files.stamps if name not in looked]

    def _file(self, name: str) -> FilePart:
        file = self.parts[name][0].file
        assert file is not None  # noqa: S101 - checked in the beginning
        return file

    def _done(self, name: str, in_manifest: set[str]) -> bool:
        """Whether a file need not be looked at: a finished run had all of it, as it is now."""
        update, parts = self.update, self.parts.get(name, [])
        if not parts or update.rehash or self.stored.renamed:
            return False
        here = [part.file.here for part in parts if part.file]
        current = all(part.file and part.file.stamp == self.files.stamps[name] for part in parts)
        whole = sum(here) == self._file(name).examples
        if update.retry_failed and any(part.errors for part in parts):
            return False
        if update.prune and sum(part.rows + part.errors for part in parts) > sum(here):
            return False
        return current and whole and all(part.name in in_manifest for part in parts)

    def plan(self, on_ray: bool) -> PlanByFile | None:
        listing = self.files.listing
        if not self.look:
            return self._planned(listing, [], [])
        if not on_ray:
            self._check_first()
            return None
        columns = self._stored_columns()
        listing = replace(listing, columns=columns)
        seen, asked = self._seen(listing)
        common = _unified(listing, seen, columns if self.done else None)
        if columns is not None and not common.equals(columns):
            # A column is new or has another type: all parts have to have it.
            self.look, self.done = list(self.files.stamps), []
            seen, asked = self._seen(replace(listing, columns=common))
        listing = replace(listing, columns=common)
        self._check(listing, seen)
        return self._planned(listing, seen, asked)

    def _check_first(self) -> None:
        """What has to be planned in memory is best found before Ray is started."""
        try:
            source = self.files.listing.source(self.look[0])
        except SourceError:  # all files are looked at later
            return
        if source.labels_by_folder:
            raise _by_folder()

    def _stored_columns(self) -> pa.Schema | None:
        """The columns that the examples of the store's parts have; none for a new store."""
        file = next((part.rows_file for part in self.stored.parts if part.rows_file), None)
        if file is None:
            return None
        name = file
        schema = self.store.attempt(lambda: pq.read_schema(open_part(self.store, name)))
        others = [each for each in schema if each.name not in (*TEXT_COLUMNS, "embedding")]
        return pa.schema([*((each, pa.string()) for each in COLUMNS), *others])

    def _seen(self, listing: Listing) -> tuple[list[Seen], list[Any]]:
        import ray

        given = ray.put((listing, self.store, self.update, self.stored.moved))
        task: Any = ray.remote(num_cpus=1, num_returns=2)(look)
        answers = []
        for names in _groups(self.look):
            some = [(each, self.files.stamps[each], self.parts.get(each, [])) for each in names]
            answers.append(task.remote(given, some))
        seen, asked = [], []
        with console.progress("listing files", len(self.look)) as advance:
            for first, changes in answers:
                found = result_of(first, "listing files", ExtractionError)
                advance(len(found.files))
                seen.append(found)
                if any(each.rewrites for each in found.files):
                    asked.append(changes)
        _report([error for found in seen for error in found.errors])
        return seen, asked

    def _check(self, listing: Listing, seen: list[Seen]) -> None:
        """What only all examples together show."""
        if any(each.by_folder for each in seen):
            raise _by_folder()
        examples = [each.file for found in seen for each in found.files] + self.done
        total = sum(each.examples for each in examples)
        if not total:
            raise SourceError(
                f"{listing.path} holds no {listing.modality.plural}", "Check its files."
            )
        unlabelled = sum(each.unlabelled for each in examples)
        if 0 < unlabelled < total and not self.allow_unlabelled:
            some = [name for found in seen for name in found.unlabelled][:SHOWN]
            raise SourceError(
                f"{listing.path}: {counted(unlabelled, 'example')} of {total} "
                f"{'has' if unlabelled == 1 else 'have'} no label: {first_few(some, show=repr)}",
                "Label them, or pass --allow-unlabelled to keep them without one.",
            )
        if all(each.bound for each in seen):
            return  # an id has its file's name in it, and was compared within its file
        names = list(self.files.stamps)
        number = {name: place for place, name in enumerate(names)}
        looked = {*self.look, *self.gone}
        owners = [
            Owner(
                number.get(name, -1),
                name if name in number else None,
                tuple(
                    file
                    for part in (self.parts.get(name, []) if name in looked else [])
                    for file in (part.rows_file, part.errors_file)
                    if file
                ),
            )
            for name in (*names, *self.gone)
        ]
        moved = check_ids(listing, self.store, owners, names, total)
        if moved:
            raise InMemoryError(f"{counted(moved, 'example')} moved from one file to another")

    def _planned(self, listing: Listing, seen: list[Seen], asked: list[Any]) -> PlanByFile:
        stored, manifest = self.stored, self.stored.manifest
        plans = [each for found in seen for each in found.files]
        looked = set(self.look)
        count = {each.name: sum(getattr(p.counts, each.name) for p in plans) for each in _COUNTS}
        gone = [part for name in self.gone for part in self.parts[name]]
        done = [part for file in self.done for part in self.parts[file.name]]
        count["kept"] += sum(part.file.here for part in done if part.file)
        count["vanished"] += sum(
            part.rows + part.errors - (part.file.here if part.file else 0) for part in done
        )
        count["vanished"] += sum(part.rows + part.errors for part in gone)
        kept = {name for each in plans for name in each.parts}
        dropped = {part.name for part in gone} if self.update.prune else set()
        parts = tuple(
            part
            for part in stored.parts
            if part.name not in dropped
            and (part.file is None or part.file.name not in looked or part.name in kept)
        )
        classes = {name for found in seen for name in found.classes}
        if manifest and (self.done or count["vanished"]):
            classes |= set(manifest.classes)
        source = FileSource(
            path=listing.path,
            folder=listing.folder,
            modality=listing.modality,
            examples=sum(each.examples for each in self.done)
            + sum(each.file.examples for each in plans),
            unlabelled=sum(each.unlabelled for each in self.done)
            + sum(each.file.unlabelled for each in plans),
            classes=tuple(sorted(classes)),
            columns=listing.columns or self._stored_columns() or listing.nothing().columns,
            left_out=dict(sum((found.left_out for found in seen), Counter[str]())),
        )
        return PlanByFile(
            manifest=manifest,
            parts=parts,
            rewrites=(),
            todo=pa.table({}),
            fingerprint=stored.fingerprint,
            counts=Counts(**count),
            inferences=stored.inferences,
            unfinished=stored.unfinished is not None,
            leftovers=stored.leftovers,
            source=source,
            listing=listing,
            files=tuple(each for each in plans if each.runs or each.rewrites),
            asked=tuple(asked),
        )


_COUNTS = fields(Counts)


def _report(errors: list[InputError]) -> None:
    """Raise what is wrong with files, if anything is; of very many the first ones."""
    checks = Checklist()
    for error in errors[:MOST_ERRORS]:
        with checks.item():
            raise error
    with checks.item():
        if (more := len(errors) - MOST_ERRORS) > 0:
            raise SourceError(f"{counted(more, 'more file')} cannot be used", "See those above.")
    checks.finish()


def _by_folder() -> InMemoryError:
    return InMemoryError("labels are from folders in the archives")


def _groups(items: Sequence[str]) -> Iterator[Sequence[str]]:
    size = -(-len(items) // LISTINGS)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _unified(listing: Listing, seen: list[Seen], stored: pa.Schema | None) -> pa.Schema:
    """The columns of all examples, as if they were in one table."""
    found: list[pa.Schema] = [stored] if stored is not None else []
    for each in (schema for group in seen for schema in group.columns):
        if not any(each.equals(other) for other in found):
            found.append(each)
    if not found:
        return listing.nothing().examples.schema
    try:
        return pa.unify_schemas(found, promote_options="permissive").remove_metadata()
    except pa.ArrowException as error:
        raise SourceError(
            f"the files in {listing.path} do not have the same columns: {error}",
            "Put files with the same columns into one folder.",
        ) from None


def look(
    given: tuple[Listing, Folder, Update, bool], some: list[tuple[str, str, list[PartRecord]]]
) -> tuple[Seen, dict[str, tuple[FilePart, tuple[Rewrite, ...]]]]:
    """List some files, given with their stamps and parts, and subtract the parts from each."""
    listing, store, update, rehash = given
    seen = Seen()
    changes: dict[str, tuple[FilePart, tuple[Rewrite, ...]]] = {}
    for name, stamp, parts in some:
        try:
            source = listing.as_it_is(name)
        except InputError as error:
            seen.errors.append(error)
            continue
        seen.add(name, listing, source)
        source = listing.with_columns(source)
        file = FilePart(name, stamp, len(source), source.examples["label"].null_count, 0)
        if not parts:
            every = ((0, len(source)),) if len(source) else ()
            seen.files.append(FilePlan(file, every, Counts(), (), 0))
            continue
        found = subtract(source, store, tuple(parts), update, rehash)
        runs = runs_of(np.flatnonzero(~found.done))
        names = tuple(part.name for part in found.parts)
        seen.files.append(FilePlan(file, runs, found.counts, names, len(found.rewrites)))
        if found.rewrites:
            changes[name] = (file, found.rewrites)
    return seen, changes


def _rewrite(
    given: tuple[Listing, Folder, Fingerprint],
    changes: dict[str, tuple[FilePart, tuple[Rewrite, ...]]],
) -> list[PartRecord]:
    listing, store, fingerprint = given
    return [
        rewrite(store, source, change, fingerprint, file)
        for name, (file, rewrites) in changes.items()
        for source in [listing.source(name)]
        for change in rewrites
    ]
