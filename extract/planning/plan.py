"""Compares a source with a store: what is kept, what is dropped, and what must be embedded."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.data.common.arrays import flags
from headstart.data.common.errors import StoreError
from headstart.data.contracts.corrections import Corrections
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import Unfinished, read_unfinished
from headstart.data.contracts.store import (
    OLD_MANIFEST,
    RECORDS,
    PartRecord,
    StoreManifest,
    manifest_file,
    read_manifest,
)
from headstart.data.examples.opening import Source
from headstart.data.source_options import same_examples
from headstart.data.storage.folder import Folder
from headstart.data.storage.lock import LOCK
from headstart.data.workers.shards import Shard, cut
from headstart.extract.planning.changes import changed_files
from headstart.extract.planning.known import Known, read_known
from headstart.extract.planning.rewrite import Rewrite, rewrite

TURNS = 4  # a shard is 1 / TURNS of each worker's part of the remaining work: the last shards are
# small, so that a slow worker does not leave the others idle
SMALLEST_SHARD, LARGEST_SHARD = 16, 1024


@dataclass(frozen=True)
class Update:
    """What to do with examples that are already in the store.

    Parameters
    ----------
    retry_failed
        Retry those that failed.
    prune
        Drop those that the source no longer has.
    rehash
        Read and hash every file, even if its size and modification time are the same.
    moved_from
        Where the store's source was before; every file is hashed then.
    """

    retry_failed: bool = False
    prune: bool = False
    rehash: bool = False
    moved_from: str | None = None


@dataclass(frozen=True)
class Counts:
    """How many examples of the store are kept, retried and so on.

    Parameters
    ----------
    kept
        Examples of the source that need no inference, since they are done.
    changed
        Files whose bytes differ from those that were embedded.
    retried
        Examples that failed, and are retried.
    relabelled
        Examples that are done, but whose label, split, group, path or another column has changed
        in the source.
    vanished
        Examples in the store that the source does not have.
    """

    kept: int = 0
    changed: int = 0
    retried: int = 0
    relabelled: int = 0
    vanished: int = 0


@dataclass(frozen=True)
class Plan:
    """What a store has, what changes in it, and which examples must still be embedded.

    Parameters
    ----------
    parts
        Those that count so far.
    rewrites
        Parts to be rewritten without dropped examples.
    todo
        Examples to embed.
    inferences
        How many inferences were made for this store so far.
    fingerprint
        Of the embeddings: the store's own, or the wanted one for a new store.
    unfinished
        Whether an earlier run has not finished, and this one continues it.
    leftovers
        Whether there are records to be removed at the end, another source to be written down, or a
        manifest of an older format.
    corrections
        Of the source's examples, to be written down.
    """

    manifest: StoreManifest | None
    parts: tuple[PartRecord, ...]
    rewrites: tuple[Rewrite, ...]
    todo: pa.Table
    fingerprint: Fingerprint
    counts: Counts = field(default_factory=Counts)
    inferences: int = 0
    unfinished: bool = False
    leftovers: bool = False
    corrections: Corrections = ()

    @property
    def finished(self) -> bool:
        """Whether there is nothing to do, not even to write the manifest."""
        if self.left or self.changes or self.manifest is None or self.leftovers:
            return False
        return self.parts == self.manifest.parts

    @property
    def left(self) -> int:
        """How many examples are to be embedded."""
        return int(self.todo.num_rows)

    @property
    def changes(self) -> int:
        """How many parts are to be rewritten."""
        return len(self.rewrites)

    def paths(self) -> pa.ChunkedArray:
        """Of examples to be embedded, to measure with."""
        return self.todo["path"]

    def rewritten(
        self, store: Folder, source: Any, fingerprint: Fingerprint
    ) -> Iterator[PartRecord]:
        """Rewrite the parts of `rewrites`, as `rewrite` does."""
        for change in self.rewrites:
            yield rewrite(store, source, change, fingerprint)

    @property
    def new(self) -> bool:
        """Whether nothing has been embedded for this store so far."""
        return self.manifest is None and not self.unfinished

    @property
    def next_number(self) -> int:
        """The first number that no part has yet."""
        return 1 + max((int(part.name.split("-")[1]) for part in self.parts), default=-1)

    def shards(self, workers: int, batch: int) -> list[Shard]:
        """Cut the work so that every worker has several shards, in the order of the examples.

        They become smaller towards the end (guided self-scheduling; Polychronopoulos and Kuck
        1987), and are whole batches, since a batch that is not full may cost as much.
        """
        unit = -(-SMALLEST_SHARD // batch) * batch
        largest = max(LARGEST_SHARD // unit, 1) * unit

        def sizes() -> Iterator[int]:
            left = self.todo.num_rows
            while left > 0:
                size = min(-(-left // (workers * TURNS * unit)) * unit, largest)
                yield size
                left -= size

        return cut(self.todo, sizes(), self.next_number)


def plan(
    source: Source,
    store: Folder,
    fingerprint: Fingerprint,
    update: Update = Update(),
    any_precision: bool = False,
) -> Plan:
    """Subtract what the store has from the source. Nothing is written.

    A file whose path or stamp (size and modification time) has changed is read; it is embedded
    again if its bytes have changed as well.

    Parameters
    ----------
    fingerprint
        The wanted fingerprint of the embeddings.
    any_precision
        Whether the store may have another precision.

    Raises
    ------
    StoreError
        If the folder has other files, or features of another backbone or source.
    """
    stored = read_stored(store, source.path, fingerprint, update, any_precision)
    found = subtract(source, store, stored.parts, update, stored.moved)
    return Plan(
        manifest=stored.manifest,
        parts=found.parts,
        rewrites=found.rewrites,
        todo=source.examples.filter(flags(~found.done)) if found.parts else source.examples,
        fingerprint=stored.fingerprint,
        counts=found.counts,
        inferences=stored.inferences,
        unfinished=stored.unfinished is not None,
        leftovers=stored.leftovers,
    )


@dataclass(frozen=True)
class Stored:
    """What a store says of itself, before its examples are looked at.

    Parameters
    ----------
    parts
        Those that count, sorted by name.
    fingerprint
        Its own, or for a new store the wanted one.
    moved
        Whether its source was elsewhere.
    renamed
        Whether its source had another address, such as another column of labels.
    leftovers
        Whether there are records to be removed, or another source to be written down.
    """

    fingerprint: Fingerprint
    manifest: StoreManifest | None = None
    unfinished: Unfinished | None = None
    parts: tuple[PartRecord, ...] = ()
    inferences: int = 0
    moved: bool = False
    renamed: bool = False
    leftovers: bool = False


def read_stored(
    store: Folder, source: str, fingerprint: Fingerprint, update: Update, any_precision: bool
) -> Stored:
    """Read the manifest and the records of a store, and compare them with what is wanted.

    Raises
    ------
    StoreError
        As `plan`.
    """
    manifest, unfinished = read_manifest(store), read_unfinished(store)
    if manifest is None and unfinished is None:
        _check_unused(store)
        return Stored(fingerprint)
    recorded = [found for found in (manifest, unfinished) if found]
    own = _own_fingerprint(store, recorded)
    if any_precision:
        fingerprint = fingerprint.run_in(own.precision)
    for found in recorded:
        _check_same(store, found, fingerprint, source, update.moved_from)
    moved = not all(same_examples(found.source, source) for found in recorded)
    renamed = any(found.source != source for found in recorded)
    return Stored(
        fingerprint=own,
        manifest=manifest,
        unfinished=unfinished,
        parts=_recorded(manifest, unfinished),
        inferences=recorded[-1].inferences,
        moved=moved,
        renamed=renamed,
        leftovers=store.exists(RECORDS) or store.exists(OLD_MANIFEST) or renamed,
    )


@dataclass(frozen=True)
class Difference:
    """What a store's parts have of a source.

    Parameters
    ----------
    parts
        Those that count.
    rewrites
        Of these, those in which examples are dropped or have changed in the source.
    done
        Whether an example needs no inference, bool `[examples]` of the source.
    """

    parts: tuple[PartRecord, ...]
    rewrites: tuple[Rewrite, ...]
    done: np.ndarray
    counts: Counts


def subtract(
    source: Source, store: Folder, parts: tuple[PartRecord, ...], update: Update, rehash: bool
) -> Difference:
    """Compare the examples of some parts with a source.

    Parameters
    ----------
    rehash
        Whether every file is read and hashed, even if `update` does not ask for it.

    Raises
    ------
    StoreError
        If a part cannot be read.
    """
    known = read_known(store, parts, source)
    changed = changed_files(known, source, store, update.rehash or rehash)
    keep = _keep(known, changed, update)
    done = np.zeros(len(source), bool)
    done[known.source_rows[keep & known.in_source]] = True
    return Difference(
        parts=known.parts,
        rewrites=tuple(_rewrites(known, keep)),
        done=done,
        counts=Counts(
            kept=int(done.sum()),
            changed=int(changed.sum()),
            retried=int((known.failed & known.in_source & ~keep & ~changed).sum()),
            relabelled=int((known.stale & keep & known.in_source).sum()),
            vanished=int((~known.in_source & ~known.superseded).sum()),
        ),
    )


def state(store: Folder) -> tuple[bytes, tuple[str, ...]]:
    """What a plan depends on in a store: as long as it is the same, the plan is valid."""
    file = manifest_file(store)
    manifest = store.read(file) if file else b""
    return manifest, tuple(store.names(RECORDS))


def _keep(known: Known, changed: np.ndarray, update: Update) -> np.ndarray:
    """Which examples of the store stay, bool `[examples]`."""
    keep = ~changed & ~known.superseded
    if update.retry_failed:
        keep &= ~(known.failed & known.in_source)
    if update.prune:
        keep &= known.in_source
    return keep


def _rewrites(known: Known, keep: np.ndarray) -> Iterator[Rewrite]:
    """The parts in which examples are dropped or have changed in the source."""
    numbers = np.unique(known.part[~keep | known.stale | (known.touched & ~known.failed)])
    for number in numbers:
        start, end = np.searchsorted(known.part, [number, number + 1])
        kept = start + np.flatnonzero(keep[start:end])
        rows, errors = kept[~known.failed[kept]], kept[known.failed[kept]]
        yield Rewrite(
            known.parts[number],
            known.position[rows],
            known.position[errors],
            known.source_rows[rows],
            known.touched[rows],
            int(known.in_source[kept].sum()),
        )


def _recorded(
    manifest: StoreManifest | None, unfinished: Unfinished | None
) -> tuple[PartRecord, ...]:
    """The parts that count, sorted by name: neither replaced nor empty ones."""
    parts = (*(manifest.parts if manifest else ()), *(unfinished.parts if unfinished else ()))
    replaced = {part.replaces for part in parts}
    by_name = {part.name: part for part in parts if part.name not in replaced}
    return tuple(
        by_name[name] for name in sorted(by_name) if by_name[name].rows + by_name[name].errors
    )


def _own_fingerprint(store: Folder, recorded: Sequence[StoreManifest | Unfinished]) -> Fingerprint:
    """The fingerprint of a store's embeddings; read here only."""
    first, last = recorded[0].fingerprint, recorded[-1].fingerprint
    if first != last:
        raise StoreError(
            f"{store} mixes features of two fingerprints:\n"
            f"  in its manifest:         {first}\n  in its unfinished run:   {last}",
            "Extract again into another folder with -o.",
        )
    return first


def _check_same(
    store: Folder,
    found: StoreManifest | Unfinished,
    fingerprint: Fingerprint,
    source: str,
    moved_from: str | None,
) -> None:
    """Refuse a store of another backbone or source, which ids alone could not detect."""
    if found.fingerprint.precision != fingerprint.precision and found.fingerprint == (
        fingerprint.run_in(found.fingerprint.precision)
    ):
        raise StoreError(
            f"{store} holds features in {found.fingerprint.precision}, not in "
            f"{fingerprint.precision}",
            "Leave --precision out to continue in that, or extract into another folder with -o.",
        )
    if found.fingerprint != fingerprint:
        raise StoreError(
            f"{store} holds features of another backbone:\n"
            f"  in the store: {found.fingerprint}\n  asked for:    {fingerprint}",
            "Extract into another folder with -o, or use the backbone of the store.",
        )
    before = os.path.abspath(moved_from) if moved_from and "://" not in moved_from else moved_from
    if found.source != before and not same_examples(found.source, source):
        raise StoreError(
            f"{store} holds features of another source:\n"
            f"  in the store: {found.source}\n  asked for:    {source}",
            "Extract into another folder with -o. If the source has moved, add: "
            f"--moved-from {shlex.quote(found.source)}",
        )


def _check_unused(store: Folder) -> None:
    """Refuse a folder with other files, so that they are not mixed with a store."""
    store.check()
    foreign = (name for name in store.names() if not name.startswith((LOCK, f"{RECORDS}/")))
    if name := next(foreign, None):
        raise StoreError(
            f"{store} is in use by something else (it holds {name})",
            "Choose an empty or new folder with -o.",
        )
