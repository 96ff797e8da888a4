"""What training reads of a store: labels and columns at once, embeddings if they fit in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.classify.features.batches import check_finite, needs
from headstart.classify.features.embeddings import Embeddings, InMemory, Streamed, memory_budget
from headstart.classify.splits.label_checks import check_groups
from headstart.classify.splits.splitting import Labelled, labelled
from headstart.data.common.console import human_bytes
from headstart.data.common.errors import InputError
from headstart.data.contracts.store import FeatureStore, embeddings_of

COLUMNS = ("id", "path", "content", "label", "split", "group")


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
        Embeddings of those, by their rows.
    why_streamed
        Why the embeddings stay in the store, in words; empty if they are in memory.
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
        Bytes that embeddings may take; none for half of the machine's.

    Raises
    ------
    InputError
        If there are no embeddings, not enough labels, or numbers that are none.
    """
    if not store.manifest.rows:
        raise InputError(
            f"{store.folder} holds no embeddings: all {store.manifest.errors:,} examples failed",
            f"The reasons are in {store.folder}/_errors.",
        )
    budget = memory_budget() if memory is None else memory
    streamed = needs(store) > budget
    table = store.read(_columns(store, group) if streamed else None)
    has_label = pc.is_valid(table["label"])
    rows, other_rows = (
        np.flatnonzero(mask.to_numpy(zero_copy_only=False))
        for mask in (has_label, pc.invert(has_label))
    )
    data = labelled(table, group)
    check_groups(data.labels, data.groups)
    unlabelled = table.filter(pc.invert(has_label)).select(COLUMNS)
    if streamed:
        why = (
            f"training on them in memory takes {human_bytes(needs(store))}, "
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
    """All columns that training needs but the embeddings; an unknown group is found out later."""
    parts = [part.rows_file for part in store.manifest.parts if part.rows_file]
    names = store.folder.attempt(lambda: pq.read_schema(store.folder.open(parts[0]))).names
    return [*COLUMNS, *([group] if group in names and group not in COLUMNS else [])]
