"""Logistic regression on many examples in memory, and its out-of-fold scores, by one solver.

scikit-learn multiplies all rows at once, which leaves the processor's cache, and takes three times
as many steps in the coordinates of the embeddings. Here the solver of a streamed head goes over
pieces, and the head of all examples starts where that of the fold ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import linalg
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.classify.features.batches import BATCH_BYTES
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.folds import MANY, Fold, OutOfFold
from headstart.classify.splits.held_out import Training
from headstart.classify.streamed.logistic import SAMPLE, LogisticOptions, Rows, solve
from headstart.data.contracts.calibration import DECISION, scores_of


def is_many(head: HeadOptions, training: Training) -> bool:
    """Whether `fit_many` is the faster way: the solver pays only for many rows per dimension."""
    rows, dim = training.embeddings.shape
    return head.name == "logistic" and rows > max(MANY, SAMPLE * dim)


def fit_many(
    head: HeadOptions, training: Training, fold: Fold, seed: int, advance: Callable[[int], None]
) -> tuple[Pipeline, bool, OutOfFold]:
    """The head of all examples, whether it converged, and the scores of the fold's held-out rows.

    The scores are of a head that is trained on the other rows alone, its scaler as well, from zero.

    Parameters
    ----------
    advance
        `advance(1)` is called after each of the two trainings.
    """
    order = np.concatenate([fold.train, fold.held])
    labels, rest, classes = training.labels[order], len(fold.train), len(training.classes)
    scaled = training.embeddings[order]
    step = max(1, BATCH_BYTES // (4 * scaled.shape[1]))
    scaler = StandardScaler()
    for start in range(0, rest, step):
        scaler.partial_fit(scaled[start : min(start + step, rest)])
    mean, scale = scaler.mean_, scaler.scale_
    _standardize(scaled, mean, scale, step)
    size = min(rest, SAMPLE * scaled.shape[1])
    sample = scaled[np.sort(np.random.default_rng(seed).choice(rest, size, replace=False))]
    spectrum = linalg.eigh((sample.T @ sample / np.float32(size)).astype(np.float64))
    given = head.all_parameters
    options = LogisticOptions(
        given["c"], head.class_weight == "balanced", max_iter=int(given["max_iter"])
    )

    def first(count: int) -> Callable[[], Iterator[Rows]]:
        """The first rows, in pieces."""
        starts = range(0, count, step)
        pieces = [slice(start, min(start + step, count)) for start in starts]
        return lambda: ((scaled[piece], labels[piece]) for piece in pieces)

    def counts(count: int) -> np.ndarray:
        return np.bincount(labels[:count], minlength=classes)

    others, _ = solve(first(rest), counts(rest), spectrum, options)
    held = scores_of(others, scaled[rest:], DECISION).astype(np.float32)
    advance(1)
    scaler.partial_fit(training.embeddings[fold.held])
    _standardize(scaled, (scaler.mean_ - mean) / scale, scaler.scale_ / scale, step)
    logistic, converged = solve(first(len(labels)), counts(len(labels)), spectrum, options, others)
    advance(1)
    return make_pipeline(scaler, logistic), converged, OutOfFold(fold.held, held)


def _standardize(embeddings: np.ndarray, mean: np.ndarray, scale: np.ndarray, step: int) -> None:
    """Subtract a mean and divide by a scale, in place, in pieces of `step` rows."""
    for start in range(0, len(embeddings), step):
        piece = embeddings[start : start + step]
        piece -= mean.astype(np.float32)
        piece /= scale.astype(np.float32)
