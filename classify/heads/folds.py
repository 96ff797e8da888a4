"""Cross-validation: scores of training examples by estimators that were not trained on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from headstart.classify.heads.estimators import HeadOptions, make_head, score_method
from headstart.classify.heads.keras_head import KerasHead
from headstart.classify.splits.held_out import Training
from headstart.classify.splits.splitting import hold_back, hold_back_groups
from headstart.data.common import console
from headstart.data.common.errors import HeadstartError, InputError, first_line
from headstart.data.contracts.calibration import scores_of

FOLDS = 5
MANY = 20_000  # examples above which one held-out part is used instead of five folds
SHARE = 0.05  # of the examples in that part


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to score, as indices."""

    train: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class OutOfFold:
    """Scores, float `[examples, classes]`, of the rows that were held out, int64 `[examples]`."""

    rows: np.ndarray
    scores: np.ndarray


def make_folds(training: Training, seed: int) -> list[Fold]:
    """Five folds; with many examples, a single one that holds out a twentieth of them.

    Every class is among the
    rows to train on, and groups are not divided; a class with one example is not held out. The list
    is empty if the groups allow no fold.
    """
    labels = training.labels
    rows = np.arange(len(labels))
    if training.groups is not None:
        if len(rows) > MANY:
            held = hold_back_groups(labels, training.groups, SHARE, seed)
            return [Fold(np.setdiff1d(rows, held), held)] if len(held) else []
        count = min(FOLDS, len(np.unique(training.groups)))
        if count < 2:
            return []
        divided: Any = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(
            rows, labels, training.groups
        )
        folds = [Fold(train, held) for train, held in divided if len(held)]
        return [fold for fold in folds if _has_every_class(labels, fold.train)]
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
        warnings.simplefilter("ignore", UserWarning)  # a class has fewer examples than folds
        divided = list(splitter.split(several, labels[several]))
    return [Fold(np.concatenate([alone, several[a]]), several[b]) for a, b in divided]


def _has_every_class(labels: np.ndarray, rows: np.ndarray) -> bool:
    return len(np.unique(labels[rows])) == len(np.unique(labels))


def fit_head(options: HeadOptions, training: Training, seed: int) -> tuple[Any, bool]:
    """Train an estimator; also returns whether it converged.

    Raises
    ------
    InputError
        If it cannot be trained on these examples, which may be too few.
    """
    estimator = make_head(options, seed)
    held_together = {"groups": training.groups} if isinstance(estimator, KerasHead) else {}
    refusals = Exception if options.is_custom else ValueError
    with _threads(training), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            estimator.fit(training.embeddings, training.labels, **held_together)
            # Nearest neighbours accept any number of examples, and fail when they are asked.
            scores_of(estimator, training.embeddings[:1], score_method(options, estimator))
        except HeadstartError:
            raise
        except refusals as error:
            raise InputError(
                f"the head {options.name} cannot be trained on {len(training.labels):,} examples "
                f"of {len(training.classes):,} classes: {first_line(error)}",
                "Add examples, or choose another head.",
            ) from error
    return estimator, not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)


def _threads(training: Training) -> AbstractContextManager[object]:
    """One thread of BLAS for few examples: products of so few rows end before a second pays.

    OpenBLAS's threads spin while they wait, which took twice as long on two cores. It also makes
    the last bits independent of the number of cores.
    """
    return nullcontext() if len(training.labels) > MANY else threadpool_limits(1, "blas")


def score_fold(options: HeadOptions, training: Training, fold: Fold, seed: int) -> np.ndarray:
    """Scores of a fold's held-out rows, float32 `[held, classes]`."""
    estimator, _ = fit_head(options, training.take(fold.train), seed)
    held = training.embeddings[fold.held]
    return scores_of(estimator, held, score_method(options, estimator)).astype(np.float32)


def join_folds(folds: list[Fold], scores: list[np.ndarray], classes: int) -> OutOfFold:
    """Join the scores of all folds."""
    if not folds:
        return OutOfFold(np.zeros(0, np.int64), np.zeros((0, classes), np.float32))
    return OutOfFold(np.concatenate([fold.held for fold in folds]), np.concatenate(scores))


def score_folds(
    options: HeadOptions,
    training: Training,
    folds: list[Fold],
    seed: int,
    advance: Callable[[int], None],
) -> OutOfFold:
    """Out-of-fold scores of one head; `advance(1)` is called after each fold.

    Without scores, and with a note, if a fold has too few examples for the head.
    """
    scores = []
    for fold in folds:
        try:
            scores.append(score_fold(options, training, fold, seed))
        except InputError as error:
            console.note(f"the probabilities are not calibrated: {first_line(error)}")
            return join_folds([], [], len(training.classes))
        advance(1)
    return join_folds(folds, scores, len(training.classes))
