"""Scores of training examples by estimators that did not see them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.classify.heads.estimators import HeadOptions, make_head, score_method
from headstart.classify.splits.held_out import Training
from headstart.classify.splits.splitting import hold_back
from headstart.data.contracts.calibration import scores_of

FOLDS = 5
MANY = 20_000  # examples from which one held-back part is as good as five folds
SHARE = 0.05  # of them


@dataclass(frozen=True)
class Fold:
    """Rows that train and rows that are scored, as indices."""

    train: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class OutOfFold:
    """Scores, float `[examples, classes]`, of the rows that were in a fold, int64 `[examples]`."""

    rows: np.ndarray
    scores: np.ndarray


def make_folds(training: Training, seed: int) -> list[Fold]:
    """Five folds, or of many examples one part in twenty, which then trains no estimator at all.

    Every class is among the rows that train, groups are kept together. Of classes with one example
    nothing is held back. The list is empty where groups allow no fold.
    """
    labels = training.labels
    rows = np.arange(len(labels))
    if training.groups is not None:
        count = min(FOLDS, len(np.unique(training.groups)))
        if count < 2:
            return []
        divided: Any = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(
            rows, labels, training.groups
        )
        folds = [Fold(train, held) for train, held in divided if len(held)]
        folds = [fold for fold in folds if _has_every_class(labels, fold.train)]
        return folds[:1] if len(rows) > MANY else folds
    counts = np.bincount(labels)
    several = rows[counts[labels] > 1]
    alone = rows[counts[labels] == 1]
    if len(rows) > MANY:
        held = hold_back(labels, round(SHARE * len(labels)), seed)
        return [Fold(np.setdiff1d(rows, held), held)]
    count = min(FOLDS, int(counts.max()))
    if count < 2:
        return []
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with less examples than folds
        divided = list(splitter.split(several, labels[several]))
    return [Fold(np.concatenate([alone, several[a]]), several[b]) for a, b in divided]


def _has_every_class(labels: np.ndarray, rows: np.ndarray) -> bool:
    return len(np.unique(labels[rows])) == len(np.unique(labels))


def fit_head(options: HeadOptions, training: Training, seed: int) -> tuple[Any, bool]:
    """Train an estimator; also whether it converged."""
    estimator = make_head(options, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        estimator.fit(training.embeddings, training.labels)
    return estimator, not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)


def score_fold(options: HeadOptions, training: Training, fold: Fold, seed: int) -> np.ndarray:
    """Scores of a fold's held rows, float32 `[held, classes]`."""
    estimator, _ = fit_head(options, training.take(fold.train), seed)
    held = training.embeddings[fold.held]
    return scores_of(estimator, held, score_method(options, estimator)).astype(np.float32)


def gather(folds: list[Fold], scores: list[np.ndarray], classes: int) -> OutOfFold:
    """The scores of all folds."""
    if not folds:
        return OutOfFold(np.zeros(0, np.int64), np.zeros((0, classes), np.float32))
    return OutOfFold(np.concatenate([fold.held for fold in folds]), np.concatenate(scores))


def score_folds(
    options: HeadOptions,
    training: Training,
    folds: list[Fold],
    seed: int,
    done: Callable[[int], None],
) -> OutOfFold:
    """Out-of-fold scores of one head; `done` is called after each fold."""
    scores = []
    for fold in folds:
        scores.append(score_fold(options, training, fold, seed))
        done(1)
    return gather(folds, scores, len(training.classes))
