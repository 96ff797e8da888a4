"""Which examples without a label would teach the head most: unsure ones that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.classify.diagnosis.near_duplicates import directions
from headstart.classify.features.loading import Embeddings

MOST = 24
CANDIDATES = 10  # for each one chosen: the most unsure, of which the most different are taken


@dataclass(frozen=True)
class LabelNext:
    """The examples to label next, in the order in which they were chosen.

    Parameters
    ----------
    rows
        Of the examples without a label, int64 `[chosen]`.
    best, second
        The two most probable classes, as indices, int64 `[chosen]`.
    margin
        The difference of their probabilities, float `[chosen]`.
    of
        How many examples have no label.
    """

    rows: np.ndarray
    best: np.ndarray
    second: np.ndarray
    margin: np.ndarray
    of: int


@dataclass(frozen=True)
class Unlabelled:
    """The head's answers for the examples without a label.

    Parameters
    ----------
    labels
        Int64 `[examples]`, -1 for "unknown".
    confidence
        Of the most probable class, float32 `[examples]`.
    margin
        Its lead over the second, float32 `[examples]`.
    probabilities_of
        The probabilities for embeddings float32 `[n, dim]`, `[n, classes]`.
    """

    labels: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    probabilities_of: Callable[[np.ndarray], np.ndarray]


def margin_of(probabilities: np.ndarray) -> np.ndarray:
    """The lead of the most probable class over the second, `[examples]`."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def label_next(answers: Unlabelled, embeddings: Embeddings) -> LabelNext | None:
    """Choose by smallest margin, then by distance to those chosen already.

    Of the 240 examples with the smallest margin (Scheffer, Decomain and Wrobel 2001), the most
    unsure is taken, then, again and again, the one that is farthest from all taken so far (the
    greedy k-center of Sener and Savarese 2018): twenty-four photographs of one scene would teach
    little more than one.

    Parameters
    ----------
    answers
        Of the examples without a label.
    embeddings
        Of the same examples.

    Returns
    -------
    LabelNext or None
        None if every example has a label.
    """
    margin = answers.margin
    if not len(margin):
        return None
    unsure = np.argsort(margin, kind="stable")[: MOST * CANDIDATES]
    rows = np.sort(unsure)
    taken = embeddings.take(rows)
    places = directions(taken, taken.mean(axis=0))
    chosen = [int(np.flatnonzero(rows == unsure[0])[0])]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < min(MOST, len(rows)):
        nearest = np.minimum(nearest, 1 - places @ places[chosen[-1]])
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    picked = rows[chosen]
    order = np.argsort(-answers.probabilities_of(taken[chosen]), axis=1, kind="stable")
    return LabelNext(picked, order[:, 0], order[:, 1], margin[picked], len(margin))
