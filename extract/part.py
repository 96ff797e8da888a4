"""Collects a part of the store: every example of a shard becomes a row of features or of errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headstart.data.common.arrays import numbers, strings
from headstart.data.common.errors import BackboneError
from headstart.data.contracts.store import ERROR_COLUMNS, ERROR_SCHEMA, columns_for
from headstart.data.workers.inputs import Example, Failure


class Part:
    """Collects the rows and errors of a shard.

    Parameters
    ----------
    examples
        Of the shard, as in the source.
    dim
        Width of the embeddings.
    """

    def __init__(self, examples: pa.Table, dim: int) -> None:
        self.examples = examples
        self.good: list[tuple[int, str, str | None]] = []  # row, hash, stamp
        self.embeddings = np.empty((len(examples), dim), np.float32)
        self.bad: list[Failure] = []
        self.inferences = 0
        self.tally: Counter[str] = Counter()

    def add(self, examples: list[Example], embeddings: np.ndarray) -> None:
        """Add a batch and its embeddings, float32 `[batch, dim]`."""
        if embeddings.shape[1:] != self.embeddings.shape[1:]:
            raise BackboneError(
                f"the backbone makes embeddings of shape {embeddings.shape[1:]}, but its metadata "
                f"says {self.embeddings.shape[1]}",
                "Export the backbone again.",
            )
        finite = np.isfinite(embeddings).all(axis=1)
        start = len(self.good)
        for example, fine in zip(examples, finite, strict=True):
            if fine:
                self.good.append((example.row, example.content, example.stamp))
            else:
                message = "the embedding has NaN or infinite numbers"
                self.fail(Failure(example.row, "embed", "not_finite", message, example.stamp))
        self.embeddings[start : len(self.good)] = embeddings[finite]
        self.inferences += len(examples)
        for example in examples:
            self.tally.update(example.tally)

    def fail(self, failure: Failure) -> None:
        """Add a row that has no embedding."""
        self.bad.append(failure)

    def rows(self) -> pa.Table:
        """The rows of features."""
        schema = columns_for(self.examples.schema, self.embeddings.shape[1])
        examples = self.examples.take(numbers(np.array([row for row, *_ in self.good], np.int64)))
        flat = self.embeddings[: len(self.good)].ravel()
        columns = {
            "content": strings([content for _, content, _ in self.good]),
            "stamp": strings([stamp for *_, stamp in self.good]),
            "embedding": pa.FixedSizeListArray.from_arrays(
                numbers(flat), type=schema.field("embedding").type
            ),
        }
        return pa.table(
            [columns[name] if name in columns else examples[name] for name in schema.names],
            schema=schema,
        )

    def errors(self) -> pa.Table:
        """The rows of errors."""
        self.bad.sort(key=lambda failure: failure.row)
        return error_rows(self.examples, self.bad)


def error_rows(examples: pa.Table, failures: Sequence[Failure]) -> pa.Table:
    """Rows of errors, in the order of the failures."""
    rows = np.array([failure.row for failure in failures], np.int64)
    taken = examples.select(["id", "path"]).take(numbers(rows))
    columns = [[getattr(failure, name) for failure in failures] for name in ERROR_COLUMNS[1:-1]]
    return pa.table([taken["id"], *map(strings, columns), taken["path"]], schema=ERROR_SCHEMA)
