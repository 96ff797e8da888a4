"""Feature stores as candidates: how good and how costly each is, and which are Pareto-optimal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headstart.data.common.console import human_bytes
from headstart.data.contracts.fingerprint import Fingerprint


@dataclass(frozen=True)
class Cost:
    """What a backbone costs at the edge: the size of its file in bytes, and its speed on one thread
    of this machine, in the file's precision; features in bf16 come from a file in fp32."""

    path: str
    layers: tuple[str, ...]
    pooling: str
    size: int
    images_per_second: float


@dataclass(frozen=True)
class Candidate:
    """A feature store with its accuracy and cost.

    Parameters
    ----------
    store
        As the user named it.
    accuracy, std
        Mean and sample standard deviation over the splits.
    bytes_per_example
        Size of an embedding in the store's Parquet files.
    cost
        None if no backbones were given.
    best
        Whether it is Pareto-optimal: no other is at least as good in every respect and better in
        one. What counts is accuracy, size and speed of the backbone; without backbones, accuracy
        and width.
    """

    store: str
    fingerprint: Fingerprint
    accuracy: float
    std: float
    bytes_per_example: float
    cost: Cost | None = None
    best: bool = False

    @property
    def merits(self) -> tuple[float, ...]:
        """What candidates are compared by; more is better."""
        if self.cost is None:
            return self.accuracy, -self.fingerprint.dim
        return self.accuracy, self.cost.images_per_second, -self.cost.size


@dataclass(frozen=True)
class Pareto:
    """Feature stores by accuracy, the best first.

    Parameters
    ----------
    examples, classes
        How many examples and classes all stores have in common.
    split
        How the examples were divided, as text.
    """

    candidates: tuple[Candidate, ...]
    examples: int
    classes: int
    repeats: int
    split: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def pareto_optimal(merits: Sequence[tuple[float, ...]]) -> list[bool]:
    """Which of them are Pareto-optimal: none is at least as good in all and better in one."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    return [not any(beats(one, own) for one in merits) for own in merits]


def in_words(found: Pareto) -> str:
    """What was measured, in a sentence or two."""
    done = (
        f"Logistic head on {found.examples:,} examples of {found.classes:,} classes: mean and "
        f"standard deviation of the accuracy over {found.repeats} splits ({found.split})."
    )
    if any(each.cost and each.fingerprint.precision == "bf16" for each in found.candidates):
        done += " Where features are in bf16, the speed is in fp32, as at the edge."
    return done


def table(found: Pareto) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table to print."""
    costs = any(each.cost for each in found.candidates)
    columns = ["store", "Pareto", "accuracy", "backbone", "input", "precision"]
    columns += ["dim", "bytes per example"] + (["file", "per second", "layers"] if costs else [])
    rows = []
    for each in found.candidates:
        made, cost = each.fingerprint, each.cost
        row = [each.store, "*" if each.best else "", f"{each.accuracy:.4f} +- {each.std:.4f}"]
        row += [made.backbone, made.preprocessing, made.precision]
        row += [f"{made.dim:,}", f"{each.bytes_per_example:,.0f}"]
        if cost:
            row += [human_bytes(cost.size), f"{cost.images_per_second:.1f}"]
            row.append(f"{' '.join(cost.layers)} ({cost.pooling})")
        rows.append(row)
    return columns, rows
