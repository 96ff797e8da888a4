"""Numbers with their confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, t

OUTSIDE = 0.05  # how often an interval may miss: 95 % intervals


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def lower_bound(successes: ArrayLike, total: ArrayLike, risk: float) -> np.ndarray:
    """What a share is at least, wrong with at most the probability `risk`; exact (binomial)."""
    found = beta.ppf(risk, successes, np.asarray(total) - np.asarray(successes) + 1)
    return np.where(np.asarray(successes) > 0, found, 0.0)


def proportion(successes: float, total: float, effect: float = 1.0) -> Interval:
    """A share, and its exact interval (Clopper and Pearson 1934): also right near 0 and 1.

    Parameters
    ----------
    total
        Above 0.
    effect
        The design effect of groups: the examples count as this many times fewer (Korn and Graubard
        1998). Infinite if they say nothing.
    """
    right, count = successes / effect, total / effect
    low, high = lower_bound([right, count - right], count, OUTSIDE / 2).tolist()
    return Interval(successes / total, low, 1 - high)


def share(hits: np.ndarray, groups: np.ndarray | None = None) -> Interval:
    """The share of examples that are hits, bool `[examples]`, at least one; see `design_effect`."""
    count = int(hits.sum())
    return proportion(count, len(hits), design_effect(hits - hits.mean(), groups))


def design_effect(deviations: np.ndarray, groups: np.ndarray | None, means: int = 1) -> float:
    """How many times fewer examples the groups are worth, at least 1.

    It is the variance of the mean by groups, divided by that of independent examples (Kish 1965),
    times the square of the ratio of Student's quantiles, since it is estimated from few groups
    (Korn and Graubard 1998): from as many as there would be if all that deviate did so equally
    (Carter, Schnepel and Steigerwald 2017). Where nothing deviates, a group counts as one example.

    Parameters
    ----------
    deviations
        Of each example's figure from the mean, or from one of several means, float `[examples]`.
    groups
        Group of each example, `[examples]`; none if all are independent.
    means
        How many means that are.
    """
    if groups is None:
        return 1.0
    own = np.unique(groups, return_inverse=True)[1]
    count, total = int(own.max(initial=-1)) + 1, len(own)
    if count == total:
        return 1.0
    if count < 2:
        return np.inf
    squares = np.bincount(own, deviations) ** 2
    free = max(1, count - means)
    within = (deviations**2).sum() * total / max(1, total - means)
    ratio, speaking = total / count, float(free)
    if within > 1e-12:
        ratio = squares.sum() * count / free / within
        # Where few groups deviate, as near a share of 1, the variance is that of few.
        speaking = max(1.0, min(speaking, squares.sum() ** 2 / max(1e-300, (squares**2).sum())))
    few = t.ppf(1 - OUTSIDE / 2, [speaking, max(1, total - means)])
    return max(1.0, float(ratio * (few[0] / few[1]) ** 2))


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
