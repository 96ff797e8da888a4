"""From an estimator's scores to calibrated probabilities, and to a label.

Part of the model folder's contract: `head.onnx` computes the same, and `model.json` contains the
numbers. Only numpy is needed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

TIE = 1e-6  # probabilities that differ by less count as equal
UNKNOWN = -1  # the label if the confidence is below the threshold
STEPS = 100  # equal steps of a curve between the probabilities 0 and 1
FLOOR = 1e-4  # of a curve: a class without calibration examples is unlikely, not impossible
SMOOTHING = 0.01  # spread over all classes if an estimator only has probabilities
DECISION, PROBABILITY = "decision_function", "predict_proba"


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores `[examples, classes]` to float64 probabilities of the same shape."""
    scores = np.asarray(scores, np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities.

    Parameters
    ----------
    scores
        The estimator's method that computes the scores: `decision_function`, or `predict_proba`,
        whose logarithm is a score.
    method
        `none`: softmax of the scores. `temperature`: of the scores divided by one temperature
        (Guo et al. 2017, arXiv:1706.04599). `isotonic`: softmax, then a rising curve for each
        class, and normalized (Zadrozny and Elkan 2002).
    temperature
        1 for none.
    curves
        For each class, the probability at 0, 0.01 .. 1 of softmax; between them it is linear.
    """

    scores: str = DECISION
    method: str = "none"
    temperature: float = 1.0
    curves: tuple[tuple[float, ...], ...] = ()

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Scores `[examples, classes]` to float64 probabilities of the same shape."""
        found = softmax(np.asarray(scores, np.float64) / self.temperature)
        if not self.curves:
            return found
        steps = np.linspace(0, 1, STEPS + 1)
        curved = [np.interp(column, steps, self.curves[k]) for k, column in enumerate(found.T)]
        stacked = np.stack(curved, axis=1)
        return stacked / stacked.sum(axis=1, keepdims=True)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def scores_of(estimator: Any, embeddings: np.ndarray, method: str) -> np.ndarray:
    """An estimator's scores, float64 `[examples, classes]`, also for two classes.

    A decision `d` between two classes becomes `-d/2, d/2`, whose softmax is the sigmoid of `d`.
    """
    if method == PROBABILITY:
        probabilities = np.asarray(estimator.predict_proba(embeddings), np.float64)
        return np.log(probabilities + SMOOTHING / probabilities.shape[1])
    decision = np.asarray(estimator.decision_function(embeddings), np.float64)
    if decision.ndim == 1:
        return np.stack([-decision / 2, decision / 2], axis=1)
    return decision


def labels_of(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """The most probable class, int64 `[examples]`; -1 ("unknown") below the threshold."""
    labels = probabilities.argmax(axis=1).astype(np.int64)
    if threshold is not None:
        labels[probabilities.max(axis=1) < threshold] = UNKNOWN
    return labels


def changed(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float | None, tolerance: float
) -> np.ndarray:
    """Rows whose label differs from that of the probabilities, int64 `[rows]`.

    If classes are equally probable (up to float32's rounding), each of them is right. If the
    confidence is within the tolerance of the threshold, both "unknown" and the most probable class
    are right.
    """
    expected = labels_of(probabilities, threshold)
    given = np.take_along_axis(probabilities, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
    tied = probabilities.max(axis=1) - given <= TIE
    wrong = (labels != expected) & ~(tied & (labels != UNKNOWN) & (expected != UNKNOWN))
    if threshold is not None:
        close = np.abs(probabilities.max(axis=1) - threshold) <= tolerance
        either = (labels == UNKNOWN) | tied
        wrong &= ~(close & either)
    return np.flatnonzero(wrong)
