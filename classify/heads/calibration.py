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
from headstart.data.common.intervals import OUTSIDE, design_effect, lower_bound
from headstart.data.contracts.calibration import FLOOR, STEPS, Calibration, softmax

METHODS = ("temperature", "isotonic", "none")
DECIMALS = 6
STARTS = (1, 2, 4, 8)  # parts of all examples at which a sequence of tests begins
GRID = 100  # numbers of answers at which a precision is tested
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
        Share of the answers that must be right, 0 to 1; the least confident examples get none. It
        is promised with 95 % confidence.
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
        Share of these examples with an answer.
    precision
        Share of those answers that are right.
    chosen_for
        What it was chosen for, as text.
    """

    value: float
    coverage: float
    precision: float
    chosen_for: str


class NotPromisedError(InputError):
    """No threshold reaches the precision with enough confidence."""


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
    """The temperature with the least Brier score.

    Unlike the log loss of Guo et al., it is bounded: of embeddings that are wider than a fold has
    examples, a few held-out ones get enormous scores (in a dimension that hardly varied in the
    fold), and the log loss of those that are wrong would decide the temperature of all.

    The targets are smoothed by the weight of one example (as in Platt 1999). Without that, examples
    that are all classified correctly would give a temperature near 0.
    """
    count = len(labels)
    doubt = 1 / (count + 1)

    def loss(logarithm: float) -> float:
        found = softmax(scores / np.exp(logarithm))
        own = found[np.arange(count), labels]
        # The square of the distance from the targets, without what the temperature cannot change.
        return float(((found**2).sum(axis=1) - 2 * (1 - doubt) * own).mean())

    # The score has flat ends, where a search from the middle might stay.
    grid = np.arange(-WIDEST, WIDEST + 1)
    start = grid[np.argmin([loss(value) for value in grid])]
    found: Any = minimize_scalar(loss, bounds=(start - 1, start + 1), method="bounded")
    return float(np.exp(found.x))


def choose_threshold(
    options: AnswerOptions,
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
) -> Threshold | None:
    """Choose a threshold from out-of-fold probabilities; none if the options ask for none.

    For a precision it is the lowest threshold for which the precision holds with 95 % confidence,
    the choice accounted for (see `_promised`).

    Parameters
    ----------
    probabilities
        Float `[examples, classes]`.
    labels
        True classes, int `[examples]`.
    groups
        Group of each example, `[examples]`: those of a group are not independent.

    Raises
    ------
    NotPromisedError
        If no threshold reaches the precision with that confidence.
    InputError
        If there are no examples.
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
    probabilities = np.round(probabilities, DECIMALS)
    curve = risk_coverage(labels, probabilities)
    chosen_for = options.wanted
    if options.precision is None:
        enough = curve.coverage >= (options.coverage or 0) - 1e-9
        chosen = int(np.flatnonzero(enough)[0])
    else:
        order = np.argsort(-probabilities.max(axis=1), kind="stable")
        right = (probabilities.argmax(axis=1) == labels)[order]
        answered = np.round(curve.coverage * len(labels)).astype(np.int64)
        some = None if groups is None else groups[order]
        chosen = _promised(options, answered, right, some)
        chosen_for += f", promised with {1 - OUTSIDE:.0%} confidence"
    below = curve.threshold[chosen + 1] if chosen + 1 < len(curve.threshold) else 0.0
    # Halfway to the next confidence, so that rounding does not change an answer to unknown.
    return Threshold(
        float((curve.threshold[chosen] + below) / 2),
        float(curve.coverage[chosen]),
        float(curve.precision[chosen]),
        chosen_for,
    )


def _promised(
    options: AnswerOptions, answered: np.ndarray, right: np.ndarray, groups: np.ndarray | None
) -> int:
    """Which of the thresholds answers most and is sure to reach the precision.

    Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052) with fixed sequences: from a fixed
    number of the most confident examples on, more and more are tested until a lower bound of their
    precision (exact; with groups, of as many examples as they are worth) is too low. There are four
    sequences, each with a quarter of the risk, so that the precision of the chosen threshold is too
    low with a probability of at most 5 %.

    Parameters
    ----------
    answered
        Number of answers for each threshold, ascending, int64 `[thresholds]`.
    right, groups
        Whether the answer is right, and the group; the most confident first, `[examples]`.
    """
    wanted, total = float(options.precision or 0), len(right)
    steps = np.ceil(total * np.arange(1, GRID + 1) / GRID).astype(np.int64)
    starts = [-(-total // part) for part in STARTS]
    places = np.unique(np.searchsorted(answered, [*steps, *starts]))
    counts = answered[places]
    hits = np.cumsum(right)[counts - 1]
    effects = np.ones(len(places))
    if groups is not None:
        for number, count in enumerate(counts):
            some = right[:count]
            effects[number] = design_effect(some - some.mean(), groups[:count])
    bounds = lower_bound(hits / effects, counts / effects, OUTSIDE / len(STARTS))
    reached = -1
    for start in np.searchsorted(counts, starts):
        failed = np.flatnonzero(bounds[start:] < wanted)
        passed = failed[0] if len(failed) else len(bounds) - start
        if passed:
            reached = max(reached, int(start + passed - 1))
    if reached >= 0:
        return int(places[reached])
    best = int(np.argmax(bounds))
    raise NotPromisedError(
        f"{options.wanted} cannot be promised with {1 - OUTSIDE:.0%} confidence: of the "
        f"{counts[best]:,} most confident of {total:,} training examples, {hits[best]:,} are "
        f"classified correctly out of fold, which promises {bounds[best]:.4f}",
        "Lower --precision, add training examples, or choose another head.",
    )
