"""Diagnose the data by a finished head: leaks, label errors, and whether more labels would help."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.classify.diagnosis.learning_curve import LearningCurve, learning_curve
from headstart.classify.diagnosis.near_duplicates import NearDuplicates, near_duplicates
from headstart.classify.diagnosis.suspects import Suspects, suspects
from headstart.classify.features.loading import InMemory, Loaded
from headstart.classify.heads.fitting import Fitted
from headstart.classify.heads.folds import MANY, fit_head
from headstart.classify.splits.held_out import Answers, Training
from headstart.classify.splits.label_checks import named
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.common.intervals import Interval, share

PRODUCTS = 2e11  # multiplications that the search for near-duplicates may take: a few seconds
SEED = 0


@dataclass(frozen=True)
class Leaks:
    """Test examples that are near-duplicates of training examples, and the accuracy without them.

    Parameters
    ----------
    compared
        Rows of the test examples that were compared, int64; a random sample if there are many.
    pairs
        The near-duplicates; their test rows are indices into `compared`.
    accuracy
        Of the compared examples without a near-duplicate; none if there are none.
    two_labels
        Of each pair, whether its two examples have different labels, bool `[pairs]`.
    example
        Such a pair, in words; empty if there is none.
    """

    compared: np.ndarray
    pairs: NearDuplicates
    accuracy: Interval | None
    two_labels: np.ndarray
    example: str = ""

    @property
    def test_rows(self) -> np.ndarray:
        """Rows of the test examples with a near-duplicate, the most similar first, int64."""
        return self.compared[self.pairs.test]


@dataclass(frozen=True)
class Diagnosis:
    """What was found after the head was finished.

    Parameters
    ----------
    leaks
        None if they were not searched for.
    suspects
        Of the training examples that were scored out of fold; their rows are indices into `rows`.
    rows
        Those training examples, int64.
    curve
        None if there are too few or too many examples.
    """

    leaks: Leaks | None
    suspects: Suspects
    rows: np.ndarray
    curve: LearningCurve | None

    def to_json(self) -> dict[str, Any]:
        """A summary for `model.json`."""
        leaks, curve = self.leaks, self.curve
        return {
            "near_duplicates": None
            if leaks is None
            else {
                "looked_at": len(leaks.compared),
                "found": len(leaks.test_rows),
                "accuracy_without": asdict(leaks.accuracy) if leaks.accuracy else None,
                "two_labels": int(leaks.two_labels.sum()),
            },
            "suspects": int(self.suspects.is_error.sum()),
            "learning_curve": curve.advice if curve else None,
            "learning_curve_points": list(
                zip(curve.labels_per_class.tolist(), curve.accuracy.tolist(), strict=True)
            )
            if curve
            else [],
        }


def diagnose(
    loaded: Loaded, split: Split, fitted: Fitted, answers: Answers, seed: int
) -> Diagnosis:
    """Diagnose the data by a finished head; only suspects if embeddings are not in memory."""
    data, scored = loaded.data, fitted.out_of_fold
    labels = data.labels[split.train]
    found = suspects(labels[scored.rows], fitted.probabilities)
    if not isinstance(loaded.embeddings, InMemory):
        return Diagnosis(None, found, scored.rows, None)
    embeddings = loaded.embeddings.take(split.train)
    groups = None if data.groups is None else data.groups[split.train]
    training = Training(data.classes, embeddings, labels, groups)
    leaks = _leaks(training, loaded.embeddings.take(split.test), answers, (data, split))
    return Diagnosis(leaks, found, scored.rows, _curve(training, fitted, seed))


def _leaks(
    training: Training, test: np.ndarray, answers: Answers, source: tuple[Labelled, Split]
) -> Leaks:
    most = max(1, int(PRODUCTS / (2 * training.embeddings.size)))
    compared = np.arange(len(test))
    if len(test) > most:
        compared = np.sort(np.random.default_rng(SEED).permutation(len(test))[:most])
    pairs = near_duplicates(training.embeddings, test[compared], training.labels)
    others = compared[~pairs.is_duplicate]
    right = answers.probabilities[others].argmax(axis=1) == answers.labels[others]
    groups = None if answers.groups is None else answers.groups[others]
    accuracy = share(right, groups) if len(others) else None
    two_labels = answers.labels[compared[pairs.test]] != training.labels[pairs.train]
    example = ""
    if two_labels.any():
        data, split = source
        pair = int(np.flatnonzero(two_labels)[0])
        rows = (split.test[compared[pairs.test[pair]]], split.train[pairs.train[pair]])
        example = " and ".join(named(data, int(row)) for row in rows)
    return Leaks(compared, pairs, accuracy, two_labels, example)


def _curve(training: Training, fitted: Fitted, seed: int) -> LearningCurve | None:
    if len(training.labels) > MANY:
        return None

    def fit_predict(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        estimator, _ = fit_head(fitted.head, training.take(rows), seed)
        return estimator.predict(training.embeddings[others])

    return learning_curve(training.labels, fit_predict, training.groups, seed)
