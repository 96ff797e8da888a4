"""Calibration of probabilities, and the confidence threshold below which the answer is "unknown".

Both are fitted on out-of-fold scores of training examples, which come from estimators that were not
trained on them. Test examples are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from headstart.classify.scores.metrics import risk_coverage
from headstart.data.common.errors import Checklist, InputError
from headstart.data.common.intervals import Interval, proportion
from headstart.data.contracts.calibration import FLOOR, STEPS, Calibration, softmax

METHODS = ("temperature", "isotonic", "none")
DECIMALS = 6
FEWEST_ANSWERS = 20  # from which a precision is estimated
WIDEST = 8.0  # bound of the absolute logarithm of a temperature


@dataclass(frozen=True)
class AnswerOptions:
    """How scores become probabilities and an answer.

    Parameters
    ----------
    calibration
        `temperature`: one number, suited to few examples. `isotonic`: a curve for each class, for
        about 1,000 training examples and more. `none`: softmax of the uncalibrated scores.
    precision
        Share of the answers that must be right, 0 to 1; the least confident examples get none.
    coverage
        Share of the examples that must get an answer, 0 to 1.
    """

    calibration: str = "temperature"
    precision: float | None = None
    coverage: float | None = None

    def __post_init__(self) -> None:
        checks = Checklist()
        with checks.item():
            if self.calibration not in METHODS:
                raise InputError(
                    f"unknown --calibration {self.calibration!r}",
                    f"Choose from {', '.join(METHODS)}.",
                )
        for name in ("precision", "coverage"):
            with checks.item():
                share = getattr(self, name)
                if share is not None and not 0 < share <= 1:
                    raise InputError(
                        f"--{name} {share} is not possible", "Give a share above 0, at most 1."
                    )
        with checks.item():
            if self.precision is not None and self.coverage is not None:
                raise InputError(
                    "--precision and --coverage choose the same threshold", "Give one of the two."
                )
        checks.finish()

    @property
    def wanted(self) -> str:
        """What the threshold is chosen for, as text; empty without a threshold."""
        for name in ("precision", "coverage"):
            if (share := getattr(self, name)) is not None:
                return f"a {name} of {share:.4g}"
        return ""


@dataclass(frozen=True)
class Threshold:
    """The confidence below which the answer is "unknown", with its out-of-fold results.

    Parameters
    ----------
    coverage
        Share of the examples with an answer.
    precision
        Share of the answers that are right.
    chosen_for
        What it was chosen for, as text.
    """

    value: float
    coverage: Interval
    precision: Interval
    chosen_for: str


def fit_calibration(
    method: str, scores: np.ndarray, labels: np.ndarray, source: str
) -> Calibration:
    """Fit a calibration to out-of-fold scores.

    Parameters
    ----------
    method
        One of `METHODS`.
    scores
        Float `[examples, classes]`.
    labels
        True classes, int `[examples]`.
    source
        The estimator's method that the scores come from.
    """
    if method == "none" or not len(scores):
        return Calibration(source)
    temperature = _temperature(scores, labels)
    if method == "temperature":
        return Calibration(source, method, temperature)
    probabilities = softmax(scores / temperature)
    steps = np.linspace(0, 1, STEPS + 1)
    curves = []
    for column, values in enumerate(probabilities.T):
        curve = IsotonicRegression(y_min=FLOOR, y_max=1.0, out_of_bounds="clip")
        curves.append(tuple(map(float, curve.fit(values, labels == column).predict(steps))))
    return Calibration(source, method, temperature, tuple(curves))


def _temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least log loss.

    The targets are smoothed by the weight of one example (as in Platt 1999). Without that, examples
    that are all classified correctly would give a temperature near 0.
    """
    count = len(labels)
    doubt = 1 / (count + 1)

    def loss(logarithm: float) -> float:
        scaled = scores / np.exp(logarithm)
        peak = scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled - peak).sum(axis=1)) + peak[:, 0]
        own = total - scaled[np.arange(count), labels]
        return float(((1 - doubt) * own + doubt * (total - scaled.mean(axis=1))).mean())

    found: Any = minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded")
    return float(np.exp(found.x))


def choose_threshold(
    options: AnswerOptions, probabilities: np.ndarray, labels: np.ndarray
) -> Threshold | None:
    """Choose a threshold from out-of-fold probabilities; none if the options ask for none.

    Parameters
    ----------
    probabilities
        Float `[examples, classes]`.
    labels
        True classes, int `[examples]`.

    Raises
    ------
    InputError
        If no threshold reaches the precision.
    """
    if not options.wanted:
        return None
    if not len(labels):
        raise InputError(
            f"no threshold can be chosen for {options.wanted}: there are too few training "
            "examples of each class to hold some out",
            "Add examples, or leave --precision and --coverage out.",
        )
    # Confidences that float32 cannot distinguish are made equal; many are close to 1.
    curve = risk_coverage(labels, np.round(probabilities, DECIMALS))
    answered = np.round(curve.coverage * len(labels)).astype(int)
    if options.coverage is not None:
        chosen = int(np.flatnonzero(curve.coverage >= options.coverage - 1e-9)[0])
    else:
        enough_answers = answered >= min(FEWEST_ANSWERS, len(labels))
        enough = np.flatnonzero(enough_answers & (curve.precision >= (options.precision or 0)))
        if not len(enough):
            best = curve.precision[enough_answers].max()
            raise InputError(
                f"no threshold reaches {options.wanted}: at best {best:.4f} of at least "
                f"{FEWEST_ANSWERS} answers are right",
                "Lower --precision, add training examples, or choose another head.",
            )
        chosen = int(enough[-1])
    below = curve.threshold[chosen + 1] if chosen + 1 < len(curve.threshold) else 0.0
    # Halfway to the next confidence, so that rounding does not change an answer to unknown.
    value = float((curve.threshold[chosen] + below) / 2)
    right = round(float(curve.precision[chosen]) * int(answered[chosen]))
    return Threshold(
        value,
        proportion(int(answered[chosen]), len(labels)),
        proportion(right, int(answered[chosen])),
        options.wanted,
    )
