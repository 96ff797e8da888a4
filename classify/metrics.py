"""How good a classifier is, on examples that training never saw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from classify.reliability import Interval, proportion, reliability

HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; `support` is its number of examples."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """Scores of a classifier.

    Parameters
    ----------
    accuracy_interval
        The accuracy with its 95 % confidence interval, by the number of examples that were tested.
    log_loss
        Mean negative logarithm (base e) of the probability given to the true class.
    calibration_error
        How far the probability of the predicted class is from the share that is right, on average
        (expected calibration error): 0 for probabilities that can be taken at their word.
    confusion
        Row: true class, column: prediction; counts, in the order of `per_class`.
    """

    examples: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    accuracy_interval: Interval
    calibration_error: float
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def score(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> Scores:
    """Score predictions.

    Parameters
    ----------
    labels
        True classes as indices, int `[examples]`.
    probabilities
        Float `[examples, classes]`.

    Notes
    -----
    A class that no test example has is left out of the averages over classes.
    """
    indices = np.arange(len(classes))
    predictions = probabilities.argmax(axis=1)
    present = np.unique(labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=indices, zero_division=0
    )
    # float32 probabilities do not sum to one as exactly as log_loss asks of float64
    normalized = probabilities.astype(np.float64)
    normalized /= normalized.sum(axis=1, keepdims=True)
    recalls = recall[present]
    return Scores(
        examples=len(labels),
        accuracy=float(accuracy_score(labels, predictions)),
        balanced_accuracy=float(recalls.mean()),
        macro_f1=float(
            f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
        ),
        log_loss=float(log_loss(labels, normalized, labels=indices)),
        accuracy_interval=proportion(int((predictions == labels).sum()), len(labels)),
        calibration_error=reliability(labels, normalized).expected_calibration_error,
        per_class=tuple(
            ClassScores(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(classes)
        ),
        confusion=tuple(
            tuple(map(int, row)) for row in confusion_matrix(labels, predictions, labels=indices)
        ),
    )


@dataclass(frozen=True)
class RepeatedScores:
    """Scores over repeated splits: mean and sample standard deviation of each headline."""

    repeats: int
    mean: dict[str, float]
    std: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def summarize(scores: list[Scores]) -> RepeatedScores:
    """Mean and standard deviation (one degree of freedom) over splits."""
    values = {name: np.array([getattr(s, name) for s in scores]) for name in HEADLINES}
    return RepeatedScores(
        len(scores),
        {name: float(column.mean()) for name, column in values.items()},
        {name: float(column.std(ddof=1)) for name, column in values.items()},
    )
