"""Probable label errors, by confident learning (Northcutt, Jiang and Chuang 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 4_000_000  # probabilities processed at a time: 32 MB for a temporary array


@dataclass(frozen=True)
class Suspects:
    """All examples, the most suspicious label first.

    Parameters
    ----------
    rows
        Rows of the input labels, int64 `[examples]`.
    given, suggested
        The label, and the most probable other class, as indices, int64 `[examples]`.
    score
        Normalized margin: the label's probability minus the largest of another class, from -1
        (certainly wrong) to 1, ascending, float64 `[examples]`.
    is_error
        What confident learning counts as label errors, bool `[examples]`.
    share
        Share of all labels that are wrong, as confident learning estimates it from the joint
        distribution of given and true labels.
    how
        How they were found and what the score is, as a sentence.
    """

    rows: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    score: np.ndarray
    is_error: np.ndarray
    share: float
    how: str


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> Suspects:
    """Rank labels by how strongly the probabilities contradict them.

    An example is confidently of a class if the class's probability is at least its mean over the
    examples with that label. The label is an error if the most probable of these classes is not the
    label (the off-diagonal part of the confident joint).

    Parameters
    ----------
    labels
        As given, int64 `[examples]`.
    probabilities
        Out-of-fold, from heads that were not trained on the example, float `[examples, classes]`.
        A head's probabilities for its own training examples would reproduce the label errors.
    """
    threshold = _thresholds(labels, probabilities)
    margin = np.empty(len(labels))
    other = np.empty(len(labels), np.int64)
    confident = np.empty(len(labels), np.int64)
    step = max(1, BLOCK // max(1, probabilities.shape[1]))
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        block, own = probabilities[part].astype(np.float64), labels[part]
        position = np.arange(len(own))
        # A class below its threshold is set to -1; if all are, no class is confident.
        above = np.where(block >= threshold, block, -1)
        best = above.argmax(axis=1)
        confident[part] = np.where(above[position, best] >= 0, best, -1)
        mine = block[position, own]
        block[position, own] = -1
        other[part] = block.argmax(axis=1)
        margin[part] = mine - block[position, other[part]]
    is_error = (confident >= 0) & (confident != labels)
    rows = np.argsort(margin, kind="stable")
    share = _error_share(labels, confident)
    return Suspects(
        rows=rows,
        given=labels[rows],
        suggested=other[rows],
        score=margin[rows],
        is_error=is_error[rows],
        share=share,
        how=f"Confident learning on out-of-fold probabilities; it estimates that {share:.1%} of "
        "the labels are wrong. The score is the label's probability minus the largest of another "
        "class.",
    )


def _thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean probability of each class where it is the label; infinite where it never is."""
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def _error_share(labels: np.ndarray, confident: np.ndarray) -> float:
    """The share of wrong labels: the off-diagonal part of the joint.

    The rows of the confident joint are scaled to the number of examples with each label. Only its
    diagonal and row sums are needed, so no matrix is built for 10,000 classes.
    """
    counted = confident >= 0
    size = int(labels.max(initial=-1)) + 1
    total = np.bincount(labels[counted], minlength=size)
    right = np.bincount(labels[counted & (confident == labels)], minlength=size)
    wrong = np.where(total > 0, 1 - right / np.maximum(total, 1), 0)
    counts = np.bincount(labels, minlength=size)
    return float((wrong * counts).sum() / max(1, counts.sum()))
