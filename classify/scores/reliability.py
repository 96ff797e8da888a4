"""Whether scores and probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
        """Mean distance of confidence and accuracy (Naeini et al. 2015; Guo et al. 2017)."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float((gaps * self.count).sum() / max(1, self.count.sum()))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Compare the probability of the predicted class with how often it is right.

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
    """What is gained by not answering: one entry for each possible threshold, the highest first.

    Parameters
    ----------
    threshold
        The lowest confidence that still gets an answer, `[thresholds]`.
    coverage
        Share of the examples that get one, ascending, `[thresholds]`.
    precision
        Share of those answers that is right, `[thresholds]`; the risk is what is left of one.
    """

    threshold: np.ndarray
    coverage: np.ndarray
    precision: np.ndarray


def risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> RiskCoverage:
    """Coverage and precision for every threshold (El-Yaniv and Wiener 2010); inputs as above."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    answered = np.arange(1, len(order) + 1)
    # Examples of one confidence are answered together, or not at all.
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    precision = np.cumsum(right[order]) / answered
    return RiskCoverage(falling[ends], answered[ends] / len(order), precision[ends])
