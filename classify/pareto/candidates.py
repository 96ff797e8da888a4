"""Feature stores as candidates: how good and how costly each is, and which nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headstart.data.contracts.fingerprint import Fingerprint


@dataclass(frozen=True)
class Cost:
    """What a backbone costs at the edge: its file's bytes, and its speed on one thread of this
    machine, in the file's precision; features in bf16 come from a file in fp32."""

    path: str
    layers: tuple[str, ...]
    pooling: str
    size: int
    images_per_second: float


@dataclass(frozen=True)
class Candidate:
    """A feature store: how good, and how costly.

    Parameters
    ----------
    store
        As it was named.
    accuracy, std
        Mean and sample standard deviation over the splits.
    bytes_per_example
        Of the embedding, in the store's Parquet files.
    cost
        None where no backbones were given.
    best
        Whether no other is at least as good in everything and better in something: accuracy, and
        size and speed of the backbone; without backbones accuracy and width.
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
        """What counts; more is better."""
        if self.cost is None:
            return self.accuracy, -self.fingerprint.dim
        return self.accuracy, self.cost.images_per_second, -self.cost.size


@dataclass(frozen=True)
class Pareto:
    """Feature stores by accuracy, the best first.

    Parameters
    ----------
    examples, classes
        How many of them all stores have.
    split
        How the examples were divided, in words.
    """

    candidates: tuple[Candidate, ...]
    examples: int
    classes: int
    repeats: int
    split: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def unbeaten(merits: Sequence[tuple[float, ...]]) -> list[bool]:
    """Which of them no other equals in everything and exceeds in something."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    return [not any(beats(one, own) for one in merits) for own in merits]
