"""The worst mistakes on held-out examples, and the training examples most similar to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.classify.diagnosis.near_duplicates import nearest
from headstart.classify.splits.held_out import Answers

MOST, NEIGHBOURS = 24, 3


@dataclass(frozen=True)
class Neighbours:
    """The training examples most similar to some mistakes, the most similar first.

    Parameters
    ----------
    test
        The mistakes, as indices of the held-out examples, int64 `[mistakes]`.
    train
        Indices of the training examples, int64 `[mistakes, 3]` or fewer.
    similarity
        Cosine of the embeddings minus the training mean, float32, of the same shape.
    """

    test: np.ndarray
    train: np.ndarray
    similarity: np.ndarray


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """All wrong answers, the most confident first, as indices int64 `[mistakes]`."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def neighbours(answers: Answers, train: np.ndarray, test: np.ndarray) -> Neighbours:
    """The nearest training examples of the 24 worst mistakes.

    Parameters
    ----------
    train, test
        Embeddings, float32 `[rows, dim]`.
    """
    worst = worst_mistakes(answers.labels, answers.probabilities)[:MOST]
    count = min(NEIGHBOURS, len(train))
    similarity, rows = nearest(train, test[worst], count, doing="searching for similar examples")
    return Neighbours(worst, rows, similarity)
