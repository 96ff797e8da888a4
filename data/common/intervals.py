"""Numbers with their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, t


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def proportion(successes: int, total: int) -> Interval:
    """A share, and its interval by Wilson's score (Wilson 1927), which stays inside 0 to 1.

    `total` is at least 1.
    """
    interval = binomtest(successes, total).proportion_ci(0.95, "wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))


def of_mean(values: np.ndarray, test_share: float) -> Interval:
    """The mean over repeated splits, and its interval, corrected after Nadeau and Bengio (2003):
    the splits share examples, so the variance does not shrink with their number.

    Parameters
    ----------
    values
        Of at least two splits, `[splits]`.
    test_share
        Number of test examples divided by that of training examples.
    """
    mean, count = float(values.mean()), len(values)
    spread = float(values.std(ddof=1)) * (1 / count + test_share) ** 0.5
    width = float(t.ppf(0.975, count - 1)) * spread
    return Interval(mean, mean - width, mean + width)
