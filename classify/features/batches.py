"""Embeddings of a store in batches, to train on more of them than fit in memory.

Each pass reads the parts in order. A thread reads the next batch while the current one is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.common.console import first_few
from headstart.data.common.errors import InputError
from headstart.data.contracts.store import (
    FeatureStore,
    PartRecord,
    damaged,
    embeddings_of,
    open_part,
)

Item = TypeVar("Item")

BATCH_BYTES = 16 * 2**20
READ_BYTES = 8 * 2**20  # a part is one row group: without a limit it would be read whole


@dataclass(frozen=True)
class Batches:
    """Chosen rows of a store's embeddings in batches; can be iterated repeatedly.

    An iteration yields pairs: row numbers int64 `[batch]`, in the order of `FeatureStore.read`, and
    embeddings float32 `[batch, dim]`. No batch is empty. Parts without a chosen row are not read.

    Parameters
    ----------
    chosen
        Which rows of the store to read, bool `[rows of the store]`.
    first, last
        Range of the manifest's parts to read; all parts from `first` on without `last`.
    size
        Largest number of rows in a batch; 0 for as many as fit into 16 MiB.

    Raises
    ------
    StoreError
        While iterating, if a part cannot be read or its number of rows differs from its record.
    """

    store: FeatureStore
    chosen: np.ndarray
    first: int = 0
    last: int | None = None
    size: int = 0

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.store.fingerprint.dim

    @property
    def rows(self) -> int:
        """How many rows an iteration yields."""
        return sum(int(self.chosen[rows].sum()) for _, rows in self._parts())

    def divided(self, count: int) -> list[Batches]:
        """The same rows, in order, in at most `count` pieces with about as many parts each."""
        last = len(self.store.manifest.parts) if self.last is None else self.last
        edges = np.linspace(self.first, last, count + 1).astype(int).tolist()
        return [
            replace(self, first=start, last=end) for start, end in pairwise(edges) if start < end
        ]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ahead(self._read())

    def _parts(self) -> list[tuple[PartRecord, slice]]:
        """The parts of the range, and the rows of the store that each holds."""
        parts = self.store.manifest.parts
        ends = np.cumsum([part.rows for part in parts]).tolist()
        rows = [slice(end - part.rows, end) for part, end in zip(parts, ends, strict=True)]
        return list(zip(parts, rows, strict=True))[self.first : self.last]

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = self.size or max(1, BATCH_BYTES // (4 * self.dim))
        for part, rows in self._parts():
            wanted = self.chosen[rows]
            if not wanted.any():
                continue
            start = 0
            for embeddings in _PartReader(self.store, part, size):
                here = np.flatnonzero(wanted[start : start + len(embeddings)])
                if len(here):
                    whole = len(here) == len(embeddings)
                    yield rows.start + start + here, embeddings if whole else embeddings[here]
                start += len(embeddings)


class _PartReader:
    """The embeddings of one part, `size` rows at a time; resumes after a storage error."""

    def __init__(self, store: FeatureStore, part: PartRecord, size: int) -> None:
        self.folder, self.part, self.size = store.folder, part, size
        self.read = 0  # batches so far
        self.batches: Iterator[pa.RecordBatch] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        rows, file = 0, str(self.part.rows_file)
        try:
            while (batch := self.folder.attempt(self._next)) is not None:
                rows += batch.num_rows
                if rows <= self.part.rows:
                    yield embeddings_of(pa.Table.from_batches([batch]))
        except (pa.ArrowException, OSError) as error:
            raise damaged(self.folder, file, str(error)) from None
        if rows != self.part.rows:
            raise damaged(self.folder, file, f"{rows} rows instead of {self.part.rows}")

    def _next(self) -> pa.RecordBatch | None:
        try:
            if self.batches is None:
                opened = open_part(self.folder, str(self.part.rows_file))
                file = pq.ParquetFile(opened, buffer_size=READ_BYTES)
                self.batches = file.iter_batches(self.size, columns=["embedding"])
                for _ in range(self.read):
                    next(self.batches)
            batch = next(self.batches, None)
        except OSError:
            self.batches = None  # the next attempt opens the part again
            raise
        self.read += 1
        return batch


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; a thread fetches the next one while the current one is used."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def check_finite(store: FeatureStore, embeddings: np.ndarray) -> None:
    """Raise `InputError` if embeddings have NaN or infinite numbers."""
    if not np.isfinite(embeddings).all():
        raise InputError(
            f"{store.folder} holds embeddings with NaN or infinite numbers", "Extract them again."
        )


def check_classes(batches: Batches, labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """How many chosen rows each class has, int64 `[classes]`.

    Raises
    ------
    InputError
        If a class has none.
    """
    counts = np.bincount(labels[batches.chosen], minlength=len(classes))
    missing = [classes[i] for i in np.flatnonzero(counts == 0)]
    if missing:
        raise InputError(
            f"there are no training examples of {first_few(missing, show=repr)}",
            "Add examples, or change the splits.",
        )
    return counts
