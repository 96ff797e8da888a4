"""How good a classifier is, and whether its confidence can be believed, on held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from headstart.classify.prediction.wholes import Wholes
from headstart.classify.scores.class_means import class_means, mean_loss
from headstart.data.common.intervals import Interval, of_mean, share

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width by their confidence; empty bins are left out.

    Parameters
    ----------
    confidence, accuracy
        Means over the bin, `[bins]`.
    count
        Predictions in the bin, `[bins]`.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between confidence and accuracy (Naeini et al. 2015; Guo et al. 2017)."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float((gaps * self.count).sum() / max(1, self.count.sum()))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Compare the confidence (probability of the predicted class) with the accuracy.

    Parameters
    ----------
    labels
        True classes, int `[examples]`.
    probabilities
        Float `[examples, classes]`.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    position = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(position, minlength=bins)
    filled = count > 0
    means = [
        np.bincount(position, values, bins)[filled] / count[filled]
        for values in (confidence, right)
    ]
    return Reliability(means[0], means[1], count[filled])


@dataclass(frozen=True)
class RiskCoverage:
    """Coverage and precision for each possible threshold, the highest first.

    Parameters
    ----------
    threshold
        The lowest confidence that still gets an answer, float `[thresholds]`.
    coverage
        Share of the examples that get an answer, ascending, float `[thresholds]`.
    precision
        Share of those answers that are right, float `[thresholds]`; 1 minus the risk.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    precision: np.ndarray


def risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> RiskCoverage:
    """Coverage and precision for every threshold (El-Yaniv and Wiener 2010).

    The inputs are those of `reliability`.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    answered = np.arange(1, len(order) + 1)
    # Examples with the same confidence are answered together, or not at all.
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    precision = np.cumsum(right[order]) / answered
    return RiskCoverage(falling[ends], answered[ends] / len(order), precision[ends])


MOST_CLASSES = 1000  # up to which a confusion matrix is kept
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
class Answered:
    """Share of the examples above the threshold, and the share of those that are right."""

    coverage: Interval
    precision: Interval | None


@dataclass(frozen=True)
class OfWholes:
    """How many examples there are, and the share of them that is classified correctly."""

    examples: int
    accuracy: Interval


@dataclass(frozen=True)
class Scores:
    """Scores of a classifier on held-out examples.

    Parameters
    ----------
    accuracy_interval
        The accuracy with its 95 % confidence interval, from the number of test examples, and of
        their groups.
    log_loss
        Mean negative logarithm (base e) of the probability given to the true class.
    calibration_error
        Expected calibration error: the mean distance between confidence and accuracy. 0 for
        perfectly calibrated probabilities.
    confusion
        Row: true class, column: prediction; counts, in the order of `per_class`. Empty for more
        than 1,000 classes.
    answered
        How many examples get an answer and how many of the answers are right, if the model has a
        threshold. The other scores are computed as if every example were answered.
    uncalibrated_error
        The calibration error of the scores before calibration; none if it was not measured.
    intervals
        95 % intervals of `balanced_accuracy`, `macro_f1` and `log_loss`.
    wholes
        Of examples that were embedded in several parts: their number and accuracy, by the mean of
        their parts' probabilities. Everything else is of the parts.
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
    answered: Answered | None = None
    uncalibrated_error: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)
    wholes: OfWholes | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def score(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    threshold: float | None = None,
    groups: np.ndarray | None = None,
) -> Scores:
    """Score predictions.

    Parameters
    ----------
    labels
        True classes as indices, int `[examples]`.
    probabilities
        Float `[examples, classes]`.
    threshold
        Of the model's card.
    groups
        Group of each example, `[examples]`: intervals are wider if those of a group are alike.

    Notes
    -----
    Classes without test examples are left out of the averages over classes.
    """
    indices = np.arange(len(classes))
    predictions = probabilities.argmax(axis=1)
    present = np.unique(labels)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predictions, labels=indices, zero_division=0
    )
    # float32 probabilities do not sum to one as exactly as log_loss requires
    normalized = probabilities.astype(np.float64)
    normalized /= normalized.sum(axis=1, keepdims=True)
    recalls = recall[present]
    hits, own = predictions == labels, normalized[np.arange(len(labels)), labels]
    losses = -np.log(np.clip(own, np.finfo(np.float64).eps, 1))
    return Scores(
        examples=len(labels),
        accuracy=float(accuracy_score(labels, predictions)),
        balanced_accuracy=float(recalls.mean()),
        macro_f1=float(
            f1_score(labels, predictions, labels=present, average="macro", zero_division=0)
        ),
        log_loss=float(log_loss(labels, normalized, labels=indices)),
        accuracy_interval=share(hits, groups),
        calibration_error=reliability(labels, normalized).expected_calibration_error,
        per_class=tuple(
            ClassScores(name, float(precision[i]), float(recall[i]), float(f1[i]), int(support[i]))
            for i, name in enumerate(classes)
        ),
        confusion=_confusion(labels, predictions, len(classes)),
        answered=_answered(hits, probabilities, threshold, groups),
        intervals=class_means(labels, predictions, groups)
        | {"log_loss": mean_loss(losses, groups)},
    )


def score_wholes(
    ids: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None
) -> OfWholes | None:
    """The accuracy on whole examples; none if none has several parts.

    Parameters
    ----------
    ids
        Of the parts; the others are as for `score`.
    """
    wholes = Wholes.of(ids)
    if wholes is None:
        return None
    right = wholes.mean(probabilities).argmax(axis=1) == labels[wholes.first]
    return OfWholes(len(right), share(right, None if groups is None else groups[wholes.first]))


def _confusion(
    labels: np.ndarray, predictions: np.ndarray, classes: int
) -> tuple[tuple[int, ...], ...]:
    if classes > MOST_CLASSES:
        return ()
    counts = confusion_matrix(labels, predictions, labels=np.arange(classes))
    return tuple(tuple(map(int, row)) for row in counts)


def _answered(
    right: np.ndarray,
    probabilities: np.ndarray,
    threshold: float | None,
    groups: np.ndarray | None,
) -> Answered | None:
    if threshold is None:
        return None
    sure = probabilities.max(axis=1) >= threshold
    some = None if groups is None else groups[sure]
    return Answered(share(sure, groups), share(right[sure], some) if sure.any() else None)


def _summarized(scores: Scores) -> dict[str, float]:
    """The scores that are averaged over splits, by name."""
    found = {name: getattr(scores, name) for name in (*HEADLINES, "calibration_error")}
    if scores.uncalibrated_error is not None:
        found["before_calibration"] = scores.uncalibrated_error
    if scores.answered:
        found["answered"] = scores.answered.coverage.value
        if scores.answered.precision:
            found["right_of_these"] = scores.answered.precision.value
    return found


def _interval(scores: Scores, name: str) -> Interval | None:
    if name == "accuracy":
        return scores.accuracy_interval
    if scores.answered and name in ("answered", "right_of_these"):
        return getattr(scores.answered, "coverage" if name == "answered" else "precision")
    return scores.intervals.get(name)


@dataclass(frozen=True)
class RepeatedScores:
    """Scores over repeated splits: mean, sample standard deviation and interval of each.

    Parameters
    ----------
    intervals
        95 % intervals of the mean. The splits share examples, so the variance of their mean is
        larger than that of independent splits; corrected after Nadeau and Bengio (2003). Where all
        splits give the same score, such as 1, it is the interval of one split.
    """

    repeats: int
    mean: dict[str, float]
    std: dict[str, float]
    intervals: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def summarize(scores: list[Scores], test_share: float) -> RepeatedScores:
    """Mean, standard deviation (one degree of freedom) and interval over splits.

    Parameters
    ----------
    test_share
        Number of test examples divided by the number of training examples.
    """
    found = [_summarized(each) for each in scores]
    names = [name for name in found[0] if all(name in each for each in found)]
    values = {name: np.array([each[name] for each in found]) for name in names}
    mean = {name: float(column.mean()) for name, column in values.items()}
    std = {name: float(column.std(ddof=1)) for name, column in values.items()}
    wide = {name: of_mean(column, test_share) for name, column in values.items()}
    for name in names:
        if std[name] == 0 and (alone := _interval(scores[0], name)):
            wide[name] = alone
    intervals = {
        name: Interval(
            mean[name],
            max(0.0, wide[name].low),
            min(np.inf if name == "log_loss" else 1.0, wide[name].high),
        )
        for name in names
    }
    return RepeatedScores(len(scores), mean, std, intervals)
