"""Files that are there more than once: the same bytes under several names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.classify.splits.splitting import Labelled
from headstart.data.modalities.stretches import whole_of


@dataclass(frozen=True)
class Copies:
    """Sets of examples with the same bytes, those with two labels first, then the largest.

    Parameters
    ----------
    rows
        Of the labelled examples, one array int64 `[examples]` for each set; of a recording, its
        first window.
    two_labels
        How many of the sets, the first ones, have more than one label.
    """

    rows: tuple[np.ndarray, ...]
    two_labels: int


def find_copies(data: Labelled) -> Copies:
    """Find the files with the same bytes by their hashes."""
    codes = data.examples["content"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    found = []
    for at in np.flatnonzero(ends - starts > 1).tolist():
        if len(rows := _one_of_each_file(data, order[starts[at] : ends[at]])) > 1:
            found.append(rows)
    labels = [len(np.unique(data.labels[rows])) for rows in found]
    best = sorted(range(len(found)), key=lambda at: (-labels[at], -len(found[at]), found[at][0]))
    return Copies(tuple(found[at] for at in best), sum(count > 1 for count in labels))


def _one_of_each_file(data: Labelled, rows: np.ndarray) -> np.ndarray:
    """The windows of one recording have the hash of its file, and are no copies."""
    wholes = map(whole_of, data.examples["id"].take(rows).to_pylist())
    first: dict[str, int] = {}
    for row, whole in zip(rows.tolist(), wholes, strict=True):
        first.setdefault(whole, row)
    return np.array(list(first.values()), np.int64)
