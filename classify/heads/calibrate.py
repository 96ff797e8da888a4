"""Probabilities that mean what they say, and the confidence below which there is no answer.

Both are fitted on out-of-fold scores of training examples: scores of an estimator that did not
see them. The test examples have no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from headstart.classify.scores.reliability import risk_coverage
from headstart.data.common.errors import Checklist, InputError
from headstart.data.common.intervals import Interval, proportion
from headstart.data.contracts.calibration import FLOOR, STEPS, Calibration, softmax

METHODS = ("temperature", "isotonic", "none")
DECIMALS = 6
FEWEST_ANSWERS = 20  # that a precision is believed of
WIDEST = 8.0  # of a temperature's logarithm, on both sides


@dataclass(frozen=True)
class AnswerOptions:
    """How scores become an answer.

    Parameters
    ----------
    calibration
        `temperature`: one number, right for few examples. `isotonic`: a curve for each class, for
        about 1,000 training examples and more. `none`: softmax of the scores as they are.
    precision
        Share of the answers that must be right, 0 to 1: the least sure stay unanswered.
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
                    f"Known are {', '.join(METHODS)}.",
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
        """What the threshold is chosen for, in words; empty for no threshold."""
        for name in ("precision", "coverage"):
            if (share := getattr(self, name)) is not None:
                return f"a {name} of {share:.4g}"
        return ""


@dataclass(frozen=True)
class Threshold:
    """The confidence below which the answer is "unknown", and what it brought out of fold.

    Parameters
    ----------
    coverage
        Share of the examples that got an answer.
    precision
        Share of the answers that was right.
    chosen_for
        In words.
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
        Of `METHODS`.
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
    """The temperature of the least log loss.

    One example's worth of it is for the other classes (as the targets of Platt 1999): without,
    examples that are all right would make every later answer certain.
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
    """The threshold that is wanted, by out-of-fold probabilities; none if none is wanted.

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
            "examples of each class to score some that training did not see",
            "Add examples, or leave --precision and --coverage out.",
        )
    # What float32 cannot tell apart is one confidence: there are many close to 1.
    curve = risk_coverage(labels, np.round(probabilities, DECIMALS))
    answered = np.round(curve.coverage * len(labels)).astype(int)
    if options.coverage is not None:
        chosen = int(np.flatnonzero(curve.coverage >= options.coverage - 1e-9)[0])
    else:
        believed = answered >= min(FEWEST_ANSWERS, len(labels))
        enough = np.flatnonzero(believed & (curve.precision >= (options.precision or 0)))
        if not len(enough):
            best = curve.precision[believed].max()
            raise InputError(
                f"no threshold reaches {options.wanted}: at best {best:.4f} of at least "
                f"{FEWEST_ANSWERS} answers are right",
                "Lower --precision, add training examples, or choose another head.",
            )
        chosen = int(enough[-1])
    below = curve.threshold[chosen + 1] if chosen + 1 < len(curve.threshold) else 0.0
    # Halfway to the next, so that rounding does not turn an answer into none.
    value = float((curve.threshold[chosen] + below) / 2)
    right = round(float(curve.precision[chosen]) * int(answered[chosen]))
    return Threshold(
        value,
        proportion(int(answered[chosen]), len(labels)),
        proportion(right, int(answered[chosen])),
        options.wanted,
    )
