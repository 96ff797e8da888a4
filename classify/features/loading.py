"""What training reads of a store: labels and columns at once, embeddings if they fit in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.classify.features.batches import Batches, check_finite
from headstart.classify.splits.splitting import Labelled, labelled
from headstart.data.common.console import human_bytes
from headstart.data.common.errors import InputError
from headstart.data.common.memory import machine_memory
from headstart.data.contracts.store import FeatureStore, embeddings_of, part_columns

COPIES = 4  # of the embeddings in memory: as read, joined, training rows, scaled
SCORES = 3  # float64 arrays [examples, classes] while a head is fitted
COLUMNS = ("id", "path", "content", "label", "split", "group")


class Embeddings(ABC):
    """Embeddings by the row of their example; rows are always in ascending order."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of some rows, float32 `[rows, dim]`."""

    @abstractmethod
    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """As `take`, in batches float32 `[batch, dim]`."""


@dataclass(frozen=True)
class InMemory(Embeddings):
    """All embeddings, as one array float32 `[examples, dim]`."""

    array: np.ndarray

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of some rows, float32 `[rows, dim]`."""
        return self.array[rows]

    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """All of them at once."""
        yield self.take(rows)


@dataclass(frozen=True)
class Streamed(Embeddings):
    """Embeddings that stay in the store.

    Parameters
    ----------
    rows
        The row of each labelled example in the store, ascending, int64 `[examples]`.
    """

    store: FeatureStore
    rows: np.ndarray

    def chosen(self, rows: np.ndarray) -> Batches:
        """Some examples as batches that can be iterated repeatedly; row numbers are the store's."""
        mask = np.zeros(self.store.manifest.rows, bool)
        mask[self.rows[rows]] = True
        return Batches(self.store, mask)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of some rows, float32 `[rows, dim]`."""
        dim = self.store.fingerprint.dim
        return np.concatenate([np.empty((0, dim), np.float32), *self.batches(rows)])

    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """As `take`, in batches float32 `[batch, dim]`."""
        for _, embeddings in self.chosen(rows):
            yield embeddings


def memory_needed(store: FeatureStore) -> int:
    """The most memory that training on a store's embeddings in memory takes, bytes."""
    row = store.fingerprint.dim * 4 * COPIES + len(store.manifest.classes) * 8 * SCORES
    return store.manifest.rows * row


def memory_budget() -> int:
    """Half of the memory of this machine, or of the container it runs in, in bytes."""
    return machine_memory() // 2


@dataclass(frozen=True)
class Loaded:
    """A store, opened for training.

    Parameters
    ----------
    embeddings
        By the rows of `data`.
    unlabelled
        The examples without a label, without their embeddings.
    others
        Embeddings of the examples without a label, by their rows.
    why_streamed
        Why the embeddings are streamed from the store, as text; empty if they are in memory.
    """

    data: Labelled
    embeddings: InMemory | Streamed
    unlabelled: pa.Table
    others: Embeddings
    why_streamed: str = ""


def load(store: FeatureStore, group: str = "", memory: int | None = None) -> Loaded:
    """Read a store for training.

    Parameters
    ----------
    group
        As for `labelled`.
    memory
        Bytes that embeddings may take; none for half of the machine's memory.

    Raises
    ------
    InputError
        If there are no embeddings, not enough labels, or embeddings with NaN or infinite numbers.
    """
    if not store.manifest.rows:
        raise InputError(
            f"{store.folder} holds no embeddings: all {store.manifest.errors:,} examples failed",
            f"Show the reasons with: python -m data errors {store.folder}",
        )
    budget = memory_budget() if memory is None else memory
    streamed = memory_needed(store) > budget
    table = store.read(_columns(store, group) if streamed else None)
    has_label = pc.is_valid(table["label"])
    rows, other_rows = (
        np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        for mask in (has_label, pc.invert(has_label))
    )
    data = labelled(table, group)
    columns = list(dict.fromkeys([*COLUMNS, data.group]))
    unlabelled = table.filter(pc.invert(has_label)).select(columns)
    if streamed:
        why = (
            f"training on them in memory takes {human_bytes(memory_needed(store))}, "
            f"and --memory is {human_bytes(budget)}"
        )
        return Loaded(data, Streamed(store, rows), unlabelled, Streamed(store, other_rows), why)
    embeddings = embeddings_of(table)
    check_finite(store, embeddings)
    if len(other_rows):
        return Loaded(
            data, InMemory(embeddings[rows]), unlabelled, InMemory(embeddings[other_rows])
        )
    return Loaded(data, InMemory(embeddings), unlabelled, InMemory(embeddings[:0]))


def _columns(store: FeatureStore, group: str) -> list[str]:
    """All columns that training needs except the embeddings; an unknown group is reported later."""
    parts = [part.rows_file for part in store.manifest.parts if part.rows_file]
    names = part_columns(store.folder, str(parts[0]))
    return [*COLUMNS, *([group] if group in names and group not in COLUMNS else [])]
