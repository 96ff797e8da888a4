"""The embeddings of the labelled examples: in memory, or read from the store as they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headstart.classify.features.batches import Batches
from headstart.data.common.memory import machine_memory
from headstart.data.contracts.store import FeatureStore


class Embeddings(ABC):
    """Embeddings by the row of their example; rows are ascending everywhere."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of some rows, float32 `[rows, dim]`."""

    @abstractmethod
    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The same in pieces, float32 `[batch, dim]` each, in the order of the rows."""


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
        For each labelled example its row in the store, ascending, int64 `[examples]`.
    """

    store: FeatureStore
    rows: np.ndarray

    def chosen(self, rows: np.ndarray) -> Batches:
        """Some examples, to be read as often as one likes; row numbers are the store's."""
        mask = np.zeros(self.store.manifest.rows, bool)
        mask[self.rows[rows]] = True
        return Batches(self.store, mask)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of some rows, float32 `[rows, dim]`."""
        dim = self.store.fingerprint.dim
        return np.concatenate([np.empty((0, dim), np.float32), *self.batches(rows)])

    def batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The same in pieces, float32 `[batch, dim]` each, in the order of the rows."""
        for _, embeddings in self.chosen(rows):
            yield embeddings


def memory_budget() -> int:
    """Half of the memory of this machine, or of the container that we are in, in bytes."""
    return machine_memory() // 2
