"""Answers for whole examples from those for their parts: the mean of the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.contracts.calibration import UNKNOWN
from headstart.data.modalities.stretches import whole_of


@dataclass(frozen=True)
class Wholes:
    """Which parts belong to which example.

    Parameters
    ----------
    rows
        The example of each part, int64 `[parts]`, counted from 0.
    ids
        Of the examples, in the order of their first parts.
    first
        Row of the first part of each example, int64 `[examples]`.
    """

    rows: np.ndarray
    ids: list[str]
    first: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[str]) -> Wholes | None:
        """By the ids of the parts; none if no example has several."""
        places: dict[str, int] = {}
        rows = np.array([places.setdefault(whole_of(id), len(places)) for id in ids], np.int64)
        if len(places) == len(ids):
            return None
        return cls(rows, list(places), np.unique(rows, return_index=True)[1])

    def mean(self, probabilities: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
        """The mean over the parts of each example, float32 `[examples, classes]`.

        Parameters
        ----------
        probabilities
            Of the parts, float `[parts, classes]`.
        counts
            Which parts count, bool `[parts]`; all by default. An example without any gets zeros.
        """
        kept = np.ones(len(self.rows), bool) if counts is None else counts
        totals = np.zeros((len(self.first), probabilities.shape[1]))
        np.add.at(totals, self.rows[kept], probabilities[kept])
        number = np.bincount(self.rows[kept], minlength=len(self.first))
        return (totals / np.maximum(number, 1)[:, None]).astype(np.float32)


def labels_of(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """The most probable class, int64 `[n]`; -1 below the threshold."""
    labels = probabilities.argmax(axis=1).astype(np.int64)
    if threshold is not None:
        labels[probabilities.max(axis=1) < threshold] = UNKNOWN
    return labels
