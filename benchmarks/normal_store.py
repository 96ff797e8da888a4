"""A generated feature store whose best possible accuracy is known.

The classes are normal distributions around orthogonal means, mixed into correlated features with
different means and scales; mixing does not change the best accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.integrate import quad
from scipy.stats import norm

from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import PartContent, begin, finish, write_part
from headstart.data.contracts.store import ERROR_SCHEMA, StoreManifest, part_schema
from headstart.data.storage.places import folder_at

PART = 10_000  # rows
DISTANCE = 2.5  # of a class's mean from the origin, in standard deviations


@dataclass(frozen=True)
class Size:
    """Size of a store; the first `tested` rows are the test split, the others train."""

    rows: int
    tested: int
    dim: int
    classes: int


def best_accuracy(classes: int) -> float:
    """Of the Bayes classifier: that the true class's projection is larger than all others."""

    def density(value: float) -> float:
        return float(norm.pdf(value - DISTANCE) * norm.cdf(value) ** (classes - 1))

    return quad(density, -10, 10 + DISTANCE)[0]


def write_store(path: Path, size: Size, seed: int = 1) -> None:
    """A finished store, made and written a part at a time."""
    world, dim = np.random.default_rng(0), size.dim  # the same for all stores
    means = np.linalg.qr(world.normal(size=(dim, size.classes)))[0].T * DISTANCE
    mixing = np.linalg.qr(world.normal(size=(dim, dim)))[0] * np.geomspace(1, 0.01, dim)
    mixing = mixing @ np.linalg.qr(world.normal(size=(dim, dim)))[0] * world.uniform(0.1, 10, dim)
    mixing, shift = mixing.astype(np.float32), world.normal(size=dim).astype(np.float32)
    random = np.random.default_rng(seed)
    prints = Fingerprint("none", "0" * 64, "8x8 squash bilinear", "fp32", dim)
    names = tuple(f"c{index:05d}" for index in range(size.classes))
    folder, schema = folder_at(path), part_schema(dim, [])
    begin(folder, prints, "none")
    records = []
    for number, start in enumerate(range(0, size.rows, PART)):
        count = min(PART, size.rows - start)
        labels = random.integers(size.classes, size=count)
        embeddings = random.standard_normal((count, dim), np.float32)
        embeddings += means.astype(np.float32)[labels]
        embeddings = embeddings @ mixing + shift
        rows = np.arange(start, start + count)
        ids = pa.array(rows).cast(pa.string())
        nothing = pa.nulls(count, pa.string())
        split = pa.array(np.where(rows < size.tested, "test", "train"))
        kind = schema.field("embedding").type
        columns = {
            "id": ids,
            "path": ids,
            "content": ids,
            "stamp": nothing,
            "label": pa.array([names[index] for index in labels]),
            "split": split,
            "group": nothing,
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), type=kind),
        }
        name = f"part-{number:05d}-{number:012x}"
        table = pa.table([columns[field.name] for field in schema], schema=schema)
        content = PartContent(prints, table, ERROR_SCHEMA.empty_table())
        records.append(write_part(folder, name, content))
    finish(
        folder,
        StoreManifest(
            fingerprint=prints,
            source="none",
            root="none",
            classes=names,
            parts=tuple(records),
        ),
    )
